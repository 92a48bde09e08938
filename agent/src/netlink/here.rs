//! The namespace that the calling thread is in, asked and answered on the spot.
//!
//! For a short look into a namespace that is left again at once: the kernel answers such questions within the call, so a socket that a
//! runtime looks after, and a task for it, would cost more than the question.

use std::io;

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::handle::io_error;
use super::{Address, Error, Link};

/// A list that the kernel marks as interrupted is read again this often.
const ATTEMPTS: usize = 8;
/// The kernel's lists come in datagrams of at most 32 KiB.
const DATAGRAM: usize = 1 << 15;

/// A socket to the kernel that waits for its answers.
pub struct Here(Socket);

impl std::fmt::Debug for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Here").finish_non_exhaustive()
    }
}

impl Here {
    /// Opens one in the calling thread's namespace, where it stays.
    ///
    /// # Errors
    /// [`Error::Io`] when the socket cannot be opened.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::new(NETLINK_ROUTE).map_err(|source| io_error("open a netlink socket", source))?;
        Ok(Self(socket))
    }

    /// All devices.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn links(&self) -> Result<Vec<Link>, Error> {
        let mut message = LinkMessage::default();
        let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
        message.attributes.push(mask);
        let take = |answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
            _ => None,
        };
        self.dump("list devices", RouteNetlinkMessage::GetLink(message), take)
    }

    /// All addresses.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn addresses(&self) -> Result<Vec<Address>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let take = |answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => Address::from_message(&message),
            _ => None,
        };
        self.dump("list addresses", request, take)
    }

    fn dump<T>(
        &self,
        what: &'static str,
        message: RouteNetlinkMessage,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        packet.finalize();
        let mut request = vec![0; packet.buffer_len()];
        packet.serialize(&mut request);
        for _ in 0..ATTEMPTS {
            let mut all = Vec::new();
            let consistent = self.ask(what, &request, |answer| all.extend(take(answer)))?;
            if consistent {
                return Ok(all);
            }
        }
        Err(Error::Unstable(what))
    }

    /// False when the kernel says that the answers do not fit together.
    fn ask(&self, what: &str, request: &[u8], mut take: impl FnMut(RouteNetlinkMessage)) -> Result<bool, Error> {
        let failed = |source| io_error(what, source);
        self.0.send(request, 0).map_err(failed)?;
        let mut datagram = Vec::with_capacity(DATAGRAM);
        let mut consistent = true;
        loop {
            datagram.clear();
            self.0.recv(&mut datagram, 0).map_err(failed)?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let malformed = |error| io_error(what, io::Error::other(error));
                let message: NetlinkMessage<RouteNetlinkMessage> =
                    NetlinkMessage::deserialize(rest).map_err(malformed)?;
                consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => take(answer),
                    NetlinkPayload::Done(_) => return Ok(consistent),
                    NetlinkPayload::Error(error) => {
                        let code = error.code.map_or(0, std::num::NonZero::get);
                        let errno = Errno::from_raw(code.saturating_neg());
                        let what = what.to_owned();
                        return Err(Error::Kernel { what, errno });
                    }
                    _ => {}
                }
            }
        }
    }
}
