//! Bytes: a writer and a reader for OpenFlow's fixed layouts, in network byte order.

use super::Error;

/// Version on the wire: OpenFlow 1.4.
pub(super) const VERSION: u8 = 5;
/// Bytes of a message's header.
pub(super) const HEADER: usize = 8;

/// Types of messages.
pub(super) mod kind {
    pub(in super::super) const HELLO: u8 = 0;
    pub(in super::super) const ERROR: u8 = 1;
    pub(in super::super) const ECHO_REQUEST: u8 = 2;
    pub(in super::super) const ECHO_REPLY: u8 = 3;
    pub(in super::super) const CONFIG_REQUEST: u8 = 7;
    #[cfg(test)]
    pub(in super::super) const CONFIG_REPLY: u8 = 8;
    pub(in super::super) const SET_CONFIG: u8 = 9;
    pub(in super::super) const FLOW_MOD: u8 = 14;
    pub(in super::super) const MULTIPART_REQUEST: u8 = 18;
    pub(in super::super) const MULTIPART_REPLY: u8 = 19;
    pub(in super::super) const BARRIER_REQUEST: u8 = 20;
    pub(in super::super) const METER_MOD: u8 = 29;
    pub(in super::super) const BUNDLE_CONTROL: u8 = 33;
    pub(in super::super) const BUNDLE_ADD: u8 = 34;
}

/// A message without its header's transaction id, which the connection gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: u8, body: Vec<u8>) -> Self {
        Self { kind, body }
    }

    /// The whole, as sent.
    pub(super) fn bytes(&self, xid: u32) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::default();
        writer
            .u8(VERSION)
            .u8(self.kind)
            .u16(length(HEADER + self.body.len())?)
            .u32(xid);
        writer.raw(&self.body);
        Ok(writer.0)
    }
}

/// A length field.
pub(super) fn length(bytes: usize) -> Result<u16, Error> {
    u16::try_from(bytes).map_err(|_| Error::Protocol(format!("{bytes} bytes do not fit into one message")))
}

/// Bytes up to the next multiple of 8.
pub(super) fn padding(bytes: usize) -> usize {
    bytes.next_multiple_of(8) - bytes
}

#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// What is left of a message. Reading past its end is an error, never a panic: the peer is a program of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (head, tail) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| Error::Protocol(format!("a message ends {} bytes too early", count - self.0.len())))?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `count` bytes as a reader of their own.
    pub(super) fn part(&mut self, count: usize) -> Result<Reader<'a>, Error> {
        self.take(count).map(Reader)
    }

    /// A part whose own length, counted from its start, stands `at` bytes into it.
    pub(super) fn sized(&mut self, at: usize, least: usize) -> Result<Reader<'a>, Error> {
        let mut ahead = Reader(self.0);
        ahead.take(at)?;
        let size = usize::from(ahead.u16()?);
        if size < least {
            return Err(Error::Protocol(format!(
                "a part of {size} bytes, but it has at least {least}"
            )));
        }
        self.part(size)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N)?;
        <[u8; N]>::try_from(bytes).map_err(|_| Error::Protocol("a message ends too early".to_owned()))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Error> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Cuts a stream of bytes into messages.
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: Vec<u8>,
}

/// A message that came.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) version: u8,
    pub(super) kind: u8,
    pub(super) xid: u32,
    pub(super) body: Vec<u8>,
}

impl Framer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes out all messages that are whole.
    pub(super) fn drain(&mut self) -> Result<Vec<Incoming>, Error> {
        let mut found = Vec::new();
        let mut rest = Reader(&self.buffer);
        while rest.0.len() >= HEADER {
            let mut ahead = rest;
            let (version, kind) = (ahead.u8()?, ahead.u8()?);
            let size = usize::from(ahead.u16()?);
            let xid = ahead.u32()?;
            if size < HEADER {
                return Err(Error::Protocol(format!("a message of {size} bytes")));
            }
            if rest.0.len() < size {
                break;
            }
            let body = ahead.take(size - HEADER)?.to_vec();
            rest.take(size)?;
            found.push(Incoming {
                version,
                kind,
                xid,
                body,
            });
        }
        let used = self.buffer.len() - rest.0.len();
        self.buffer.drain(..used);
        Ok(found)
    }
}
