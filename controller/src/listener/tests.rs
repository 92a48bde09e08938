//! The front door and the table behind it, over real TLS on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Server;
use trunkline_certs::Role;
use trunkline_certs::authority::{Authority, Leaf};
use trunkline_proto::client::{ApiError, Client, ClientConfig, ConnectError, DialError, retry};
use trunkline_proto::wire::{DeploySliceRequest, GetSliceRequest};

use super::*;
use crate::authz::{AuthzLayer, REASON_ROLE};

const DEADLINE: Duration = Duration::from_secs(10);

struct Site {
    dir: TempDir,
    authority: Authority,
}

struct Running {
    address: SocketAddr,
    stats: ListenerStats,
    tls: Arc<Reloader<ServerConfig>>,
    life: Lifecycle,
    served: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Site {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::create(&dir.path().join("ca"), "trunkline.local").unwrap();
        Self { dir, authority }
    }

    fn bundle(&self, role: Role, name: &str) -> PathBuf {
        let out = self.dir.path().join(name);
        self.authority.issue(&leaf(role, name, 30), &out).unwrap();
        out
    }

    async fn serve(&self, limits: Limits) -> Running {
        let tls = Arc::new(Reloader::server(self.bundle(Role::Controller, "c1")).unwrap());
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), tls.clone(), limits).unwrap();
        let life = Lifecycle::without_signals();
        let (address, stats) = (listener.local_addr(), listener.stats());
        let (_, health) = tonic_health::server::health_reporter();
        let router = Server::builder().layer(AuthzLayer).add_service(health);
        let token = life.token();
        let incoming = listener.incoming(&life);
        let served = tokio::spawn(router.serve_with_incoming_shutdown(incoming, token.cancelled_owned()));
        Running {
            address,
            stats,
            tls,
            life,
            served,
        }
    }
}

impl Running {
    fn config(&self, bundle: PathBuf) -> ClientConfig {
        ClientConfig::new(format!("https://localhost:{}", self.address.port()), bundle)
    }

    async fn end(self) {
        assert!(self.life.finish(DEADLINE).await, "the accept loop did not end");
        tokio::time::timeout(DEADLINE, self.served)
            .await
            .expect("the server did not end")
            .unwrap()
            .unwrap();
    }
}

fn leaf(role: Role, name: &str, days: u32) -> Leaf {
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
        days,
    }
}

/// Waits for a condition, and says what it waited for.
async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"));
}

