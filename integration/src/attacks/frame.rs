//! Frames by hand: Ethernet, ARP, IPv4, IPv6, ICMP, UDP, TCP and DHCP, each carrying its mark.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A hardware address.
pub type Mac = [u8; 6];

/// To everybody.
pub const BROADCAST: Mac = [0xff; 6];
/// To every IPv6 node.
pub const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// Where attempts by TCP come from, so that the answers are known.
pub const TCP_PORT: u16 = 42_874;
/// What every mark starts with; the attempt's number follows, 4 bytes.
pub const MARK: &[u8; 8] = b"tl-mark:";

const SHORTEST: usize = 60;

/// The mark of an attempt.
pub fn mark(id: u32) -> [u8; 12] {
    let mut mark = [0; 12];
    let (head, tail) = mark.split_at_mut(MARK.len());
    head.copy_from_slice(MARK);
    tail.copy_from_slice(&id.to_be_bytes());
    mark
}

/// A frame of any type, padded to the shortest that there is.
pub fn ethernet(to: Mac, from: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from[..], &ether_type.to_be_bytes()[..], payload].concat();
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

/// The frame with more tags behind its addresses, the outermost first: type and VLAN id.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12.min(frame.len()));
    let tags = tags.iter().flat_map(|(kind, vlan)| {
        let ([a, b], [c, d]) = (kind.to_be_bytes(), vlan.to_be_bytes());
        [a, b, c, d]
    });
    [addresses, &tags.collect::<Vec<u8>>(), rest].concat()
}

/// An ARP message; the mark stands in the padding.
pub struct Arp {
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// Who says to speak.
    pub sender: (Mac, Ipv4Addr),
    /// Whom it is about.
    pub target: (Mac, Ipv4Addr),
}

impl Arp {
    /// As a frame.
    pub fn frame(&self, to: Mac, from: Mac, id: u32) -> Vec<u8> {
        let mut payload = vec![0, 1, 8, 0, 6, 4];
        payload.extend(self.operation.to_be_bytes());
        for (mac, ip) in [self.sender, self.target] {
            payload.extend(mac);
            payload.extend(ip.octets());
        }
        payload.extend(mark(id));
        ethernet(to, from, 0x0806, &payload)
    }
}

/// Asks everybody who has an address.
pub fn arp_request(from: (Mac, Ipv4Addr), ip: Ipv4Addr, id: u32) -> Vec<u8> {
    let (operation, sender, target) = (1, from, ([0; 6], ip));
    Arp {
        operation,
        sender,
        target,
    }
    .frame(BROADCAST, from.0, id)
}

/// An IPv4 packet.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(short(20 + payload.len()));
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&[&packet]);
    set(&mut packet, 10, sum);
    packet.extend(payload);
    packet
}

/// The packet with another identification: parts of different packets are not taken for one.
pub fn numbered(mut packet: Vec<u8>, number: u16) -> Vec<u8> {
    set(&mut packet, 4, number);
    set(&mut packet, 10, 0);
    let sum = checksum(&[packet.get(..20).unwrap_or_default()]);
    set(&mut packet, 10, sum);
    packet
}

/// Makes a packet one fragment of a larger one: whether more follow, and its place in units of 8 bytes.
pub fn fragment(mut packet: Vec<u8>, more: bool, place: u16) -> Vec<u8> {
    set(&mut packet, 6, place | if more { 0x2000 } else { 0 });
    set(&mut packet, 10, 0);
    let sum = checksum(&[packet.get(..20).unwrap_or_default()]);
    set(&mut packet, 10, sum);
    packet
}

/// An ICMP message with its mark at the end.
pub fn icmp(kind: u8, code: u8, rest: [u8; 4], body: &[u8], id: u32) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest[..], body, &mark(id)[..]].concat();
    let sum = checksum(&[&message]);
    set(&mut message, 2, sum);
    message
}

/// An echo request in a frame.
pub fn echo(to: (Mac, Ipv4Addr), from: (Mac, Ipv4Addr), id: u32) -> Vec<u8> {
    let message = icmp(8, 0, [0x74, 0x6c, 0, 1], &[], id);
    ethernet(to.0, from.0, 0x0800, &ipv4(from.1, to.1, 1, &message))
}

/// A TCP SYN in a frame. It carries the mark as early data; an answer says its number.
pub fn syn(to: (Mac, Ipv4Addr), port: u16, from: (Mac, Ipv4Addr), id: u32) -> Vec<u8> {
    let mut segment = [TCP_PORT.to_be_bytes(), port.to_be_bytes()].concat();
    segment.extend((id << 8).to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(mark(id));
    let sum = checksum(&[&pseudo(from.1, to.1, 6, segment.len()), &segment]);
    set(&mut segment, 16, sum);
    ethernet(to.0, from.0, 0x0800, &ipv4(from.1, to.1, 6, &segment))
}

/// A UDP datagram in a frame.
pub fn udp(to: (Mac, Ipv4Addr), from: (Mac, Ipv4Addr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let datagram = datagram(to.1, from.1, ports, payload);
    ethernet(to.0, from.0, 0x0800, &ipv4(from.1, to.1, 17, &datagram))
}

/// A UDP datagram.
pub fn datagram(to: Ipv4Addr, from: Ipv4Addr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), short(8 + payload.len())].concat();
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = checksum(&[&pseudo(from, to, 17, datagram.len()), &datagram]);
    set(&mut datagram, 6, sum);
    datagram
}

