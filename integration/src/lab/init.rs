//! What runs at the root of each host: `trunkline-lab host` makes the namespaces, `trunkline-lab host-init` is
//! process 1 in them.
//!
//! Process 1 holds the reading end of a pipe whose other end only the lab holds. When the lab is gone the pipe ends,
//! process 1 exits, and with it the kernel ends every process of the host and takes away its interfaces and mounts.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::LabError;

/// Folders of the machine that each host has for itself, kept in the lab's folder so that a person can read them:
/// (mount point, folder below the host's). Those that the machine does not have are left out.
const PRIVATE: [(&str, &str); 3] = [
    ("/var/log", "log"),
    ("/var/lib", "lib"),
    ("/etc/openvswitch", "etc-openvswitch"),
];

/// Makes the namespaces, starts process 1 in them, prints its number and waits for its end. Must run before any
/// thread was started.
pub fn host(name: &str, folder: &Path) -> Result<(), LabError> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let all = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS;
    unshare(all).map_err(|errno| LabError::io("cannot make namespaces")(errno.into()))?;
    let ourselves = std::env::current_exe().map_err(LabError::io("cannot find this program"))?;
    let mut child = Command::new(ourselves)
        .arg("host-init")
        .arg(name)
        .arg(folder)
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .spawn()
        .map_err(LabError::io("cannot start the host's first process"))?;
    println!("pid {}", child.id());
    child
        .wait()
        .map_err(LabError::io("cannot wait for the host's first process"))?;
    Ok(())
}

/// Process 1 of a host. Returns only with an error: otherwise it exits when the lab is gone.
pub fn host_init(name: &str, folder: &Path) -> Result<(), LabError> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    nix::unistd::sethostname(name)?;
    mounts(folder)?;
    println!("ready");
    std::thread::spawn(|| {
        // Nothing is ever written: this ends when the lab does.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    loop {
        children.wait()?;
        reap();
    }
}

/// Takes every child that has ended; daemons that detached themselves end up here.
fn reap() {
    while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

fn mounts(folder: &Path) -> Result<(), LabError> {
    let none: Option<&str> = None;
    // First of all: nothing mounted from here on may be seen outside.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    // The machine's own would show the machine's own interfaces.
    let _ = umount2("/sys", MntFlags::MNT_DETACH);
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for below in ["/run/netns", "/run/openvswitch", "/run/lock"] {
        fs::create_dir_all(below).map_err(LabError::io(format!("cannot make {below}")))?;
    }
    for (point, below) in PRIVATE {
        let source = folder.join(below);
        fs::create_dir_all(&source).map_err(LabError::io(format!("cannot make {}", source.display())))?;
        if Path::new(point).is_dir() {
            mount(Some(&source), point, none, MsFlags::MS_BIND, none)?;
        }
    }
    Ok(())
}
