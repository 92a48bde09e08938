//! TAPs by one raw loop: open, name, make persistent, close.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

/// Makes persistent TAPs in the network namespace of the calling thread.
pub(crate) fn make(names: &[String]) -> io::Result<()> {
    names.iter().try_for_each(|name| {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        ioctl::attach(&file, name)?;
        Ok(ioctl::persist(&file)?)
    })
}

/// The one thing here that the safe libraries have no call for.
#[allow(unsafe_code)]
mod ioctl {
    use super::{AsRawFd, Errno, File, libc};

    nix::ioctl_readwrite_bad!(tun_set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(tun_set_persist, libc::TUNSETPERSIST);

    pub(super) fn attach(file: &File, name: &str) -> Result<(), Errno> {
        let mut device = [0; libc::IFNAMSIZ];
        for (to, from) in device.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let [low, high, ..] = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL).to_le_bytes();
        let mut request = libc::ifreq {
            ifr_name: device,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: libc::c_short::from_le_bytes([low, high]),
            },
        };
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is, and keeps no pointer to it.
        unsafe { tun_set_interface(file.as_raw_fd(), &raw mut request) }.map(|_| ())
    }

    pub(super) fn persist(file: &File) -> Result<(), Errno> {
        // SAFETY: TUNSETPERSIST takes a plain number.
        unsafe { tun_set_persist(file.as_raw_fd(), 1) }.map(|_| ())
    }
}
