//! A running fleet.
//!
//! [`Lab::start`] makes the hosts, lays the cables, starts each node's own Open vSwitch and, unless told otherwise, the
//! daemons. Dropping the [`Lab`] ends all of it; killing the process that holds it does the same, and a janitor process
//! removes the folder.

mod clock;
pub mod daemons;
mod fabric;
pub mod fault;
mod forward;
pub mod host;
pub mod init;
mod internet;
pub mod janitor;
pub mod layout;
pub mod process;
pub mod programs;
mod switch;

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nix::sys::signal::Signal;

pub use daemons::{AGENT_PROGRAM, CONTROLLER_PROGRAM, NETNODE_PROGRAM, Tuning};
pub use fault::{Fault, PartedFrom};
pub use host::Host;
pub use internet::Internet;
pub use layout::Layout;
pub use process::{Output, Running};
pub use switch::{OVSDB, VSWITCHD};

use crate::LabError;
use janitor::Janitor;

/// How long a daemon gets to end by itself.
const GRACE: Duration = Duration::from_secs(10);
/// Lines of each log shown after a failed test.
const TAIL: usize = 15;
/// State of a daemon that was never started, or was stopped.
pub const NOT_RUNNING: &str = "not running";
/// Set to keep the lab's folder for reading.
const KEEP: &str = "TRUNKLINE_LAB_KEEP";

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Workers: `w1` to `wN`.
    pub workers: u8,
    /// The lab's folder, made if missing and removed at the end; a temporary one when absent.
    pub folder: Option<PathBuf>,
    /// Start controller, agents and network node, not only the switches.
    pub daemons: bool,
    /// What differs from the defaults in the daemons' configurations.
    pub tuning: Tuning,
    /// Each host has a time of day of its own, which may jump.
    pub own_clocks: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 2,
            folder: None,
            daemons: true,
            tuning: Tuning::default(),
            own_clocks: false,
        }
    }
}

/// A fleet on this machine, alive as long as this value.
pub struct Lab {
    // In the order in which they have to end.
    running: Mutex<BTreeMap<(String, String), Running>>,
    internet: Internet,
    forward: forward::Forward,
    hosts: BTreeMap<String, Arc<Host>>,
    layout: Layout,
    folder: PathBuf,
    tuning: Tuning,
    faults: Mutex<fault::Faults>,
    janitor: Arc<Mutex<Option<Janitor>>>,
}

