//! Frames as a hostile guest makes them, and what is heard elsewhere.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use trunkline_agent::netns;
use trunkline_agent::probe::socket::Socket;
use trunkline_proto::Mac;

use super::guest::Guest;

/// Is in every packet that nobody may hear.
pub const MARKER: &[u8] = b"forged-by-a-guest";
pub const FIRST_FRAGMENT: u16 = 0x2000;

/// A device in some namespace, to send and to listen at.
pub struct Wire(Socket);

impl Wire {
    pub async fn of(guest: &Guest) -> Self {
        Self::at(&guest.path(), &guest.name).await
    }

    pub async fn at(namespace: &Path, device: &str) -> Self {
        let (device, runtime) = (device.to_owned(), tokio::runtime::Handle::current());
        let socket = netns::on_thread_in(Some(namespace), move || {
            let _entered = runtime.enter();
            let index = nix::net::if_::if_nametoindex(device.as_str()).unwrap();
            Socket::open(&device, index).unwrap().unwrap()
        });
        Self(socket.await.unwrap())
    }

    /// Waits while the queue is full.
    pub fn send(&self, frame: &[u8]) {
        loop {
            match self.0.send(frame) {
                Ok(()) => return,
                Err(Errno::ENOBUFS | Errno::EAGAIN) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Whether the marker came, or comes while everything that was sent is still on its way.
    pub async fn heard_marker(&mut self) -> bool {
        let mut heard = false;
        let wait = Duration::from_millis(150);
        while let Ok(received) = tokio::time::timeout(
            wait,
            self.0.receive(64, |frame| {
                heard |= frame.windows(MARKER.len()).any(|part| part == MARKER);
            }),
        )
        .await
        {
            received.unwrap();
            if heard {
                break;
            }
        }
        heard
    }
}

/// Who sends, and by which gateway.
#[derive(Clone, Copy)]
pub struct Route {
    pub from: Mac,
    pub to: Mac,
}

impl Route {
    fn frame(self, kind: u16, payload: &[u8]) -> Vec<u8> {
        [&self.to.octets()[..], &self.from.octets(), &kind.to_be_bytes(), payload].concat()
    }

    pub fn packet(self, ip: &[u8]) -> Vec<u8> {
        self.frame(0x0800, ip)
    }

    /// An ARP request with this sender.
    pub fn arp(self, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let arp = [
            &[0, 1, 8, 0, 6, 4, 0, 1],
            &self.from.octets()[..],
            &sender.octets(),
            &[0; 6],
            &target.octets(),
        ];
        self.frame(0x0806, &arp.concat())
    }
}

/// An IPv4 packet; `fragment` is the field of flags and offset.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, (id, fragment): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut header = [
        &[0x45, 0][..],
        &length.to_be_bytes(),
        &id.to_be_bytes(),
        &fragment.to_be_bytes(),
    ]
    .concat();
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [&header, payload].concat()
}

/// An ICMP message.
pub fn icmp(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest, payload].concat();
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

/// An echo request that carries the marker.
pub fn echo(from: Ipv4Addr, to: Ipv4Addr, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    ipv4(from, to, 1, (id, 0), &icmp(8, 0, [high, low, 0, 1], MARKER))
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
