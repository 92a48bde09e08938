//! Processes of the lab: a command that is waited for, and one that keeps running with its output in a log.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LabError;

/// How a command ended and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 plus the signal's number when a signal ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// True with exit code 0.
    pub fn ok(&self) -> bool {
        self.status == 0
    }
}

/// The exit code as a shell would give it.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A child of ours, known to whoever started it and to the host it runs on: a host's process 1 cannot end before all
/// of its processes were taken by their parent, so the host must be able to do that for those who do not.
#[derive(Debug, Clone)]
pub(crate) struct Process(Arc<Mutex<Child>>);

/// The host's side of a [`Process`].
pub(crate) type Known = Weak<Mutex<Child>>;

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        Self(Arc::new(Mutex::new(child)))
    }

    pub(crate) fn known(&self) -> Known {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn of(known: &Known) -> Option<Self> {
        known.upgrade().map(Self)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it if it has ended.
    pub(crate) fn try_wait(&self) -> std::io::Result<Option<ExitStatus>> {
        self.child().try_wait()
    }

    fn kill(&self) {
        let mut child = self.child();
        // It may have ended by itself, which is as good.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A started command whose output is still to be read.
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) command: String,
}

/// Makes a command that a signal to our terminal does not reach, with its output piped.
pub(crate) fn piped(argv: &[String]) -> Command {
    let mut command = bare(argv);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Makes a command in a process group of its own: Ctrl-C is for us, who then end it in order.
pub(crate) fn bare(argv: &[String]) -> Command {
    let mut command = Command::new(argv.first().map_or("false", String::as_str));
    command.args(argv.get(1..).unwrap_or_default()).process_group(0);
    command
}

impl Started {
    /// Waits till it ends, at most `limit`; then it is killed.
    pub(crate) fn finish(self, limit: Duration) -> Result<Output, LabError> {
        let stdout = drain(self.process.child().stdout.take());
        let stderr = drain(self.process.child().stderr.take());
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        let status = loop {
            let ended = self
                .process
                .try_wait()
                .map_err(LabError::io(format!("cannot wait for {}", self.command)))?;
            if let Some(status) = ended {
                break status;
            }
            if Instant::now() >= deadline {
                self.process.kill();
                return Err(LabError::Timeout {
                    what: format!("the end of {}", self.command),
                    after: limit,
                    seen: "it still ran and was killed".to_owned(),
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        Ok(Output {
            status: code(status),
            stdout: text(stdout),
            stderr: text(stderr),
        })
    }
}

type Reader = std::thread::JoinHandle<Vec<u8>>;

fn drain(from: Option<impl Read + Send + 'static>) -> Option<Reader> {
    let mut from = from?;
    Some(std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = from.read_to_end(&mut bytes);
        bytes
    }))
}

fn text(reader: Option<Reader>) -> String {
    let bytes = reader.and_then(|thread| thread.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A process that runs until it is told to end.
#[derive(Debug)]
pub struct Running {
    process: Process,
    log: PathBuf,
}

impl Running {
    pub(crate) fn new(process: Process, log: PathBuf) -> Self {
        Self { process, log }
    }

    /// Its number, as the machine counts.
    pub fn pid(&self) -> u32 {
        self.process.child().id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, when it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        if self.ended().is_some() {
            return Ok(());
        }
        Ok(kill(self.nix_pid(), signal)?)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, and SIGKILL after `grace`. True when it ended by itself with status 0.
    pub fn stop(&mut self, grace: Duration) -> bool {
        let _ = self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        false
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.child().id()).unwrap_or(i32::MAX))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Opens a log for appending, its folders included.
pub(crate) fn open_log(path: &Path) -> Result<File, LabError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(LabError::io(format!("cannot make {}", folder.display())))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(LabError::io(format!("cannot open {}", path.display())))
}

/// The last `lines` lines of a file; empty when it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}
