//! Sends bursts from inside a guest, over a raw socket: what root can do there, and nobody can forbid it there.

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, sendto, socket,
};

use super::burst::Burst;

/// Frames sent between two pauses: a TAP's queue holds a thousand, and what it drops never reaches the switch.
const STRETCH: usize = 32;
const PAUSE: Duration = Duration::from_millis(1);

/// Sends each burst in order.
pub fn send(bursts: &[Burst]) -> Result<(), String> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None::<SockProtocol>,
    )
    .map_err(|errno| format!("no raw socket: {errno}"))?;
    let mut sent = 0;
    for burst in bursts {
        let to = address(&burst.interface)?;
        for frame in burst.frames() {
            put(socket.as_raw_fd(), &frame, &to).map_err(|errno| format!("{}: {errno}", burst.interface))?;
            sent += 1;
            if sent % STRETCH == 0 {
                std::thread::sleep(PAUSE);
            }
        }
    }
    Ok(())
}

/// A full queue is waited for.
fn put(socket: i32, frame: &[u8], to: &LinkAddr) -> Result<(), nix::Error> {
    loop {
        match sendto(socket, frame, to, MsgFlags::empty()) {
            Ok(_) => return Ok(()),
            Err(nix::Error::ENOBUFS | nix::Error::EINTR) => std::thread::sleep(PAUSE),
            Err(errno) => return Err(errno),
        }
    }
}

fn address(interface: &str) -> Result<LinkAddr, String> {
    let all = getifaddrs().map_err(|errno| format!("no list of interfaces: {errno}"))?;
    let found = all.filter(|entry| entry.interface_name == interface).find_map(|entry| {
        let address = entry.address?;
        (address.family() == Some(AddressFamily::Packet))
            .then(|| address.as_link_addr().copied())
            .flatten()
    });
    found.ok_or_else(|| format!("there is no interface {interface}"))
}
