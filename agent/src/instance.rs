//! One agent a host: a lock on its state directory and one on the bridge that it works on, which the kernel lets go whatever happens
//! to the process. The second one finds an agent that was started with another state directory: both would take each other's ports
//! for leftovers.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use sha2::{Digest, Sha256};

const NAME: &str = "lock";
/// A child of one that was killed just now holds its lock until it is another program: that long nobody is called a second one.
const DYING: Duration = Duration::from_secs(2);
/// Pause between two attempts.
const AGAIN: Duration = Duration::from_millis(20);
/// Where bridges are locked: gone with a reboot, and the same for every agent of a host.
const BRIDGES: &str = "/run/trunkline";

/// The locks; let go when this is dropped.
#[derive(Debug)]
pub struct Instance {
    _state: Flock<File>,
    _bridge: Flock<File>,
    bridge_file: PathBuf,
}

impl Drop for Instance {
    fn drop(&mut self) {
        // While it is still locked, so that nobody's else is removed. A killed process leaves it, unlocked: that does no harm.
        let _ = std::fs::remove_file(&self.bridge_file);
    }
}

/// Why the state directory cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// Another process has it.
    #[error("{program} runs already on this host with state directory {dir}: process {pid}")]
    Taken {
        /// Program that was started.
        program: &'static str,
        /// The directory.
        dir: PathBuf,
        /// Who holds the lock, as it wrote itself.
        pid: String,
    },
    /// Another process works on the bridge.
    #[error("process {pid} manages the bridge {bridge} of {socket} already, with another state directory")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// Open vSwitch's database.
        socket: PathBuf,
        /// Who holds the lock, as it wrote itself.
        pid: String,
    },
    /// It cannot be made or locked.
    #[error("cannot use the directory {dir}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Instance {
    /// Makes the state directory if needed and locks it, and the bridge with it.
    pub fn take(dir: &Path, socket: &Path, bridge: &str, program: &'static str) -> Result<Self, InstanceError> {
        Self::take_in(Path::new(BRIDGES), dir, socket, bridge, program)
    }

    fn take_in(
        bridges: &Path,
        dir: &Path,
        socket: &Path,
        bridge: &str,
        program: &'static str,
    ) -> Result<Self, InstanceError> {
        let state = lock(dir, NAME)?.map_err(|pid| InstanceError::Taken {
            program,
            dir: dir.to_owned(),
            pid,
        })?;
        let bridge_file = bridge_name(socket, bridge);
        let bridge_lock = lock(bridges, &bridge_file)?.map_err(|pid| InstanceError::Bridge {
            bridge: bridge.to_owned(),
            socket: socket.to_owned(),
            pid,
        })?;
        Ok(Self {
            _state: state,
            _bridge: bridge_lock,
            bridge_file: bridges.join(bridge_file),
        })
    }
}

/// One name for one bridge, by whatever way its database is named: `/var/run` leads to `/run`, and the socket itself comes and goes.
fn bridge_name(socket: &Path, bridge: &str) -> String {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let whole = directory.join(socket.file_name().unwrap_or_default());
    let name: String = Sha256::digest(whole.as_os_str().as_encoded_bytes())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}-{name}.lock", bridge.replace('/', "_"))
}

/// Locks a file of a directory; an error within is the id of the process that has it.
fn lock(dir: &Path, name: &str) -> Result<Result<Flock<File>, String>, InstanceError> {
    let wrong = |source| InstanceError::Io {
        dir: dir.to_owned(),
        source,
    };
    crate::files::state_dir(dir).map_err(wrong)?;
    let path = dir.join(name);
    let until = Instant::now() + DYING;
    let mut lock = loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(wrong)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) if is_at(&lock, &path).map_err(wrong)? => break lock,
            // Removed by the one who had it, between our opening and locking it: it locks nothing any more.
            Ok(_) => {}
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() < until => std::thread::sleep(AGAIN),
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                // It may be about to write its id; then we say less.
                let _ = file.read_to_string(&mut pid);
                return Ok(Err(pid.trim().to_owned()));
            }
            Err((_, errno)) => return Err(wrong(errno.into())),
        }
    };
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(wrong)?;
    Ok(Ok(lock))
}

/// True while this open file is the one at the path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let inode = file.metadata()?.ino();
    match std::fs::metadata(path) {
        Ok(there) => Ok(there.ino() == inode),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(root: &Path, state: &str, socket: &str) -> Result<Instance, InstanceError> {
        let (bridges, state) = (root.join("run"), root.join(state));
        Instance::take_in(&bridges, &state, &root.join(socket), "br-int", "trunkline-agent")
    }

    #[test]
    fn a_second_agent_is_refused_and_told_who_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), "state", "db.sock").unwrap();
        let error = take(dir.path(), "state", "db.sock").unwrap_err().to_string();
        assert!(error.ends_with(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        take(dir.path(), "state", "db.sock").unwrap();
    }

    #[test]
    fn a_second_agent_with_another_state_directory_is_refused_on_the_same_bridge_only() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("var")).unwrap();
        let _first = take(dir.path(), "state", "db.sock").unwrap();
        let error = take(dir.path(), "other", "var/db.sock").unwrap_err();
        assert!(matches!(error, InstanceError::Bridge { .. }), "{error}");
        take(dir.path(), "third", "elsewhere.sock").unwrap();
    }
}
