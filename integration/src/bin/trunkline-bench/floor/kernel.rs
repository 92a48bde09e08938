//! The kernel's netlink, raw: a socket of the namespace that the calling thread is in, and bytes.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const F_REQUEST: u16 = 1;
const F_ACK: u16 = 4;
const F_DUMP: u16 = 0x300;
const F_EXCL_CREATE: u16 = 0x600;

const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE`.
const NFT_GETRULE: u16 = (10 << 8) | 7;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
/// Lists of devices without their counters.
const SKIP_STATS: u32 = 8;
const IFF_UP: u32 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFPROTO_INET: u8 = 1;

/// Groups of the kernel's notices, as bits: of devices, of addresses and routes, of settings of IPv4.
const ROUTE_GROUPS: u32 = 1 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 23;
/// The same of nftables.
const NFT_GROUPS: u32 = 1 << 6;

/// A socket.
pub(crate) struct Kernel {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What a request about one device found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) index: u32,
    pub(crate) up: bool,
}

impl Kernel {
    /// For devices and addresses.
    pub(crate) fn route() -> nix::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute, 0)
    }

    /// For nftables.
    pub(crate) fn netfilter() -> nix::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter, 0)
    }

    /// Hears every change of devices, addresses, routes and IPv4's settings.
    pub(crate) fn notices_of_route() -> nix::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute, ROUTE_GROUPS)
    }

    /// Hears every change of nftables.
    pub(crate) fn notices_of_netfilter() -> nix::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter, NFT_GROUPS)
    }

    fn open(protocol: SockProtocol, groups: u32) -> nix::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        if groups != 0 {
            setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        }
        let buffer = vec![0; 1 << 16];
        Ok(Self { socket, buffer })
    }

    /// Notices that have come, without waiting for more.
    pub(crate) fn heard(&mut self) -> nix::Result<usize> {
        let mut count = 0;
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => count += messages(self.buffer.get(..length).unwrap_or_default()).count(),
                Err(Errno::EAGAIN) => return Ok(count),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// A device by name.
    pub(crate) fn device(&mut self, name: &str) -> nix::Result<Option<Device>> {
        let mut body = link(0, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &zero_ended(name));
        attribute(&mut body, IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        self.send(RTM_GETLINK, F_REQUEST, &body)?;
        let mut found = None;
        match self.receive(|_, answer| {
            let index = number(answer, 4).unwrap_or_default();
            let up = number(answer, 8).unwrap_or_default() & IFF_UP != 0;
            found = Some(Device { index, up });
            true
        }) {
            Err(Errno::ENODEV) => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// Sets a device up or down.
    pub(crate) fn set_up(&mut self, index: u32, up: bool) -> nix::Result<()> {
        self.ask(RTM_SETLINK, 0, &link(index, if up { IFF_UP } else { 0 }, IFF_UP))
    }

    /// Deletes a device.
    pub(crate) fn delete(&mut self, index: u32) -> nix::Result<()> {
        self.ask(RTM_DELLINK, 0, &link(index, 0, 0))
    }

    /// Moves a device to another namespace, by an open file of it.
    pub(crate) fn move_to(&mut self, index: u32, namespace: RawFd) -> nix::Result<()> {
        let mut body = link(index, 0, 0);
        attribute(&mut body, IFLA_NET_NS_FD, &namespace.to_ne_bytes());
        self.ask(RTM_SETLINK, 0, &body)
    }

    /// Adds an IPv4 address.
    pub(crate) fn add_address(&mut self, index: u32, address: [u8; 4], prefix: u8) -> nix::Result<()> {
        self.ask(RTM_NEWADDR, F_EXCL_CREATE, &address_message(index, address, prefix))
    }

    /// Deletes an IPv4 address.
    pub(crate) fn delete_address(&mut self, index: u32, address: [u8; 4], prefix: u8) -> nix::Result<()> {
        self.ask(RTM_DELADDR, 0, &address_message(index, address, prefix))
    }

    /// Reads the list of all devices; answers how many there are.
    pub(crate) fn devices(&mut self) -> nix::Result<usize> {
        let mut body = link(0, 0, 0);
        attribute(&mut body, IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        self.send(RTM_GETLINK, F_REQUEST | F_DUMP, &body)?;
        let mut count = 0;
        self.receive(|_, _| {
            count += 1;
            false
        })?;
        Ok(count)
    }

    /// How many rules a table of the family `inet` has.
    pub(crate) fn rules(&mut self, table: &str) -> nix::Result<usize> {
        let mut body = vec![NFPROTO_INET, 0, 0, 0];
        attribute(&mut body, NFTA_RULE_TABLE, &zero_ended(table));
        self.send(NFT_GETRULE, F_REQUEST | F_DUMP, &body)?;
        let mut count = 0;
        self.receive(|_, _| {
            count += 1;
            false
        })?;
        Ok(count)
    }

    /// A request whose whole answer is yes or no.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> nix::Result<()> {
        self.send(kind, F_REQUEST | F_ACK | flags, body)?;
        self.receive(|_, _| false)
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> nix::Result<()> {
        let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty()).map(drop)
    }

    /// Hands over each answer until the last: an acknowledgement, the end of a list, or the one after which `take` says so.
    fn receive(&mut self, mut take: impl FnMut(u16, &[u8]) -> bool) -> nix::Result<()> {
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for (kind, body) in messages(self.buffer.get(..length).unwrap_or_default()) {
                match kind {
                    NLMSG_ERROR => {
                        let code = number(body, 0).unwrap_or_default().cast_signed();
                        return if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) };
                    }
                    NLMSG_DONE => return Ok(()),
                    _ if take(kind, body) => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of one datagram: kind and body.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(datagram, 0)?).ok()?;
        let kind = u16::from_ne_bytes([*datagram.get(4)?, *datagram.get(5)?]);
        let body = datagram.get(HEADER..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change]
        .iter()
        .flat_map(|part| part.to_ne_bytes())
        .collect()
}

/// `struct ifaddrmsg`, and the address as local one and as the network's.
fn address_message(index: u32, address: [u8; 4], prefix: u8) -> Vec<u8> {
    const AF_INET: u8 = 2;
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    for kind in [1, 2] {
        attribute(&mut body, kind, &address);
    }
    body
}

fn attribute(message: &mut Vec<u8>, kind: u16, content: &[u8]) {
    let length = u16::try_from(4 + content.len()).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(content);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn zero_ended(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}