impl Lab {
    /// Starts a fleet; returns when everything runs.
    pub fn start(options: &Options) -> Result<Self, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        if options.workers == 0 || options.workers > layout::MOST_WORKERS {
            return Err(LabError::Other(format!(
                "a lab has 1 to {} workers",
                layout::MOST_WORKERS
            )));
        }
        let layout = Layout {
            workers: options.workers,
        };
        let (folder, janitor) = make_kept_folder(options.folder.as_deref())?;
        let clock = options.own_clocks.then(|| clock::Library::build(&folder)).transpose()?;
        let hosts = start_hosts(layout, &folder, clock.as_ref())?;
        fabric::build(layout, &hosts, &folder)?;
        let internet = Internet::start(find(&hosts, layout::INTERNET)?)?;
        let controller = SocketAddr::from((layout::CONTROLLER_ADDRESS, layout::CONTROLLER_PORT));
        let forward = forward::start(find(&hosts, layout::CONTROLLER)?, controller)?;
        daemons::issue_all(layout, &folder)?;
        let (running, tuning) = (Mutex::default(), options.tuning.clone());
        let lab = Self {
            running,
            internet,
            forward,
            hosts,
            layout,
            folder,
            tuning,
            faults: Mutex::default(),
            janitor,
        };
        for node in layout.nodes() {
            lab.start_daemon(&node, OVSDB)?;
            lab.start_daemon(&node, VSWITCHD)?;
        }
        if options.daemons {
            lab.start_daemons()?;
        }
        Ok(lab)
    }

    /// A host by name.
    pub fn host(&self, name: &str) -> Result<&Arc<Host>, LabError> {
        find(&self.hosts, name)
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.values()
    }

    /// Who is in the fleet.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The lab's folder: certificates, configurations, logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The internet host's server.
    pub fn internet(&self) -> &Internet {
        &self.internet
    }

    /// Where the machine reaches the controller: `https://127.0.0.1:PORT`.
    pub fn controller_endpoint(&self) -> String {
        format!("https://{}", self.forward.address)
    }

    /// Starts the controller, then the daemon of every node.
    pub fn start_daemons(&self) -> Result<(), LabError> {
        let hosts = [layout::CONTROLLER.to_owned()].into_iter().chain(self.layout.nodes());
        hosts.into_iter().try_for_each(|host| match daemons::program_of(&host) {
            Some(program) => self.start_daemon(&host, program),
            None => Ok(()),
        })
    }

    /// Starts a daemon of a host, or starts it again after it was ended.
    pub fn start_daemon(&self, host: &str, program: &str) -> Result<(), LabError> {
        let at = self.host(host)?;
        let started = match program {
            OVSDB => switch::start_ovsdb(at)?,
            VSWITCHD => switch::start_vswitchd(at)?,
            other => match daemons::program_of(host).filter(|ours| *ours == other) {
                Some(ours) => daemons::start(at, ours, &self.folder, &self.tuning)?,
                None => return Err(LabError::Other(format!("{other} does not belong on {host}"))),
            },
        };
        self.running().insert((host.to_owned(), program.to_owned()), started);
        Ok(())
    }

    /// Kills a daemon as a crash would.
    pub fn kill_daemon(&self, host: &str, program: &str) -> Result<(), LabError> {
        self.take(host, program).map(|mut daemon| daemon.kill())
    }

    /// Ends a daemon in order; an error when it did not end by itself, or not with status 0.
    pub fn stop_daemon(&self, host: &str, program: &str) -> Result<(), LabError> {
        let mut daemon = self.take(host, program)?;
        if daemon.stop(GRACE) {
            return Ok(());
        }
        Err(LabError::Other(format!(
            "{program} on {host} did not end cleanly after SIGTERM"
        )))
    }

    /// Sends a signal to a daemon that runs.
    pub fn signal_daemon(&self, host: &str, program: &str, signal: Signal) -> Result<(), LabError> {
        let mut running = self.running();
        let daemon = running.get_mut(&(host.to_owned(), program.to_owned()));
        daemon.map_or(Ok(()), |daemon| daemon.signal(signal))
    }

    /// The daemon's process, as the machine counts.
    pub fn daemon_pid(&self, host: &str, program: &str) -> Option<u32> {
        self.running()
            .get(&(host.to_owned(), program.to_owned()))
            .map(Running::pid)
    }

    /// Every daemon that belongs here: host, program, and its process or how it ended.
    pub fn daemons(&self) -> Vec<(String, String, Result<u32, String>)> {
        let mut running = self.running();
        let mut state = |key: &(String, String)| {
            let daemon = running.get_mut(key).ok_or_else(|| NOT_RUNNING.to_owned())?;
            daemon
                .ended()
                .map_or(Ok(daemon.pid()), |status| Err(status.to_string()))
        };
        let of_host = |host: String| {
            self.programs(&host)
                .into_iter()
                .map(move |name| (host.clone(), name.to_owned()))
        };
        let keys = self.layout.hosts().into_iter().flat_map(of_host);
        keys.map(|key| {
            let state = state(&key);
            (key.0, key.1, state)
        })
        .collect()
    }

    /// What belongs on a host, in the order in which it is started.
    pub fn programs(&self, host: &str) -> Vec<&'static str> {
        let switch = self.layout.nodes().iter().any(|node| node == host);
        let ours = daemons::program_of(host).filter(|_| switch || host == layout::CONTROLLER);
        let switch = if switch { vec![OVSDB, VSWITCHD] } else { Vec::new() };
        switch.into_iter().chain(ours).collect()
    }

    /// True while this daemon runs.
    pub fn runs(&self, host: &str, program: &str) -> bool {
        let mut running = self.running();
        let daemon = running.get_mut(&(host.to_owned(), program.to_owned()));
        daemon.is_some_and(|daemon| daemon.ended().is_none())
    }

    /// Folder of a certificate bundle: `operator`, `viewer`, or a host's name.
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.folder.join("certs").join(name)
    }

    /// Pulls a node's trunk cable, or plugs it in again.
    pub fn set_trunk(&self, node: &str, up: bool) -> Result<(), LabError> {
        fabric::set_trunk(&self.hosts, node, up)
    }

    /// The end of every log of a host.
    pub fn logs(&self, host: &str) -> Result<String, LabError> {
        let folder = self.host(host)?.folder().join("log");
        let mut text = String::new();
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            text += &format!("---- {}\n{}\n", path.display(), process::tail(path, TAIL));
        }
        Ok(text)
    }

    fn take(&self, host: &str, program: &str) -> Result<Running, LabError> {
        let key = (host.to_owned(), program.to_owned());
        let found = self.running().remove(&key);
        found.ok_or_else(|| LabError::Other(format!("{program} does not run on {host}")))
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<(String, String), Running>> {
        lock(&self.running)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in self.hosts.keys() {
                eprintln!("==== {host}\n{}", self.logs(host).unwrap_or_default());
            }
        }
        // Ended here and not by the hosts' end, so that nobody waits for them one after the other.
        self.running().clear();
        // All at once, then each is waited for; a guest may still hold its worker.
        self.hosts.values().for_each(|host| host.let_go());
        self.hosts.values().for_each(|host| host.await_end());
        drop(lock(&self.janitor).take());
    }
}

