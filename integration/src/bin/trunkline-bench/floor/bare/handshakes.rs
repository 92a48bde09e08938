//! Mutual TLS handshakes and nothing else: what a storm of nodes costs at least. The same keys and settings as the controller's, without
//! resumption; each connection stays open.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use trunkline_certs::{CA_FILE, CERT_FILE, KEY_FILE, Reloader};
use trunkline_integration::LabError;

use crate::part;
use crate::simulator::{self, Reached, failed, nanos};

/// As long as the system lets the queue be.
const BACKLOG: u32 = 4096;
/// A caller's pause before it tries again.
const PAUSE: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(300);

/// The server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Its bundle.
    pub(crate) bundle: PathBuf,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

/// Its callers: as many as there are bundles.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Callers {
    /// Where the server listens.
    pub(crate) address: SocketAddr,
    /// Folder of the callers' bundles.
    pub(crate) bundles: PathBuf,
    /// How many.
    pub(crate) nodes: usize,
}

/// What the bench asks the server, or the callers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Wait until so many handshakes were completed.
    Done(usize),
    /// To the callers: call now.
    Call,
}

#[derive(Debug, Default)]
struct Count {
    done: AtomicUsize,
    last: AtomicU64,
}

impl Count {
    fn one(&self) {
        self.last.store(nanos(), Ordering::Release);
        self.done.fetch_add(1, Ordering::AcqRel);
    }

    fn reach(&self, count: usize) -> Result<serde_json::Value, LabError> {
        let deadline = SystemTime::now() + LIMIT;
        while self.done.load(Ordering::Acquire) < count {
            if SystemTime::now() > deadline {
                return Err(LabError::Other(format!(
                    "waited too long for {count} handshakes: {self:?}"
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let at = self.last.load(Ordering::Acquire);
        Ok(json!(Reached { at }))
    }
}

/// Serves until nothing more is asked.
pub(crate) fn run(order: &Order) -> Result<(), LabError> {
    let runtime = simulator::runtime()?;
    let tls = server_config(&order.bundle).map_err(|error| failed(&order.bundle, error.as_ref()))?;
    let count = Arc::new(Count::default());
    let listener = runtime.block_on(async { listen(order.address) })?;
    runtime.spawn(accept(listener, Arc::new(tls), count.clone()));
    part::answer(|question| match question {
        Question::Done(handshakes) => count.reach(handshakes),
        Question::Call => Err(LabError::Other("this is the server".to_owned())),
    })
}

/// TLS 1.3 with the same keys, rustls' own look at the callers' certificates, and nobody resumes.
fn server_config(bundle: &Path) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain: Vec<_> = CertificateDer::pem_file_iter(bundle.join(CERT_FILE))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(bundle.join(KEY_FILE))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(bundle.join(CA_FILE))?)?;
    let callers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(callers)
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn listen(address: SocketAddr) -> Result<TcpListener, LabError> {
    let open = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(LabError::io(format!("cannot listen on {address}")))
}

async fn accept(listener: TcpListener, tls: Arc<ServerConfig>, count: Arc<Count>) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, count) = (acceptor.clone(), count.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            if let Ok(mut stream) = acceptor.accept(stream).await {
                count.one();
                // It stays open until the caller, or the bench, ends it.
                let _ = stream.read(&mut [0; 1]).await;
            }
        });
    }
}

/// Calls when it is told to, until nothing more is asked.
pub(crate) fn call(order: &Callers) -> Result<(), LabError> {
    let runtime = simulator::runtime()?;
    let count = Arc::new(Count::default());
    let load = |index| {
        let bundle = order.bundles.join(simulator::name(index));
        let loaded = Reloader::client(&bundle).map_err(|error| failed(&bundle, &error))?;
        Ok(loaded.current().config.clone())
    };
    let all: Vec<Arc<ClientConfig>> = (0..order.nodes).map(load).collect::<Result<_, LabError>>()?;
    part::answer(|question| match question {
        Question::Done(handshakes) => count.reach(handshakes),
        Question::Call => {
            for tls in &all {
                runtime.spawn(keep_calling(order.address, tls.clone(), count.clone()));
            }
            Ok(json!(null))
        }
    })
}

async fn keep_calling(address: SocketAddr, tls: Arc<ClientConfig>, count: Arc<Count>) {
    let connector = TlsConnector::from(tls);
    while call_once(address, &connector, &count).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Connects, and stays until the server ends it.
async fn call_once(address: SocketAddr, connector: &TlsConnector, count: &Count) -> std::io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream = connector.connect(ServerName::from(address.ip()), stream).await?;
    count.one();
    let _ = stream.read(&mut [0; 1]).await;
    Ok(())
}
