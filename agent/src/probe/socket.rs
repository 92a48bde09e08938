//! The raw socket on the probe's port. Sends and takes whole frames; makes no choices.

use std::{
    io,
    os::{fd::AsRawFd, unix::net},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send,
        setsockopt, socket, sockopt,
    },
};
use tokio::net::UnixDatagram;

/// Room for what comes while we are busy; a full-size frame takes more than 2 KB of it.
const BUFFER: usize = 4 << 20;
/// Largest frame that can come: the largest MTU, Ethernet's header and two tags.
const FRAME: usize = 9216 + 14 + 8;

/// A socket bound to one device. The runtime has no type for packet sockets; that for datagrams does with the descriptor what has to
/// be done, and owns it.
#[derive(Debug)]
pub struct Socket {
    inner: UnixDatagram,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens one on a device. `None`: there is no such device with this index now.
    ///
    /// # Errors
    /// As the system says.
    pub fn open(device: &str, index: u32) -> io::Result<Option<Self>> {
        let Some(address) = address(device, index)? else {
            return Ok(None);
        };
        // Before it is bound it would hear every device of the host.
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )?;
        bind(socket.as_raw_fd(), &address)?;
        // With less room it only loses more when many come at once.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        let mut socket = Self {
            inner: UnixDatagram::from_std(net::UnixDatagram::from(socket))?,
            buffer: vec![0; FRAME],
        };
        socket.forget();
        Ok(Some(socket))
    }

    /// Drops what other devices said between the socket's making and its binding.
    fn forget(&mut self) {
        while recv(self.inner.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }

    /// Waits for frames and hands at most `most` of them over.
    ///
    /// # Errors
    /// When the device is gone or went down.
    pub async fn receive(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.inner.readable().await?;
        for _ in 0..most {
            match self.inner.try_recv(&mut self.buffer) {
                Ok(length) => take(self.buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a frame; it is not waited for a full queue.
    ///
    /// # Errors
    /// As the system says; `ENOBUFS` and `EAGAIN` when the queue is full, `EMSGSIZE` when the frame is larger than the device takes.
    pub fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        send(self.inner.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).map(|_| ())
    }
}

/// The device's address for `bind`: the kernel takes the socket's own protocol with it.
fn address(device: &str, index: u32) -> io::Result<Option<LinkAddr>> {
    let found = getifaddrs()?
        .filter(|entry| entry.interface_name == device)
        .find_map(|entry| {
            let address = entry.address?;
            (address.family() == Some(AddressFamily::Packet))
                .then(|| address.as_link_addr().copied())
                .flatten()
        });
    Ok(found.filter(|address| u32::try_from(address.ifindex()) == Ok(index)))
}
