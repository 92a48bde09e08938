//! One agent a host: a lock on its state directory, which the kernel lets go whatever happens to the process.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

const NAME: &str = "lock";

/// The lock; let go when it is dropped.
#[derive(Debug)]
pub struct Instance {
    _lock: Flock<File>,
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
    /// It cannot be made or locked.
    #[error("cannot use the state directory {dir}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Instance {
    /// Makes the state directory if needed and locks it.
    pub fn take(dir: &Path, program: &'static str) -> Result<Self, InstanceError> {
        let wrong = |source| InstanceError::Io {
            dir: dir.to_owned(),
            source,
        };
        crate::files::state_dir(dir).map_err(wrong)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(NAME))
            .map_err(wrong)?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                // It may be about to write its id; then we say less.
                let _ = file.read_to_string(&mut pid);
                return Err(InstanceError::Taken {
                    program,
                    dir: dir.to_owned(),
                    pid: pid.trim().to_owned(),
                });
            }
            Err((_, errno)) => return Err(wrong(errno.into())),
        };
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(wrong)?;
        Ok(Self { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_told_who_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let first = Instance::take(dir.path(), "trunkline-agent").unwrap();
        let error = Instance::take(dir.path(), "trunkline-agent").unwrap_err().to_string();
        assert!(error.ends_with(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Instance::take(dir.path(), "trunkline-agent").unwrap();
    }
}
