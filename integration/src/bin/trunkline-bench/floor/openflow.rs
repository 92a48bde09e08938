//! OpenFlow 1.4 over a bridge's management socket, byte by byte. Flows and meters stay the bytes that the switch showed.

use std::collections::BTreeMap;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use trunkline_integration::LabError;

const VERSION: u8 = 5;
const HELLO: u8 = 0;
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const FLOW_MOD: u8 = 14;
const MULTIPART_REQUEST: u8 = 18;
const MULTIPART_REPLY: u8 = 19;
const BARRIER_REQUEST: u8 = 20;
const BARRIER_REPLY: u8 = 21;
const METER_MOD: u8 = 29;
const BUNDLE_CONTROL: u8 = 33;
const BUNDLE_ADD: u8 = 34;

/// Sorts of multipart requests.
const FLOWS: u16 = 1;
const TABLES: u16 = 3;
const METERS: u16 = 10;
const MONITOR: u16 = 16;
/// Any port, any group; every meter.
const ANY: [u8; 4] = [0xff; 4];
/// A match of everything, padded.
const EVERYTHING: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 0];
/// What a monitor tells: what is added, removed and modified. What is there already is no change.
const CHANGES: u16 = 2 | 4 | 8;
/// Of a bundle: all or nothing, in order.
const ATOMIC_ORDERED: u16 = 3;
const OPEN: u16 = 0;
const COMMIT: u16 = 4;
const ADD: u8 = 0;
const DELETE_STRICT: u8 = 4;
/// Of a meter.
const DELETE: u8 = 2;
const LIMIT: Duration = Duration::from_secs(30);

/// A flow: what it is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    table: u8,
    priority: [u8; 2],
    matches: Vec<u8>,
}

/// The rest of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    cookie: [u8; 8],
    instructions: Vec<u8>,
}

/// All flows, by rule.
pub(crate) type Flows = BTreeMap<Rule, Held>;
/// A meter: flags, then bands.
type Meter = ([u8; 2], Vec<u8>);
/// All meters, by number.
pub(crate) type Meters = BTreeMap<[u8; 4], Meter>;

/// A connection to a bridge.
pub(crate) struct OpenFlow {
    stream: BufReader<UnixStream>,
    bundle: u32,
}

impl OpenFlow {
    /// Connects and agrees on the version.
    pub(crate) fn connect(socket: &Path) -> Result<Self, LabError> {
        let stream =
            UnixStream::connect(socket).map_err(LabError::io(format!("cannot connect to {}", socket.display())))?;
        stream.set_read_timeout(Some(LIMIT)).map_err(broke())?;
        let stream = BufReader::with_capacity(1 << 16, stream);
        let mut bridge = Self { stream, bundle: 0 };
        bridge.write(&message(HELLO, &[]))?;
        bridge.answer(HELLO)?;
        Ok(bridge)
    }

    /// What there is.
    pub(crate) fn read(&mut self) -> Result<(Flows, Meters), LabError> {
        let (mut flows, mut meters) = (Flows::new(), Meters::new());
        self.multipart(FLOWS, &all_flows(), |part| {
            flows.extend(entries(part).filter_map(flow));
        })?;
        self.multipart(METERS, &[ANY, [0; 4]].concat(), |part| {
            meters.extend(entries(part).filter_map(meter));
        })?;
        Ok((flows, meters))
    }

    /// Reads all flows; answers how many there are.
    pub(crate) fn flows(&mut self) -> Result<usize, LabError> {
        let mut count = 0;
        self.multipart(FLOWS, &all_flows(), |part| count += entries(part).count())?;
        Ok(count)
    }

