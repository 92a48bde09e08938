//! The serial console of a real machine: a line goes in, what comes out stands between two marks.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::LabError;
use crate::lab::Output;

/// What the machine's first process says when it listens.
const READY: &str = "@@READY";

pub(super) struct Console {
    stream: UnixStream,
    commands: u64,
}

impl Console {
    pub(super) fn connect(path: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(Self { stream, commands: 0 })
    }

    pub(super) fn await_ready(&mut self, within: Duration) -> Result<(), LabError> {
        self.read_until("the machine's start", within, |text| text.contains(READY).then_some(()))
    }

    /// Runs a command. The machine itself ends it when the time is over.
    pub(super) fn run(&mut self, argv: &[&str], limit: Duration) -> Result<Output, LabError> {
        self.commands += 1;
        let id = self.commands;
        let command: Vec<String> = argv.iter().map(|word| quote(word)).collect();
        let command = command.join(" ");
        let seconds = limit.as_secs().max(1);
        let line = format!(
            "echo; echo @@BEGIN{id}@; timeout -k 1 {seconds} {command} 2>/tmp/stderr </dev/null; s=$?; \
             echo; echo @@ERR{id}@; cat /tmp/stderr; echo; echo @@END{id}@ $s\n"
        );
        self.stream
            .write_all(line.as_bytes())
            .map_err(LabError::io("cannot write to the machine's console"))?;
        let patience = limit + Duration::from_secs(10);
        self.read_until(&format!("the end of {command}"), patience, |text| answer(text, id))
    }

    fn read_until<T>(
        &mut self,
        what: &str,
        within: Duration,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<T, LabError> {
        let deadline = Instant::now() + within;
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(LabError::Other(format!("the machine ended while waiting for {what}"))),
                Ok(length) => bytes.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(LabError::io("cannot read the machine's console")(error)),
            }
            let text = String::from_utf8_lossy(&bytes).replace('\r', "");
            if let Some(found) = found(&text) {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(LabError::Timeout {
                    what: what.to_owned(),
                    after: within,
                    seen: text,
                });
            }
        }
    }
}

/// Reads one command's outcome, when it is all there.
fn answer(text: &str, id: u64) -> Option<Output> {
    let (_, rest) = text.split_once(&format!("@@BEGIN{id}@\n"))?;
    let (stdout, rest) = rest.split_once(&format!("\n@@ERR{id}@\n"))?;
    let (stderr, rest) = rest.split_once(&format!("\n@@END{id}@ "))?;
    let (status, _) = rest.split_once('\n')?;
    Some(Output {
        status: status.parse().ok()?,
        stdout: stdout.to_owned(),
        stderr: stderr.to_owned(),
    })
}

/// A word as a shell reads it back.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_only_when_it_is_whole() {
        let text = "\n@@BEGIN4@\none\ntwo\n\n@@ERR4@\nbad\n\n@@END4@ 3\n";
        let output = answer(text, 4).unwrap();
        assert_eq!(
            (output.status, output.stdout.as_str(), output.stderr.as_str()),
            (3, "one\ntwo\n", "bad\n")
        );
        assert!(answer(&text[..text.len() - 1], 4).is_none());
        assert!(answer(text, 5).is_none());
    }

    #[test]
    fn a_word_with_quotes_stays_one_word() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
