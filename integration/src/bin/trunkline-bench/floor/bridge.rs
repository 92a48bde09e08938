//! OpenFlow 1.4 on a bridge's management socket, raw.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use trunkline_integration::LabError;

const VERSION: u8 = 5;
const HELLO: u8 = 0;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const MULTIPART_REQUEST: u8 = 18;
const MULTIPART_REPLY: u8 = 19;
const FLOW: u16 = 1;
const TABLE: u16 = 3;
const FLOW_MONITOR: u16 = 16;
/// More parts follow.
const MORE: u16 = 1;
/// Any port, any group.
const ANY: [u8; 4] = [0xff; 4];
/// A match of everything, padded.
const EVERYTHING: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 0];
/// The first parts of a monitor's answer are what is there; told are what is added, removed and modified.
const CHANGES: u16 = 2 | 4 | 8;
const LIMIT: Duration = Duration::from_secs(30);

/// A connection.
pub(crate) struct Bridge {
    stream: UnixStream,
}

impl Bridge {
    /// Connects and agrees on a version.
    pub(crate) fn connect(socket: &Path) -> Result<Self, LabError> {
        let stream =
            UnixStream::connect(socket).map_err(LabError::io(format!("cannot connect to {}", socket.display())))?;
        stream.set_read_timeout(Some(LIMIT)).map_err(broke())?;
        let mut bridge = Self { stream };
        bridge.send(HELLO, &[])?;
        while bridge.receive()?.0 != HELLO {}
        Ok(bridge)
    }

    /// Reads all flows; answers how many there are.
    pub(crate) fn flows(&mut self) -> Result<usize, LabError> {
        let mut body = vec![0xff, 0, 0, 0];
        body.extend([ANY, ANY].concat());
        body.extend([0; 4 + 8 + 8]);
        body.extend(EVERYTHING);
        let mut count = 0;
        self.multipart(FLOW, &body, |mut part| {
            while let Some(length) = part
                .get(..2)
                .map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])))
            {
                count += 1;
                part = part.get(length.max(1)..).unwrap_or_default();
            }
        })?;
        Ok(count)
    }

    /// How many flows the tables have, as they count them.
    pub(crate) fn active(&mut self) -> Result<u64, LabError> {
        let mut active = 0;
        self.multipart(TABLE, &[], |part| {
            let counts = part
                .chunks_exact(24)
                .filter_map(|entry| entry.get(4..8)?.try_into().ok());
            active += counts.map(|count| u64::from(u32::from_be_bytes(count))).sum::<u64>();
        })?;
        Ok(active)
    }

    /// Begins to hear of changes of flows.
    pub(crate) fn monitor(&mut self) -> Result<(), LabError> {
        let mut body = 1_u32.to_be_bytes().to_vec();
        body.extend([ANY, ANY].concat());
        body.extend(CHANGES.to_be_bytes());
        body.extend([0xff, 0]);
        body.extend(EVERYTHING);
        self.multipart(FLOW_MONITOR, &body, |_| ())
    }

    /// Messages that have told of changes until now.
    pub(crate) fn changes(&mut self) -> Result<usize, LabError> {
        let mut count = 0;
        self.stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .map_err(broke())?;
        loop {
            match self.receive() {
                Ok((MULTIPART_REPLY, _)) => count += 1,
                Ok(_) => {}
                Err(LabError::Io { source, .. })
                    if matches!(source.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.stream.set_read_timeout(Some(LIMIT)).map_err(broke())?;
        Ok(count)
    }

    fn multipart(&mut self, kind: u16, body: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), LabError> {
        let mut request = kind.to_be_bytes().to_vec();
        request.extend([0; 6]);
        request.extend(body);
        self.send(MULTIPART_REQUEST, &request)?;
        loop {
            let (answer, body) = self.receive()?;
            if answer == 1 {
                return Err(LabError::Other(format!("the bridge refused a request: {body:?}")));
            }
            let head: Option<&[u8; 8]> = body.first_chunk();
            let Some([first, second, more, last, ..]) = head.filter(|_| answer == MULTIPART_REPLY) else {
                continue;
            };
            if u16::from_be_bytes([*first, *second]) == kind {
                take(body.get(8..).unwrap_or_default());
                if u16::from_be_bytes([*more, *last]) & MORE == 0 {
                    return Ok(());
                }
            }
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> Result<(), LabError> {
        let length = u16::try_from(8 + body.len()).unwrap_or(u16::MAX);
        let mut message = vec![VERSION, kind];
        message.extend(length.to_be_bytes());
        message.extend([0, 0, 0, 7]);
        message.extend(body);
        self.stream.write_all(&message).map_err(broke())
    }

    fn receive(&mut self) -> Result<(u8, Vec<u8>), LabError> {
        loop {
            let mut header = [0; 8];
            self.stream.read_exact(&mut header).map_err(broke())?;
            let [_, kind, high, low, ..] = header;
            let mut body = vec![0; usize::from(u16::from_be_bytes([high, low])).saturating_sub(8)];
            self.stream.read_exact(&mut body).map_err(broke())?;
            if kind != ECHO_REQUEST {
                return Ok((kind, body));
            }
            self.send(ECHO_REPLY, &body)?;
        }
    }
}

fn broke() -> impl FnOnce(std::io::Error) -> LabError {
    LabError::io("the bridge's connection broke")
}
