//! Echo requests from a namespace guest at an even pace, each of them accounted for: which were never answered, and how
//! long the others took.
//!
//! The socket is in the guest's namespace; two threads of ours hold it, so that nothing has to be started there. Whoever
//! is asked answers from its kernel.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, connect, recv, sendmsg, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::Guest;
use crate::LabError;
use crate::wait::until;

/// Room for a second in which nobody reads.
const BUFFER: usize = 4 << 20;
/// An answer that comes later than this counts as lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// And later than this when one that was asked after it has been answered: there is one way, and frames do not overtake.
const OVERTAKEN: Duration = Duration::from_millis(500);
const REQUEST: u8 = 8;
const ANSWER: u8 = 0;
/// Of an IPv4 header without options, which is what an answer begins with.
const IP_HEADER: usize = 20;
const PAYLOAD: usize = 56;

/// Tells the answers to one pinger from those to another one.
static NEXT: AtomicU16 = AtomicU16::new(1);

/// One request.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    took: Option<Duration>,
}

/// Echo requests that go on until it is dropped.
pub struct Pinger {
    name: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What became of the requests of some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// How many were sent.
    pub sent: usize,
    /// How many of them were never answered.
    pub lost: usize,
    /// From the first lost one to the last.
    pub gap: Duration,
    /// Round trip: half of the answers took at most this.
    pub median: Duration,
    /// Round trip: 99 of 100 answers took at most this.
    pub slow: Duration,
    /// The slowest round trip.
    pub worst: Duration,
}

impl Pinger {
    /// Starts, and returns once an answer came.
    pub fn start(from: &Guest, to: Ipv4Addr, every: Duration) -> Result<Self, LabError> {
        let us = NEXT.fetch_add(1, Ordering::Relaxed);
        let socket = Arc::new(from.inside(move || open(to))??);
        let mut pinger = Self {
            name: format!("{} -> {to}", from.spec().name),
            asked: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let (asked, stop, sending) = (Arc::clone(&pinger.asked), Arc::clone(&pinger.stop), Arc::clone(&socket));
        pinger
            .threads
            .push(std::thread::spawn(move || ask(&sending, us, every, &asked, &stop)));
        let (asked, stop) = (Arc::clone(&pinger.asked), Arc::clone(&pinger.stop));
        pinger
            .threads
            .push(std::thread::spawn(move || hear(&socket, us, &asked, &stop)));
        pinger.await_answers(1, Duration::from_secs(20))?;
        Ok(pinger)
    }

    /// Who asks whom.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until so many requests in a row, all of them sent from now on, were answered.
    pub fn await_answers(&self, count: usize, within: Duration) -> Result<(), LabError> {
        let start = locked(&self.asked).len();
        until(&format!("{count} answers to {} in a row", self.name), within, || {
            let asked = locked(&self.asked);
            let since = asked.get(start..).unwrap_or_default();
            let mut rows = since.split(|asked| asked.took.is_none());
            if rows.any(|row| row.len() >= count) {
                return Ok(());
            }
            let answered = since.iter().filter(|asked| asked.took.is_some()).count();
            Err(format!("{answered} of {} were answered", since.len()))
        })
    }

    /// What became of the requests since then; those that are still on their way are waited for.
    pub fn account(&self, since: Instant) -> Account {
        let end = Instant::now();
        let of_time = || {
            let asked = locked(&self.asked);
            let index = |time| asked.partition_point(|asked| asked.at < time);
            asked.get(index(since)..index(end)).unwrap_or_default().to_vec()
        };
        while some_on_their_way(&of_time()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        Account::of(&of_time())
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Account {
    fn of(asked: &[Asked]) -> Self {
        let mut took: Vec<Duration> = asked.iter().filter_map(|asked| asked.took).collect();
        took.sort();
        let share = |hundredths: usize| {
            let index = took.len().saturating_sub(1) * hundredths / 100;
            took.get(index).copied().unwrap_or_default()
        };
        let lost: Vec<&Asked> = asked.iter().filter(|asked| asked.took.is_none()).collect();
        let gap = match lost.as_slice() {
            [first, .., last] => last.at.duration_since(first.at),
            _ => Duration::ZERO,
        };
        Self {
            sent: asked.len(),
            lost: lost.len(),
            gap,
            median: share(50),
            slow: share(99),
            worst: share(100),
        }
    }
}

fn some_on_their_way(asked: &[Asked]) -> bool {
    let newest = asked.iter().rposition(|asked| asked.took.is_some()).unwrap_or_default();
    asked.iter().enumerate().any(|(index, asked)| {
        let limit = if index < newest { OVERTAKEN } else { PATIENCE };
        asked.took.is_none() && asked.at.elapsed() < limit
    })
}

fn locked(asked: &Mutex<Vec<Asked>>) -> MutexGuard<'_, Vec<Asked>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(to: Ipv4Addr) -> Result<OwnedFd, LabError> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Icmp,
    )?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(to, 0)))?;
    Ok(socket)
}

