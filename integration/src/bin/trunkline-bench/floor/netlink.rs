//! rtnetlink, byte by byte: many requests in one message to the kernel, and their answers.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

const NEW_ADDRESS: u16 = 20;
const DELETE_LINK: u16 = 17;
const SET_LINK: u16 = 19;
const ERROR: u16 = 2;
/// Of a request: that it is one, and that its success is answered too.
const REQUEST_ACK: u16 = 1 | 4;
const CREATE_EXCLUSIVELY: u16 = 0x400 | 0x200;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const UP: u32 = 1;
const INET: u8 = 2;

/// Requests in one message: their answers fit the receive buffer.
const BATCH: usize = 256;
const RECEIVE_BUFFER: usize = 4 << 20;
/// A group that nobody else uses.
const GROUP: u32 = 0x6265_6e63;

/// A socket in the network namespace of the thread that opened it.
pub(crate) struct Netlink {
    socket: OwnedFd,
    answers: Vec<u8>,
}

impl Netlink {
    /// Opens it.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self {
            socket,
            answers: vec![0; 1 << 18],
        })
    }

    /// Sets devices up, with an alias and an MTU.
    pub(crate) fn set_up(&mut self, names: &[String], alias: &str, mtu: u32) -> io::Result<()> {
        let request = |name: &String| {
            let mut body = link(0, UP, UP);
            attribute(&mut body, IFLA_IFNAME, &text(name));
            attribute(&mut body, IFLA_IFALIAS, &text(alias));
            attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
            (SET_LINK, 0, body)
        };
        self.all(names.iter().map(request).collect())
    }

    /// Gives devices an address each, and sets them up.
    pub(crate) fn address(&mut self, addresses: &[(String, Ipv4Addr, u8)]) -> io::Result<()> {
        let mut requests = Vec::new();
        for (name, address, prefix) in addresses {
            let index = if_nametoindex(name.as_str())?;
            let mut body = vec![INET, *prefix, 0, 0];
            body.extend(index.to_ne_bytes());
            attribute(&mut body, IFA_LOCAL, &address.octets());
            attribute(&mut body, IFA_ADDRESS, &address.octets());
            requests.push((NEW_ADDRESS, CREATE_EXCLUSIVELY, body));
            requests.push((SET_LINK, 0, link(index, UP, UP)));
        }
        self.all(requests)
    }

    /// Deletes devices: into a group of their own, then the group.
    pub(crate) fn delete(&mut self, names: &[String]) -> io::Result<()> {
        let join = |name: &String| {
            let mut body = link(0, 0, 0);
            attribute(&mut body, IFLA_IFNAME, &text(name));
            attribute(&mut body, IFLA_GROUP, &GROUP.to_ne_bytes());
            (SET_LINK, 0, body)
        };
        self.all(names.iter().map(join).collect())?;
        let mut body = link(0, 0, 0);
        attribute(&mut body, IFLA_GROUP, &GROUP.to_ne_bytes());
        self.all(vec![(DELETE_LINK, 0, body)])
    }

    fn all(&mut self, requests: Vec<(u16, u16, Vec<u8>)>) -> io::Result<()> {
        requests.chunks(BATCH).try_for_each(|batch| {
            let mut bytes = Vec::new();
            for (kind, flags, body) in batch {
                let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
                bytes.extend(length.to_ne_bytes());
                bytes.extend(kind.to_ne_bytes());
                bytes.extend((REQUEST_ACK | flags).to_ne_bytes());
                bytes.extend([0; 8]);
                bytes.extend(body);
                pad(&mut bytes);
            }
            send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
            self.acknowledged(batch.len())
        })
    }

    fn acknowledged(&mut self, mut missing: usize) -> io::Result<()> {
        while missing > 0 {
            let length = recv(self.socket.as_raw_fd(), &mut self.answers, MsgFlags::empty())?;
            let mut rest = self.answers.get(..length).unwrap_or_default();
            while let Some((size, kind, code)) = answer(rest) {
                if kind == ERROR {
                    if code != 0 {
                        return Err(Errno::from_raw(-code).into());
                    }
                    missing = missing.saturating_sub(1);
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// Length, type and error code of the message that the bytes begin with.
fn answer(bytes: &[u8]) -> Option<(usize, u16, i32)> {
    let size = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?);
    Some((usize::try_from(size).ok()?.max(20), kind, code))
}

fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    pad(body);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), &[0]].concat()
}