    /// How many flows the tables have, as they count them.
    pub(crate) fn active(&mut self) -> Result<u32, LabError> {
        let mut active = 0;
        self.multipart(TABLES, &[], |part| {
            let counts = part.chunks_exact(24).filter_map(|entry| at(entry, 4));
            active += counts.map(u32::from_be_bytes).sum::<u32>();
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
        self.multipart(MONITOR, &body, |_| ())
    }

    /// Messages that have told of changes until now.
    pub(crate) fn changes(&mut self) -> Result<usize, LabError> {
        let mut count = 0;
        let soon = Some(Duration::from_millis(20));
        self.stream.get_ref().set_read_timeout(soon).map_err(broke())?;
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
        self.stream.get_ref().set_read_timeout(Some(LIMIT)).map_err(broke())?;
        Ok(count)
    }

    /// Deletes all meters, without waiting until it is done.
    pub(crate) fn forget_meters(&mut self) -> Result<(), LabError> {
        self.write(&message(METER_MOD, &[&[0, DELETE, 0, 0], &ANY]))
    }

    /// Meters, then all flows as one bundle.
    pub(crate) fn add(&mut self, flows: &Flows, meters: &Meters) -> Result<(), LabError> {
        let mut bytes = Vec::new();
        for (id, (flags, bands)) in meters {
            put(&mut bytes, METER_MOD, &[&[0, ADD], &flags[..], id, bands]);
        }
        self.bundle(bytes, flows, ADD)
    }

    /// All flows as one bundle, then meters.
    pub(crate) fn remove(&mut self, flows: &Flows, meters: &Meters) -> Result<(), LabError> {
        self.bundle(Vec::new(), flows, DELETE_STRICT)?;
        if meters.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for id in meters.keys() {
            put(&mut bytes, METER_MOD, &[&[0, DELETE, 0, 0], id]);
        }
        put(&mut bytes, BARRIER_REQUEST, &[]);
        self.write(&bytes)?;
        self.answer(BARRIER_REPLY).map(drop)
    }

    fn bundle(&mut self, mut bytes: Vec<u8>, flows: &Flows, command: u8) -> Result<(), LabError> {
        self.bundle += 1;
        let (bundle, how) = (self.bundle.to_be_bytes(), ATOMIC_ORDERED.to_be_bytes());
        put(&mut bytes, BUNDLE_CONTROL, &[&bundle, &OPEN.to_be_bytes(), &how]);
        let mut flow = Vec::new();
        for (rule, held) in flows {
            let head = [rule.table, command, 0, 0, 0, 0];
            let instructions = if command == ADD { &held.instructions[..] } else { &[] };
            flow.clear();
            put(
                &mut flow,
                FLOW_MOD,
                &[
                    &held.cookie,
                    &[0; 8],
                    &head,
                    &rule.priority,
                    &[0xff; 12],
                    &[0; 4],
                    &rule.matches,
                    instructions,
                ],
            );
            put(&mut bytes, BUNDLE_ADD, &[&bundle, &[0; 2], &how, &flow]);
        }
        put(&mut bytes, BUNDLE_CONTROL, &[&bundle, &COMMIT.to_be_bytes(), &how]);
        self.write(&bytes)?;
        // Of opening, then of committing.
        self.answer(BUNDLE_CONTROL)?;
        self.answer(BUNDLE_CONTROL).map(drop)
    }

    /// Hands over each part of an answer.
    fn multipart(&mut self, sort: u16, body: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), LabError> {
        self.write(&message(MULTIPART_REQUEST, &[&sort.to_be_bytes(), &[0; 6], body]))?;
        loop {
            let part = self.answer(MULTIPART_REPLY)?;
            // A monitor's changes are such answers, too.
            if at(&part, 0) == Some(sort.to_be_bytes()) {
                take(part.get(8..).unwrap_or_default());
                if part.get(3).is_none_or(|flags| flags & 1 == 0) {
                    return Ok(());
                }
            }
        }
    }

    /// The next message of this kind.
    fn answer(&mut self, wanted: u8) -> Result<Vec<u8>, LabError> {
        loop {
            match self.receive()? {
                (kind, body) if kind == wanted => return Ok(body),
                (ERROR, body) => return Err(LabError::Other(format!("a bridge refused: {:?}", body.get(..4)))),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> Result<(u8, Vec<u8>), LabError> {
        loop {
            let mut header = [0; 8];
            self.stream.read_exact(&mut header).map_err(broke())?;
            let [_, kind, high, low, ..] = header;
            let mut body = vec![0; usize::from(u16::from_be_bytes([high, low])).saturating_sub(header.len())];
            self.stream.read_exact(&mut body).map_err(broke())?;
            if kind != ECHO_REQUEST {
                return Ok((kind, body));
            }
            self.write(&message(ECHO_REPLY, &[&body]))?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LabError> {
        self.stream.get_mut().write_all(bytes).map_err(broke())
    }
}

fn broke() -> impl FnOnce(std::io::Error) -> LabError {
    LabError::io("a bridge's connection broke")
}

fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, kind, parts);
    bytes
}

fn put(bytes: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length = 8 + parts.iter().map(|part| part.len()).sum::<usize>();
    bytes.extend([VERSION, kind]);
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    // One number for all: a bundle wants the same within and without, and answers come in order.
    bytes.extend([0; 4]);
    parts.iter().for_each(|part| bytes.extend(*part));
}

fn all_flows() -> Vec<u8> {
    let mut body = vec![0xff, 0, 0, 0];
    body.extend([ANY, ANY].concat());
    body.extend([0; 4 + 8 + 8]);
    body.extend(EVERYTHING);
    body
}

/// The entries of a list, each of which begins with its length.
fn entries(mut part: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_be_bytes(at(part, 0)?)).max(1);
        let entry = part.get(..length)?;
        part = part.get(length..).unwrap_or_default();
        Some(entry)
    })
}

fn flow(entry: &[u8]) -> Option<(Rule, Held)> {
    let matches = 48 + usize::from(u16::from_be_bytes(at(entry, 50)?)).next_multiple_of(8);
    let rule = Rule {
        table: *entry.get(2)?,
        priority: at(entry, 12)?,
        matches: entry.get(48..matches)?.to_vec(),
    };
    let held = Held {
        cookie: at(entry, 24)?,
        instructions: entry.get(matches..)?.to_vec(),
    };
    Some((rule, held))
}

fn meter(entry: &[u8]) -> Option<([u8; 4], Meter)> {
    Some((at(entry, 4)?, (at(entry, 2)?, entry.get(8..)?.to_vec())))
}

fn at<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
    bytes.get(from..from + N)?.try_into().ok()
}
