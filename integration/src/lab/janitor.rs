//! Removes a lab's folder when the lab is gone, also when it was killed: a process of its own at the other end of a
//! pipe, outside all hosts.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::process::bare;
use super::programs;
use crate::LabError;
use crate::wait::until;

/// Hosts may still be writing their last lines.
const PATIENCE: Duration = Duration::from_secs(15);

/// The janitor of one folder. Dropping it has the folder removed, and waits for that.
pub(crate) struct Janitor(Child);

impl Janitor {
    pub(crate) fn start(folder: &Path) -> Result<Self, LabError> {
        let program = programs::find("trunkline-lab")?.display().to_string();
        let child = bare(&[program, "janitor".to_owned(), folder.display().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(LabError::io("cannot start the janitor"))?;
        Ok(Self(child))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// What the janitor's process does.
pub fn run(folder: &Path) -> Result<(), LabError> {
    // Nothing is ever written: this returns when the lab is gone.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    until("removing the lab's folder", PATIENCE, || {
        let error = match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => error.to_string(),
            _ => String::new(),
        };
        if folder.exists() { Err(error) } else { Ok(()) }
    })
}
