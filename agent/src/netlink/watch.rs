//! Notice of changes: the kernel tells, we only wake up.

use std::io;
use std::path::PathBuf;

use futures::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::handle::io_error;
use crate::netns;

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

fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = <TokioSocket as AsyncSocket>::new(NETLINK_ROUTE)?;
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        // The enumeration's values are the kernel's RTNLGRP numbers.
        socket.socket_mut().add_membership(group as u32)?;
    }
    Ok(socket)
}
