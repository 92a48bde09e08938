//! Frames, as bytes.

use std::net::Ipv4Addr;

use super::{ARP, IPV4, IPV6};

pub(super) fn frame(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to.as_slice(), &from, &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

pub(super) fn tagged(id: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &id.to_be_bytes(), &frame[12..]].concat()
}

pub(super) fn arp(to: [u8; 6], from: [u8; 6], operation: u8, sender: ([u8; 6], Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let payload = [&head[..], &sender.0, &sender.1.octets(), &[0; 6], &target.octets()].concat();
    frame(to, from, ARP, &payload)
}

/// IPv4 with a correct header; `rest` is what comes behind it.
pub(super) fn ipv4(
    to: [u8; 6],
    from: [u8; 6],
    addresses: (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    more: bool,
    rest: &[u8],
) -> Vec<u8> {
    ipv4_part(to, from, addresses, protocol, (more, 0), rest)
}

/// A fragment: whether more follow, and its place in units of 8 bytes.
pub(super) fn ipv4_part(
    to: [u8; 6],
    from: [u8; 6],
    addresses: (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    (more, place): (bool, u8),
    rest: &[u8],
) -> Vec<u8> {
    let size = u16::try_from(20 + rest.len()).unwrap().to_be_bytes();
    let fragment = if more { 0x20 } else { 0 };
    let mut head = [&[0x45, 0], &size[..], &[0, 1, fragment, place, 64, protocol, 0, 0]].concat();
    head.extend(addresses.0.octets());
    head.extend(addresses.1.octets());
    let sum: u32 = head
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    head[10..12].copy_from_slice(&check.to_be_bytes());
    frame(to, from, IPV4, &[&head[..], rest].concat())
}

pub(super) fn udp(ports: (u16, u16)) -> Vec<u8> {
    [
        &ports.0.to_be_bytes()[..],
        &ports.1.to_be_bytes(),
        &16_u16.to_be_bytes(),
        &[0; 10],
    ]
    .concat()
}

pub(super) fn ipv6(to: [u8; 6], from: [u8; 6], next: u8, rest: &[u8]) -> Vec<u8> {
    let size = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let target = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    frame(
        to,
        from,
        IPV6,
        &[&[0x60, 0, 0, 0], &size[..], &[next, 255], &source, &target, rest].concat(),
    )
}

/// A fragment of an IPv6 packet: the protocol in it, whether more follow, its place in units of 8 bytes.
pub(super) fn ipv6_part(to: [u8; 6], from: [u8; 6], (protocol, more, place): (u8, bool, u16), rest: &[u8]) -> Vec<u8> {
    let place = (place << 3 | u16::from(more)).to_be_bytes();
    ipv6(
        to,
        from,
        44,
        &[&[protocol, 0][..], &place, &[0, 0, 0, 1], rest].concat(),
    )
}

pub(super) const NOWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

pub(super) const EVERYWHERE: Ipv4Addr = Ipv4Addr::BROADCAST;

pub(super) const IPV6_ALL: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
