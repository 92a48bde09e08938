//! TLS configurations: version 1.3, both sides authenticated, HTTP/2.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use thiserror::Error;

use crate::bundle::{Bundle, BundleError};
use crate::identity::{Identity, Role};
use crate::verify::{ControllerVerifier, MemberVerifier, provider};

/// gRPC is HTTP/2.
const ALPN: &[u8] = b"h2";

/// No TLS configuration could be made.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The bundle is not right.
    #[error("the certificate bundle cannot be used")]
    Bundle(#[from] BundleError),
    /// Only a controller serves.
    #[error("the bundle is of {0}, but a server needs one of the role controller")]
    NotController(Identity),
    /// A controller's certificate is for serving only.
    #[error("the bundle is of {0}, which only serves: use one of the role operator, viewer, worker or netnode")]
    OnlyServes(Identity),
    /// rustls refused it.
    #[error("no TLS configuration could be made of the bundle of {identity}")]
    Rustls {
        /// Holder of the bundle.
        identity: Identity,
        /// Why.
        #[source]
        source: Box<rustls::Error>,
    },
}

/// The controller's side: TLS 1.3, a client without a certificate of our authority and trust domain is refused.
///
/// # Errors
/// The bundle is not a controller's, or rustls refuses it.
pub fn server_config(bundle: &Bundle) -> Result<ServerConfig, TlsError> {
    if bundle.identity().role() != Role::Controller {
        return Err(TlsError::NotController(bundle.identity().clone()));
    }
    build_server(bundle).map_err(|source| wrap(bundle, source))
}

/// A caller's side: TLS 1.3, the server must hold the name it was called by and be a controller of our trust domain.
///
/// # Errors
/// The bundle is a controller's, or rustls refuses it.
pub fn client_config(bundle: &Bundle) -> Result<ClientConfig, TlsError> {
    if bundle.identity().role() == Role::Controller {
        return Err(TlsError::OnlyServes(bundle.identity().clone()));
    }
    build_client(bundle).map_err(|source| wrap(bundle, source))
}

fn build_server(bundle: &Bundle) -> Result<ServerConfig, rustls::Error> {
    let verifier = MemberVerifier::new(bundle.roots.clone(), bundle.identity().trust_domain())?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(bundle.chain.clone(), bundle.key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would not look at the client's certificate again; connections are few and long, so nothing is lost.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn build_client(bundle: &Bundle) -> Result<ClientConfig, rustls::Error> {
    let verifier = ControllerVerifier::new(bundle.roots.clone(), bundle.identity().trust_domain())?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous() // rustls' word for a verifier of one's own; ours only adds to webpki's
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(bundle.chain.clone(), bundle.key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn wrap(bundle: &Bundle, source: rustls::Error) -> TlsError {
    TlsError::Rustls {
        identity: bundle.identity().clone(),
        source: source.into(),
    }
}

#[cfg(all(test, feature = "authority"))]
mod tests;
