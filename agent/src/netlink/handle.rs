//! The socket: one namespace, many requests in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join_all;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, TokioSocket};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use super::{Address, Error, Link, LinkChange, Route};
use crate::netns;

/// The kernel answers at once, unless it waits for its one lock behind a large batch of others.
const LIMIT: Duration = Duration::from_secs(30);
/// A dump that the kernel marks as interrupted is read again this often.
const DUMP_ATTEMPTS: usize = 8;
/// Requests in flight on one socket: each answer takes up to 1 KB of a receive buffer of 208 KB, and one that does not fit is lost.
pub(super) const IN_FLIGHT: usize = 64;
/// Groups from here on are tried for deletion; high, because people choose low ones.
const FIRST_GROUP: u32 = 0x7472_6b00;

/// A socket to the kernel in one network namespace; clones share it. It is closed with the last clone. However many requests are
/// made at once, only so many are under way that their answers fit.
#[derive(Debug, Clone)]
pub struct Handle {
    inner: rtnetlink::Handle,
    slots: Arc<Semaphore>,
    /// The kernel keeps one list going per socket, and answers a second request for one with EBUSY.
    lists: Arc<Mutex<()>>,
}

impl Handle {
    /// For the namespace that this process runs in. Needs a runtime.
    ///
    /// # Errors
    /// [`Error::Io`] when the socket cannot be opened.
    pub fn current() -> Result<Self, Error> {
        Self::start(TokioSocket::new(NETLINK_ROUTE).map_err(|source| io_error("open a netlink socket", source))?)
    }

    /// For a namespace given by its file, `/run/netns/ns-dhcp-vlan110` for instance. Needs a runtime.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no such namespace or the socket cannot be opened.
    pub async fn in_namespace(path: &Path) -> Result<Self, Error> {
        let what = format!("open a netlink socket in {}", path.display());
        let runtime = tokio::runtime::Handle::current();
        let socket = netns::on_thread_in(Some(path), move || {
            let _context = runtime.enter();
            TokioSocket::new(NETLINK_ROUTE)
        })
        .await
        .map_err(|error| io_error(&what, io::Error::other(error)))?
        .map_err(|source| io_error(&what, source))?;
        Self::start(socket)
    }

    fn start(socket: TokioSocket) -> Result<Self, Error> {
        // Without the request's copy in each error more answers fit the buffer.
        socket
            .socket_ref()
            .set_cap_ack(true)
            .map_err(|source| io_error("set up a netlink socket", source))?;
        let (connection, handle, _) = rtnetlink::from_socket(socket);
        // Ends by itself with the last handle.
        tokio::spawn(connection);
        Ok(Self {
            inner: handle,
            slots: Arc::new(Semaphore::new(IN_FLIGHT)),
            lists: Arc::default(),
        })
    }