async fn is_closed(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

#[tokio::test]
async fn every_role_connects_and_learns_that_the_controller_is_there() {
    let site = Site::new();
    let server = site.serve(Limits::default()).await;
    for role in [Role::Worker, Role::Netnode, Role::Operator, Role::Viewer] {
        let client = Client::connect(server.config(site.bundle(role, role.as_str())))
            .await
            .unwrap();
        assert_eq!(client.identity().role(), role);
    }
    assert_eq!(server.stats.seen(Outcome::Accepted), 4);
    server.end().await;
}

#[tokio::test]
async fn a_role_is_denied_what_it_may_not_call() {
    let site = Site::new();
    let server = site.serve(Limits::default()).await;
    let deploy = || DeploySliceRequest {
        request_id: "1".to_owned(),
        name: "web".to_owned(),
        expected_revision: 0,
    };

    let worker = Client::connect(server.config(site.bundle(Role::Worker, "w1")))
        .await
        .unwrap();
    let read = worker.slices().get_slice(GetSliceRequest::default()).await.unwrap_err();
    assert_eq!(read.code(), Code::PermissionDenied);

    let viewer = Client::connect(server.config(site.bundle(Role::Viewer, "v1")))
        .await
        .unwrap();
    // The layer lets it pass; this server has no such service, and says that.
    let read = viewer.slices().get_slice(GetSliceRequest::default()).await.unwrap_err();
    assert_eq!(read.code(), Code::Unimplemented);
    let error = ApiError::from(viewer.slices().deploy_slice(deploy()).await.unwrap_err());
    assert_eq!(
        (error.code, error.reason.as_deref()),
        (Code::PermissionDenied, Some(REASON_ROLE))
    );
    assert_eq!(error.metadata["allowed"], "operator");

    let operator = Client::connect(server.config(site.bundle(Role::Operator, "alice")))
        .await
        .unwrap();
    let passed = operator.slices().deploy_slice(deploy()).await.unwrap_err();
    assert_eq!(passed.code(), Code::Unimplemented);
    let sync = operator.node().sync(futures::stream::empty()).await.unwrap_err();
    assert_eq!(sync.code(), Code::PermissionDenied);
    server.end().await;
}

#[tokio::test]
async fn a_plaintext_client_is_refused() {
    let site = Site::new();
    let server = site.serve(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert!(is_closed(stream).await);
    until("the refusal is counted", || async {
        server.stats.seen(Outcome::Failed) == 1
    })
    .await;
    server.end().await;
}

#[tokio::test]
async fn a_silent_client_is_cut_after_the_handshake_timeout() {
    let site = Site::new();
    let limits = Limits {
        handshake_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = site.serve(limits).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    assert!(is_closed(stream).await);
    until("the timeout is counted", || async {
        server.stats.seen(Outcome::TimedOut) == 1
    })
    .await;
    server.end().await;
}

#[tokio::test]
async fn pending_handshakes_are_capped_and_the_next_waits_its_turn() {
    let site = Site::new();
    let limits = Limits {
        handshake_timeout: Duration::from_millis(300),
        pending_handshakes: 2,
        ..Limits::default()
    };
    let server = site.serve(limits).await;
    let silent = [
        TcpStream::connect(server.address).await.unwrap(),
        TcpStream::connect(server.address).await.unwrap(),
    ];
    // The two are in the loop's hands before the third comes: TCP accepts in order.
    let client = Client::connect(server.config(site.bundle(Role::Viewer, "v1")))
        .await
        .unwrap();
    assert_eq!(
        server.stats.seen(Outcome::TimedOut),
        2,
        "the third passed before a place was free"
    );
    drop((client, silent));
    server.end().await;
}

#[tokio::test]
async fn connections_are_capped_and_a_place_is_free_again_after_a_close() {
    let site = Site::new();
    let server = site
        .serve(Limits {
            connections: 1,
            ..Limits::default()
        })
        .await;
    let bundle = site.bundle(Role::Viewer, "v1");
    let first = Client::connect(server.config(bundle.clone())).await.unwrap();
    assert!(Client::connect(server.config(bundle.clone())).await.is_err());
    assert!(server.stats.seen(Outcome::Full) >= 1);
    drop(first);
    until("a place is free", || async {
        Client::connect(server.config(bundle.clone())).await.is_ok()
    })
    .await;
    server.end().await;
}

#[tokio::test]
async fn one_identity_cannot_take_the_places_of_the_others() {
    let site = Site::new();
    let server = site
        .serve(Limits {
            per_identity: 1,
            ..Limits::default()
        })
        .await;
    let greedy = site.bundle(Role::Worker, "w1");
    let first = Client::connect(server.config(greedy.clone())).await.unwrap();
    assert!(Client::connect(server.config(greedy.clone())).await.is_err());
    assert!(server.stats.seen(Outcome::Full) >= 1);
    let other = Client::connect(server.config(site.bundle(Role::Worker, "w2"))).await;
    other.unwrap();
    drop(first);
    until("its place is free", || async {
        Client::connect(server.config(greedy.clone())).await.is_ok()
    })
    .await;
    server.end().await;
}

#[tokio::test]
async fn a_client_of_another_authority_is_told_that_it_was_refused() {
    let (ours, theirs) = (Site::new(), Site::new());
    let server = ours.serve(Limits::default()).await;
    let bundle = theirs.bundle(Role::Operator, "mallory");
    // With its own ca.pem it does not believe the controller.
    let error = Client::connect(server.config(bundle.clone())).await.unwrap_err();
    assert!(matches!(error, ConnectError::Dial(DialError::Tls { .. })), "{error}");
    assert!(error.to_string().contains("not signed by our authority"), "{error}");
    // With ours its bundle does not even load.
    std::fs::copy(ours.dir.path().join("ca/ca.pem"), bundle.join("ca.pem")).unwrap();
    let error = Client::connect(server.config(bundle)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Bundle(_)), "{error}");
    server.end().await;
}

#[tokio::test]
async fn a_client_that_the_controller_refuses_is_not_called_connected() {
    let (ours, theirs) = (Site::new(), Site::new());
    let server = ours.serve(Limits::default()).await;
    let bundle = theirs.bundle(Role::Operator, "mallory");
    // It trusts both authorities, so only the controller has something against it.
    let mut both = std::fs::read(ours.dir.path().join("ca/ca.pem")).unwrap();
    both.extend(std::fs::read(theirs.dir.path().join("ca/ca.pem")).unwrap());
    std::fs::write(bundle.join("ca.pem"), both).unwrap();
    let error = Client::connect(server.config(bundle)).await.unwrap_err();
    assert!(
        error.to_string().contains("did not accept us as operator/mallory"),
        "{error}"
    );
    let ConnectError::Refused { source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(
        source.message.starts_with("the controller refused our certificate"),
        "{source}"
    );
    until("the refusal is counted", || async {
        server.stats.seen(Outcome::Failed) >= 1
    })
    .await;
    server.end().await;
}

#[tokio::test]
async fn a_client_finds_the_controller_again_after_its_restart() {
    let site = Site::new();
    let server = site.serve(Limits::default()).await;
    let (address, tls) = (server.address, server.tls.clone());
    let client = Client::connect(server.config(site.bundle(Role::Operator, "alice")))
        .await
        .unwrap();
    server.end().await;
    let call = || {
        let mut slices = client.slices();
        async move { slices.get_slice(GetSliceRequest::default()).await }
    };
    assert_eq!(call().await.unwrap_err().code(), Code::Unavailable);
    let again = Listener::bind(address, tls, Limits::default()).unwrap();
    let life = Lifecycle::without_signals();
    let (_, health) = tonic_health::server::health_reporter();
    let router = Server::builder().layer(AuthzLayer).add_service(health);
    let incoming = again.incoming(&life);
    let served = tokio::spawn(router.serve_with_incoming_shutdown(incoming, life.token().cancelled_owned()));
    // UNIMPLEMENTED is an answer.
    assert_eq!(retry(call).await.unwrap_err().code(), Code::Unimplemented);
    drop(client);
    assert!(life.finish(DEADLINE).await);
    tokio::time::timeout(DEADLINE, served)
        .await
        .expect("the server did not end")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn the_controllers_name_must_be_the_one_that_was_called() {
    let site = Site::new();
    let server = site.serve(Limits::default()).await;
    let bundle = site.bundle(Role::Operator, "alice");
    let mut config = ClientConfig::new(format!("https://127.0.0.1:{}", server.address.port()), bundle);
    let error = Client::connect(config.clone()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Dial(DialError::Tls { .. })), "{error}");
    config.server_name = Some("localhost".to_owned());
    Client::connect(config).await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let site = Site::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = ClientConfig::new(format!("https://{free}"), site.bundle(Role::Operator, "alice"));
    let error = Client::connect(config.clone()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("cannot reach {free}")), "{error}");
    // A lazy client says the same with its first call.
    let lazy = Client::lazy(config).unwrap();
    let error = ApiError::from(lazy.slices().get_slice(GetSliceRequest::default()).await.unwrap_err());
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains(&format!("cannot reach {free}")), "{error}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_connection() {
    let site = Site::new();
    let server = site.serve(Limits::default()).await;
    let metrics = Arc::new(Metrics::new("test", "0"));
    let stop = server.life.token();
    let watch = watch_certificate(server.tls.clone(), Duration::from_millis(10), metrics.clone(), stop);
    server.life.spawn(watch);
    let renewed = site
        .authority
        .renew(&leaf(Role::Controller, "c1", 60), &site.dir.path().join("c1"))
        .unwrap();
    let line = format!("trunkline_certificate_expiry_timestamp_seconds {}\n", renewed.not_after);
    until("the metric shows the new end", || async {
        metrics.text().contains(&line)
    })
    .await;
    Client::connect(server.config(site.bundle(Role::Viewer, "v1")))
        .await
        .unwrap();
    server.end().await;
}