/// A DHCP message: option 53 and what else is given. The mark stands behind the end, the number is the transaction's too.
pub fn dhcp(reply: bool, client: Mac, offered: Ipv4Addr, kind: u8, options: &[u8], id: u32) -> Vec<u8> {
    let mut message = vec![if reply { 2 } else { 1 }, 1, 6, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 0, 0x80, 0, 0, 0, 0, 0]);
    message.extend(offered.octets());
    message.extend([0; 8]);
    message.extend(client);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    message.extend(options);
    message.push(0xff);
    message.extend(mark(id));
    message.resize(message.len().max(300), 0);
    message
}

/// A DHCP message with a client's address and a relay's in it.
pub fn with_addresses(mut message: Vec<u8>, client: Ipv4Addr, relay: Ipv4Addr) -> Vec<u8> {
    for (at, address) in [(12, client), (24, relay)] {
        if let Some(field) = message.get_mut(at..at + 4) {
            field.copy_from_slice(&address.octets());
        }
    }
    message
}

/// A UDP datagram over IPv6 in a frame.
pub fn udp6(to: (Mac, Ipv6Addr), from: (Mac, Ipv6Addr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), short(8 + payload.len())].concat();
    datagram.extend([0, 0]);
    datagram.extend(payload);
    ipv6(to, from, 17, datagram, 6)
}

/// An ICMPv6 message in a frame; its mark stands at the end.
pub fn icmp6(to: (Mac, Ipv6Addr), from: (Mac, Ipv6Addr), kind: u8, body: &[u8], id: u32) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0][..], body, &mark(id)[..]].concat();
    ipv6(to, from, 58, message, 2)
}

/// A message in IPv6 in a frame, its checksum set.
fn ipv6(to: (Mac, Ipv6Addr), from: (Mac, Ipv6Addr), protocol: u8, mut message: Vec<u8>, sum_at: usize) -> Vec<u8> {
    let mut pseudo = [from.1.octets(), to.1.octets()].concat();
    pseudo.extend([0, 0]);
    pseudo.extend(short(message.len()));
    pseudo.extend([0, 0, 0, protocol]);
    let sum = checksum(&[&pseudo, &message]);
    set(&mut message, sum_at, sum);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(short(message.len()));
    packet.extend([protocol, 255]);
    packet.extend(from.1.octets());
    packet.extend(to.1.octets());
    packet.extend(message);
    ethernet(to.0, from.0, 0x86dd, &packet)
}

/// A fragment of an IPv6 packet in a frame: the protocol in it, whether more follow, its place in units of 8 bytes.
pub fn fragment6(
    to: (Mac, Ipv6Addr),
    from: (Mac, Ipv6Addr),
    (protocol, more, place): (u8, bool, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(short(8 + payload.len()));
    packet.extend([44, 255]);
    packet.extend(from.1.octets());
    packet.extend(to.1.octets());
    packet.extend([protocol, 0]);
    packet.extend((place << 3 | u16::from(more)).to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.extend(payload);
    ethernet(to.0, from.0, 0x86dd, &packet)
}

/// The link-local address that a device makes of its hardware address.
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        pair(a ^ 2, b),
        pair(c, 0xff),
        pair(0xfe, d),
        pair(e, f),
    )
}

fn pseudo(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, length: usize) -> Vec<u8> {
    [&from.octets()[..], &to.octets()[..], &[0, protocol], &short(length)[..]].concat()
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn set(bytes: &mut [u8], offset: usize, value: u16) {
    if let Some(field) = bytes.get_mut(offset..offset + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The internet's checksum over parts; each but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let [high, low] = [pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0)];
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (Mac, Ipv4Addr) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 1));
    const B: (Mac, Ipv4Addr) = ([2, 0, 0, 0, 0, 2], Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn checksums_are_what_a_receiver_wants() {
        let frame = echo(B, A, 7);
        assert_eq!(checksum(&[&frame[14..34]]), 0);
        assert_eq!(checksum(&[&frame[34..54]]), 0);
        let frame = syn(B, 22, A, 7);
        let segment = &frame[34..34 + 32];
        assert_eq!(checksum(&[&pseudo(A.1, B.1, 6, 32), segment]), 0);
    }

    #[test]
    fn every_frame_carries_its_mark() {
        let frames = [
            arp_request(A, B.1, 9),
            echo(B, A, 9),
            syn(B, 22, A, 9),
            udp(B, A, (67, 68), &dhcp(true, A.0, A.1, 2, &[], 9)),
            icmp6((ALL_NODES, link_local(B.0)), (A.0, link_local(A.0)), 128, &[0; 4], 9),
        ];
        for frame in frames {
            assert!(frame.windows(12).any(|window| window == mark(9)), "{frame:02x?}");
        }
    }

    #[test]
    fn fragments_say_where_they_belong() {
        let packet = fragment(ipv4(A.1, B.1, 17, &[0; 16]), true, 3);
        assert_eq!((packet[6], packet[7]), (0x20, 3));
        assert_eq!(checksum(&[&packet[..20]]), 0);
        let ends = ((B.0, link_local(B.0)), (A.0, link_local(A.0)));
        let frame = fragment6(ends.0, ends.1, (58, true, 5), &[0; 8]);
        assert_eq!(frame[14 + 40..14 + 44], [58, 0, 0, 5 << 3 | 1]);
    }

    #[test]
    fn tags_stand_behind_the_addresses() {
        let frame = tagged(&ethernet(B.0, A.0, 0x88b6, b"x"), &[(0x88a8, 110), (0x8100, 1)]);
        assert_eq!(frame[12..22], [0x88, 0xa8, 0, 110, 0x81, 0, 0, 1, 0x88, 0xb6]);
    }

    #[test]
    fn a_link_local_address_turns_the_second_bit() {
        assert_eq!(
            link_local([0x52, 0x54, 0, 1, 2, 3]).to_string(),
            "fe80::5054:ff:fe01:203"
        );
    }
}
