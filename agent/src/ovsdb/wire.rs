//! Framing: JSON-RPC messages follow each other on the stream without any separator.

use serde_json::Value;

use super::Error;

/// No answer of a database with tens of thousands of ports comes near this; more means that we lost the frame.
const MAX_MESSAGE: usize = 256 << 20;

/// Cuts a stream of bytes into JSON values.
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were looked at already.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Value>, Error> {
        while let Some(&byte) = self.buffer.get(self.scanned) {
            self.scanned += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self
                        .depth
                        .checked_sub(1)
                        .ok_or_else(|| Error::Protocol("unbalanced brackets in the stream".to_owned()))?;
                    if self.depth == 0 {
                        return self.cut().map(Some);
                    }
                }
                _ => {}
            }
        }
        if self.buffer.len() > MAX_MESSAGE {
            return Err(Error::Protocol(format!("a message of more than {MAX_MESSAGE} bytes")));
        }
        Ok(None)
    }

    fn cut(&mut self) -> Result<Value, Error> {
        let message = self.buffer.drain(..self.scanned).collect::<Vec<u8>>();
        self.scanned = 0;
        serde_json::from_slice(&message).map_err(|error| Error::Protocol(format!("invalid JSON: {error}")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_are_cut_wherever_the_reads_fell() {
        let text = r#"{"a":"}\"{"} {"b":[1,{"c":2}]}"#.as_bytes();
        for split in 0..text.len() {
            let mut framer = Framer::default();
            let mut seen = Vec::new();
            for part in [&text[..split], &text[split..]] {
                framer.push(part);
                while let Some(value) = framer.next().unwrap() {
                    seen.push(value);
                }
            }
            assert_eq!(
                seen,
                [json!({"a": "}\"{"}), json!({"b": [1, {"c": 2}]})],
                "split at {split}"
            );
        }
    }

    #[test]
    fn an_unbalanced_stream_is_an_error() {
        let mut framer = Framer::default();
        framer.push(b"}");
        assert!(framer.next().is_err());
    }
}
