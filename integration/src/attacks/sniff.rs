//! Sniffers: one raw socket for each network namespace of a host hears all its interfaces, and what it heard of an
//! attempt is written down.
//!
//! A guest's TAP is heard on the host's side: *in* is what the guest sent to the switch, *out* is what the switch handed
//! to the guest. That is the border which the switch guards, for both kinds of guest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, getsockopt, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::frame::{MARK, Mac, TCP_PORT};
use crate::LabError;
use crate::lab::{Host, Lab};

/// Room for a burst that comes faster than it is read.
const BUFFER: usize = 16 << 20;
const FRAME: usize = 2048;
/// After so long a listener looks whether it is still wanted.
const LISTEN: Duration = Duration::from_millis(200);
/// The port on which each node's own network stack is asked what it takes.
pub const STACK_PORT: u16 = 42_875;
/// What a node's own network stack is called as a place to hear something.
pub const STACK: &str = "its own network stack";

/// Where a frame was heard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    /// The host.
    pub host: String,
    /// Its interface.
    pub interface: String,
}

/// One way in which an attempt was heard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sighting {
    /// Where.
    pub point: Point,
    /// Leaving the host's stack or switch through the interface, not entering.
    pub out: bool,
    /// Who sent the frame, as it says.
    pub from: Mac,
    /// Its outermost VLAN tag, where it still had one.
    pub tag: Option<u16>,
}

nix::getsockopt_impl!(
    Statistics,
    libc::SOL_PACKET,
    libc::PACKET_STATISTICS,
    libc::tpacket_stats,
    sockopt::GetStruct<libc::tpacket_stats>
);

/// Frames that a raw socket took and lost since it was last asked.
#[derive(Clone, Copy)]
struct Statistics;

#[derive(Default)]
struct Heard {
    attempts: BTreeMap<u32, Attempted>,
    arp: BTreeSet<(Point, Ipv4Addr)>,
    newest: Option<Instant>,
}

#[derive(Default)]
struct Attempted {
    sightings: BTreeMap<Sighting, u32>,
    // Of the first frame, and of the newest.
    time: Option<(Instant, Instant)>,
}

/// What all sniffers heard. Dropping it ends them.
pub struct Ears {
    heard: Arc<Mutex<Heard>>,
    // Each with where it listens.
    sockets: Vec<(String, Arc<OwnedFd>)>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Ears {
    /// Listens on every interface of every node and of the internet host, those in named namespaces of the network
    /// node (its DHCP servers) included.
    pub fn start(lab: &Lab) -> Result<Self, LabError> {
        let mut ears = Self {
            heard: Arc::default(),
            sockets: Vec::new(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for name in lab.layout().nodes().into_iter().chain(["inet".to_owned()]) {
            let host = lab.host(&name)?;
            let names = interfaces(&host.must(&["ip", "-o", "link"])?);
            ears.listen(host.run(open)??, &name, &name, names);
            let stack = host.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, STACK_PORT)))?;
            ears.ask(stack.map_err(LabError::io("a node cannot listen"))?, &name)?;
            if name != crate::lab::layout::NETNODE {
                continue;
            }
            for line in host.must(&["ip", "netns", "list"])?.lines() {
                let netns = line.split_whitespace().next().unwrap_or_default();
                let names = interfaces(&host.must(&["ip", "-n", netns, "-o", "link"])?);
                ears.listen(host.run_in_netns(netns, open)??, netns, &name, names);
            }
        }
        Ok(ears)
    }

