//! Parts of a figure that have to be processes of their own: this program, started again under a hidden first word. The second word
//! says which part it is, and all that it has to know.
//!
//! ```text
//!   bench                                          part
//!   Asked::start(part)    ---- part JSON ---->     run() -> Part::run
//!   ask(question)         ---- a line of JSON -->  answer(..)
//!                         <--- a line of JSON ---
//! ```
//!
//! On this machine a part ends with us, however we end. On a host of the lab it ends with the host.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write, pipe};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trunkline_integration::LabError;
use trunkline_integration::lab::{Host, Running};
use trunkline_integration::program::console::{say_line, tell};

use crate::floor::bare::{handshakes, streams};
use crate::floor::{acknowledge, dhcp, sync, trees};
use crate::process::{Process, command};
use crate::simulator;

/// The hidden first word.
const WORD: &str = "part";

/// What to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    /// Simulated nodes.
    Simulator(simulator::Order),
    /// A server of streams that does nothing of its own.
    Streams(streams::Order),
    /// A server that shakes hands and nothing else.
    Handshakes(handshakes::Order),
    /// Its callers.
    Callers(handshakes::Callers),
    /// A handler that appends, syncs and answers.
    Acknowledge(acknowledge::Order),
    /// A reader of a controller's database.
    Trees(PathBuf),
    /// Whoever makes and starts DHCP servers, on a host.
    Dhcp(Vec<dhcp::Site>),
    /// A node that starts, on a host.
    Sync(sync::Places),
}

impl Part {
    fn run(&self) -> Result<(), LabError> {
        match self {
            Self::Simulator(order) => simulator::run(order),
            Self::Streams(order) => streams::run(order),
            Self::Handshakes(order) => handshakes::run(order),
            Self::Callers(order) => handshakes::call(order),
            Self::Acknowledge(order) => acknowledge::run(order),
            Self::Trees(database) => trees::run(database),
            Self::Dhcp(sites) => dhcp::run(sites),
            Self::Sync(places) => sync::run(places),
        }
    }

    /// Its two words, behind `to`.
    fn words(&self, to: &mut Command) -> Result<(), LabError> {
        to.args([WORD, &text(self)?]);
        Ok(())
    }

    /// Starts it on this machine, with nobody to talk to.
    pub(crate) fn start(&self) -> Result<Process, LabError> {
        let mut command = command(&ourselves()?);
        self.words(&mut command)?;
        Process::start(command, "a part of the bench")
    }
}

/// Does what this process was started for, if it is a part.
pub(crate) fn run() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    let part = words.next().filter(|word| word == WORD).and(words.next())?;
    let done = value(&part).and_then(|part: Part| part.run());
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {}", error.chain()));
            ExitCode::FAILURE
        }
    })
}

/// The part's side: says something without being asked.
pub(crate) fn say(what: &impl Serialize) -> Result<(), LabError> {
    say_line(&text(&Ok::<_, String>(what))?)
}

/// The part's side: answers questions until there are no more.
pub(crate) fn answer<Q: DeserializeOwned>(mut with: impl FnMut(Q) -> Result<Value, LabError>) -> Result<(), LabError> {
    for line in std::io::stdin().lines() {
        let question = value(&line.map_err(LabError::io("cannot read a question"))?)?;
        say_line(&text(&with(question).map_err(|error| error.chain()))?)?;
    }
    Ok(())
}

/// The bench's side of a part.
pub(crate) struct Asked {
    process: Home,
    input: PipeWriter,
    output: BufReader<PipeReader>,
}

/// Where it is.
enum Home {
    Machine(Process),
    Host(Running),
}

impl Asked {
    /// Starts a part on this machine.
    pub(crate) fn start(part: &Part) -> Result<Self, LabError> {
        let begin = |command| Ok(Home::Machine(Process::start(command, "a part of the bench")?));
        Self::begin(part, command(&ourselves()?), begin)
    }

    /// Starts a part on a host.
    pub(crate) fn start_on(host: &Host, part: &Part) -> Result<Self, LabError> {
        let mut command = Command::new(ourselves()?);
        command.process_group(0);
        let begin = |command| Ok(Home::Host(host.spawn_command(command, "a part of the bench")?));
        Self::begin(part, command, begin)
    }

    fn begin(
        part: &Part,
        mut command: Command,
        begin: impl FnOnce(Command) -> Result<Home, LabError>,
    ) -> Result<Self, LabError> {
        let piped = || LabError::io("cannot make a pipe");
        let (theirs, input) = pipe().map_err(piped())?;
        let (output, to_us) = pipe().map_err(piped())?;
        part.words(&mut command)?;
        command.stdin(theirs).stdout(to_us);
        Ok(Self {
            process: begin(command)?,
            input,
            output: BufReader::new(output),
        })
    }

    /// Its number, as the machine counts.
    pub(crate) fn id(&self) -> u32 {
        match &self.process {
            Home::Machine(process) => process.id(),
            Home::Host(running) => running.pid(),
        }
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask<A: DeserializeOwned>(&mut self, question: &impl Serialize) -> Result<A, LabError> {
        let line = text(question)? + "\n";
        if self.input.write_all(line.as_bytes()).is_err() {
            return Err(self.ended());
        }
        self.hear()
    }

    /// Waits for what it says next.
    pub(crate) fn hear<A: DeserializeOwned>(&mut self) -> Result<A, LabError> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(1..) => value::<Result<A, String>>(&line)?.map_err(LabError::Other),
            _ => Err(self.ended()),
        }
    }

    fn ended(&self) -> LabError {
        match &self.process {
            Home::Machine(process) => process.failed("ended"),
            // It says why on our own standard error.
            Home::Host(_) => LabError::Other("a part of the bench ended".to_owned()),
        }
    }
}

fn ourselves() -> Result<PathBuf, LabError> {
    std::env::current_exe().map_err(LabError::io("cannot find this program"))
}

fn text(what: &impl Serialize) -> Result<String, LabError> {
    serde_json::to_string(what).map_err(|error| LabError::Other(error.to_string()))
}

fn value<T: DeserializeOwned>(text: &str) -> Result<T, LabError> {
    serde_json::from_str(text).map_err(|error| LabError::Other(format!("{text}: {error}")))
}
