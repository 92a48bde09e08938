//! A way from the machine's own loopback to the controller's port, so that `trunkctl` and the tests need not enter a
//! host. The listening socket belongs to the machine, the outgoing ones to the controller's host.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use nix::sched::{CloneFlags, setns};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::host::Host;
use crate::LabError;

/// A forwarded port. Dropping it ends the thread, which would keep the host's network alive.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Where to connect to.
    pub(crate) address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// Starts forwarding to `target` as the host sees it.
pub(crate) fn start(host: &Host, target: SocketAddr) -> Result<Forward, LabError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(LabError::io("cannot listen on 127.0.0.1"))?;
    listener
        .set_nonblocking(true)
        .map_err(LabError::io("cannot use the listening socket"))?;
    let address = listener
        .local_addr()
        .map_err(LabError::io("cannot use the listening socket"))?;
    let netns = format!("/proc/{}/ns/net", host.pid());
    let netns = std::fs::File::open(&netns).map_err(LabError::io(format!("cannot open {netns}")))?;
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("forward".to_owned())
        .spawn(move || {
            // Only this thread goes there, and its runtime has no other.
            if let Err(error) = setns(netns, CloneFlags::CLONE_NEWNET) {
                return tracing::error!(%error, "cannot forward to the controller");
            }
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(async {
                    tokio::select! {
                        () = forward(listener, target) => {}
                        // Nothing is ever sent: the sender is dropped. Open connections end with the runtime.
                        _ = stopped => {}
                    }
                }),
                Err(error) => tracing::error!(%error, "cannot forward to the controller"),
            }
        })
        .map_err(LabError::io("cannot start a thread"))?;
    Ok(Forward { address, _stop: stop })
}

async fn forward(listener: TcpListener, target: SocketAddr) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            // Either side may go at any time; the other one sees it closed.
            if let Ok(mut far) = TcpStream::connect(target).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
