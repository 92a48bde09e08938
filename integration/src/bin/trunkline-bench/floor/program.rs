//! Floors that are programs of their own, because what they are compared with is one: this same program, started on a host with
//! a first argument that no person gives.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};
use trunkline_integration::LabError;
use trunkline_integration::lab::{Host, Running};
use trunkline_integration::program::console::tell;

use super::dhcp::{self, Site};
use super::sync::{self, Places};

/// The first argument; the second one says what to do.
const ARGUMENT: &str = "--as-floor";

/// What to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Floor {
    /// [`dhcp::program`].
    Dhcp(Vec<Site>),
    /// [`sync::program`].
    Sync(Places),
}

/// Does a floor's work if this process was started for it.
pub(crate) fn if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let text = arguments
        .next()
        .filter(|first| first == ARGUMENT)
        .and(arguments.next())?;
    let floor = serde_json::from_str(&text).map_err(|error| LabError::Other(format!("a floor's order: {error}")));
    let done = floor.and_then(|floor| match floor {
        Floor::Dhcp(sites) => dhcp::program(&sites),
        Floor::Sync(places) => sync::program(&places),
    });
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("a floor failed: {}", error.chain()));
            ExitCode::FAILURE
        }
    })
}

/// A floor's process.
pub(crate) struct Process {
    /// Ends it when dropped.
    running: Running,
    orders: File,
    answers: BufReader<File>,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(host: &Host, floor: &Floor) -> Result<Self, LabError> {
        let program = std::env::current_exe().map_err(LabError::io("cannot find this program"))?;
        let order = serde_json::to_string(floor).map_err(|error| LabError::Other(error.to_string()))?;
        let (their_orders, orders) = nix::unistd::pipe()?;
        let (answers, their_answers) = nix::unistd::pipe()?;
        for ours in [&orders, &answers] {
            let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
            nix::fcntl::fcntl(ours, flags)?;
        }
        let mut command = Command::new(program);
        command
            .args([ARGUMENT, &order])
            .process_group(0)
            .stdin(Stdio::from(their_orders))
            .stdout(Stdio::from(their_answers));
        let running = host.spawn_command(command, "a floor")?;
        Ok(Self {
            running,
            orders: orders.into(),
            answers: BufReader::new(answers.into()),
        })
    }

    /// Gives an order and waits until it is done.
    pub(crate) fn order(&mut self, what: &str) -> Result<(), LabError> {
        writeln!(self.orders, "{what}").map_err(LabError::io("a floor does not listen"))?;
        self.wait()
    }

    /// Waits for its next line.
    pub(crate) fn wait(&mut self) -> Result<(), LabError> {
        let mut line = String::new();
        match self
            .answers
            .read_line(&mut line)
            .map_err(LabError::io("a floor does not answer"))?
        {
            0 => Err(LabError::Other("a floor ended early".to_owned())),
            _ => Ok(()),
        }
    }

    /// Its number, as the machine counts.
    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }
}