    fn listen(&mut self, socket: OwnedFd, place: &str, host: &str, names: BTreeMap<usize, String>) {
        let socket = Arc::new(socket);
        self.sockets.push((place.to_owned(), Arc::clone(&socket)));
        let (heard, stop, host) = (Arc::clone(&self.heard), Arc::clone(&self.stop), host.to_owned());
        self.threads.push(std::thread::spawn(move || {
            let mut frame = [0; FRAME];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) else {
                    continue;
                };
                let (Some(from), Some(frame)) = (from, frame.get(..length.min(FRAME))) else {
                    continue;
                };
                let Some(interface) = names.get(&from.ifindex()).cloned() else {
                    continue;
                };
                let host = host.clone();
                let out = from.as_ref().sll_pkttype == libc::PACKET_OUTGOING;
                note(&mut locked(&heard), Point { host, interface }, out, frame);
            }
        }));
    }

    /// Writes down what a host's own network stack takes for its own.
    fn ask(&mut self, socket: UdpSocket, host: &str) -> Result<(), LabError> {
        let timeout = socket.set_read_timeout(Some(LISTEN));
        timeout.map_err(LabError::io("a socket takes no limit"))?;
        let (heard, stop) = (Arc::clone(&self.heard), Arc::clone(&self.stop));
        let point = Point {
            host: host.to_owned(),
            interface: STACK.to_owned(),
        };
        self.threads.push(std::thread::spawn(move || {
            let mut datagram = [0; FRAME];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, _)) = socket.recv_from(&mut datagram) else {
                    continue;
                };
                let Some(id) = datagram.get(..length).and_then(marked) else {
                    continue;
                };
                let (point, from) = (point.clone(), Mac::default());
                let (out, tag) = (false, None);
                record(&mut locked(&heard), id, Sighting { point, out, from, tag });
            }
        }));
        Ok(())
    }

    /// How an attempt was heard, and how often each.
    pub fn sightings(&self, id: u32) -> BTreeMap<Sighting, u32> {
        let heard = locked(&self.heard);
        heard
            .attempts
            .get(&id)
            .map(|heard| heard.sightings.clone())
            .unwrap_or_default()
    }

    /// How long an attempt was heard, anywhere.
    pub fn span(&self, id: u32) -> Duration {
        let time = locked(&self.heard).attempts.get(&id).and_then(|heard| heard.time);
        time.map(|(first, last)| last.duration_since(first)).unwrap_or_default()
    }

    /// Forgets how these attempts were heard: they are tried once more.
    pub fn forget(&self, ids: impl Iterator<Item = u32>) {
        let mut heard = locked(&self.heard);
        ids.for_each(|id| drop(heard.attempts.remove(&id)));
    }

    /// The sniffers that could not keep up since this was last asked: where, and how many frames. What they did not
    /// hear may have passed.
    pub fn lost(&self) -> Result<Vec<(String, u32)>, LabError> {
        let lost =
            |(place, socket): &(String, Arc<OwnedFd>)| Ok((place.clone(), getsockopt(socket, Statistics)?.tp_drops));
        let lost: Vec<(String, u32)> = self.sockets.iter().map(lost).collect::<Result<_, nix::Error>>()?;
        Ok(lost.into_iter().filter(|(_, frames)| *frames > 0).collect())
    }

    /// Forgets the ARP answers so far: the next ones answer the next questions.
    pub fn forget_arp(&self) {
        locked(&self.heard).arp.clear();
    }

    /// Whether an ARP answer for the address left through the interface.
    pub fn arp_answer(&self, at: &Point, ip: Ipv4Addr) -> bool {
        locked(&self.heard).arp.contains(&(at.clone(), ip))
    }

    /// Waits until nothing new was heard for a while.
    pub fn await_quiet(&self, quiet: Duration, limit: Duration) -> Result<(), LabError> {
        let start = Instant::now();
        crate::wait::until("the wires to fall silent", limit, || {
            let since = locked(&self.heard).newest.unwrap_or(start).max(start).elapsed();
            if since >= quiet {
                Ok(())
            } else {
                Err(format!("a frame {since:?} ago"))
            }
        })
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn locked(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open() -> Result<OwnedFd, LabError> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(200))?;
    Ok(socket)
}

/// Numbers and names out of `ip -o link`.
fn interfaces(text: &str) -> BTreeMap<usize, String> {
    let parse = |line: &str| {
        let mut parts = line.split(": ");
        let index = parts.next()?.trim().parse().ok()?;
        let name = parts.next()?.split('@').next()?.to_owned();
        Some((index, name))
    };
    text.lines().filter_map(parse).collect()
}

fn note(heard: &mut Heard, point: Point, out: bool, frame: &[u8]) {
    let Some(from) = mac(frame, 6) else { return };
    let (tag, inner) = match half(frame, 12) {
        Some(0x8100 | 0x88a8) => (half(frame, 14).map(|tag| tag & 0xfff), 16),
        _ => (None, 12),
    };
    if half(frame, inner) == Some(0x0806) && half(frame, inner + 8) == Some(2) && out {
        let ip = frame
            .get(inner + 16..inner + 20)
            .and_then(|ip| <[u8; 4]>::try_from(ip).ok());
        heard.arp.extend(ip.map(|ip| (point.clone(), Ipv4Addr::from(ip))));
    }
    let Some(id) = marked(frame).or_else(|| answered(frame.get(inner..).unwrap_or_default())) else {
        return;
    };
    record(heard, id, Sighting { point, out, from, tag });
}

