//! One host of the lab, as the lab sees it: a thread that lives inside the host's namespaces does on request what has
//! to be done there, and processes started from it are the lab's own children.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use super::clock::{Clock, Library};
use super::process::{Known, Output, Process, Running, Started, bare, open_log, piped};
use super::programs;
use crate::LabError;

/// A command in a host that takes longer than this has a fault.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

/// A host: namespaces of its own, and everything in them.
pub struct Host {
    name: String,
    folder: PathBuf,
    /// Its time of day is not the machine's.
    clock: Option<Clock>,
    pid: u32,
    processes: Mutex<Vec<Known>>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    // While it is open the host lives.
    pipe: Mutex<Option<ChildStdin>>,
    outer: Mutex<Child>,
}

impl Host {
    /// Starts the host and returns when its file system is in place.
    pub(crate) fn start(name: &str, folder: PathBuf, clock: Option<&Library>) -> Result<Self, LabError> {
        std::fs::create_dir_all(&folder).map_err(LabError::io(format!("cannot make {}", folder.display())))?;
        let clock = clock.map(|library| Clock::of_host(library, &folder)).transpose()?;
        let program = programs::find("trunkline-lab")?.display().to_string();
        let argv = [
            program,
            "host".to_owned(),
            name.to_owned(),
            folder.display().to_string(),
        ];
        let mut outer = bare(&argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(open_log(&folder.join("host.log"))?)
            .spawn()
            .map_err(LabError::io(format!("cannot start host {name}")))?;
        let pipe = outer.stdin.take();
        let pid = first_process(&mut outer).ok_or_else(|| {
            let said = super::process::tail(&folder.join("host.log"), 5);
            LabError::Other(format!("host {name} did not start: {said}"))
        })?;
        let jobs = enter(name, pid)?;
        let name = name.to_owned();
        let (jobs, pipe, outer) = (Mutex::new(Some(jobs)), Mutex::new(pipe), Mutex::new(outer));
        Ok(Self {
            name,
            folder,
            clock,
            pid,
            processes: Mutex::default(),
            jobs,
            pipe,
            outer,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of its first process, as the machine counts.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its folder in the lab's: logs and state.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How far its time of day is ahead of the machine's; an error when it has none of its own.
    pub fn set_clock(&self, ahead: i64) -> Result<(), LabError> {
        let none = || LabError::Other(format!("{} has the machine's clock", self.name));
        self.clock.as_ref().ok_or_else(none)?.set(ahead)
    }

    /// A path of the host, as the machine sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// Does something inside the host's network, mounts and (for processes started) processes.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, LabError> {
        let (done, answer) = mpsc::channel();
        let gone = || LabError::Other(format!("host {} is gone", self.name));
        let jobs = locked(&self.jobs).clone().ok_or_else(gone)?;
        jobs.send(Box::new(move || drop(done.send(job()))))
            .map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())
    }

    /// Does something on a new thread inside one of the host's named network namespaces: what it opens stays there.
    pub fn run_in_netns<T: Send + 'static>(
        &self,
        netns: &str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LabError> {
        let path = self.path(&format!("/run/netns/{netns}"));
        let name = format!("{}/{netns}", self.name);
        std::thread::spawn(move || {
            let file = File::open(&path).map_err(LabError::io(format!("there is no namespace {name}")))?;
            setns(file, CloneFlags::CLONE_NEWNET)?;
            Ok(job())
        })
        .join()
        .unwrap_or_else(|_| Err(LabError::Other(format!("a job in {} died", self.name))))
    }

    /// Runs a command and gives back how it ended.
    pub fn exec<S: AsRef<str>>(&self, argv: &[S]) -> Result<Output, LabError> {
        self.exec_for(argv, COMMAND_LIMIT)
    }

    /// As `exec`, with a limit of its own.
    pub fn exec_for<S: AsRef<str>>(&self, argv: &[S], limit: Duration) -> Result<Output, LabError> {
        let argv = owned(argv);
        let command = argv.join(" ");
        let process = self.start_child(piped(&argv), &command)?;
        Started {
            process,
            command: format!("{command} on {}", self.name),
        }
        .finish(limit)
    }

    /// Runs a command that must end with status 0; gives back its standard output.
    pub fn must<S: AsRef<str>>(&self, argv: &[S]) -> Result<String, LabError> {
        let output = self.exec(argv)?;
        if output.ok() {
            return Ok(output.stdout);
        }
        Err(LabError::Command {
            host: self.name.clone(),
            command: owned(argv).join(" "),
            status: format!("status {}", output.status),
            stderr: output.stderr.trim().to_owned(),
        })
    }

    /// Starts a process that keeps running, its output going to `LOG.log` in the host's log folder.
    pub fn spawn<S: AsRef<str>>(&self, log: &str, argv: &[S]) -> Result<Running, LabError> {
        self.spawn_with(log, argv, &[])
    }

    /// As `spawn`, with environment variables.
    pub fn spawn_with<S: AsRef<str>>(
        &self,
        log: &str,
        argv: &[S],
        environment: &[(&str, String)],
    ) -> Result<Running, LabError> {
        let argv = owned(argv);
        let path = self.folder.join("log").join(format!("{log}.log"));
        let file = open_log(&path)?;
        let errors = file.try_clone().map_err(LabError::io("cannot share a log"))?;
        let mut command = bare(&argv);
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        command.envs(environment.iter().map(|(key, value)| (*key, value.as_str())));
        Ok(Running::new(self.start_child(command, &argv.join(" "))?, path))
    }

    /// Starts a command as it is, its output going where it says.
    pub fn spawn_command(&self, command: Command, text: &str) -> Result<Running, LabError> {
        Ok(Running::new(self.start_child(command, text)?, PathBuf::new()))
    }

    fn start_child(&self, mut command: Command, text: &str) -> Result<Process, LabError> {
        let what = format!("cannot start {text} on {}", self.name);
        if let Some(clock) = &self.clock {
            command.envs(clock.environment());
        }
        let process = Process::new(self.run(move || command.spawn())?.map_err(LabError::io(what))?);
        let mut processes = locked(&self.processes);
        processes.retain(|known| known.strong_count() > 0);
        processes.push(process.known());
        Ok(process)
    }
}

impl Host {
    /// Ends the host without waiting for it: the end of the pipe is the end of the host.
    pub(crate) fn let_go(&self) {
        *locked(&self.jobs) = None;
        *locked(&self.pipe) = None;
    }

    /// Waits until a host that was let go is no more.
    pub(crate) fn await_end(&self) {
        while let Ok(None) = locked(&self.outer).try_wait() {
            for process in locked(&self.processes).iter().filter_map(Process::of) {
                let _ = process.try_wait();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.let_go();
        self.await_end();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn owned<S: AsRef<str>>(argv: &[S]) -> Vec<String> {
    argv.iter().map(|part| part.as_ref().to_owned()).collect()
}

/// Reads the number of process 1 and that it is ready, in whichever order they come.
fn first_process(outer: &mut Child) -> Option<u32> {
    let mut lines = BufReader::new(outer.stdout.take()?).lines();
    let (mut pid, mut ready) = (None, false);
    while pid.is_none() || !ready {
        let line = lines.next()?.ok()?;
        match line.strip_prefix("pid ") {
            Some(number) => pid = number.parse().ok(),
            None => ready |= line == "ready",
        }
    }
    pid
}

/// Starts the thread that lives in the host. It may start processes, but no threads: the kernel forbids a thread whose
/// processes would belong elsewhere.
fn enter(name: &str, pid: u32) -> Result<mpsc::Sender<Job>, LabError> {
    let (jobs, todo) = mpsc::channel::<Job>();
    let (entered, answer) = mpsc::channel();
    std::thread::Builder::new()
        .name(format!("host {name}"))
        .spawn(move || {
            let result = enter_namespaces(pid);
            let went_well = result.is_ok();
            let _ = entered.send(result);
            if went_well {
                todo.into_iter().for_each(|job| job());
            }
        })
        .map_err(LabError::io("cannot start a thread"))?;
    answer
        .recv()
        .map_err(|_| LabError::Other(format!("cannot enter host {name}")))??;
    Ok(jobs)
}

fn enter_namespaces(pid: u32) -> Result<(), LabError> {
    // A thread that shares its root with others may not change its mounts.
    unshare(CloneFlags::CLONE_FS)?;
    let kinds = [
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("pid_for_children", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let mut open = Vec::new();
    for (kind, flag) in kinds {
        let path = format!("/proc/{pid}/ns/{kind}");
        open.push((
            File::open(&path).map_err(LabError::io(format!("cannot open {path}")))?,
            flag,
        ));
    }
    for (file, flag) in open {
        setns(file, flag)?;
    }
    Ok(())
}
