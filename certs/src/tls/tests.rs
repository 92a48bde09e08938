//! Handshakes in memory: who is let in, and who is not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls::pki_types::ServerName;
use rustls::version::TLS12;
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, ServerConnection};
use tempfile::TempDir;

use super::*;
use crate::authority::{Authority, Leaf};
use crate::explain;

const DOMAIN: &str = "trunkline.local";

struct World {
    dir: TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::create(&dir.path().join("ca"), DOMAIN).unwrap();
        Self { dir, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn bundle(&self, role: Role, name: &str) -> Bundle {
        let out = self.path(name);
        self.authority.issue(&leaf(role, name), &out).unwrap();
        Bundle::load(&out).unwrap()
    }

    /// A bundle that the authority would not issue; it is not checked as a whole, only read.
    fn odd(&self, trust_domain: &str, role: Role, usage: rcgen::ExtendedKeyUsagePurpose) -> Bundle {
        let identity = Identity::new(trust_domain, role, "odd").unwrap();
        let mut leaf = leaf(role, "odd");
        leaf.dns = vec!["localhost".to_owned()];
        let out = self.path("odd");
        self.authority
            .issue_odd(&identity, &leaf, usage, SystemTime::now(), &out)
            .unwrap();
        Bundle::read_unchecked(&out)
    }

    fn server(&self) -> ServerConfig {
        server_config(&self.bundle(Role::Controller, "c1")).unwrap()
    }

    fn client(&self) -> ClientConfig {
        client_config(&self.bundle(Role::Worker, "w1")).unwrap()
    }
}

fn leaf(role: Role, name: &str) -> Leaf {
    let dns = if role == Role::Controller {
        vec!["localhost".to_owned()]
    } else {
        Vec::new()
    };
    Leaf {
        role,
        name: name.to_owned(),
        dns,
        ips: Vec::new(),
        days: 30,
    }
}

/// Shakes hands; both ends' connections when both are content, or what the first one said that was not.
fn handshake(
    client: ClientConfig,
    server: ServerConfig,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..20 {
        flow(&mut client, &mut server)?;
        flow(&mut server, &mut client)?;
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok((client, server));
        }
    }
    panic!("the handshake went nowhere");
}

fn flow<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Result<(), rustls::Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut wire = wire.as_slice();
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn a_member_and_a_controller_agree_on_tls13_and_http2() {
    let world = World::new();
    let (client, server) = handshake(world.client(), world.server(), "localhost").unwrap();
    assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    let peer = crate::Certificate::from_der(&server.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(peer.identity.to_string(), "worker/w1");
}

#[test]
fn tls12_is_refused_by_the_server() {
    let world = World::new();
    let bundle = world.bundle(Role::Worker, "w1");
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(bundle.roots.clone())
        .with_client_auth_cert(bundle.chain.clone(), bundle.key.clone_key())
        .unwrap();
    let error = handshake(old, world.server(), "localhost").unwrap_err();
    assert!(matches!(error, rustls::Error::PeerIncompatible(_)), "{error}");
}

#[test]
fn tls12_is_refused_by_the_client() {
    let world = World::new();
    let bundle = world.bundle(Role::Controller, "c1");
    let old = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(bundle.chain.clone(), bundle.key.clone_key())
        .unwrap();
    assert!(handshake(world.client(), old, "localhost").is_err());
}

#[test]
fn a_client_without_certificate_is_refused() {
    let world = World::new();
    let bundle = world.bundle(Role::Worker, "w1");
    let nobody = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(bundle.roots.clone())
        .with_no_client_auth();
    let error = handshake(nobody, world.server(), "localhost").unwrap_err();
    assert_eq!(error, rustls::Error::NoCertificatesPresented);
}

#[test]
fn a_client_of_another_authority_is_refused() {
    let (ours, theirs) = (World::new(), World::new());
    let mut stranger = theirs.bundle(Role::Worker, "w1");
    stranger.roots = ours.bundle(Role::Viewer, "v1").roots.clone();
    let error = handshake(client_config(&stranger).unwrap(), ours.server(), "localhost").unwrap_err();
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let (ours, theirs) = (World::new(), World::new());
    let error = handshake(ours.client(), theirs.server(), "localhost").unwrap_err();
    assert!(explain(&error).contains("not signed by our authority"), "{error:?}");
}

#[test]
fn a_server_with_another_name_is_refused() {
    let world = World::new();
    for name in ["elsewhere", "127.0.0.1"] {
        let world = if name == "elsewhere" { &world } else { &World::new() };
        let error = handshake(world.client(), world.server(), name).unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
}

#[test]
fn a_server_that_is_no_controller_is_refused() {
    let world = World::new();
    let worker = world.odd(DOMAIN, Role::Worker, ServerAuth);
    let error = handshake(world.client(), build_server(&worker).unwrap(), "localhost").unwrap_err();
    assert_eq!(explain(&error), "the server is worker/odd, not a controller");
}

#[test]
fn a_worker_certificate_as_issued_cannot_serve() {
    let world = World::new();
    let worker = world.bundle(Role::Worker, "w2");
    let error = handshake(world.client(), build_server(&worker).unwrap(), "localhost").unwrap_err();
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn the_trust_domain_must_be_ours_on_both_sides() {
    let world = World::new();
    let client = world.odd("elsewhere.local", Role::Worker, ClientAuth);
    // A client that would take any controller, so that it is the server who refuses.
    let careless = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(client.roots.clone())
        .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
        .unwrap();
    let error = handshake(careless, world.server(), "localhost").unwrap_err();
    assert!(
        explain(&error).contains("is of trust domain `elsewhere.local`, ours is"),
        "{error}"
    );

    let world = World::new();
    let server = world.odd("elsewhere.local", Role::Controller, ServerAuth);
    let error = handshake(world.client(), build_server(&server).unwrap(), "localhost").unwrap_err();
    assert!(
        explain(&error).contains("is of trust domain `elsewhere.local`, ours is"),
        "{error}"
    );
}

#[test]
fn an_expired_client_is_refused() {
    let world = World::new();
    let identity = Identity::new(DOMAIN, Role::Worker, "w1").unwrap();
    let long_ago = SystemTime::now() - std::time::Duration::from_secs(60 * 24 * 60 * 60);
    let out = world.path("old");
    world
        .authority
        .issue_odd(&identity, &leaf(Role::Worker, "w1"), ClientAuth, long_ago, &out)
        .unwrap();
    let old = Bundle::read_unchecked(&out);
    let error = handshake(build_client(&old).unwrap(), world.server(), "localhost").unwrap_err();
    assert!(explain(&error).contains("has expired"), "{error}");
}
