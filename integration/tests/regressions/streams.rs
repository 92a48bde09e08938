//! Traffic that goes on while something is done elsewhere, and says whether anything of it was lost.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use trunkline_integration::guest::Guest;
use trunkline_integration::lab::Lab;
use trunkline_integration::lab::layout::{INTERNET, INTERNET_ADDRESS};
use trunkline_integration::wait::until;

use crate::support::LIMIT;

const PAUSE: Duration = Duration::from_millis(20);

/// An echo request every 50 ms.
pub(crate) struct Pings<'a> {
    guest: &'a Guest,
    file: String,
    to: Ipv4Addr,
}

impl<'a> Pings<'a> {
    /// Starts, and returns once answers come.
    pub(crate) fn start(guest: &'a Guest, to: Ipv4Addr) -> Self {
        let file = format!("/run/pings-{}-{to}", guest.spec().vm_id);
        let line = format!("(ping -i 0.05 {to} > {file} 2>&1 < /dev/null & echo $! > {file}.pid)");
        assert!(guest.shell(&line).unwrap().ok());
        let pings = Self { guest, file, to };
        pings.await_more();
        pings
    }

    fn answered(&self) -> BTreeSet<u64> {
        let text = self.guest.shell(&format!("cat {}", self.file)).unwrap().stdout;
        let number = |line: &str| line.split_once("seq=")?.1.split_whitespace().next()?.parse().ok();
        text.lines().filter_map(number).collect()
    }

    /// Waits until it is seen to go on.
    pub(crate) fn await_more(&self) {
        let before = self.answered().last().copied().unwrap_or_default();
        until(
            &format!("pings of {} to {}", self.guest.spec().name, self.to),
            LIMIT,
            || {
                let now = self.answered().last().copied().unwrap_or_default();
                if now > before + 3 {
                    Ok(())
                } else {
                    Err(format!("the last answer was number {now}"))
                }
            },
        )
        .unwrap();
    }

    /// Every request from the first to the last answered one was answered.
    pub(crate) fn assert_lossless(&self) {
        self.await_more();
        let answered = self.answered();
        let (first, last) = (*answered.first().unwrap(), *answered.last().unwrap());
        let lost: Vec<u64> = (first..=last).filter(|number| !answered.contains(number)).collect();
        let name = &self.guest.spec().name;
        assert!(
            lost.is_empty(),
            "{name} lost {lost:?} of {first} to {last} to {}",
            self.to
        );
    }
}

impl Drop for Pings<'_> {
    fn drop(&mut self) {
        let _ = self.guest.shell(&format!("kill $(cat {}.pid)", self.file));
    }
}

/// A connection through which one end sends without end, and the other end counts.
pub(crate) struct Flow {
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    broken: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    ends: Vec<JoinHandle<()>>,
}

impl Flow {
    /// From one guest to another.
    pub(crate) fn between(from: &Guest, to: &Guest, address: Ipv4Addr) -> Self {
        Self::over(from, &to.tcp_listen(0).unwrap(), address)
    }

    /// From a guest to a server on the internet.
    pub(crate) fn to_internet(from: &Guest, lab: &Lab) -> Self {
        let inet = lab.host(INTERNET).unwrap();
        let listener = inet.run(|| TcpListener::bind((INTERNET_ADDRESS, 0))).unwrap().unwrap();
        Self::over(from, &listener, INTERNET_ADDRESS)
    }

    fn over(from: &Guest, listener: &TcpListener, address: Ipv4Addr) -> Self {
        let near = from.tcp_open(address, listener.local_addr().unwrap().port()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let flow = Self {
            sent: Arc::default(),
            received: Arc::default(),
            broken: Arc::default(),
            stop: Arc::default(),
            ends: Vec::new(),
        };
        let flow = flow.sending(near).receiving(far);
        flow.await_more();
        flow
    }

    fn sending(mut self, mut near: TcpStream) -> Self {
        near.set_write_timeout(Some(PAUSE)).unwrap();
        let (sent, broken, stop) = (Arc::clone(&self.sent), Arc::clone(&self.broken), Arc::clone(&self.stop));
        self.ends.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // A number that follows the one before, so that the other end sees a gap.
                let next = u8::try_from(sent.load(Ordering::Relaxed) % 251).unwrap();
                match near.write(&[next]) {
                    Ok(1) => drop(sent.fetch_add(1, Ordering::Relaxed)),
                    Err(error) if waits(&error) => {}
                    _ => return broken.store(true, Ordering::Relaxed),
                }
                std::thread::sleep(PAUSE);
            }
        }));
        self
    }

    fn receiving(mut self, mut far: TcpStream) -> Self {
        far.set_read_timeout(Some(PAUSE)).unwrap();
        let (received, broken, stop) = (
            Arc::clone(&self.received),
            Arc::clone(&self.broken),
            Arc::clone(&self.stop),
        );
        self.ends.push(std::thread::spawn(move || {
            let mut byte = [0];
            while !stop.load(Ordering::Relaxed) {
                match far.read(&mut byte) {
                    Ok(1) if u64::from(byte[0]) == received.load(Ordering::Relaxed) % 251 => {
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) if waits(&error) => {}
                    _ => return broken.store(true, Ordering::Relaxed),
                }
            }
        }));
        self
    }

    /// Bytes that were received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that the sender's system has taken so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until it is seen to go on.
    pub(crate) fn await_more(&self) {
        let before = self.received();
        until("more of a TCP connection's bytes", LIMIT, || {
            let (now, broken) = (self.received(), self.broken.load(Ordering::Relaxed));
            if now > before + 3 && !broken {
                Ok(())
            } else {
                Err(format!("{now} bytes, broken: {broken}"))
            }
        })
        .unwrap();
    }

    /// For a while nothing comes out any more, although what goes in is taken.
    pub(crate) fn assert_silent(&self, during: Duration) {
        let (sent, received) = (self.sent(), self.received());
        let end = Instant::now() + during;
        while Instant::now() < end {
            assert_eq!(self.received(), received, "an ended connection went on");
            std::thread::sleep(PAUSE);
        }
        assert!(
            self.sent() > sent,
            "the guest did not send any more, so nothing was seen"
        );
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ends.drain(..).for_each(|end| drop(end.join()));
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
