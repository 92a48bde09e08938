//! OpenFlow 1.4 over a bridge's management socket, byte by byte. Flows and meters stay the bytes that the switch showed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use trunkline_integration::LabError;

const VERSION: u8 = 5;
const HELLO: u8 = 0;
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const FLOW_MOD: u8 = 14;
const MULTIPART_REQUEST: u8 = 18;
const BARRIER_REQUEST: u8 = 20;
const METER_MOD: u8 = 29;
const BUNDLE_CONTROL: u8 = 33;
const BUNDLE_ADD: u8 = 34;
const FLOWS: u16 = 1;
const METER_CONFIG: u16 = 10;
const ANY: [u8; 4] = [0xff; 4];
/// All or nothing, in order.
const ATOMIC_ORDERED: u16 = 3;
const OPEN: u16 = 0;
const COMMIT: u16 = 4;
const ADD: u8 = 0;
const DELETE_STRICT: u8 = 4;

/// A flow: what it is found by, and what it does.
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
/// All meters, by number: flags, then bands.
pub(crate) type Meters = BTreeMap<[u8; 4], ([u8; 2], Vec<u8>)>;

/// A connection to a bridge.
pub(crate) struct OpenFlow {
    stream: UnixStream,
    bundle: u32,
}

fn bad() -> LabError {
    LabError::Other("a bridge's answer is too short".to_owned())
}

fn at<const N: usize>(bytes: &[u8], from: usize) -> Result<[u8; N], LabError> {
    let part = bytes.get(from..from + N).ok_or_else(bad)?;
    part.try_into().map_err(|_| bad())
}

impl OpenFlow {
    /// Connects and agrees on the version.
    pub(crate) fn connect(path: &Path) -> Result<Self, LabError> {
        let stream = UnixStream::connect(path).map_err(LabError::io("cannot reach a bridge"))?;
        let mut new = Self { stream, bundle: 0 };
        let mut hello = Vec::new();
        message(&mut hello, HELLO, &[0, 1, 0, 8, 0, 0, 0, 1 << VERSION]);
        new.write(&hello)?;
        new.receive()?;
        Ok(new)
    }

    /// What there is.
    pub(crate) fn read(&mut self) -> Result<(Flows, Meters), LabError> {
        Ok((self.flows()?, self.meters()?))
    }

    fn flows(&mut self) -> Result<Flows, LabError> {
        let mut request = vec![0xff, 0, 0, 0];
        request.extend([ANY, ANY, [0; 4]].concat());
        request.extend([0; 16]);
        request.extend(NO_MATCH);
        let mut flows = Flows::new();
        for body in self.multipart(FLOWS, &request)? {
            let mut rest = &body[..];
            while !rest.is_empty() {
                let size = usize::from(u16::from_be_bytes(at(rest, 0)?));
                let entry = rest.get(..size).ok_or_else(bad)?;
                let matches = usize::from(u16::from_be_bytes(at(entry, 50)?)).next_multiple_of(8);
                let rule = Rule {
                    table: *entry.get(2).ok_or_else(bad)?,
                    priority: at(entry, 12)?,
                    matches: entry.get(48..48 + matches).ok_or_else(bad)?.to_vec(),
                };
                let held = Held {
                    cookie: at(entry, 24)?,
                    instructions: entry.get(48 + matches..).ok_or_else(bad)?.to_vec(),
                };
                flows.insert(rule, held);
                rest = rest.get(size..).ok_or_else(bad)?;
            }
        }
        Ok(flows)
    }

    fn meters(&mut self) -> Result<Meters, LabError> {
        let mut meters = Meters::new();
        for body in self.multipart(METER_CONFIG, &[ANY, [0; 4]].concat())? {
            let mut rest = &body[..];
            while !rest.is_empty() {
                let size = usize::from(u16::from_be_bytes(at(rest, 0)?));
                let bands = rest.get(8..size).ok_or_else(bad)?.to_vec();
                meters.insert(at(rest, 4)?, (at(rest, 2)?, bands));
                rest = rest.get(size..).ok_or_else(bad)?;
            }
        }
        Ok(meters)
    }

    /// Meters, then all flows as one bundle.
    pub(crate) fn add(&mut self, flows: &Flows, meters: &Meters) -> Result<(), LabError> {
        let mut bytes = Vec::new();
        for (id, (flags, bands)) in meters {
            message(&mut bytes, METER_MOD, &[&[0, 0][..], flags, id, bands].concat());
        }
        self.flow_mods(bytes, flows, ADD)
    }

