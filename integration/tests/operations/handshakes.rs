//! What does not get past the controller's front door: no certificate, a stranger's, an old TLS, no TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};
use trunkline_certs::Role;
use trunkline_certs::authority::{Authority, Leaf};
use trunkline_integration::lab::{Lab, Options};

use crate::support::{api, fleet};

/// How an HTTP/2 client begins, and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn connect(lab: &Lab) -> TcpStream {
    let endpoint = lab.controller_endpoint();
    let stream = TcpStream::connect(endpoint.strip_prefix("https://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Shakes hands and reads the beginning of what an HTTP/2 server says; an error when it does not come to that.
fn greet(lab: &Lab, bundle: Option<&Path>, versions: &[&'static SupportedProtocolVersion]) -> Result<Vec<u8>, String> {
    let mut roots = RootCertStore::empty();
    let authority = lab.bundle("operator").join("ca.pem");
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap();
    let config = config.with_root_certificates(roots);
    let mut config = match bundle {
        Some(bundle) => {
            let chain = CertificateDer::pem_file_iter(bundle.join("cert.pem"))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let key = PrivateKeyDer::from_pem_file(bundle.join("key.pem")).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    let mut stream = StreamOwned::new(session, connect(lab));
    // In TLS 1.3 the client is done before the server has looked at its certificate: only an answer counts.
    stream.write_all(PREFACE).map_err(|error| error.to_string())?;
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer.to_vec())
}

#[test]
fn only_tls_1_3_with_a_certificate_of_ours_is_let_in() {
    let lab = fleet(&Options {
        workers: 1,
        ..Options::default()
    });
    let tls13: &[_] = &[&version::TLS13];
    let operator = lab.bundle("operator");
    let answer = greet(&lab, Some(&operator), tls13).unwrap();
    assert_eq!(answer[3], 4, "an operator is answered with SETTINGS: {answer:?}");

    let error = greet(&lab, None, tls13).unwrap_err();
    assert!(error.contains("CertificateRequired"), "without a certificate: {error}");

    let folder = lab.folder().join("strangers");
    let authority = Authority::create(&folder.join("ca"), "lab.trunkline.test").unwrap();
    let leaf = Leaf {
        role: Role::Operator,
        name: "operator".to_owned(),
        dns: Vec::new(),
        ips: Vec::new(),
        days: 30,
    };
    authority.issue(&leaf, &folder.join("operator")).unwrap();
    let error = greet(&lab, Some(&folder.join("operator")), tls13).unwrap_err();
    assert!(
        error.contains("alert"),
        "with the certificate of a stranger's authority: {error}"
    );

    let error = greet(&lab, Some(&operator), &[&version::TLS12]).unwrap_err();
    assert!(error.contains("ProtocolVersion"), "with TLS 1.2: {error}");

    let mut plain = connect(&lab);
    plain.write_all(PREFACE).unwrap();
    let mut answer = Vec::new();
    // A reset is as good an end as any.
    let _ = plain.read_to_end(&mut answer);
    let alert = answer.first() == Some(&0x15);
    assert!(answer.is_empty() || alert, "without TLS: {answer:?}");

    // None of it was in anybody's way.
    assert_eq!(api(&lab).nodes().unwrap().len(), 2);
}
