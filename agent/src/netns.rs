//! Named network namespaces, made the way iproute2 makes them: a file in `/run/netns` onto which the namespace is bind-mounted.
//!
//! A thread that enters a namespace stays in it, so each piece of work that needs one runs on a plain thread of its own, never on
//! one of the runtime's.
//!
//! Ownership: for each namespace that we make, a file in a state directory holds the namespace's inode and the machine's boot id.
//! It is written before the namespace gets its name, survives the agent, and does not claim a namespace that a stranger made later
//! under the same name: that one has another inode, or, after a reboot, another boot id.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};
use tokio::sync::oneshot;
use trunkline_proto::daemon::failpoint;

use crate::files;

/// Where iproute2 keeps named namespaces.
pub const NETNS_DIR: &str = "/run/netns";

/// Magic number of the filesystem that namespaces live in (`NSFS_MAGIC` in linux/magic.h).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// The calling thread's namespace, not the process's.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why work on a namespace failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A namespace of this name exists and is not ours.
    #[error("the network namespace {0} exists and was not made by this agent; it is not touched")]
    NotOurs(String),
    /// The name could lead elsewhere.
    #[error("{0:?} cannot be the name of a namespace")]
    Name(String),
    /// The thread that did the work has panicked.
    #[error("the thread that worked in a namespace has died")]
    Thread,
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        what: what.into(),
        source,
    }
}

fn system(what: impl Into<String>) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Io {
        what: what.into(),
        source: errno.into(),
    }
}

/// Runs `work` on a plain thread inside a namespace (`None`: the one that the process is in), and waits for it.
///
/// # Errors
/// When there is no such namespace or it cannot be entered; what `work` returns is passed on as it is.
pub async fn on_thread_in<T: Send + 'static>(
    namespace: Option<&Path>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let namespace = namespace.map(Path::to_owned);
    on_thread(move || {
        if let Some(path) = namespace {
            enter(&path)?;
        }
        Ok(work())
    })
    .await
}

/// Runs `work` inside each of these namespaces, on a few plain threads that go from one to the next. The answers are in their order.
///
/// # Errors
/// Of one namespace: as [`on_thread_in`]. Of all: when a thread could not be started, or died.
pub async fn on_threads_in<T: Send + 'static>(
    namespaces: Vec<PathBuf>,
    work: fn() -> T,
) -> Result<Vec<Result<T, Error>>, Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = namespaces.len().div_ceil(threads).max(1);
    let walks = namespaces.chunks(each).map(|part| {
        let part = part.to_vec();
        on_thread(move || Ok(part.iter().map(|path| enter(path).map(|()| work())).collect::<Vec<_>>()))
    });
    let walks = futures::future::try_join_all(walks).await?;
    Ok(walks.into_iter().flatten().collect())
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            // Nobody waits any more: the work was done all the same.
            let _ = sender.send(work());
        })
        .map_err(io_error("start a thread"))?;
    receiver.await.map_err(|_| Error::Thread)?
}

fn enter(path: &Path) -> Result<(), Error> {
    let what = || format!("enter the network namespace {}", path.display());
    let file = File::open(path).map_err(io_error(what()))?;
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(system(what()))
}

/// Writes a setting below `/proc/sys` (`net/ipv4/ip_forward`), as seen by this thread's namespace.
///
/// # Errors
/// As the system says.
pub(crate) fn write_sysctl_here(key: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(key), value)
}

/// Writes a setting below `/proc/sys` in a namespace (`None`: the current one). `key` is a path, `net/ipv4/conf/gw_vlan110/arp_ignore`,
/// because a device's name may hold a dot.
///
/// # Errors
/// As the system says.
pub async fn write_sysctl(namespace: Option<&Path>, key: &str, value: &str) -> Result<(), Error> {
    let written = match namespace {
        // No thread of the runtime ever leaves the process's own.
        None => write_sysctl_here(key, value),
        Some(_) => {
            let (path, text) = (key.to_owned(), value.to_owned());
            on_thread_in(namespace, move || write_sysctl_here(&path, &text)).await?
        }
    };
    written.map_err(io_error(format!("set {key} to {value}")))
}

