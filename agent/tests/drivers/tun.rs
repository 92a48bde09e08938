//! A TAP whose other side the test holds, as a virtual machine would.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

use super::stand::run;

#[allow(unsafe_code)]
mod ioctl {
    use super::{File, libc};
    use std::os::fd::AsRawFd;

    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);

    pub(super) fn attach(file: &File, name: &str) {
        let mut ifr_name = [0; libc::IFNAMSIZ];
        for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let [low, high, ..] = (libc::IFF_TAP | libc::IFF_NO_PI).to_le_bytes();
        let ifr_ifru = libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::from_le_bytes([low, high]),
        };
        let request = libc::ifreq { ifr_name, ifr_ifru };
        // SAFETY: TUNSETIFF reads one `ifreq` and keeps no pointer to it.
        unsafe { set_interface(file.as_raw_fd(), &raw const request) }.unwrap();
    }
}

/// A TAP whose other side we hold.
pub(crate) fn tap(name: &str) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .unwrap();
    ioctl::attach(&file, name);
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    run("ip", &["link", "set", "dev", name, "txqueuelen", "10000", "up"]);
    file
}