    /// All devices of the namespace.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self.dump("list devices", RouteNetlinkMessage::GetLink(message)).await?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
                _ => None,
            })
            .collect())
    }

    /// All devices, and the frames that each has received since it was made: of a TAP, those that its guest has sent.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn links_with_received(&self) -> Result<(Vec<Link>, BTreeMap<String, u64>), Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.dump("list devices with their counters", request).await?;
        let (mut links, mut received) = (Vec::with_capacity(answers.len()), BTreeMap::new());
        for answer in answers {
            let RouteNetlinkMessage::NewLink(message) = answer else {
                continue;
            };
            let frames = message.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Stats64(stats) => Some(stats.rx_packets),
                _ => None,
            });
            let link = Link::from(message);
            received.extend(frames.map(|frames| (link.name.clone(), frames)));
            links.push(link);
        }
        Ok((links, received))
    }

    /// Frames that each device has received.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn received(&self) -> Result<BTreeMap<String, u64>, Error> {
        Ok(self.links_with_received().await?.1)
    }

    /// One device by name; `None` when there is none.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let what = format!("look for the device {name}");
        let request = packet(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST);
        match self.exchange(&what, request).await {
            Ok((answers, _)) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
                _ => None,
            })),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All addresses of the namespace.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn addresses(&self) -> Result<Vec<Address>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.dump("list addresses", request).await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => Address::from_message(message),
                _ => None,
            })
            .collect())
    }

    /// All unicast routes of the namespace, of all tables.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let answers = self.dump("list routes", request).await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => Route::from_message(message),
                _ => None,
            })
            .collect())
    }

    /// Changes a device.
    ///
    /// # Errors
    /// As the kernel says; `ENODEV` when there is no such device.
    pub async fn change(&self, index: u32, change: &LinkChange) -> Result<(), Error> {
        let message = RouteNetlinkMessage::SetLink(change.message(index));
        self.ack(
            &format!("change device {index} ({change:?})"),
            packet(message, NLM_F_REQUEST | NLM_F_ACK),
        )
        .await
    }

    /// Marks a device that was just made and sets it up, in one request by its name: its index is not known yet.
    pub(super) async fn set_new(&self, name: &str, alias: String, mtu: u32) -> Result<(), Error> {
        let change = LinkChange {
            // With the index 0 the name says which device, not what to call it.
            name: Some(name.to_owned()),
            alias: Some(alias),
            mtu: Some(mtu),
            up: Some(true),
            ..LinkChange::default()
        };
        self.change(0, &change).await
    }

    /// Sets a device up.
    ///
    /// # Errors
    /// As [`Handle::change`].
    pub async fn set_up(&self, index: u32) -> Result<(), Error> {
        self.change(
            index,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .await
    }

    /// Sets a device down.
    ///
    /// # Errors
    /// As [`Handle::change`].
    pub async fn set_down(&self, index: u32) -> Result<(), Error> {
        self.change(
            index,
            &LinkChange {
                up: Some(false),
                ..LinkChange::default()
            },
        )
        .await
    }

    /// Moves a device into the namespace behind an open file.
    ///
    /// # Errors
    /// As the kernel says; `EEXIST` when a device of this name is there already.
    pub async fn move_to_namespace(&self, index: u32, namespace: impl AsFd) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message
            .attributes
            .push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
        let request = packet(RouteNetlinkMessage::SetLink(message), NLM_F_REQUEST | NLM_F_ACK);
        self.ack(&format!("move device {index} into another network namespace"), request)
            .await
    }

    /// Adds an address; success when it is there already.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn add_address(&self, index: u32, net: IpNet) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewAddress(Address::message(index, net));
        let request = packet(message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        tolerate(
            self.ack(&format!("add address {net} to device {index}"), request).await,
            &[Errno::EEXIST],
        )
    }

    /// Deletes an address; success when it, or the device, is gone already.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn delete_address(&self, index: u32, net: IpNet) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelAddress(Address::message(index, net));
        let request = packet(message, NLM_F_REQUEST | NLM_F_ACK);
        let answer = self
            .ack(&format!("delete address {net} of device {index}"), request)
            .await;
        tolerate(answer, &[Errno::EADDRNOTAVAIL, Errno::ENODEV])
    }

    /// Deletes a device; success when it is gone already.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn delete(&self, index: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let request = packet(RouteNetlinkMessage::DelLink(message), NLM_F_REQUEST | NLM_F_ACK);
        tolerate(
            self.ack(&format!("delete device {index}"), request).await,
            &[Errno::ENODEV],
        )
    }

    /// Deletes many devices at once: moved into a link group that nobody uses, which is then deleted with one request, because the
    /// kernel waits for a grace period per request and not per device. Success when some were gone already.
    ///
    /// # Errors
    /// As the kernel says; [`Error::StrangerInGroup`] when a device that was not asked for turned up in the group.
    pub async fn delete_many(&self, indexes: &[u32]) -> Result<(), Error> {
        match indexes {
            [] => return Ok(()),
            [index] => return self.delete(*index).await,
            _ => {}
        }
        let wanted: BTreeSet<u32> = indexes.iter().copied().collect();
        let used: BTreeSet<u32> = self.links().await?.iter().map(|link| link.group).collect();
        let group = (FIRST_GROUP..u32::MAX)
            .find(|group| !used.contains(group))
            .unwrap_or(u32::MAX);

        let change = LinkChange {
            group: Some(group),
            ..LinkChange::default()
        };
        let moves = wanted
            .iter()
            .map(async |index| tolerate(self.change(*index, &change).await, &[Errno::ENODEV]));
        try_join_all(moves).await?;

        let members: Vec<Link> = self
            .links()
            .await?
            .into_iter()
            .filter(|link| link.group == group)
            .collect();
        if let Some(stranger) = members.iter().find(|link| !wanted.contains(&link.index)) {
            return Err(Error::StrangerInGroup {
                group,
                stranger: stranger.name.clone(),
            });
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        let request = packet(RouteNetlinkMessage::DelLink(message), NLM_F_REQUEST | NLM_F_ACK);
        // ESRCH and ENODEV: all went by themselves meanwhile.
        tolerate(
            self.ack(&format!("delete link group {group}"), request).await,
            &[Errno::ESRCH, Errno::ENODEV],
        )
    }

    async fn ack(&self, what: &str, request: NetlinkMessage<RouteNetlinkMessage>) -> Result<(), Error> {
        self.exchange(what, request).await.map(|_| ())
    }

    async fn dump(&self, what: &'static str, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let _turn = self.lists.lock().await;
        for _ in 0..DUMP_ATTEMPTS {
            let request = packet(message.clone(), NLM_F_REQUEST | NLM_F_DUMP);
            let (answers, consistent) = self.exchange(what, request).await?;
            if consistent {
                return Ok(answers);
            }
        }
        Err(Error::Unstable(what))
    }

    /// Sends one request and collects its answers; false when the kernel says that they do not fit together.
    async fn exchange(
        &self,
        what: &str,
        request: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), Error> {
        let _slot = self.slots.acquire().await.map_err(|_| Error::Closed)?;
        let mut answers = self.inner.clone().request(request).map_err(|_| Error::Closed)?;
        let collect = async {
            let mut messages = Vec::new();
            let mut consistent = true;
            while let Some(answer) = answers.next().await {
                consistent &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => messages.push(message),
                    NetlinkPayload::Error(error) => {
                        if let Some(code) = error.code {
                            let errno = Errno::from_raw(code.get().saturating_neg());
                            return Err(Error::Kernel {
                                what: what.to_owned(),
                                errno,
                            });
                        }
                    }
                    _ => {}
                }
            }
            Ok((messages, consistent))
        };
        match timeout(LIMIT, collect).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                what: what.to_owned(),
                limit: LIMIT,
            }),
        }
    }
}

fn packet(message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = flags;
    packet
}

fn tolerate(answer: Result<(), Error>, tolerated: &[Errno]) -> Result<(), Error> {
    match answer {
        Err(Error::Kernel { errno, .. }) if tolerated.contains(&errno) => Ok(()),
        other => other,
    }
}

pub(super) fn io_error(what: &str, source: io::Error) -> Error {
    Error::Io {
        what: what.to_owned(),
        source,
    }
}