/// Reads a setting below `/proc/sys` in a namespace, without the closing newline.
///
/// # Errors
/// As the system says.
pub async fn read_sysctl(namespace: Option<&Path>, key: &str) -> Result<String, Error> {
    let path = Path::new("/proc/sys").join(key);
    let text = match namespace {
        None => fs::read_to_string(path),
        Some(_) => on_thread_in(namespace, move || fs::read_to_string(path)).await?,
    };
    let text = text.map_err(io_error(format!("read {key}")))?;
    Ok(text.trim_end().to_owned())
}

/// The namespaces that this node makes.
#[derive(Debug, Clone)]
pub struct Namespaces {
    dir: PathBuf,
    marks: PathBuf,
}

impl Namespaces {
    /// `marks` is the state directory for our marks; best on a filesystem that a reboot empties, as `/run` is, because namespaces do
    /// not survive one either.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(marks: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::in_dir(NETNS_DIR, marks)
    }

    fn in_dir(dir: impl Into<PathBuf>, marks: impl Into<PathBuf>) -> Result<Self, Error> {
        let (dir, marks) = (dir.into(), marks.into());
        fs::create_dir_all(&marks).map_err(io_error(format!("make {}", marks.display())))?;
        let namespaces = Self { dir, marks };
        namespaces.tidy()?;
        Ok(namespaces)
    }

    /// Removes the empty files of namespaces of ours that are not mounted: this program died while it made one, or took it away. The
    /// marks stay, because something may still run in such a namespace.
    fn tidy(&self) -> Result<(), Error> {
        let what = || format!("read {}", self.marks.display());
        for entry in fs::read_dir(&self.marks).map_err(io_error(what()))? {
            let path = self.dir.join(entry.map_err(io_error(what()))?.file_name());
            let left = fs::symlink_metadata(&path).is_ok_and(|file| file.is_file() && file.len() == 0);
            if left && inode(&path).is_none() {
                files::remove_if_there(&path).map_err(io_error(format!("remove {}", path.display())))?;
            }
        }
        Ok(())
    }

    /// The namespace's file, for [`on_thread_in`], [`crate::netlink::Handle::in_namespace`] and [`crate::process::Run::namespace`].
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a namespace, with its loopback down as the kernel leaves it. Success when it is there and ours.
    ///
    /// # Errors
    /// [`Error::NotOurs`] when somebody else's has this name.
    pub async fn create(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        if self.is_ours(name) {
            return Ok(());
        }
        let path = self.path(name);
        if inode(&path).is_some() {
            return Err(Error::NotOurs(name.to_owned()));
        }
        let (dir, mark) = (self.dir.clone(), self.marks.join(name));
        on_thread(move || create_here(&dir, &path, &mark)).await
    }

    /// True when a process runs in the namespace that our mark of this name names, mounted or not.
    #[must_use]
    pub fn is_home_of(&self, name: &str, pid: u32) -> bool {
        File::open(format!("/proc/{pid}/ns/net")).is_ok_and(|namespace| is_marked(&namespace, &self.marks.join(name)))
    }

    /// Gives a namespace of ours its name back: a process still runs in it, but it is not mounted any more. False when the process is
    /// gone or runs in another namespace than the one that our mark names; nothing is done then.
    ///
    /// # Errors
    /// [`Error::NotOurs`] when there is another namespace of this name, and as the system says.
    pub async fn restore(&self, name: &str, pid: u32) -> Result<bool, Error> {
        check_name(name)?;
        if self.is_ours(name) {
            return Ok(true);
        }
        if self.exists(name) {
            return Err(Error::NotOurs(name.to_owned()));
        }
        let (dir, path, mark) = (self.dir.clone(), self.path(name), self.marks.join(name));
        on_thread(move || {
            // Held open: the process may end, and its id be another's, before it is mounted.
            let Ok(namespace) = File::open(format!("/proc/{pid}/ns/net")) else {
                return Ok(false);
            };
            if !is_marked(&namespace, &mark) {
                return Ok(false);
            }
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(system("enter a process's namespace"))?;
            fs::create_dir_all(&dir).map_err(io_error(format!("make {}", dir.display())))?;
            share_mounts(&dir)?;
            mount_own(&path)?;
            Ok(true)
        })
        .await
    }

    /// Deletes a namespace. What runs in it keeps it alive without a name: stop that first. Success when it is gone already.
    ///
    /// # Errors
    /// [`Error::NotOurs`] when somebody else's has this name.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let (path, mark) = (self.path(name), self.marks.join(name));
        let ours = self.is_ours(name);
        if !ours && inode(&path).is_some() {
            return Err(Error::NotOurs(name.to_owned()));
        }
        let name = name.to_owned();
        on_thread(move || {
            failpoint::reach("netns.before-delete");
            if ours {
                umount2(&path, MntFlags::MNT_DETACH).map_err(system(format!("unmount the namespace {name}")))?;
                files::remove_if_there(&path).map_err(io_error(format!("remove {}", path.display())))?;
            }
            failpoint::reach("netns.after-delete");
            files::remove_if_there(&mark).map_err(io_error(format!("remove {}", mark.display())))?;
            Ok(())
        })
        .await
    }

    /// Names of the namespaces that we made and that are still there.
    ///
    /// # Errors
    /// When the marks cannot be read.
    pub fn list(&self) -> Result<BTreeSet<String>, Error> {
        let what = || format!("read {}", self.marks.display());
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.marks).map_err(io_error(what()))? {
            let name = entry.map_err(io_error(what()))?.file_name();
            if let Some(name) = name.to_str().filter(|name| self.is_ours(name)) {
                names.insert(name.to_owned());
            }
        }
        Ok(names)
    }

    /// True when a namespace of this name exists and it was us who made it.
    #[must_use]
    pub fn is_ours(&self, name: &str) -> bool {
        let found = inode(&self.path(name)).and_then(|inode| mark_of(inode).ok());
        found.is_some() && found == fs::read_to_string(self.marks.join(name)).ok()
    }

    /// True when a namespace of this name exists, whoever made it.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        inode(&self.path(name)).is_some()
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let good = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if good {
        Ok(())
    } else {
        Err(Error::Name(name.to_owned()))
    }
}

