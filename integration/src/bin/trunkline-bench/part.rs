//! Parts of a figure that have to be processes of their own: this program, started again under a hidden first word.
//!
//! Parent and part exchange lines of JSON, a question and its answer. A part ends with its standard input, so none outlives the
//! bench, however that ends.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use clap::{Parser, Subcommand};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use trunkline_integration::LabError;
use trunkline_integration::program::console::{say_line, tell};

use crate::floor::bare;
use crate::simulator;

/// The hidden first word.
const WORD: &str = "part";

#[derive(Debug, Parser)]
struct Parts {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Simulated nodes.
    Simulate(simulator::Arguments),
    /// A server of streams that does nothing of its own.
    BareStreams(bare::streams::Arguments),
    /// A server that shakes hands and nothing else.
    BareHandshakes(bare::handshakes::Arguments),
    /// Its callers.
    BareCallers(bare::handshakes::Callers),
}

/// Does what this process was started for, if it is a part.
pub(crate) fn run() -> Option<ExitCode> {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1)? != WORD {
        return None;
    }
    arguments.remove(1);
    let ended = match Parts::parse_from(arguments).part {
        Part::Simulate(arguments) => simulator::run(&arguments),
        Part::BareStreams(arguments) => bare::streams::run(&arguments),
        Part::BareHandshakes(arguments) => bare::handshakes::run(&arguments),
        Part::BareCallers(arguments) => bare::handshakes::call(&arguments),
    };
    Some(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {}", error.chain()));
            ExitCode::FAILURE
        }
    })
}

/// The part's side: answers questions until there are no more.
pub(crate) fn answer<Q: DeserializeOwned>(mut with: impl FnMut(Q) -> Result<Value, LabError>) -> Result<(), LabError> {
    for line in std::io::stdin().lines() {
        let line = line.map_err(LabError::io("cannot read a question"))?;
        let question = serde_json::from_str(&line).map_err(|error| LabError::Other(format!("{line}: {error}")))?;
        let answer: Result<Value, String> = with(question).map_err(|error| error.chain());
        say_line(&serde_json::to_string(&answer).unwrap_or_default())?;
    }
    Ok(())
}

/// A process that ends with us: a part, or a program of ours.
#[derive(Debug)]
pub(crate) struct Process {
    child: std::process::Child,
    name: String,
}

impl Process {
    /// Starts a program. Its standard error goes to `log`.
    pub(crate) fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self, LabError> {
        Self::spawn(program, arguments, log, |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null())
        })
    }

    fn spawn(
        program: &Path,
        arguments: &[String],
        log: &Path,
        with: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Self, LabError> {
        let name = format!("{} {}", program.display(), arguments.first().map_or("", String::as_str));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let log = log.map_err(LabError::io("cannot open a log"))?;
        let mut command = Command::new("setpriv");
        // Ctrl-C is for us, and whatever becomes of us, it goes with us.
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        command.process_group(0).stderr(log);
        let child = with(&mut command)
            .spawn()
            .map_err(LabError::io(format!("cannot start {name}")))?;
        Ok(Self { child, name })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails when it has ended.
    pub(crate) fn must_live(&mut self) -> Result<(), LabError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(LabError::Other(format!("{} ended early: {status}", self.name))),
            Err(error) => Err(LabError::io(format!("cannot wait for {}", self.name))(error)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The parent's side of a part.
#[derive(Debug)]
pub(crate) struct Asked {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Asked {
    /// Starts a part.
    pub(crate) fn start(part: &str, arguments: &[String], log: &Path) -> Result<Self, LabError> {
        let program = std::env::current_exe().map_err(LabError::io("cannot find this program"))?;
        let arguments = [&[WORD.to_owned(), part.to_owned()], arguments].concat();
        let mut process = Process::spawn(&program, &arguments, log, |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped())
        })?;
        let pipes = (process.child.stdin.take(), process.child.stdout.take());
        let (Some(input), Some(output)) = pipes else {
            return Err(LabError::Other(format!("{part} has no pipes")));
        };
        let output = BufReader::new(output);
        Ok(Self { process, input, output })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask<A: DeserializeOwned>(&mut self, question: &impl Serialize) -> Result<A, LabError> {
        let broke = || LabError::io(format!("{} broke off", self.process.name));
        let question = serde_json::to_string(question).unwrap_or_default();
        self.input
            .write_all(format!("{question}\n").as_bytes())
            .map_err(broke())?;
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(broke())?;
        let answer: Result<Value, String> = serde_json::from_str(&line)
            .map_err(|_| LabError::Other(format!("{} ended: its log says why", self.process.name)))?;
        let value = answer.map_err(LabError::Other)?;
        serde_json::from_value(value).map_err(|error| LabError::Other(format!("{}: {error}", self.process.name)))
    }
}
