//! The controller's front door: TCP in, authenticated connections out.
//!
//! ```text
//!   accept loop --(permit)--> handshake task, one each, with a time limit --> Incoming --> tonic
//!        |                         |
//!        |                         `- the newest ServerConfig, so a renewed certificate needs no restart
//!        `- waits while LIMIT handshakes are under way; pauses when the system has no descriptors left
//! ```
//!
//! tonic's own acceptor has no limit on handshakes, no timeout and a fixed certificate. Who is not authenticated holds one of the few handshake
//! places for a short time and nothing else; the limit on connections counts authenticated ones only, so strangers cannot use it up. Nor
//! can one member: each identity has a few places. A connection ends with the certificate that it was opened with.

mod ending;
mod io;
mod members;
mod stats;

use std::io as stdio;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures::Stream;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use trunkline_certs::{Certificate, Identity, Reloader, explain};
use trunkline_proto::daemon::{Lifecycle, Metrics};

pub use io::TlsIo;
pub use stats::ListenerStats;

use members::Members;
use stats::Outcome;

/// Connections that the system lets wait for us; it takes its own limit (4096 as a rule) where that is less. When a fleet comes back at
/// once, whoever finds no room tries again a second later, and two more after that.
const BACKLOG: u32 = 16_384;
/// Pause after an accept error that the next accept would only repeat, such as EMFILE.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Finished handshakes that may wait for tonic to take them.
const READY_QUEUE: usize = 16;
/// How often the certificate's files are looked at.
pub const CERTIFICATE_CHECK: Duration = Duration::from_secs(10);

/// What strangers and members may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte to a finished handshake.
    pub handshake_timeout: Duration,
    /// Handshakes under way; more wait in the system's backlog.
    pub pending_handshakes: usize,
    /// Authenticated connections; one more is closed.
    pub connections: usize,
    /// Of those, with the same identity.
    pub per_identity: usize,
}

/// Who is at the other end of a connection; in the extensions of every request that comes over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where it comes from.
    pub address: SocketAddr,
    /// Who it is, from its certificate.
    pub identity: Identity,
    /// Last second of its certificate's validity.
    pub certificate_expires: SystemTime,
}

/// A bound address, not yet served.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    door: Arc<Door>,
}

/// Authenticated connections as they come, for `Server::serve_with_incoming_shutdown`. Ends when the daemon is to stop.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<TlsIo>,
}

/// The address could not be had.
#[derive(Debug, Error)]
#[error("cannot listen on {address}")]
pub struct ListenerError {
    address: SocketAddr,
    #[source]
    source: stdio::Error,
}

/// What every handshake needs.
#[derive(Debug)]
struct Door {
    tls: Arc<Reloader<ServerConfig>>,
    handshake_timeout: Duration,
    pending: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    members: Members,
    stats: ListenerStats,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            pending_handshakes: 256,
            connections: 16_384,
            per_identity: 64,
        }
    }
}

impl Listener {
    /// Takes the address. Must be called within a runtime.
    ///
    /// # Errors
    /// It is taken, or not ours.
    pub fn bind(address: SocketAddr, tls: Arc<Reloader<ServerConfig>>, limits: Limits) -> Result<Self, ListenerError> {
        let failed = |source| ListenerError { address, source };
        let tcp = listen(address).map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let Limits {
            handshake_timeout,
            pending_handshakes,
            connections,
            per_identity,
        } = limits;
        let door = Door {
            tls,
            handshake_timeout,
            pending: Arc::new(Semaphore::new(pending_handshakes)),
            connections: Arc::new(Semaphore::new(connections)),
            members: Members::new(per_identity),
            stats: ListenerStats::default(),
        };
        Ok(Self {
            tcp,
            address,
            door: Arc::new(door),
        })
    }

    /// Address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Counters, to be registered.
    pub fn stats(&self) -> ListenerStats {
        self.door.stats.clone()
    }

    /// Starts to accept, in a task of `life`.
    pub fn incoming(self, life: &Lifecycle) -> Incoming {
        let (done, ready) = mpsc::channel(READY_QUEUE);
        life.spawn(accept_loop(self.tcp, self.door, done, life.token()));
        Incoming { ready }
    }
}

