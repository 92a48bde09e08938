//! `trunkline-lab`: the lab's program. People start it through `./integration/lab` and `./integration/demo`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trunkline_integration::program::console::{say_line, tell};
use trunkline_integration::program::control::Change;
use trunkline_integration::program::{background, daemons, faults, guests, supervise};
use trunkline_integration::{LabError, attacks, bench_traffic, campaign, demo, guest, lab};

/// A Trunkline fleet on one machine.
#[derive(Debug, Parser)]
#[command(name = "lab", version, about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a lab in the background and wait until it is ready.
    Up {
        /// How many workers.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=200))]
        workers: u8,
    },
    /// End it: nothing of it is left.
    Down,
    /// What runs: daemons and guests.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a command on a host: ctl, nn, inet, fabric, w1, w2, ... A single word with spaces in it is a line for a shell.
    Exec {
        host: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Start what does not run on a host: its daemon, and a node's switch.
    Start { host: String },
    /// End a host's daemon in order; a node's switch goes on.
    Stop { host: String },
    /// End a host's daemon and start it again.
    Restart { host: String },
    /// Print what makes trunkctl talk to the lab: eval "$(./integration/lab env)"
    Env,
    /// Guests: what runs behind the TAPs.
    #[command(subcommand)]
    Guest(GuestCommand),
    /// Faults of the switch between the hosts: frames are lost, and nobody is told.
    #[command(subcommand)]
    Fault(faults::Command),
    /// Prove a whole fleet from inside its guests, then stay up until Ctrl-C.
    Demo {
        /// End after the proof: status 0 when everything holds, 1 otherwise.
        #[arg(long)]
        once: bool,
        /// Print the proof as JSON on standard output.
        #[arg(long)]
        json: bool,
        /// Attack the fleet from inside its guests instead, print what passed, and end.
        #[arg(long)]
        attacks: bool,
    },
    /// Measure what our flows cost honest traffic: two guests on two workers, our flows against one NORMAL flow, in turn.
    BenchTraffic {
        /// How often each is measured.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
        rounds: u16,
        /// Seconds of TCP in each.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=60))]
        seconds: u16,
        /// On a link with port security.
        #[arg(long)]
        port_security: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Random slices come, change and go while everything goes wrong; afterwards everything must be right. Prints its steps.
    Campaign {
        /// Everything follows from it; drawn when it is not given, and printed.
        #[arg(long)]
        seed: Option<u64>,
        /// No round begins after so many minutes.
        #[arg(long, default_value_t = 3.0)]
        minutes: f64,
        /// How many workers.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
        workers: u8,
        /// After a failure, look for fewer steps that fail for so many minutes.
        #[arg(long, default_value_t = 10.0)]
        shrink: f64,
        /// Do the steps of a file instead, as a campaign prints them.
        #[arg(long)]
        replay: Option<PathBuf>,
    },
    /// The root of a host (the lab starts this itself).
    #[command(hide = true)]
    Host { name: String, folder: PathBuf },
    /// Process 1 of a host (the lab starts this itself).
    #[command(hide = true)]
    HostInit { name: String, folder: PathBuf },
    /// Removes the lab's folder when the lab is gone (the lab starts this itself).
    #[command(hide = true)]
    Janitor { folder: PathBuf },
    /// Holds a lab (`up` starts this itself).
    #[command(hide = true)]
    Supervise {
        #[arg(long, default_value_t = 2)]
        workers: u8,
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        without_daemons: bool,
    },
    /// Carries frames between TAPs and a guest's namespace (the lab starts this itself).
    #[command(hide = true)]
    Pump { netns: String, wires: Vec<String> },
}

#[derive(Debug, Subcommand)]
enum GuestCommand {
    /// Start a guest for a deployed VM.
    Add {
        /// `slice/vm`, or `vm` where only one slice has it.
        vm: String,
        /// A namespace (quick) or a real machine (qemu).
        #[arg(long, value_enum, default_value = "namespace")]
        kind: guest::Kind,
    },
    /// End a guest.
    Del {
        /// `slice/vm`, or `vm`.
        vm: String,
    },
    /// The guests that run.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a command in a guest. A single word with spaces in it is a line for its shell: 'ping -c 1 10.64.1.10; ip route'
    Exec {
        /// `slice/vm`, or `vm`.
        vm: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            supervise::leave_it_to_the_signal();
            tell(&format!("error: {}", error.chain()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, LabError> {
    match command {
        Command::Up { workers } => background::up(workers)?,
        Command::Down => background::down()?,
        Command::Status { json } => background::status(json)?,
        Command::Exec { host, command } => background::exec(&host, &command)?,
        Command::Start { host } => daemons::ask_for(&host, Change::Start)?,
        Command::Stop { host } => daemons::ask_for(&host, Change::Stop)?,
        Command::Restart { host } => daemons::ask_for(&host, Change::Restart)?,
        Command::Env => background::env()?,
        Command::BenchTraffic {
            rounds,
            seconds,
            port_security,
            json,
        } => bench_traffic::run(rounds, seconds, port_security, json)?,
        Command::Demo {
            attacks: true, json, ..
        } => return attacks::run(json),
        Command::Demo { once, json, .. } => return demo::run(once, json),
        Command::Campaign {
            seed,
            minutes,
            workers,
            shrink,
            replay,
        } => {
            let orders = campaign::Orders {
                seed: seed.unwrap_or_else(campaign::draw),
                time: campaign::minutes(minutes)?,
                workers,
                shrink: campaign::minutes(shrink)?,
            };
            return campaign::program(&orders, replay.as_deref());
        }
        Command::Fault(command) => faults::run(command)?,
        Command::Guest(GuestCommand::Add { vm, kind }) => guests::add(&vm, kind)?,
        Command::Guest(GuestCommand::Del { vm }) => guests::delete(&vm)?,
        Command::Guest(GuestCommand::List { json }) => guests::list(json)?,
        Command::Guest(GuestCommand::Exec { vm, command }) => return guests::exec(&vm, command),
        Command::Host { name, folder } => lab::init::host(&name, &folder)?,
        Command::HostInit { name, folder } => lab::init::host_init(&name, &folder)?,
        Command::Pump { netns, wires } => guest::pump::run(&netns, &wires, || say_line("ready"))?,
        Command::Supervise {
            workers,
            folder,
            without_daemons,
        } => {
            supervise::run(workers, folder, !without_daemons)?;
        }
        Command::Janitor { folder } => lab::janitor::run(&folder)?,
    }
    Ok(ExitCode::SUCCESS)
}
