//! Other programs: run to their end with a limit, or started to outlive this one. Always by argv, never through a shell.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::netns;

/// Limit of a program that is run, unless another is set.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10);
/// How often a process that is not our child is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Longest part of a program's words that goes into an error.
const MAX_WORDS: usize = 2000;

/// Why a program could not be run, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It could not be started.
    #[error("start {program}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its namespace could not be entered.
    #[error("start {program} in its network namespace")]
    Namespace {
        /// The program.
        program: String,
        /// What went wrong.
        #[source]
        source: netns::Error,
    },
    /// It ran and said that it failed.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error, cut to a readable length.
        stderr: String,
    },
    /// It took too long and was killed.
    #[error("{program} did not end within {limit:?} and was killed")]
    Timeout {
        /// The program.
        program: String,
        /// The limit.
        limit: Duration,
    },
    /// Its pipes broke.
    #[error("talk to {program}")]
    Io {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A process could not be signalled, or does not end.
    #[error("process {pid}: {reason}")]
    Signal {
        /// Its id.
        pid: u32,
        /// Why.
        reason: String,
    },
}

/// What a program that succeeded has written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// A program to run to its end.
#[derive(Debug, Clone)]
pub struct Run {
    program: OsString,
    args: Vec<OsString>,
    limit: Duration,
    stdin: Option<Vec<u8>>,
    namespace: Option<PathBuf>,
}

impl Run {
    /// A program, by path or by name in `PATH`.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            limit: DEFAULT_LIMIT,
            stdin: None,
            namespace: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// How long it may take; 10 s unless set.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What it reads on standard input; nothing unless set.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The network namespace that it runs in, by its file.
    #[must_use]
    pub fn namespace(mut self, path: impl Into<PathBuf>) -> Self {
        self.namespace = Some(path.into());
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`Error::Failed`] when its exit status is not zero; [`Error::Timeout`] when it was killed for taking too long.
    pub async fn run(self) -> Result<Output, Error> {
        let Self {
            program,
            args,
            limit,
            stdin,
            namespace,
        } = self;
        let name = program.to_string_lossy().into_owned();
        let mut command = Command::new(&program);
        command
            .args(&args)
            .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = spawn(command, &name, namespace.as_deref()).await?;
        let input = child.stdin.take();
        let talk = async {
            let feed = async {
                if let (Some(mut input), Some(bytes)) = (input, stdin) {
                    // A program that ends without reading all has its own error to tell.
                    let _ = input.write_all(&bytes).await;
                }
            };
            tokio::join!(feed, child.wait_with_output()).1
        };
        // Dropping `talk` drops the child, which kills it.
        let output = timeout(limit, talk)
            .await
            .map_err(|_| Error::Timeout {
                program: name.clone(),
                limit,
            })?
            .map_err(|source| Error::Io {
                program: name.clone(),
                source,
            })?;
        if output.status.success() {
            Ok(Output {
                stdout: output.stdout,
                stderr: output.stderr,
            })
        } else {
            Err(Error::Failed {
                program: name,
                status: output.status,
                stderr: words(&output.stderr),
            })
        }
    }
}

fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    match text.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Starts a child on a thread that has entered the namespace: the child inherits it.
async fn spawn(mut command: Command, name: &str, namespace: Option<&Path>) -> Result<Child, Error> {
    let started = match namespace {
        None => command.spawn(),
        Some(_) => {
            let runtime = tokio::runtime::Handle::current();
            let start = move || {
                // The runtime reaps the child.
                let _context = runtime.enter();
                command.spawn()
            };
            netns::on_thread_in(namespace, start)
                .await
                .map_err(|source| Error::Namespace {
                    program: name.to_owned(),
                    source,
                })?
        }
    };
    started.map_err(|source| Error::Start {
        program: name.to_owned(),
        source,
    })
}

/// A program that must outlive the agent.
#[derive(Debug, Clone)]
pub struct Detached {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// Network namespace, by its file.
    pub namespace: Option<PathBuf>,
    /// File that its output is appended to; none: nowhere.
    pub log: Option<PathBuf>,
}

