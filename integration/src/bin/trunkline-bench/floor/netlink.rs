//! The kernel's netlink, byte by byte: of devices and addresses, and of nftables.
//!
//! Many requests go as one message, and only the last asks for an answer: the kernel does them in order before that answer, and says of
//! its own accord what it refuses.

use std::net::Ipv4Addr;
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
const IFLA_MTU: u16 = 4;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
/// Lists of devices without their counters.
const SKIP_STATS: u32 = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFPROTO_INET: u8 = 1;
const AF_INET: u8 = 2;

/// Groups of the kernel's notices, as bits: of devices, of addresses and routes, of settings of IPv4.
const ROUTE_GROUPS: u32 = 1 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 23;
/// The same of nftables.
const NFT_GROUPS: u32 = 1 << 6;
/// Requests of one message: they fit the send buffer.
const BATCH: usize = 1024;
/// A group of devices that nobody else uses.
const GROUP: u32 = 0x6265_6e63;

/// A socket of the namespace that the calling thread is in.
pub(crate) struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What a request about one device found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) index: u32,
    pub(crate) up: bool,
}

/// Kind, flags, body.
type Request = (u16, u16, Vec<u8>);

impl Netlink {
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
        let mut body = named(name, 0, 0);
        attribute(&mut body, IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        self.send(&[(RTM_GETLINK, 0, body)], 0)?;
        let mut found = None;
        match self.receive(|answer| {
            let index = number(answer, 4).unwrap_or_default();
            let up = number(answer, 8).unwrap_or_default() & IFF_UP != 0;
            found = Some(Device { index, up });
            true
        }) {
            Err(Errno::ENODEV) => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// A device that must be there: its index.
    pub(crate) fn index(&mut self, name: &str) -> nix::Result<u32> {
        self.device(name)?.map(|device| device.index).ok_or(Errno::ENODEV)
    }

    /// Reads the list of all devices; answers how many there are.
    pub(crate) fn devices(&mut self) -> nix::Result<usize> {
        let mut body = link(0, 0, 0);
        attribute(&mut body, IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        self.count((RTM_GETLINK, F_DUMP, body))
    }

    /// How many rules a table of the family `inet` has.
    pub(crate) fn rules(&mut self, table: &str) -> nix::Result<usize> {
        let mut body = vec![NFPROTO_INET, 0, 0, 0];
        attribute(&mut body, NFTA_RULE_TABLE, &zero_ended(table));
        self.count((NFT_GETRULE, F_DUMP, body))
    }

    /// Sets a device up or down.
    pub(crate) fn set_up(&mut self, index: u32, up: bool) -> nix::Result<()> {
        let flags = if up { IFF_UP } else { 0 };
        self.all(&[(RTM_SETLINK, 0, link(index, flags, IFF_UP))])
    }

    /// Sets devices up, with an alias and an MTU.
    pub(crate) fn set_up_all(&mut self, names: &[String], alias: &str, mtu: u32) -> nix::Result<()> {
        let request = |name: &String| {
            let mut body = named(name, IFF_UP, IFF_UP);
            attribute(&mut body, IFLA_IFALIAS, &zero_ended(alias));
            attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
            (RTM_SETLINK, 0, body)
        };
        self.all(&names.iter().map(request).collect::<Vec<_>>())
    }

    /// Gives devices an address each, and sets them up.
    pub(crate) fn address(&mut self, addresses: &[(u32, Ipv4Addr, u8)]) -> nix::Result<()> {
        let requests = |(index, address, prefix): &(u32, Ipv4Addr, u8)| {
            let add = (RTM_NEWADDR, F_EXCL_CREATE, address_of(*index, *address, *prefix));
            [add, (RTM_SETLINK, 0, link(*index, IFF_UP, IFF_UP))]
        };
        self.all(&addresses.iter().flat_map(requests).collect::<Vec<_>>())
    }

    /// Gives a device an address.
    pub(crate) fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> nix::Result<()> {
        self.all(&[(RTM_NEWADDR, F_EXCL_CREATE, address_of(index, address, prefix))])
    }

    /// Takes it away.
    pub(crate) fn delete_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> nix::Result<()> {
        self.all(&[(RTM_DELADDR, 0, address_of(index, address, prefix))])
    }

    /// Moves a device to another namespace, by an open file of it.
    pub(crate) fn move_to(&mut self, index: u32, namespace: RawFd) -> nix::Result<()> {
        let mut body = link(index, 0, 0);
        attribute(&mut body, IFLA_NET_NS_FD, &namespace.to_ne_bytes());
        self.all(&[(RTM_SETLINK, 0, body)])
    }

    /// Deletes a device.
    pub(crate) fn delete(&mut self, index: u32) -> nix::Result<()> {
        self.all(&[(RTM_DELLINK, 0, link(index, 0, 0))])
    }

    /// Deletes devices: into a group of their own, then the group.
    pub(crate) fn delete_all(&mut self, names: &[String]) -> nix::Result<()> {
        let in_group = |mut body: Vec<u8>| {
            attribute(&mut body, IFLA_GROUP, &GROUP.to_ne_bytes());
            body
        };
        let join = |name: &String| (RTM_SETLINK, 0, in_group(named(name, 0, 0)));
        let delete = (RTM_DELLINK, 0, in_group(link(0, 0, 0)));
        self.all(&names.iter().map(join).chain([delete]).collect::<Vec<_>>())
    }

    /// Has requests carried out, whose whole answer is yes or no.
    fn all(&mut self, requests: &[Request]) -> nix::Result<()> {
        requests.chunks(BATCH).try_for_each(|batch| {
            self.send(batch, F_ACK)?;
            self.receive(|_| false)
        })
    }

    /// Counts the entries of a list.
    fn count(&mut self, request: Request) -> nix::Result<usize> {
        self.send(&[request], 0)?;
        let mut count = 0;
        self.receive(|_| {
            count += 1;
            false
        })?;
        Ok(count)
    }

    /// One message of all requests; `of_last` are flags of the last one.
    fn send(&self, requests: &[Request], of_last: u16) -> nix::Result<()> {
        let mut bytes = Vec::with_capacity(requests.len() * 128);
        for (at, (kind, flags, body)) in requests.iter().enumerate() {
            let last = if at + 1 == requests.len() { of_last } else { 0 };
            let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::EMSGSIZE)?;
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend((F_REQUEST | flags | last).to_ne_bytes());
            bytes.extend([0; 8]);
            // Its length is a multiple of four already.
            bytes.extend(body);
        }
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()).map(drop)
    }

    /// Hands over each answer until the last: an acknowledgement, a refusal, the end of a list, or the one after which `take` says so.
    fn receive(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> nix::Result<()> {
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for (kind, body) in messages(self.buffer.get(..length).unwrap_or_default()) {
                match kind {
                    NLMSG_ERROR => {
                        let code = number(body, 0).unwrap_or_default().cast_signed();
                        return if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) };
                    }
                    NLMSG_DONE => return Ok(()),
                    _ if take(body) => return Ok(()),
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

/// The same of a device by its name.
fn named(name: &str, flags: u32, change: u32) -> Vec<u8> {
    let mut body = link(0, flags, change);
    attribute(&mut body, IFLA_IFNAME, &zero_ended(name));
    body
}

/// `struct ifaddrmsg`, and the address as local one and as the network's.
fn address_of(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    for kind in [IFA_ADDRESS, IFA_LOCAL] {
        attribute(&mut body, kind, &address.octets());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_datagram_are_told_apart() {
        let mut datagram = Vec::new();
        for kind in [7_u8, 8] {
            datagram.extend([20, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, kind]);
        }
        let found: Vec<_> = messages(&datagram).collect();
        assert_eq!(found, [(7, &[1, 2, 3, 7][..]), (8, &[1, 2, 3, 8][..])]);
    }

    #[test]
    fn every_body_fills_whole_words() {
        for name in ["a", "ab", "abc", "abcd"] {
            assert_eq!(named(name, 0, 0).len() % 4, 0);
        }
        assert_eq!(address_of(1, Ipv4Addr::LOCALHOST, 24).len() % 4, 0);
    }
}
