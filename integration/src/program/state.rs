//! What a lab in the background leaves for those who want to use it: one small file in its folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::lab::Lab;

/// A lab that runs in the background.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// The supervisor's process.
    pub pid: u32,
    /// When that process started, in the kernel's ticks: the number alone may belong to another one by now.
    pub started: u64,
    /// Where `trunkctl` connects to.
    pub endpoint: String,
    /// The operator's certificate.
    pub bundle: PathBuf,
    /// First process of each host.
    pub hosts: BTreeMap<String, u32>,
}

impl State {
    /// Of this process and its lab.
    pub fn of(lab: &Lab) -> Result<Self, LabError> {
        let pid = std::process::id();
        let started = start_time(pid).ok_or_else(|| LabError::Other("cannot read our own start time".to_owned()))?;
        Ok(Self {
            pid,
            started,
            endpoint: lab.controller_endpoint(),
            bundle: lab.bundle("operator"),
            hosts: lab.hosts().map(|host| (host.name().to_owned(), host.pid())).collect(),
        })
    }

    /// Where it is written.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("state.json")
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, folder: &Path) -> Result<(), LabError> {
        let text = serde_json::to_string_pretty(self).map_err(|error| LabError::Other(error.to_string()))?;
        let (new, path) = (folder.join("state.new"), Self::path(folder));
        fs::write(&new, text).map_err(LabError::io(format!("cannot write {}", new.display())))?;
        fs::rename(&new, &path).map_err(LabError::io(format!("cannot write {}", path.display())))
    }

    /// The lab that runs with this folder; `None` when there is none, or only its remains.
    pub fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(Self::path(folder)).ok()?;
        let state: Self = serde_json::from_str(&text).ok()?;
        state.alive().then_some(state)
    }

    /// True while the very process that wrote it lives.
    pub fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

/// Field 22 of `/proc/PID/stat`, counted after the name, which may hold anything.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(started: u64) -> State {
        let (endpoint, bundle, hosts) = (String::new(), PathBuf::new(), BTreeMap::new());
        State {
            pid: std::process::id(),
            started,
            endpoint,
            bundle,
            hosts,
        }
    }

    #[test]
    fn another_process_with_the_same_number_is_not_the_lab() {
        let ours = start_time(std::process::id()).unwrap();
        assert!(state(ours).alive());
        assert!(!state(ours + 1).alive());
    }

    #[test]
    fn remains_of_a_dead_lab_are_no_lab() {
        let folder = tempfile::tempdir().unwrap();
        assert!(State::read(folder.path()).is_none());
        state(1).write(folder.path()).unwrap();
        assert!(State::read(folder.path()).is_none());
    }
}
