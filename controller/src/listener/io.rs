//! An authenticated connection, as tonic takes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::PeerInfo;
use super::ending::Ending;
use super::members::Member;
use super::stats::ListenerStats;

/// A TLS connection that knows who is at the other end and holds its place among the connections.
#[derive(Debug)]
pub struct TlsIo {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    stats: ListenerStats,
    ending: Ending,
    _place: (OwnedSemaphorePermit, Member),
}

impl TlsIo {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        peer: PeerInfo,
        place: (OwnedSemaphorePermit, Member),
        stats: ListenerStats,
        stop: CancellationToken,
    ) -> Self {
        stats.opened();
        Self {
            ending: Ending::new(peer.certificate_expires, stop),
            stream,
            peer,
            stats,
            _place: place,
        }
    }
}

impl Drop for TlsIo {
    fn drop(&mut self) {
        self.stats.closed();
    }
}

impl Connected for TlsIo {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Whoever serves it waits for the next frame or for room to write, so this ends an idle connection and a stuck one as well.
        self.ending.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.ending.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.ending.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ending.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
