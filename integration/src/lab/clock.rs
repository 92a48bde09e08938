//! A time of day for each host, which may jump. The kernel has one for the whole machine (time namespaces shift only clocks that do not
//! tell the time of day), so a small library is preloaded into every program of a host: it adds what the host's file says.
//!
//! What a program reads by itself moves; what the kernel notes (the times of files) does not, and a wait until a time of day would last
//! until the machine's. The lab's programs have none: all of them wait for a while, not until a time.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::LabError;

const SOURCE: &str = include_str!("clock.c");
const FILE: &str = "TRUNKLINE_LAB_CLOCK";

/// What is preloaded.
pub(crate) struct Library(PathBuf);

impl Library {
    /// Compiles it into the lab's folder.
    pub(crate) fn build(folder: &Path) -> Result<Self, LabError> {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        std::fs::write(&source, SOURCE).map_err(LabError::io(format!("cannot write {}", source.display())))?;
        let compiled = Command::new("gcc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .output()
            .map_err(LabError::io("cannot run gcc, which the hosts' clocks need"))?;
        if compiled.status.success() {
            return Ok(Self(library));
        }
        let words = String::from_utf8_lossy(&compiled.stderr).into_owned();
        Err(LabError::Other(format!(
            "the hosts' clocks cannot be compiled: {words}"
        )))
    }
}

/// The clock of one host.
pub(crate) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// One that shows the machine's time.
    pub(crate) fn of_host(library: &Library, folder: &Path) -> Result<Self, LabError> {
        let (library, file) = (library.0.clone(), folder.join("clock"));
        std::fs::write(&file, 0_i64.to_ne_bytes()).map_err(LabError::io(format!("cannot write {}", file.display())))?;
        Ok(Self { library, file })
    }

    /// Sets it so many seconds ahead of the machine's. Programs have the file mapped, so it is written where it is.
    pub(crate) fn set(&self, ahead: i64) -> Result<(), LabError> {
        use std::os::unix::fs::FileExt;
        let failed = || LabError::io(format!("cannot set {}", self.file.display()));
        let file = std::fs::File::options()
            .write(true)
            .open(&self.file)
            .map_err(failed())?;
        file.write_all_at(&ahead.to_ne_bytes(), 0).map_err(failed())
    }

    /// What makes a program read it.
    pub(crate) fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), (FILE, &self.file)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_sees_a_jump_in_the_time_of_day_and_none_in_what_it_measures() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::of_host(&Library::build(folder.path()).unwrap(), folder.path()).unwrap();
        let date = || {
            let output = Command::new("date")
                .arg("+%s")
                .envs(clock.environment())
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap().trim().parse::<i64>().unwrap()
        };
        let now = date();
        clock.set(86_400).unwrap();
        let tomorrow = date() - now;
        assert!((86_400..86_430).contains(&tomorrow), "{tomorrow}");
        clock.set(-86_400).unwrap();
        let yesterday = date() - now;
        assert!((-86_400..-86_370).contains(&yesterday), "{yesterday}");
    }
}
