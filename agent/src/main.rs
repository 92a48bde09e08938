//! The worker daemon.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use trunkline_agent::{config::NodeConfig, node, worker};
use trunkline_proto::daemon::exit;

/// Makes this host a Trunkline worker: TAPs and switch ports for its virtual machines.
#[derive(Parser)]
#[command(name = "trunkline-agent", version)]
struct Arguments {
    /// Configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/trunkline/agent.toml",
        global = true
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM (what happens without a command, too). Virtual machines keep their network when it ends.
    Run,
    /// Say whether the configuration can be used, and end.
    CheckConfig,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { config: path, command } = Arguments::parse();
    let config = match NodeConfig::load(&path) {
        Ok(config) => config,
        Err(error) => return exit::wrong_config(worker::PROGRAM.service, &error),
    };
    match command.unwrap_or(Command::Run) {
        Command::Run => {
            let validate = worker::validate(&config);
            if let Err(error) = node::run(worker::PROGRAM, config, validate, worker::Worker::build).await {
                return exit::failed(worker::PROGRAM.service, &error);
            }
        }
        Command::CheckConfig => println!("{}: ok, node {}", path.display(), config.node.name),
    }
    ExitCode::SUCCESS
}