/// Inode of the namespace mounted at a path; none when there is none, whatever else the file may be.
fn inode(path: &Path) -> Option<u64> {
    let kind = statfs(path).ok()?.filesystem_type();
    (kind == NSFS_MAGIC)
        .then(|| fs::metadata(path).ok().map(|file| file.ino()))
        .flatten()
}

/// True when this open namespace is the one that a mark names.
fn is_marked(namespace: &File, mark: &Path) -> bool {
    let found = namespace.metadata().and_then(|file| mark_of(file.ino())).ok();
    found.is_some() && found == fs::read_to_string(mark).ok()
}

/// What our mark of a namespace says.
fn mark_of(inode: u64) -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("{} {inode}\n", boot.trim()))
}

/// Runs on a thread of its own, which afterwards ends inside the new namespace.
fn create_here(dir: &Path, path: &Path, mark: &Path) -> Result<(), Error> {
    failpoint::reach("netns.before-create");
    fs::create_dir_all(dir).map_err(io_error(format!("make {}", dir.display())))?;
    share_mounts(dir)?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(system("make a network namespace"))?;
    let fresh = fs::metadata(OWN).map_err(io_error("look at the new namespace"))?.ino();
    let text = mark_of(fresh).map_err(io_error("read the boot id"))?;
    // Void after a reboot, as the namespace is.
    files::replace(mark, text.as_bytes(), 0o600).map_err(io_error(format!("write {}", mark.display())))?;
    failpoint::reach("netns.after-mark");
    mount_own(path)?;
    failpoint::reach("netns.after-create");
    Ok(())
}

