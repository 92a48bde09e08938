//! TCP, then TLS, then HTTP/2, each with its own error.
//!
//! tonic's own TLS takes no verifier of ours and no new certificate, so the connection is made here and handed to it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig as TlsConfig;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use trunkline_certs::{Identity, Reloader, TlsError, explain};

use super::config::{ClientConfig, EndpointError, Target};
use super::error::ApiError;

/// A dead peer is noticed after this and [`KEEPALIVE_TIMEOUT`] together.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// No connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The endpoint is not right.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Our certificate bundle is not right.
    #[error("the certificate bundle cannot be used")]
    Bundle(#[from] TlsError),
    /// TCP or TLS failed.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The controller did not answer the first call; the most common cause is that it does not take our certificate.
    #[error("{endpoint} did not accept us as {identity}: is our certificate of its authority and trust domain?")]
    Refused {
        /// As configured.
        endpoint: String,
        /// Who we said we are.
        identity: Box<Identity>,
        /// What came instead of an answer.
        #[source]
        source: Box<ApiError>,
    },
    /// tonic refuses the connection for a reason of its own.
    #[error("no connection to {endpoint}")]
    Transport {
        /// As configured.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// One attempt to connect failed.
#[derive(Debug, Error)]
pub enum DialError {
    /// Nobody there.
    #[error("cannot reach {address}: is the controller running, and is this its address?")]
    Tcp {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody there, but not one we talk to.
    #[error("no TLS with {address}: {why}")]
    Tls {
        /// Host and port.
        address: String,
        /// In words.
        why: String,
        /// As the library has it.
        #[source]
        source: io::Error,
    },
    /// Neither yes nor no.
    #[error("{address} did not answer within {limit:?}")]
    TimedOut {
        /// Host and port.
        address: String,
        /// How long we waited.
        limit: Duration,
    },
}

/// Makes the connection now.
pub(super) async fn channel(config: &ClientConfig, tls: Arc<Reloader<TlsConfig>>) -> Result<Channel, ConnectError> {
    let target = config.target()?;
    let limit = config.connect_timeout;
    let connector = service_fn(move |_: Uri| dial(target.clone(), tls.clone(), limit));
    let failed = |error| transport_error(config, error);
    endpoint(config)?
        .connect_with_connector(connector)
        .await
        .map_err(failed)
}

/// Makes the connection with the first call.
pub(super) fn lazy_channel(config: &ClientConfig, tls: Arc<Reloader<TlsConfig>>) -> Result<Channel, ConnectError> {
    let target = config.target()?;
    let limit = config.connect_timeout;
    let connector = service_fn(move |_: Uri| dial(target.clone(), tls.clone(), limit));
    Ok(endpoint(config)?.connect_with_connector_lazy(connector))
}

/// What the first call's failure means.
pub(super) fn refused(config: &ClientConfig, identity: Identity, status: Status) -> ConnectError {
    ConnectError::Refused {
        endpoint: config.endpoint.clone(),
        identity: identity.into(),
        source: Box::new(ApiError::from(status)),
    }
}

/// The first error of type `T` in a chain; an I/O error often holds one without calling it its source.
pub(super) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = error
            .downcast_ref()
            .or_else(|| held.and_then(|held| held.downcast_ref()))
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn endpoint(config: &ClientConfig) -> Result<Endpoint, ConnectError> {
    let target = config.target()?;
    // tonic adds TLS of its own to `https`, so it is told `http` and the requests say the truth.
    let plain = format!(
        "http://{}",
        target.origin.authority().map_or("", |authority| authority.as_str())
    );
    let endpoint = Endpoint::from_shared(plain).map_err(|source| transport_error(config, source))?;
    Ok(endpoint
        .origin(target.origin)
        .timeout(config.request_timeout)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

async fn dial(
    target: Target,
    tls: Arc<Reloader<TlsConfig>>,
    limit: Duration,
) -> Result<TokioIo<TlsStream<TcpStream>>, DialError> {
    let address = if target.host.contains(':') {
        format!("[{}]:{}", target.host, target.port)
    } else {
        format!("{}:{}", target.host, target.port)
    };
    tokio::time::timeout(limit, shake_hands(target, tls, &address))
        .await
        .unwrap_or_else(|_| {
            Err(DialError::TimedOut {
                address: address.clone(),
                limit,
            })
        })
        .map(TokioIo::new)
}

async fn shake_hands(
    target: Target,
    tls: Arc<Reloader<TlsConfig>>,
    address: &str,
) -> Result<TlsStream<TcpStream>, DialError> {
    let tcp = |source| DialError::Tcp {
        address: address.to_owned(),
        source,
    };
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(tcp)?;
    stream.set_nodelay(true).map_err(tcp)?;
    // A few small files, and only when a connection is made.
    tls.check();
    let connector = TlsConnector::from(tls.current().config.clone());
    connector
        .connect(target.name, stream)
        .await
        .map_err(|source| DialError::Tls {
            address: address.to_owned(),
            why: source
                .get_ref()
                .and_then(|inner| inner.downcast_ref())
                .map_or_else(|| source.to_string(), explain),
            source,
        })
}

fn transport_error(config: &ClientConfig, source: tonic::transport::Error) -> ConnectError {
    // Found by reference only, so it is made anew: what it says is what matters.
    match find::<DialError>(&source) {
        Some(DialError::Tcp { address, source }) => DialError::Tcp {
            address: address.clone(),
            source: again(source),
        }
        .into(),
        Some(DialError::Tls { address, why, source }) => DialError::Tls {
            address: address.clone(),
            why: why.clone(),
            source: again(source),
        }
        .into(),
        Some(DialError::TimedOut { address, limit }) => DialError::TimedOut {
            address: address.clone(),
            limit: *limit,
        }
        .into(),
        None => ConnectError::Transport {
            endpoint: config.endpoint.clone(),
            source,
        },
    }
}

fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
