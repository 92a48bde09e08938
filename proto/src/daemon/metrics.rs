//! Prometheus metrics on a loopback port.
//!
//! The responder is small on purpose: `GET /metrics` and nothing else, one answer a connection. It listens on loopback only, because
//! metrics are not authenticated; a collector on the host, or a proxy that authenticates, reads them there.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A scrape takes milliseconds; whoever takes longer is not scraping.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);
/// More readers at once than any host has.
const READERS_MAX: usize = 16;
/// Longest request head.
const HEAD_MAX: usize = 8 * 1024;

/// The section `[metrics]` of a daemon's file.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Loopback address and port, `127.0.0.1:9464`.
    #[serde(deserialize_with = "loopback")]
    pub listen: SocketAddr,
}

/// The registry of a process, with what every daemon shows.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    certificate: Gauge,
}

/// A bound port, not yet served.
#[derive(Debug)]
pub struct MetricsServer {
    metrics: Arc<Metrics>,
    listener: TcpListener,
    address: SocketAddr,
}

/// The port could not be had.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// Not a loopback address.
    #[error("metrics may be served on a loopback address only, {0} is none: write 127.0.0.1:{port}", port = .0.port())]
    NotLoopback(SocketAddr),
    /// The port is taken, or not allowed.
    #[error("metrics cannot be served on {address}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Metrics {
    /// A registry with build information, start time and the certificate's end.
    pub fn new(program: &'static str, version: &'static str) -> Self {
        let mut registry = Registry::default();
        let build = Family::<[(&str, &str); 2], Gauge>::default();
        build
            .get_or_create(&[("program", program), ("version", version)])
            .set(1);
        registry.register("trunkline_build_info", "Program and version, always 1", build);

        let started = Gauge::<i64>::default();
        started.set(unix_now());
        registry.register("process_start_time_seconds", "Start of the process, Unix time", started);

        let certificate = Gauge::<i64>::default();
        let help = "Last second of validity of our certificate, Unix time; 0 before it is loaded";
        registry.register(
            "trunkline_certificate_expiry_timestamp_seconds",
            help,
            certificate.clone(),
        );
        Self {
            registry: Mutex::new(registry),
            certificate,
        }
    }

    /// Registers more metrics. Names begin with `trunkline_`; labels must be bounded.
    pub fn register<T>(&self, with: impl FnOnce(&mut Registry) -> T) -> T {
        with(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says when our certificate ends, Unix time. To be called again after each reload.
    pub fn certificate_expiry(&self, unix: i64) {
        self.certificate.set(unix);
    }

    /// Everything in Prometheus' text format 0.0.4.
    pub fn text(&self) -> String {
        let mut open_metrics = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a string fails only if a metric's own encoder does; what was written until then is still right.
        let _ = encode_registry(&mut open_metrics, &registry);
        drop(registry);
        prometheus_text(&open_metrics)
    }

    /// Takes the port.
    ///
    /// # Errors
    /// It is not on loopback, or taken.
    pub async fn bind(self: &Arc<Self>, address: SocketAddr) -> Result<MetricsServer, MetricsError> {
        if !address.ip().is_loopback() {
            return Err(MetricsError::NotLoopback(address));
        }
        let bind = |source| MetricsError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Ok(MetricsServer {
            metrics: self.clone(),
            listener,
            address,
        })
    }
}

impl MetricsServer {
    /// Address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        loop {
            // Either arm may be cancelled: a connection that waits stays in the backlog.
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.answer(stream, &readers),
                // Out of descriptors, say: without a pause this would spin.
                Err(error) => {
                    tracing::warn!(%error, "metrics connection not accepted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn answer(&self, stream: TcpStream, readers: &Arc<Semaphore>) {
        let Ok(permit) = readers.clone().try_acquire_owned() else {
            return; // dropped: the reader sees a closed connection and comes again
        };
        let metrics = self.metrics.clone();
        // Not joined: it lives for EXCHANGE_LIMIT at most and holds nothing.
        tokio::spawn(async move {
            let exchanged = tokio::time::timeout(EXCHANGE_LIMIT, exchange(stream, &metrics)).await;
            drop(permit);
            if let Ok(Err(error)) = exchanged {
                tracing::debug!(%error, "metrics reader left early");
            }
        });
    }
}

async fn exchange(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let mut words = head.split(|&byte| byte == b' ' || byte == b'\r');
    let answer = match (words.next(), words.next()) {
        (Some(b"GET"), Some(path)) if path == b"/metrics" || path.starts_with(b"/metrics?") => {
            response("200 OK", "text/plain; version=0.0.4; charset=utf-8", &metrics.text())
        }
        (Some(b"GET"), Some(_)) => response("404 Not Found", "text/plain", "metrics are at /metrics\n"),
        _ => response("405 Method Not Allowed", "text/plain", "only GET /metrics\n"),
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// The request up to the empty line, or what came of it.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    while head.len() < HEAD_MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

fn response(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// OpenMetrics names a counter's family without `_total`; Prometheus' own format, which every scraper reads, names it with.
fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, words)) = help.take() {
                text.push_str(&format!("# HELP {name}{suffix} {words}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn unix_now() -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn loopback<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let address = SocketAddr::deserialize(deserializer)?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(D::Error::custom(MetricsError::NotLoopback(address)))
    }
}

#[cfg(test)]
mod tests;
