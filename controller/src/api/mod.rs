//! The gRPC API: thin handlers, one file a service, over a core that knows no transport.
//!
//! [`serve`] puts them behind the listener's mutual TLS and the table of roles, with limits on everything that a caller could
//! let grow.

mod call;
pub mod errors;
mod events;
mod explain;
mod fleet;
mod page;
mod slices;
mod status;
mod watch;

use std::{sync::Arc, time::Duration};

use tonic::{server::NamedService, transport::Server};
use tonic_health::server::HealthReporter;
use trunkline_proto::{
    daemon::Lifecycle,
    wire::{
        FILE_DESCRIPTOR_SET, event_service_server::EventServiceServer, explain_service_server::ExplainServiceServer,
        fleet_service_server::FleetServiceServer, node_service_server::NodeServiceServer,
        slice_service_server::SliceServiceServer, watch_service_server::WatchServiceServer,
    },
};

use crate::{
    authz::AuthzLayer,
    core::Core,
    listener::Incoming,
    stream::{self, Nodes, Timing},
};

/// Largest request: a topology of some thousands of VMs.
const MAX_REQUEST: usize = 8 << 20;

/// Streams of one connection: watches and calls of one client.
const MAX_STREAMS: u32 = 256;

/// Headers of a request.
const MAX_HEADERS: u32 = 16 << 10;

/// A connection without a word for this long is asked whether it lives,
const KEEPALIVE: Duration = Duration::from_secs(20);

/// and closed when it does not answer in this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The services could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The server ended.
    #[error("the API ended")]
    Transport(#[from] tonic::transport::Error),
    /// Reflection cannot read our own descriptors.
    #[error("the API's descriptors cannot be read")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `life` ends.
///
/// # Errors
/// The server cannot go on.
pub async fn serve(core: Arc<Core>, timing: Timing, incoming: Incoming, life: Lifecycle) -> Result<(), ServeError> {
    let slices = SliceServiceServer::new(slices::Slices { core: core.clone() }).max_decoding_message_size(MAX_REQUEST);
    let fleet = FleetServiceServer::new(fleet::Fleet { core: core.clone() });
    let watch = WatchServiceServer::new(watch::Watches {
        core: core.clone(),
        life: life.clone(),
    });
    let events = EventServiceServer::new(events::Events {
        core: core.clone(),
        life: life.clone(),
    });
    let explain = ExplainServiceServer::new(explain::Explains { core: core.clone() });
    let nodes =
        NodeServiceServer::new(Nodes::new(core, timing, life.clone())).max_decoding_message_size(stream::MAX_MESSAGE);
    let (health, health_service) = tonic_health::server::health_reporter();
    set_serving(
        &health,
        [
            name(&slices),
            name(&fleet),
            name(&watch),
            name(&events),
            name(&explain),
            name(&nodes),
        ],
    )
    .await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let token = life.token();
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .layer(AuthzLayer)
        .add_service(slices)
        .add_service(fleet)
        .add_service(watch)
        .add_service(events)
        .add_service(explain)
        .add_service(nodes)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(incoming, async move { token.cancelled().await })
        .await?;
    Ok(())
}

fn name<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}

async fn set_serving<const N: usize>(health: &HealthReporter, services: [&'static str; N]) {
    for service in services {
        health
            .set_service_status(service, tonic_health::ServingStatus::Serving)
            .await;
    }
}