/// Mounts the namespace that this thread is in.
fn mount_own(path: &Path) -> Result<(), Error> {
    // A plain file of an attempt that was cut off is mounted over.
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(io_error(format!("make {}", path.display())))?;
    mount(Some(Path::new(OWN)), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(system(format!("mount the namespace at {}", path.display())))
}

/// Makes the directory a shared mount, as iproute2 does, so that a namespace deleted here is gone in other mount namespaces too
/// and does not live on there.
fn share_mounts(dir: &Path) -> Result<(), Error> {
    let share = || {
        mount(
            None::<&str>,
            dir,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    match share() {
        // Not a mount point yet.
        Err(Errno::EINVAL) => {
            mount(
                Some(dir),
                dir,
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )
            .map_err(system(format!("bind {} to itself", dir.display())))?;
            share().map_err(system(format!("share {}", dir.display())))
        }
        other => other.map_err(system(format!("share {}", dir.display()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn what_a_cut_off_deletion_left_is_removed_and_nobody_elses_file() {
        let dir = tempfile::tempdir().unwrap();
        let (netns, marks) = (dir.path().join("netns"), dir.path().join("marks"));
        fs::create_dir_all(&netns).unwrap();
        fs::create_dir_all(&marks).unwrap();
        for (name, content) in [("ns-dhcp-vlan104", ""), ("theirs", ""), ("ns-dhcp-vlan105", "words")] {
            fs::write(netns.join(name), content).unwrap();
        }
        for marked in ["ns-dhcp-vlan104", "ns-dhcp-vlan105", "ns-dhcp-vlan106"] {
            fs::write(marks.join(marked), "1 of a boot").unwrap();
        }
        Namespaces::in_dir(&netns, &marks).unwrap();
        let exists = |name: &str| netns.join(name).exists();
        assert!(!exists("ns-dhcp-vlan104"));
        assert!(exists("theirs") && exists("ns-dhcp-vlan105"));
        assert!(marks.join("ns-dhcp-vlan104").exists());
    }

    const UNITS: [(&str, &str); 2] = [
        ("trunkline-agent.service", include_str!("../trunkline-agent.service")),
        (
            "trunkline-netnode.service",
            include_str!("../../netnode/trunkline-netnode.service"),
        ),
    ];

    /// Options of a service that leave it in the host's mount namespace. Most others that have to do with files or protection do not,
    /// so that one that is not listed has to be looked up in systemd.exec(5) first.
    const WITHOUT_MOUNTS: [&str; 10] = [
        "Type",
        "ExecStart",
        "Restart",
        "RestartSec",
        "WatchdogSec",
        "TimeoutStartSec",
        "KillMode",
        "StateDirectory",
        "StateDirectoryMode",
        "LimitNOFILE",
    ];

    #[test]
    fn units_leave_the_daemons_in_the_hosts_mount_namespace() {
        for (unit, text) in UNITS {
            let section = text.split("[Service]").nth(1).unwrap().split("\n[").next().unwrap();
            let options = section.lines().filter(|line| !line.starts_with('#'));
            let names: Vec<_> = options
                .filter_map(|line| Some(line.split_once('=')?.0.trim()))
                .collect();
            assert!(names.contains(&"ExecStart"), "{unit} was not understood");
            // systemd's own 90 s are too few for a first pass that sets up hundreds of DHCP servers.
            assert!(names.contains(&"TimeoutStartSec"), "{unit}");
            for name in names {
                assert!(WITHOUT_MOUNTS.contains(&name), "{unit} has {name}");
            }
        }
    }
}
