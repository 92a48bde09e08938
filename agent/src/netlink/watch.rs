//! Notice of changes: the kernel tells, we only wake up.

use std::io;
use std::path::PathBuf;

use futures::{StreamExt, future};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::handle::io_error;
use crate::netns;

/// The kernel's NFNLGRP_NFTABLES: every change of a table, chain, set or rule.
const NFTABLES: u32 = 7;
/// The kernel's notices come in datagrams of at most a page or 8 KiB; one about a larger thing has a datagram of its own.
const DATAGRAM: usize = 1 << 15;

/// Ticks when a device or an address of the namespace changed (`None`: of the current one), until `cancel`. A burst is one tick
/// for a slow reader. When the kernel had to drop notices that is a tick too.
///
/// # Errors
/// [`Error::Io`] when the namespace is not there or the socket cannot be opened.
pub async fn watch(namespace: Option<PathBuf>, cancel: CancellationToken) -> Result<watch::Receiver<u64>, Error> {
    let runtime = tokio::runtime::Handle::current();
    let open = move || {
        let _context = runtime.enter();
        subscribe()
    };
    let what = "subscribe to the kernel's notices";
    let socket = netns::on_thread_in(namespace.as_deref(), open)
        .await
        .map_err(|error| io_error(what, io::Error::other(error)))?
        .map_err(|source| io_error(what, source))?;

    let (connection, handle, mut notices) = rtnetlink::from_socket::<TokioSocket>(socket);
    let (sender, receiver) = watch::channel(0_u64);
    tokio::spawn(connection);
    tokio::spawn(async move {
        // The connection lives as long as its handle.
        let _handle = handle;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                // Cancel safe: next loses nothing.
                notice = notices.next() => match notice {
                    Some(_) => sender.send_modify(|tick| *tick = tick.wrapping_add(1)),
                    None => return,
                },
                () = sender.closed() => return,
            }
        }
    });
    Ok(receiver)
}

/// Ticks when somebody changed nftables' rules, ip_forward or another IPv4 setting of a device in the current namespace, until
/// `cancel`. Must be called in a runtime.
///
/// # Errors
/// [`Error::Io`] when a socket cannot be opened.
pub fn watch_rules(cancel: CancellationToken) -> Result<watch::Receiver<u64>, Error> {
    let (sender, receiver) = watch::channel(0_u64);
    for (protocol, group) in [
        (NETLINK_NETFILTER, NFTABLES),
        (NETLINK_ROUTE, number(MulticastGroup::Ipv4Netconf)),
    ] {
        let socket = member_of(protocol, &[group])
            .map_err(|source| io_error("subscribe to the kernel's notices of rules and settings", source))?;
        tell(socket, sender.clone(), "", cancel.clone());
    }
    Ok(receiver)
}

/// Ticks when somebody changed the nftables table of this name, of whatever family, in the current namespace, until `cancel`. Must be
/// called in a runtime.
///
/// # Errors
/// [`Error::Io`] when the socket cannot be opened.
pub fn watch_table(name: &'static str, cancel: CancellationToken) -> Result<watch::Receiver<u64>, Error> {
    let (sender, receiver) = watch::channel(0_u64);
    let socket = member_of(NETLINK_NETFILTER, &[NFTABLES])
        .map_err(|source| io_error("subscribe to the kernel's notices of rules", source))?;
    tell(socket, sender, name, cancel);
    Ok(receiver)
}

fn tell(socket: TokioSocket, sender: watch::Sender<u64>, name: &'static str, cancel: CancellationToken) {
    tokio::spawn(async move {
        tokio::select! {
            // Nothing is half done: a notice is only a tick.
            () = cancel.cancelled() => {}
            () = sender.closed() => {}
            error = tick(&socket, &sender, name) => tracing::warn!(%error, "no more notices of rules and settings"),
        }
    });
}

/// One tick for each datagram in which `name` stands (every notice of nftables names its table), and for each time that the kernel had
/// to drop some.
async fn tick(socket: &TokioSocket, sender: &watch::Sender<u64>, name: &str) -> io::Error {
    // As much as fits is read, and the rest of a datagram is lost.
    let mut datagram = Vec::with_capacity(DATAGRAM);
    let name = name.as_bytes();
    loop {
        datagram.clear();
        match future::poll_fn(|cx| socket.poll_recv(cx, &mut datagram)).await {
            Ok(()) if !name.is_empty() && !datagram.windows(name.len()).any(|part| part == name) => continue,
            Ok(()) => {}
            Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOBUFS) => {}
            Err(error) => return error,
        }
        sender.send_modify(|tick| *tick = tick.wrapping_add(1));
    }
}

fn subscribe() -> io::Result<TokioSocket> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    member_of(NETLINK_ROUTE, &groups.map(number))
}

/// The kernel's RTNLGRP number. The enumeration's values are those numbers, and a cast is the one way to read them.
fn number(group: MulticastGroup) -> u32 {
    group as u32
}

fn member_of(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = <TokioSocket as AsyncSocket>::new(protocol)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}
