//! What is said to the person: `print!` would panic when nobody listens any more (`status | head -3`) or a disk is full.

use std::io::{ErrorKind, Write};

use crate::LabError;

/// Writes text to standard output, whole.
pub fn say(text: &str) -> Result<(), LabError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(LabError::io("cannot write to standard output")),
    }
}

/// Writes a line to standard output.
pub fn say_line(text: &str) -> Result<(), LabError> {
    say(&format!("{text}\n"))
}

/// Tells a line on standard error. Where that is gone there is nobody to tell.
pub fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}
