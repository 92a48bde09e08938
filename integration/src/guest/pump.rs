//! The frame pump of a namespace guest: carries frames between each TAP of the worker and the interface of the same
//! guest, which is a TAP too, in the guest's namespace.
//!
//! Runs as a process of its own on the worker (`trunkline-lab pump`), so that it ends with the guest or with the host.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

use super::tun;
use crate::LabError;

/// More than the largest frame that a TAP can carry.
const FRAME: usize = 65_536;

/// One wire: the worker's TAP and the guest's interface.
struct Wire {
    tap: File,
    guest: File,
}

/// Pumps until it is killed. `wires` are `TAP=INTERFACE`; `ready` is called once all are open.
pub fn run(netns: &str, wires: &[String], ready: impl FnOnce() -> Result<(), LabError>) -> Result<(), LabError> {
    let pairs: Vec<(&str, &str)> = wires.iter().filter_map(|wire| wire.split_once('=')).collect();
    if pairs.len() != wires.len() || pairs.is_empty() {
        return Err(LabError::Other("a wire is written TAP=INTERFACE".to_owned()));
    }
    let open = |name: &str| tun::open(name).map_err(LabError::io(format!("cannot open the TAP {name}")));
    for (tap, _) in &pairs {
        // Opening would make it: a TAP that nobody put into a switch.
        if !Path::new("/sys/class/net").join(tap).exists() {
            return Err(LabError::Other(format!("there is no TAP {tap} here")));
        }
    }
    let taps = pairs.iter().map(|(tap, _)| open(tap)).collect::<Result<Vec<_>, _>>()?;
    let path = format!("/run/netns/{netns}");
    let namespace = File::open(&path).map_err(LabError::io(format!("cannot open {path}")))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let guests = pairs
        .iter()
        .map(|(_, interface)| open(interface))
        .collect::<Result<Vec<_>, _>>()?;
    let mut wires: Vec<Wire> = taps
        .into_iter()
        .zip(guests)
        .map(|(tap, guest)| Wire { tap, guest })
        .collect();
    ready()?;
    let mut frame = vec![0; FRAME];
    loop {
        wait(&wires)?;
        for Wire { tap, guest } in &mut wires {
            carry(tap, guest, &mut frame)?;
            carry(guest, tap, &mut frame)?;
        }
    }
}

fn wait(wires: &[Wire]) -> Result<(), LabError> {
    let ends = wires.iter().flat_map(|wire| [&wire.tap, &wire.guest]);
    let mut waiting: Vec<PollFd<'_>> = ends.map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut waiting, PollTimeout::NONE) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Carries what is there, one way. A frame that the other side cannot take now is lost, as on a wire.
fn carry(from: &mut File, to: &mut File, frame: &mut [u8]) -> Result<(), LabError> {
    loop {
        match from.read(frame) {
            Ok(length) => drop(to.write(frame.get(..length).unwrap_or_default())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // "File descriptor in bad state": the TAP was deleted under us, or is down.
            Err(error) => return Err(LabError::io("a TAP of the guest is gone")(error)),
        }
    }
}
