//! TAP devices. The kernel makes them by ioctl on `/dev/net/tun` only: rtnetlink cannot.
//!
//! A TAP dies with the last descriptor of it until it is made persistent, and persistence is the last step here: name, alias, MTU
//! and shields come first. So a crash at any point leaves either nothing or a device that carries our mark.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use futures::{StreamExt, stream};
use nix::errno::Errno;
use nix::libc;

use super::handle::{IN_FLIGHT, io_error};
use super::{Error, Handle};
use crate::netns;

/// A TAP to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapRequest {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// The mark.
    pub alias: String,
    /// Bytes of payload.
    pub mtu: u32,
}

impl Handle {
    /// Makes persistent TAPs in the namespace of this process (which must be this handle's), marked, shielded from the host's own
    /// stack, and up. The answers are in the order of the requests; one that fails leaves no device behind.
    pub async fn create_taps(&self, requests: &[TapRequest]) -> Vec<Result<(), Error>> {
        let one = |request: TapRequest| {
            let handle = self.clone();
            async move { handle.create_tap(request).await }
        };
        // In order, and no more open files at a time than requests.
        stream::iter(requests.to_vec())
            .map(one)
            .buffered(IN_FLIGHT)
            .collect()
            .await
    }

    async fn create_tap(&self, request: TapRequest) -> Result<(), Error> {
        let TapRequest { name, alias, mtu } = request;
        let opened = open_tap(&name)?;
        shield(&name)?;
        self.set_new(&name, alias, mtu).await?;
        ioctl::persist(&opened).map_err(|errno| Error::Kernel {
            what: format!("make TAP {name} persistent"),
            errno,
        })
    }
}

/// Keeps the host's own network stack from hearing and answering what arrives on a device that belongs to a switch: the userspace
/// datapath reads a copy of each frame, the kernel's stack gets the frame as well. No ARP answer, no IPv6, and a source check that
/// nothing passes, because no route leads out of such a device. What comes from 0.0.0.0 to all is not checked so: for that a TAP's
/// ingress is shut as well ([`crate::ingress`]).
///
/// # Errors
/// When a setting cannot be written.
pub(crate) fn shield(device: &str) -> Result<(), Error> {
    settings(device).map_err(|source| io_error(&format!("shield {device} from the host's network stack"), source))
}

/// True when [`shield`] was applied to a device, judged by the last of its settings.
pub(crate) fn is_shielded(device: &str) -> bool {
    let setting = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{device}/arp_ignore"));
    setting.is_ok_and(|value| value.trim() == ANSWER_NO_ARP)
}

/// Value of `arp_ignore`: answer no ARP request, whatever the address.
const ANSWER_NO_ARP: &str = "8";

fn settings(device: &str) -> io::Result<()> {
    let ipv4 = |key: &str, value: &str| netns::write_sysctl_here(&format!("net/ipv4/conf/{device}/{key}"), value);
    ipv4("rp_filter", "1")?;
    match netns::write_sysctl_here(&format!("net/ipv6/conf/{device}/disable_ipv6"), "1") {
        // A kernel without IPv6 needs no shield against it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    // Last, because `is_shielded` judges by it.
    ipv4("arp_ignore", ANSWER_NO_ARP)
}

/// Makes a TAP that is not persistent yet, and fails if a device of this name exists.
fn open_tap(name: &str) -> Result<File, Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|source| io_error("open /dev/net/tun", source))?;
    let what = || format!("create TAP {name}");
    let mut device = [0; libc::IFNAMSIZ];
    // One byte stays zero: it ends the name.
    if name.is_empty() || name.len() >= device.len() {
        return Err(Error::Kernel {
            what: what(),
            errno: Errno::ENAMETOOLONG,
        });
    }
    for (to, from) in device.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    ioctl::attach(&file, device).map_err(|errno| Error::Kernel { what: what(), errno })?;
    Ok(file)
}

/// The two ioctls. `nix` declares ioctls as unsafe functions, because only the caller knows what the kernel does with the argument;
/// there is no other interface that makes a TAP.
#[allow(unsafe_code)]
mod ioctl {
    use super::{AsRawFd, Errno, File, libc};

    nix::ioctl_readwrite_bad!(tun_set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(tun_set_persist, libc::TUNSETPERSIST);

    /// Ties an open `/dev/net/tun` to a new TAP.
    pub(super) fn attach(file: &File, name: [libc::c_char; libc::IFNAMSIZ]) -> Result<(), Errno> {
        // EXCL: without it we would attach to a device that somebody else made. The three flags fill 16 bits, the last one the
        // sign bit, so they are put together bit by bit.
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
        let [low, high, ..] = flags.to_le_bytes();
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: libc::c_short::from_le_bytes([low, high]),
            },
        };
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is, and keeps no pointer to it.
        unsafe { tun_set_interface(file.as_raw_fd(), &raw mut request) }.map(|_| ())
    }

    /// Lets the TAP live on without a descriptor.
    pub(super) fn persist(file: &File) -> Result<(), Errno> {
        // SAFETY: TUNSETPERSIST takes a plain number.
        unsafe { tun_set_persist(file.as_raw_fd(), 1) }.map(|_| ())
    }
}