fn listen(address: SocketAddr) -> stdio::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart finds connections of the earlier process that the system has not forgotten yet.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Stream for Incoming {
    type Item = stdio::Result<TlsIo>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|io| io.map(Ok))
    }
}

/// Looks at the certificate's files now and then, and keeps the metric of its end; runs until `stop`.
pub async fn watch_certificate(
    tls: Arc<Reloader<ServerConfig>>,
    every: Duration,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    loop {
        metrics.certificate_expiry(tls.current().not_after_unix);
        // Either arm may be cancelled: nothing is under way in it.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let checked = tls.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || checked.check()).await {
            tracing::error!(%error, "certificate check ended badly");
        }
    }
}

async fn accept_loop(tcp: TcpListener, door: Arc<Door>, done: mpsc::Sender<TlsIo>, stop: CancellationToken) {
    let mut handshakes = JoinSet::new();
    loop {
        // Every arm may be cancelled: a connection stays in the backlog, a permit goes back, a joined task is only forgotten.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            () = done.closed() => break,
            Some(_) = handshakes.join_next() => continue,
            accepted = accept(&tcp, &door.pending) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                handshakes.spawn(receive(
                    door.clone(),
                    stream,
                    peer,
                    permit,
                    (done.clone(), stop.clone()),
                ));
            }
            Err(error) if of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted, pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    handshakes.shutdown().await;
}

/// First the permit, then the connection: who waits, waits in the backlog.
async fn accept(
    tcp: &TcpListener,
    pending: &Arc<Semaphore>,
) -> stdio::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = pending.clone().acquire_owned().await.map_err(stdio::Error::other)?;
    let (stream, peer) = tcp.accept().await?;
    Ok((stream, peer, permit))
}

/// One connection from TCP to tonic.
async fn receive(
    door: Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    (done, stop): (mpsc::Sender<TlsIo>, CancellationToken),
) {
    let outcome = match tokio::time::timeout(door.handshake_timeout, door.shake_hands(stream, peer, stop)).await {
        Ok(Ok(io)) => {
            drop(permit);
            // Fails when the server is ending; then the connection is closed.
            let _ = done.send(io).await;
            Outcome::Accepted
        }
        Ok(Err(Refused { outcome, why })) => {
            tracing::info!(%peer, why, "connection refused");
            outcome
        }
        Err(_) => {
            tracing::info!(%peer, "connection refused: no handshake in time");
            Outcome::TimedOut
        }
    };
    door.stats.count(outcome);
}

struct Refused {
    outcome: Outcome,
    why: String,
}

impl Door {
    async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        stop: CancellationToken,
    ) -> Result<TlsIo, Refused> {
        let failed = |why: String| Refused {
            outcome: Outcome::Failed,
            why,
        };
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let acceptor = TlsAcceptor::from(self.tls.current().config.clone());
        let stream = acceptor
            .accept(stream)
            .await
            .map_err(|error| failed(in_words(&error)))?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let leaf = leaf.ok_or_else(|| failed("no certificate".to_owned()))?;
        let certificate = Certificate::from_der(leaf).map_err(|error| failed(error.to_string()))?;
        let peer = PeerInfo {
            address,
            certificate_expires: certificate.expires(),
            identity: certificate.identity,
        };
        let place = self.connections.clone().try_acquire_owned().map_err(|_| Refused {
            outcome: Outcome::Full,
            why: format!("{} found every connection taken", peer.identity),
        })?;
        let member = self.members.enter(&peer.identity).ok_or_else(|| Refused {
            outcome: Outcome::Full,
            why: format!("{} has as many connections as one identity may have", peer.identity),
        })?;
        Ok(TlsIo::new(stream, peer, (place, member), self.stats.clone(), stop))
    }
}

fn in_words(error: &stdio::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.map_or_else(|| error.to_string(), explain)
}

/// The connection died before it was accepted; the next one need not.
fn of_one_connection(error: &stdio::Error) -> bool {
    use stdio::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::Interrupted
    )
}

#[cfg(test)]
mod tests;
