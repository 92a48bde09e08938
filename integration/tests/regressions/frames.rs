//! Frames written by hand on a TAP that no guest holds: what a hostile guest could send.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use trunkline_integration::guest::open_tap;
use trunkline_integration::lab::Lab;
use trunkline_proto::wire::Interface;

const ARP: [u8; 2] = [0x08, 0x06];
const TAGGED: [u8; 2] = [0x81, 0x00];
const BROADCAST: [u8; 6] = [0xff; 6];

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A guest's interface in our hands.
pub(crate) struct Wire {
    tap: File,
    mac: [u8; 6],
}

impl Wire {
    pub(crate) fn open(lab: &Lab, worker: &str, interface: &Interface) -> Self {
        let name = interface.tap.clone();
        let tap = lab.host(worker).unwrap().run(move || open_tap(&name)).unwrap().unwrap();
        let bytes: Vec<u8> = interface
            .mac
            .split(':')
            .map(|part| u8::from_str_radix(part, 16).unwrap())
            .collect();
        Self {
            tap,
            mac: bytes.try_into().unwrap(),
        }
    }

    /// Who answers an ARP request for any of the addresses, sent with each of these stacks of tags, outer ones first.
    pub(crate) fn arp(&mut self, stacks: &[&[u32]], from: Ipv4Addr, targets: &[Ipv4Addr]) -> BTreeSet<Ipv4Addr> {
        let mut answers = BTreeSet::new();
        let end = Instant::now() + PATIENCE;
        let mut again = Instant::now();
        while Instant::now() < end && answers.len() < targets.len() {
            if Instant::now() >= again {
                for (tags, to) in stacks.iter().flat_map(|tags| targets.iter().map(move |to| (tags, *to))) {
                    // A TAP that takes no frame now takes the next one.
                    let _ = self.tap.write(&self.request(tags, from, to));
                }
                again += PATIENCE / 5;
            }
            let mut frame = [0; 2048];
            match self.tap.read(&mut frame) {
                Ok(length) => answers.extend(self.answer(&frame[..length])),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        answers.retain(|address| targets.contains(address));
        answers
    }

    fn request(&self, tags: &[u32], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut frame = [BROADCAST, self.mac].concat();
        for tag in tags {
            frame.extend(TAGGED);
            frame.extend(u16::try_from(*tag).unwrap().to_be_bytes());
        }
        frame.extend(ARP);
        // Ethernet and IPv4, a question.
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(self.mac);
        frame.extend(from.octets());
        frame.extend([0; 6]);
        frame.extend(to.octets());
        frame.resize(60, 0);
        frame
    }

    /// The sender of an ARP answer to us.
    fn answer(&self, frame: &[u8]) -> Option<Ipv4Addr> {
        let mut rest = frame.strip_prefix(&self.mac)?.get(6..)?;
        while let Some(inner) = rest.strip_prefix(&TAGGED) {
            rest = inner.get(2..)?;
        }
        let arp = rest.strip_prefix(&ARP)?;
        let sender: [u8; 4] = arp.get(14..18)?.try_into().ok()?;
        (arp.get(6..8)? == [0, 2]).then(|| Ipv4Addr::from(sender))
    }
}