/// Starts a program in a process group of its own, so that neither the agent's end nor a signal to its group reaches it. It must
/// stay in the foreground (dnsmasq: `--keep-in-foreground`), because its identity is that of the process started here. While this
/// agent lives it collects the child's exit status; afterwards init does.
///
/// # Errors
/// When it cannot be started, or has ended already.
pub async fn spawn_detached(detached: &Detached) -> Result<Identity, Error> {
    let Detached { argv, namespace, log } = detached;
    let (program, args) = argv.split_first().ok_or_else(|| Error::Start {
        program: String::new(),
        source: io::ErrorKind::InvalidInput.into(),
    })?;
    let name = program.to_string_lossy().into_owned();
    let failed = |source| Error::Start {
        program: name.clone(),
        source,
    };
    let output = || -> io::Result<Stdio> {
        Ok(match log {
            Some(path) => File::options().create(true).append(true).open(path)?.into(),
            None => Stdio::null(),
        })
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(output().map_err(failed)?)
        .stderr(output().map_err(failed)?)
        .process_group(0)
        .kill_on_drop(false);
    let mut child = spawn(command, &name, namespace.as_deref()).await?;
    let identity = child.id().and_then(Identity::of);
    tokio::spawn(async move {
        // Only so that no zombie stays; how it ended is seen by whoever watches the identity.
        let _ = child.wait().await;
    });
    identity.ok_or_else(|| failed(io::Error::other("it ended at once")))
}

/// A process, told from a later one with the same id by the moment it started. Can be written down and read back by the next agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// Clock ticks between the machine's start and the process's (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
}

impl Identity {
    /// The process that has this id now; `None` when there is none or it is a zombie.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start_time) = parse_stat(&stat)?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { pid, start_time })
    }

    /// True while this very process runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Its argv; empty when it is gone.
    #[must_use]
    pub fn cmdline(&self) -> Vec<String> {
        if !self.alive() {
            return Vec::new();
        }
        argv(self.pid)
    }

    /// Sends a signal; false when the process is gone.
    ///
    /// # Errors
    /// [`Error::Signal`] when the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<bool, Error> {
        let refused = |reason: String| Error::Signal { pid: self.pid, reason };
        if !self.alive() {
            return Ok(false);
        }
        let pid = i32::try_from(self.pid).map_err(|error| refused(error.to_string()))?;
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(errno) => Err(refused(format!("signal {signal} was refused: {errno}"))),
        }
    }

    /// Returns when the process has ended.
    pub async fn exited(&self) {
        while self.alive() {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// State and start time. The program's name stands in parentheses and may hold anything, parentheses and spaces included.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 3 is the state, field 22 the start time.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

/// Ends a process: asks, and after `grace` kills. Success when it is gone.
///
/// # Errors
/// [`Error::Signal`] when it cannot be signalled or does not go.
pub async fn stop(identity: &Identity, grace: Duration) -> Result<(), Error> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if !identity.signal(signal)? {
            return Ok(());
        }
        if timeout(grace, identity.exited()).await.is_ok() {
            return Ok(());
        }
    }
    Err(Error::Signal {
        pid: identity.pid,
        reason: "it does not end, not even killed".to_owned(),
    })
}

/// The running processes whose argv `matches`: to find one whose identity was lost.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn find(matches: impl Fn(&[String]) -> bool) -> io::Result<BTreeMap<u32, Identity>> {
    let found = find_all(|argv| matches(argv).then_some(()))?;
    Ok(found
        .into_iter()
        .map(|(identity, ())| (identity.pid, identity))
        .collect())
}

/// The same, with what `matches` has found in the argv.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn find_all<T>(matches: impl Fn(&[String]) -> Option<T>) -> io::Result<Vec<(Identity, T)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Most are somebody else's: only what matches is asked who it is, and then once more what it says.
        if matches(&argv(pid)).is_some()
            && let Some(identity) = Identity::of(pid)
            && let Some(what) = matches(&identity.cmdline())
        {
            found.push((identity, what));
        }
    }
    Ok(found)
}

fn argv(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = bytes.split(|byte| *byte == 0).filter(|argument| !argument.is_empty());
    arguments
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// Waits for a condition to become true, looking every 10 ms; false when it has not within `limit`.
pub async fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(test)]
mod tests;
