//! The lab in the background: `up`, `down`, `status`, `exec`, `env`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::console::{say, say_line};
use super::control::{Answer, Request, Status, ask};
use super::state::State;
use crate::LabError;
use crate::lab::NOT_RUNNING;
use crate::lab::process::tail;
use crate::lab::programs;
use crate::wait::until;

const END_LIMIT: Duration = Duration::from_secs(30);

/// The folder of the lab in the background: one for each target folder.
pub fn folder() -> Result<PathBuf, LabError> {
    if let Some(folder) = std::env::var_os("TRUNKLINE_LAB_FOLDER") {
        return Ok(PathBuf::from(folder));
    }
    let programs = programs::folder()?;
    let target = programs.parent().unwrap_or(&programs);
    Ok(target.join("lab/run"))
}

/// The lab that runs.
pub fn running(folder: &Path) -> Result<State, LabError> {
    State::read(folder)
        .ok_or_else(|| LabError::Other("no lab is running: start one with ./integration/lab up".to_owned()))
}

/// Starts a lab and returns when it is ready.
pub fn up(workers: u8) -> Result<(), LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let folder = folder()?;
    if let Some(state) = State::read(&folder) {
        let pid = state.pid;
        return Err(LabError::Other(format!(
            "a lab is running already (process {pid}): ./integration/lab down ends it"
        )));
    }
    // Of a machine that lost its power: a lab that was killed has its folder removed.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(LabError::io(format!("cannot remove {}", folder.display())))?;
    }
    let log = folder.with_file_name("lab.log");
    start_supervisor(workers, &folder, &log)?;
    let state = running(&folder)?;
    let hosts: Vec<&str> = state.hosts.keys().map(String::as_str).collect();
    say(&format!(
        "The lab is up: {}.\n\
         \x20 eval \"$(./integration/lab env)\"       then trunkctl talks to it\n\
         \x20 ./integration/lab exec w1 ovs-vsctl show\n\
         \x20 ./integration/lab down                end it\n",
        hosts.join(" ")
    ))
}

fn start_supervisor(workers: u8, folder: &Path, log: &Path) -> Result<(), LabError> {
    fs::create_dir_all(folder).map_err(LabError::io(format!("cannot make {}", folder.display())))?;
    let what = format!("cannot write {}", log.display());
    let errors = fs::File::create(log).map_err(LabError::io(what))?;
    let mut supervisor = Command::new(programs::find("trunkline-lab")?)
        .args(["supervise", "--workers", &workers.to_string(), "--folder"])
        .arg(folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(LabError::io("cannot start the supervisor"))?;
    let mut line = String::new();
    if let Some(stdout) = supervisor.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(LabError::io("cannot hear the supervisor"))?;
    }
    if line == "ready\n" {
        return Ok(());
    }
    let _ = supervisor.wait();
    Err(LabError::Other(format!("the lab did not start:\n{}", tail(log, 40))))
}

/// Ends the lab; returns when nothing of it is left. Without one there is nothing to do, which is as good.
pub fn down() -> Result<(), LabError> {
    let folder = folder()?;
    let Some(state) = State::read(&folder) else {
        return say_line("There is no lab.");
    };
    let pid = Pid::from_raw(i32::try_from(state.pid).map_err(|error| LabError::Other(error.to_string()))?);
    let gone = || {
        if state.alive() || folder.exists() {
            Err("it still ends".to_owned())
        } else {
            Ok(())
        }
    };
    kill(pid, Signal::SIGTERM)?;
    if until("the lab's end", END_LIMIT, gone).is_err() && state.alive() {
        kill(pid, Signal::SIGKILL)?;
        until("the lab's end", END_LIMIT, gone)?;
    }
    say_line("The lab is gone.")
}

/// Says what runs.
pub fn status(json: bool) -> Result<(), LabError> {
    let folder = folder()?;
    let state = running(&folder)?;
    let Answer::Status(mut status) = ask(&folder, &Request::Status)? else {
        return Err(LabError::Other(
            "the lab answered something else than its status".to_owned(),
        ));
    };
    super::guests::mark_stale(&state, &mut status.guests);
    if json {
        let all = serde_json::json!({ "state": state, "status": status });
        return say_line(&format!("{all:#}"));
    }
    say(&format!(
        "Supervisor: process {}, controller at {}\n{}{}\n",
        state.pid,
        state.endpoint,
        faults(status.faults),
        tables(&status)
    ))
}

/// Whoever wonders why nothing passes is told first.
fn faults(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => "1 fault stands: ./integration/lab fault list\n".to_owned(),
        many => format!("{many} faults stand: ./integration/lab fault list\n"),
    }
}

fn tables(status: &Status) -> String {
    let mut daemons = super::table(&["HOST", "DAEMON", "STATE"]);
    for (host, program, state) in &status.daemons {
        let state = match state {
            Ok(pid) => format!("running ({pid})"),
            Err(how) if how == NOT_RUNNING => how.clone(),
            Err(how) => format!("ended: {how}"),
        };
        daemons.add_row([host, program, &state]);
    }
    let guests = super::guests::table(&status.guests);
    if status.guests.is_empty() {
        daemons.to_string()
    } else {
        format!("{daemons}\n\n{guests}")
    }
}

/// Becomes a command inside a host.
pub fn exec(host: &str, argv: &[String]) -> Result<(), LabError> {
    let state = running(&folder()?)?;
    let known = || state.hosts.keys().cloned().collect::<Vec<_>>().join(" ");
    let pid = state.hosts.get(host).ok_or_else(|| LabError::UnknownHost {
        name: host.to_owned(),
        known: known(),
    })?;
    Err(become_inside(*pid, &shell_line(argv.to_vec())))
}

/// A command as it is; a single word that no program can be called is a line for a shell.
pub(super) fn shell_line(argv: Vec<String>) -> Vec<String> {
    match argv.as_slice() {
        [line] if line.contains(|letter: char| letter.is_whitespace() || ";|&<>$".contains(letter)) => {
            vec!["sh".to_owned(), "-c".to_owned(), line.clone()]
        }
        _ => argv,
    }
}

/// Returns only when it failed.
pub fn become_inside(pid: u32, argv: &[String]) -> LabError {
    let error = Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--net", "--mount", "--pid", "--uts", "--"])
        .args(argv)
        .exec();
    LabError::io("cannot start nsenter")(error)
}

/// Prints what `eval` needs to make `trunkctl` talk to the lab.
pub fn env() -> Result<(), LabError> {
    let state = running(&folder()?)?;
    let programs = programs::folder()?;
    say(&format!(
        "export TRUNKLINE_CONTROLLER={}\nexport TRUNKLINE_BUNDLE={}\nexport PATH={}:\"$PATH\"\n",
        quote(&state.endpoint),
        quote(&state.bundle.display().to_string()),
        quote(&programs.display().to_string())
    ))
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
