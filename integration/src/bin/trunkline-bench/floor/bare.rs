//! What gRPC, TLS and the system cost by themselves, without a controller behind them.

pub(crate) mod handshakes;
pub(crate) mod streams;

use std::path::Path;

use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use trunkline_certs::{CA_FILE, CERT_FILE, KEY_FILE};
use trunkline_integration::LabError;

/// tonic's own mutual TLS with the keys of a bundle.
pub(super) fn tls(bundle: &Path) -> Result<ServerTlsConfig, LabError> {
    let read = |file: &str| {
        let path = bundle.join(file);
        std::fs::read(&path).map_err(LabError::io(format!("cannot read {}", path.display())))
    };
    let identity = Identity::from_pem(read(CERT_FILE)?, read(KEY_FILE)?);
    let authority = Certificate::from_pem(read(CA_FILE)?);
    Ok(ServerTlsConfig::new().identity(identity).client_ca_root(authority))
}