    /// All flows as one bundle, then meters.
    pub(crate) fn remove(&mut self, flows: &Flows, meters: &Meters) -> Result<(), LabError> {
        self.flow_mods(Vec::new(), flows, DELETE_STRICT)?;
        let mut bytes = Vec::new();
        for id in meters.keys() {
            message(&mut bytes, METER_MOD, &[&[0, 2, 0, 0][..], id].concat());
        }
        message(&mut bytes, BARRIER_REQUEST, &[]);
        self.write(&bytes)?;
        self.answer(BARRIER_REQUEST + 1).map(drop)
    }

    fn flow_mods(&mut self, mut bytes: Vec<u8>, flows: &Flows, command: u8) -> Result<(), LabError> {
        self.bundle += 1;
        let bundle = self.bundle.to_be_bytes();
        let control = |bytes: &mut Vec<u8>, what: u16| {
            let body = [&bundle[..], &what.to_be_bytes(), &ATOMIC_ORDERED.to_be_bytes()].concat();
            message(bytes, BUNDLE_CONTROL, &body);
        };
        control(&mut bytes, OPEN);
        for (rule, held) in flows {
            let mut body = Vec::with_capacity(200);
            body.extend(held.cookie);
            body.extend([0; 8]);
            body.extend([rule.table, command, 0, 0, 0, 0]);
            body.extend(rule.priority);
            body.extend([ANY, ANY, ANY, [0; 4]].concat());
            body.extend(&rule.matches);
            if command == ADD {
                body.extend(&held.instructions);
            }
            let mut inner = [&bundle[..], &[0, 0], &ATOMIC_ORDERED.to_be_bytes()].concat();
            message(&mut inner, FLOW_MOD, &body);
            message(&mut bytes, BUNDLE_ADD, &inner);
        }
        control(&mut bytes, COMMIT);
        self.write(&bytes)?;
        // Of opening, then of committing.
        self.answer(BUNDLE_CONTROL)?;
        self.answer(BUNDLE_CONTROL).map(drop)
    }

    fn multipart(&mut self, kind: u16, body: &[u8]) -> Result<Vec<Vec<u8>>, LabError> {
        let mut request = Vec::new();
        let head = [&kind.to_be_bytes()[..], &[0; 6]].concat();
        message(&mut request, MULTIPART_REQUEST, &[&head, body].concat());
        self.write(&request)?;
        let mut parts = Vec::new();
        loop {
            let part = self.answer(MULTIPART_REQUEST + 1)?;
            let more = part.get(3).is_some_and(|flags| flags & 1 == 1);
            parts.push(part.get(8..).ok_or_else(bad)?.to_vec());
            if !more {
                return Ok(parts);
            }
        }
    }

    fn answer(&mut self, wanted: u8) -> Result<Vec<u8>, LabError> {
        loop {
            match self.receive()? {
                (kind, body) if kind == wanted => return Ok(body),
                (ECHO_REQUEST, body) => {
                    let mut reply = Vec::new();
                    message(&mut reply, ECHO_REPLY, &body);
                    self.write(&reply)?;
                }
                (ERROR, body) => return Err(LabError::Other(format!("a bridge refused: {:?}", body.get(..4)))),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> Result<(u8, Vec<u8>), LabError> {
        let lost = || LabError::io("a bridge hung up");
        let mut header = [0; 8];
        self.stream.read_exact(&mut header).map_err(lost())?;
        let [_, kind, high, low, ..] = header;
        let length = usize::from(u16::from_be_bytes([high, low])).saturating_sub(header.len());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).map_err(lost())?;
        Ok((kind, body))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LabError> {
        self.stream
            .write_all(bytes)
            .map_err(LabError::io("cannot write to a bridge"))
    }
}

/// A match of no field.
const NO_MATCH: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 0];

fn message(bytes: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let length = u16::try_from(8 + body.len()).unwrap_or(u16::MAX);
    bytes.extend([VERSION, kind]);
    bytes.extend(length.to_be_bytes());
    // One number for all: a bundle wants the same within and without, and answers come in order.
    bytes.extend([0; 4]);
    bytes.extend(body);
}