/// What this process would have to end, were it told to end now.
#[derive(Default)]
struct Everything {
    hosts: Vec<Weak<Host>>,
    janitors: Vec<Weak<Mutex<Option<Janitor>>>>,
}

static EVERYTHING: LazyLock<Mutex<Everything>> = LazyLock::new(Mutex::default);

fn all() -> MutexGuard<'static, Everything> {
    lock(&EVERYTHING)
}

/// Ends every lab of this process and waits until nothing of them is left. For the way out: the labs are of no use
/// afterwards, and whoever starts another one waits for the end of the process.
pub fn end_all() {
    let mut all = ManuallyDrop::new(all());
    let hosts: Vec<Arc<Host>> = all.hosts.drain(..).filter_map(|host| host.upgrade()).collect();
    hosts.iter().for_each(|host| host.let_go());
    hosts.iter().for_each(|host| host.await_end());
    for janitor in all.janitors.drain(..).filter_map(|janitor| janitor.upgrade()) {
        drop(lock(&janitor).take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_hosts(
    layout: Layout,
    folder: &Path,
    clock: Option<&clock::Library>,
) -> Result<BTreeMap<String, Arc<Host>>, LabError> {
    let start = |name: String| {
        // Locked first: a host that is half started would not be ended with the others.
        let mut all = all();
        let host = Arc::new(Host::start(&name, folder.join("hosts").join(&name), clock)?);
        all.hosts.push(Arc::downgrade(&host));
        Ok((name, host))
    };
    layout.hosts().into_iter().map(start).collect()
}

type KeptFolder = (PathBuf, Arc<Mutex<Option<Janitor>>>);

/// The folder and who removes it.
fn make_kept_folder(asked: Option<&Path>) -> Result<KeptFolder, LabError> {
    // As with the hosts.
    let mut all = all();
    let folder = make_folder(asked)?;
    let janitor = if std::env::var_os(KEEP).is_some() {
        None
    } else {
        Some(Janitor::start(&folder)?)
    };
    let janitor = Arc::new(Mutex::new(janitor));
    all.janitors.push(Arc::downgrade(&janitor));
    Ok((folder, janitor))
}

fn make_folder(asked: Option<&Path>) -> Result<PathBuf, LabError> {
    let folder = match asked {
        Some(folder) => folder.to_owned(),
        None => std::env::temp_dir().join(format!("trunkline-lab-{}", uuid::Uuid::new_v4().simple())),
    };
    std::fs::create_dir_all(&folder).map_err(LabError::io(format!("cannot make {}", folder.display())))?;
    Ok(folder)
}

pub(crate) fn find<'a>(hosts: &'a BTreeMap<String, Arc<Host>>, name: &str) -> Result<&'a Arc<Host>, LabError> {
    hosts.get(name).ok_or_else(|| LabError::UnknownHost {
        name: name.to_owned(),
        known: hosts.keys().cloned().collect::<Vec<_>>().join(" "),
    })
}

pub(crate) fn ended(host: &str, program: &str, status: ExitStatus, log: &Path) -> LabError {
    LabError::DaemonEnded {
        host: host.to_owned(),
        program: program.to_owned(),
        status: status.to_string(),
        log: log.to_owned(),
        tail: process::tail(log, TAIL),
    }
}
