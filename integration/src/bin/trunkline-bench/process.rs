//! A child of ours on this machine: it ends with us, and what it says to people is at hand when it fails.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use tempfile::NamedTempFile;
use trunkline_integration::LabError;
use trunkline_integration::lab::process::tail;
use trunkline_integration::wait::until;

/// How long one may take to end in order.
const END_LIMIT: Duration = Duration::from_secs(20);

/// A child that ends with us, however we end.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    log: NamedTempFile,
}

/// A command that the kernel kills when this process ends, and that Ctrl-C, which is for us, does not reach.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    command
}

impl Process {
    /// Starts a [`command`], which is called so where it is spoken of.
    pub(crate) fn start(mut command: Command, name: &str) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("cannot start {name}"));
        let log = NamedTempFile::new().map_err(failed())?;
        let child = command.stderr(log.reopen().map_err(failed())?).spawn();
        Ok(Self {
            child: child.map_err(failed())?,
            name: name.to_owned(),
            log,
        })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log when it has ended.
    pub(crate) fn must_run(&mut self) -> Result<(), LabError> {
        if self.has_ended() {
            return Err(self.failed("ended early"));
        }
        Ok(())
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn finish(mut self) -> Result<(), LabError> {
        let name = self.name.clone();
        let status = self.child.wait();
        let status = status.map_err(LabError::io(format!("cannot wait for {name}")))?;
        if status.success() {
            return Ok(());
        }
        Err(self.failed(&format!("ended with {status}")))
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<(), LabError> {
        kill(pid(self.id()), Signal::SIGTERM)?;
        until(&format!("the end of {}", self.name), END_LIMIT, || {
            self.has_ended().then_some(()).ok_or_else(|| "it still runs".to_owned())
        })?;
        self.finish()
    }

    /// Whether there is no more to come of it.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// What it did, and the end of its log.
    pub(crate) fn failed(&self, what: &str) -> LabError {
        LabError::Other(format!("{} {what}:\n{}", self.name, tail(self.log.path(), 15)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process, as signals want it.
pub(crate) fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX))
}

/// Processor time that a process has used, in seconds.
pub(crate) fn cpu(id: u32) -> Result<f64, LabError> {
    let clock = clock_getcpuclockid(pid(id))?;
    Ok(Duration::from(clock_gettime(clock)?).as_secs_f64())
}

/// Memory that a process has, in bytes.
pub(crate) fn resident(id: u32) -> Result<f64, LabError> {
    let path = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&path).map_err(LabError::io(format!("cannot read {path}")))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let kilobytes = kilobytes.ok_or_else(|| LabError::Other(format!("{path} says nothing of memory")))?;
    Ok(kilobytes * 1024.0)
}
