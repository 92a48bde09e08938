//! Which start of the machine this is: some notes on disk mean nothing after a reboot.

use std::{fs, io};

use serde::{Deserialize, Serialize};

/// The kernel's random name for this start of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(String);

impl BootId {
    /// Reads it.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn current() -> io::Result<Self> {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| Self(id.trim().to_owned()))
    }
}
