//! The SDK: connect with mutual TLS, typed calls, retry, readable errors.
//!
//! ```no_run
//! use trunkline_proto::client::{ApiError, Client, ClientConfig, new_request_id, retry};
//! use trunkline_proto::wire::{DeploySliceRequest, ListSlicesRequest};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ClientConfig::new("https://controller.example.org:7443", "/etc/trunkline/alice")).await?;
//!
//! let page = client.slices().list_slices(ListSlicesRequest::default()).await.map_err(ApiError::from)?;
//! println!("{} slices", page.into_inner().slices.len());
//!
//! // The id is drawn once, so a second attempt is the same call and not a second deployment.
//! let request = DeploySliceRequest { request_id: new_request_id(), name: "web".to_owned(), expected_revision: 0 };
//! let deployed = retry(|| {
//!     let (mut slices, request) = (client.slices(), request.clone());
//!     async move { slices.deploy_slice(request).await }
//! })
//! .await
//! .map_err(ApiError::from)?;
//! println!("generation {}", deployed.into_inner().generation);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is cheap to clone, holds one HTTP/2 connection, and makes a new one when that is lost; a renewed bundle is taken into use with
//! the next connection. There is no way to connect without TLS.

mod config;
mod connect;
mod error;
mod health;
mod retry;

use std::sync::Arc;

use rustls::ClientConfig as TlsConfig;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use trunkline_certs::{Identity, Loaded, Reloader};

pub use config::{ClientConfig, EndpointError};
pub use connect::{ConnectError, DialError};
pub use error::{ApiError, Violation};
pub use retry::{new_request_id, retry};

use crate::wire::event_service_client::EventServiceClient;
use crate::wire::explain_service_client::ExplainServiceClient;
use crate::wire::fleet_service_client::FleetServiceClient;
use crate::wire::node_service_client::NodeServiceClient;
use crate::wire::slice_service_client::SliceServiceClient;
use crate::wire::watch_service_client::WatchServiceClient;

/// Largest message either side takes: a page of a thousand large slices is some megabytes.
pub const MESSAGE_MAX: usize = 16 * 1024 * 1024;

/// The transport under the typed clients.
pub type Service = InterceptedService<Channel, TraceContext>;

/// A connection to the controller.
#[derive(Clone, Debug)]
pub struct Client {
    service: Service,
    tls: Arc<Reloader<TlsConfig>>,
}

/// Puts the current W3C trace context into each call, when the feature `daemon` is on and somebody traces.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceContext;

impl Client {
    /// Connects and makes sure of it: the controller has answered a call, so it takes our certificate.
    ///
    /// # Errors
    /// The endpoint or bundle is not right, the controller is not reached, or one side refuses the other.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let tls = Arc::new(Reloader::client(&config.bundle)?);
        let channel = connect::channel(&config, tls.clone()).await?;
        let client = Self::over(channel, tls);
        // In TLS 1.3 a client is "connected" before the server has looked at its certificate.
        health::probe(client.service.clone())
            .await
            .map_err(|status| connect::refused(&config, client.identity(), status))?;
        Ok(client)
    }

    /// A client that connects with its first call, and fails with that.
    ///
    /// # Errors
    /// The endpoint or bundle is not right.
    pub fn lazy(config: ClientConfig) -> Result<Self, ConnectError> {
        let tls = Arc::new(Reloader::client(&config.bundle)?);
        Self::lazy_with(&config, tls)
    }

    /// The same with a bundle that was loaded already, for whoever connects often. The configuration's own is not looked at.
    ///
    /// # Errors
    /// The endpoint is not right.
    pub fn lazy_with(config: &ClientConfig, tls: Arc<Reloader<TlsConfig>>) -> Result<Self, ConnectError> {
        let channel = connect::lazy_channel(config, tls.clone())?;
        Ok(Self::over(channel, tls))
    }

    fn over(channel: Channel, tls: Arc<Reloader<TlsConfig>>) -> Self {
        Self {
            service: InterceptedService::new(channel, TraceContext),
            tls,
        }
    }

    /// Who we are.
    pub fn identity(&self) -> Identity {
        self.tls.current().identity.clone()
    }

    /// The certificate that the next connection will show; for metrics.
    pub fn certificate(&self) -> Arc<Loaded<TlsConfig>> {
        self.tls.current()
    }

    /// Slices: what is asked for, and how far it is true.
    pub fn slices(&self) -> SliceServiceClient<Service> {
        SliceServiceClient::new(self.service.clone())
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// Nodes as an operator sees them.
    pub fn fleet(&self) -> FleetServiceClient<Service> {
        FleetServiceClient::new(self.service.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    /// Changes as they come.
    pub fn watch(&self) -> WatchServiceClient<Service> {
        WatchServiceClient::new(self.service.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    /// The journal.
    pub fn events(&self) -> EventServiceClient<Service> {
        EventServiceClient::new(self.service.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    /// Why a guest reaches another, or does not.
    pub fn explain(&self) -> ExplainServiceClient<Service> {
        ExplainServiceClient::new(self.service.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    /// The connection itself, for a service that is not ours: health, reflection.
    pub fn service(&self) -> Service {
        self.service.clone()
    }

    /// The nodes' own way; only with a node's certificate.
    pub fn node(&self) -> NodeServiceClient<Service> {
        NodeServiceClient::new(self.service.clone())
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }
}

impl Interceptor for TraceContext {
    #[cfg_attr(not(feature = "daemon"), allow(unused_mut))]
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        #[cfg(feature = "daemon")]
        crate::daemon::telemetry::inject(request.metadata_mut());
        Ok(request)
    }
}
