//! Opens a TAP: the one thing here that the safe libraries have no call for.
#![allow(unsafe_code)] // One ioctl; its argument lives on our stack for the whole call.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

nix::ioctl_write_int!(tun_set_iff_number, b'T', 202);

/// Opens the TAP of this name in the current network namespace, made if missing. Reads and writes are whole Ethernet
/// frames, and do not block.
pub fn open(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name} is too long for an interface"),
        ));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap_or_default();
    // TUNSETIFF is declared as taking an int, and takes the address of the request.
    let address = std::ptr::from_mut(&mut request) as libc::c_ulong;
    unsafe { tun_set_iff_number(file.as_raw_fd(), address) }?;
    Ok(file)
}