fn record(heard: &mut Heard, id: u32, sighting: Sighting) {
    let now = Instant::now();
    heard.newest = Some(now);
    let attempted = heard.attempts.entry(id).or_default();
    attempted.time = Some((attempted.time.map_or(now, |(first, _)| first), now));
    *attempted.sightings.entry(sighting).or_default() += 1;
}

fn marked(frame: &[u8]) -> Option<u32> {
    let at = frame.windows(MARK.len()).position(|window| window == MARK)?;
    word(frame, at + MARK.len())
}

/// Answers that do not carry the mark: TCP says our number in its acknowledgement, DHCP in its transaction.
fn answered(packet: &[u8]) -> Option<u32> {
    if half(packet, 0)? != 0x0800 {
        return None;
    }
    match packet.get(11)? {
        6 if half(packet, 24) == Some(TCP_PORT) => word(packet, 30).map(|number| number >> 8),
        17 if matches!(half(packet, 24), Some(67 | 68)) && packet.get(30) == Some(&2) => word(packet, 34),
        _ => None,
    }
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

fn half(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

fn word(frame: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?))
}

/// Numbers of a host's interfaces change with time; its name is enough to read.
impl std::fmt::Display for Point {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.host, self.interface)
    }
}

/// The MAC of each interface of a host, named namespaces included.
pub(super) fn hardware(host: &Host) -> Result<BTreeMap<String, Mac>, LabError> {
    let mut text = host.must(&["ip", "-o", "link"])?;
    for line in host.must(&["ip", "netns", "list"])?.lines() {
        let netns = line.split_whitespace().next().unwrap_or_default();
        text += &host.must(&["ip", "-n", netns, "-o", "link"])?;
    }
    let parse = |line: &str| {
        let name = line.split(": ").nth(1)?.split('@').next()?.to_owned();
        let mac = line.split("link/ether ").nth(1)?.split(' ').next()?;
        Some((name, super::world::mac(mac)?))
    };
    Ok(text.lines().filter_map(parse).collect())
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    const A: (Mac, Ipv4Addr) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 1));
    const B: (Mac, Ipv4Addr) = ([2, 0, 0, 0, 0, 2], Ipv4Addr::new(10, 0, 0, 2));

    fn heard(frame: &[u8]) -> Heard {
        let mut heard = Heard::default();
        let point = Point {
            host: "w1".to_owned(),
            interface: "tap".to_owned(),
        };
        note(&mut heard, point, true, frame);
        heard
    }

    #[test]
    fn a_mark_is_found_behind_a_tag_too() {
        let frame = frame::tagged(&frame::echo(B, A, 77), &[(0x8100, 110)]);
        let heard = heard(&frame);
        let sighting = heard.attempts[&77].sightings.keys().next().unwrap();
        assert_eq!((sighting.tag, sighting.from), (Some(110), A.0));
    }

    #[test]
    fn answers_without_the_mark_are_known_by_their_number() {
        let mut reset = frame::syn(A, TCP_PORT, B, 5);
        let number = ((77_u32 << 8) + 13).to_be_bytes();
        reset[14 + 20 + 8..14 + 20 + 12].copy_from_slice(&number);
        reset.truncate(54);
        assert!(heard(&reset).attempts.contains_key(&77));
        let offer = frame::dhcp(true, A.0, A.1, 2, &[], 77);
        let mut offer = frame::udp(A, B, (67, 68), &offer);
        let length = offer.len();
        offer[14 + 28 + 240..length].fill(0);
        assert!(heard(&offer).attempts.contains_key(&77));
    }

    #[test]
    fn arp_answers_are_remembered_by_address() {
        let answer = frame::Arp {
            operation: 2,
            sender: B,
            target: A,
        };
        let mut heard = heard(&answer.frame(A.0, B.0, 1));
        assert_eq!(heard.arp.pop_first().unwrap().1, B.1);
    }
}