fn ask(socket: &OwnedFd, us: u16, every: Duration, asked: &Mutex<Vec<Asked>>, stop: &AtomicBool) {
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = {
            let mut asked = locked(asked);
            let at = Instant::now();
            asked.push(Asked { at, took: None });
            u32::try_from(asked.len() - 1).unwrap_or(u32::MAX)
        };
        // One that cannot be sent is one that is lost.
        let _ = sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&request(us, number))],
            &[],
            MsgFlags::empty(),
            None,
        );
        // A machine that stopped us for a while is not made up for: a burst is no even pace.
        next = (next + every).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn hear(socket: &OwnedFd, us: u16, asked: &Mutex<Vec<Asked>>, stop: &AtomicBool) {
    let mut packet = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) else {
            continue;
        };
        let now = Instant::now();
        let Some(number) = answered(us, packet.get(..length).unwrap_or_default()) else {
            continue;
        };
        let mut asked = locked(asked);
        let Some(asked) = usize::try_from(number).ok().and_then(|number| asked.get_mut(number)) else {
            continue;
        };
        let took = now.duration_since(asked.at);
        if took <= PATIENCE {
            asked.took.get_or_insert(took);
        }
    }
}

/// An echo request that carries its whole number; the 16 bits that ICMP has for it come round in a minute.
fn request(us: u16, number: u32) -> Vec<u8> {
    let [_, _, high, low] = number.to_be_bytes();
    let [id_high, id_low] = us.to_be_bytes();
    let mut packet = vec![REQUEST, 0, 0, 0, id_high, id_low, high, low];
    packet.extend(number.to_be_bytes());
    packet.resize(8 + PAYLOAD, 0x54);
    let sum = checksum(&packet).to_be_bytes();
    packet.splice(2..4, sum);
    packet
}

/// The number of the request that this packet, IP header included, answers.
fn answered(us: u16, packet: &[u8]) -> Option<u32> {
    let icmp = packet.get(IP_HEADER..)?;
    if *icmp.first()? != ANSWER || icmp.get(4..6)? != us.to_be_bytes() {
        return None;
    }
    Some(u32::from_be_bytes(icmp.get(8..12)?.try_into().ok()?))
}

fn checksum(packet: &[u8]) -> u16 {
    let (pairs, rest) = packet.as_chunks::<2>();
    let mut sum: u32 = pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    sum += rest.first().map_or(0, |last| u32::from(*last) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_carries_the_number_of_its_request() {
        let mut packet = vec![0; IP_HEADER];
        packet.extend(request(7, 70_000));
        assert_eq!(answered(7, &packet), None, "a request is no answer");
        packet[IP_HEADER] = ANSWER;
        assert_eq!(answered(7, &packet), Some(70_000));
        assert_eq!(answered(8, &packet), None, "somebody else's");
        assert_eq!(answered(7, &packet[..30]), None);
    }

    #[test]
    fn a_request_sums_up_to_nothing() {
        assert_eq!(checksum(&request(7, 0x0001_f203)), 0);
        assert_eq!(checksum(&[0x12]), !0x1200);
    }

    #[test]
    fn an_account_counts_what_was_lost_and_orders_what_was_answered() {
        let start = Instant::now();
        let asked: Vec<Asked> = (0..200_u64)
            .map(|number| Asked {
                at: start + Duration::from_millis(number),
                took: (![10, 12].contains(&number)).then(|| Duration::from_micros(1000 - number)),
            })
            .collect();
        let account = Account::of(&asked);
        assert_eq!(
            (account.sent, account.lost, account.gap),
            (200, 2, Duration::from_millis(2))
        );
        assert_eq!(account.worst, Duration::from_micros(1000));
        assert!(
            account.median < account.slow && account.slow < account.worst,
            "{account:?}"
        );
        assert_eq!(Account::of(&[]).worst, Duration::ZERO);
    }
}
