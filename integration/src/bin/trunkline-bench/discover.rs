//! Asks DHCP servers as a guest would: with a DISCOVER in the VLAN, on the cable to the network node.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send, setsockopt, socket,
    sockopt,
};
use std::os::fd::AsFd;
use trunkline_integration::LabError;
use trunkline_integration::lab::Host;

/// Of all transaction ids here; the VLAN is added.
const TRANSACTION: u32 = 0x7472_0000;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// How long the servers may take altogether.
const LIMIT: Duration = Duration::from_secs(120);

/// Waits until each of these VLANs' servers has made an offer. Who has not is asked again `every` so often. `cable` is the end
/// of the cable at `fabric`.
pub(crate) fn await_offers(fabric: &Arc<Host>, cable: &str, vlans: &[u16], every: Duration) -> Result<(), LabError> {
    let (cable, vlans) = (cable.to_owned(), vlans.to_vec());
    fabric.run(move || {
        let socket = open(&cable)?;
        let mut silent: BTreeSet<u16> = vlans.into_iter().collect();
        let deadline = Instant::now() + LIMIT;
        let mut buffer = vec![0; 2048];
        while !silent.is_empty() {
            if Instant::now() >= deadline {
                return Err(LabError::Timeout {
                    what: "an offer of every DHCP server".to_owned(),
                    after: LIMIT,
                    seen: format!("none of {} VLANs, the first {:?}", silent.len(), silent.first()),
                });
            }
            for vlan in &silent {
                match send(socket.as_raw_fd(), &discover(*vlan), MsgFlags::MSG_DONTWAIT) {
                    Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            let again = Instant::now() + every;
            while let Some(left) = again
                .checked_duration_since(Instant::now())
                .filter(|_| !silent.is_empty())
            {
                hear(&socket, left, &mut buffer, &mut silent)?;
            }
        }
        Ok(())
    })?
}

/// Takes what comes within `left`.
fn hear(socket: &OwnedFd, left: Duration, buffer: &mut [u8], silent: &mut BTreeSet<u16>) -> Result<(), LabError> {
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    // Rounded up: a wait of nothing would spin.
    let left = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::ZERO);
    match poll(&mut waiting, left) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                if let Some(vlan) = offer(buffer.get(..length).unwrap_or_default()) {
                    silent.remove(&vlan);
                }
            }
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn open(device: &str) -> Result<OwnedFd, LabError> {
    let found = getifaddrs()?
        .filter(|entry| entry.interface_name == device)
        .find_map(|entry| {
            let address = entry.address?;
            (address.family() == Some(AddressFamily::Packet))
                .then(|| address.as_link_addr().copied())
                .flatten()
        });
    let address = found.ok_or_else(|| LabError::Other(format!("there is no cable {device}")))?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )?;
    setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

fn mac(vlan: u16) -> [u8; 6] {
    let [high, low] = vlan.to_be_bytes();
    [2, 0, 0, 0, high, low]
}

/// A whole frame, tagged.
fn discover(vlan: u16) -> Vec<u8> {
    let mac = mac(vlan);
    let mut message = vec![1, 1, 6, 0];
    message.extend((TRANSACTION + u32::from(vlan)).to_be_bytes());
    message.extend([0; 20]);
    message.extend(mac);
    message.extend([0; 10 + 64 + 128]);
    message.extend(MAGIC);
    // DISCOVER; what is asked for; the end.
    message.extend([53, 1, 1, 55, 3, 1, 3, 6, 255]);
    message.resize(300, 0);
    let udp = 8 + message.len();
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or_default().to_be_bytes();
    let mut ip = vec![0x45, 0];
    ip.extend(length(20 + udp));
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend([0, 0, 0, 0, 255, 255, 255, 255]);
    let sum = checksum(&ip).to_be_bytes();
    ip.splice(10..12, sum);
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x81, 0]);
    frame.extend(vlan.to_be_bytes());
    frame.extend([8, 0]);
    frame.extend(ip);
    frame.extend([0, 68, 0, 67]);
    frame.extend(length(udp));
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}

fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .filter_map(|word| Some(u32::from(u16::from_be_bytes(word.try_into().ok()?))));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// The VLAN whose server has made us this offer.
fn offer(frame: &[u8]) -> Option<u16> {
    // The kernel takes the tag off, mostly.
    let frame = if frame.get(12..14)? == [0x81, 0] {
        frame.get(4..)?
    } else {
        frame
    };
    let ip = (frame.get(12..14)? == [8, 0]).then(|| frame.get(14..))??;
    let header = usize::from(ip.first()? & 15) * 4;
    let udp = ip.get(header..)?;
    let bootp = udp.get(8..)?;
    let is_answer = ip.get(9)? == &17 && udp.get(2..4)? == [0, 68] && bootp.first()? == &2;
    let options = bootp.get(240..)?;
    let is_offer = options.windows(3).any(|option| option == [53, 1, 2]);
    let id = u32::from_be_bytes(bootp.get(4..8)?.try_into().ok()?);
    (is_answer && is_offer).then(|| u16::try_from(id.checked_sub(TRANSACTION)?).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_told_from_what_we_send_and_from_other_answers() {
        let asked = discover(110);
        assert_eq!(asked.len(), 14 + 4 + 20 + 8 + 300);
        assert_eq!(offer(&asked), None);
        let mut answer = asked;
        // Ports, sort of message, sort of DHCP message.
        answer[38..42].copy_from_slice(&[0, 67, 0, 68]);
        answer[46] = 2;
        answer[46 + 242] = 2;
        assert_eq!(offer(&answer), Some(110));
        answer[46 + 242] = 6;
        assert_eq!(offer(&answer), None);
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7,
        ];
        assert_eq!(checksum(&header), 0xb861);
    }
}
