//! A bare handler behind tonic's own mutual TLS: it appends a record of a given size to a file, syncs it and answers. It looks at
//! nothing and knows nothing.
//!
//! One caller is served in place. For many there is a thread that writes what has come together with one sync.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use trunkline_integration::LabError;
use trunkline_proto::wire::{Interface, MoveVmRequest, MoveVmResponse, Vm};

use super::bare::tls;
use crate::controller::other;
use crate::part;

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Its bundle.
    pub(crate) bundle: PathBuf,
    /// Where the records go.
    pub(crate) file: PathBuf,
    /// Of a record.
    pub(crate) bytes: usize,
    /// Many records may share a sync.
    pub(crate) together: bool,
}

/// Says where it listens, and serves until it is killed.
pub(crate) fn run(order: &Order) -> Result<(), LabError> {
    let file = OpenOptions::new().create(true).append(true).open(&order.file);
    let file = file.map_err(LabError::io("cannot open the file"))?;
    let record = vec![0; order.bytes];
    let log = if order.together {
        Log::Together(start_writer(file, record))
    } else {
        Log::InPlace(Arc::new(Mutex::new(file)), record.into())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(LabError::io("cannot start a runtime"))?;
    runtime.block_on(serve(&order.bundle, Bare(log)))
}

async fn serve(bundle: &Path, service: Bare) -> Result<(), LabError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(LabError::io("cannot listen"))?;
    let address = listener.local_addr().map_err(LabError::io("cannot listen"))?;
    part::say(&format!("https://{address}"))?;
    Server::builder()
        .tls_config(tls(bundle)?)
        .map_err(other)?
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await
        .map_err(other)
}

/// Where records go.
#[derive(Clone)]
enum Log {
    InPlace(Arc<Mutex<File>>, Arc<[u8]>),
    Together(mpsc::Sender<oneshot::Sender<bool>>),
}

impl Log {
    async fn append(&self) -> bool {
        match self {
            Self::InPlace(file, record) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all(record).and_then(|()| file.sync_data()).is_ok()
            }
            Self::Together(writer) => {
                let (done, durable) = oneshot::channel();
                writer.send(done).is_ok() && durable.await.unwrap_or(false)
            }
        }
    }
}

fn start_writer(mut file: File, record: Vec<u8>) -> mpsc::Sender<oneshot::Sender<bool>> {
    let (writer, waiting) = mpsc::channel::<oneshot::Sender<bool>>();
    std::thread::spawn(move || {
        while let Ok(first) = waiting.recv() {
            let all: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
            let written = file
                .write_all(&record.repeat(all.len()))
                .and_then(|()| file.sync_data());
            for done in all {
                // Who went away needs no answer.
                let _ = done.send(written.is_ok());
            }
        }
    });
    writer
}

/// The service, with nothing around it.
#[derive(Clone)]
struct Bare(Log);

impl NamedService for Bare {
    const NAME: &'static str = "trunkline.v1.SliceService";
}

impl tower::Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(handler, request).await) })
    }
}

impl UnaryService<MoveVmRequest> for Bare {
    type Response = MoveVmResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<MoveVmResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<MoveVmRequest>) -> Self::Future {
        let log = self.0.clone();
        Box::pin(async move {
            if !log.append().await {
                return Err(Status::internal("not written"));
            }
            Ok(Response::new(answer(request.into_inner())))
        })
    }
}

/// As long as ours.
fn answer(request: MoveVmRequest) -> MoveVmResponse {
    let interface = |name: &str| Interface {
        name: name.to_owned(),
        tap: format!("tap_1000_{name}"),
        mac: "52:54:00:03:e8:00".to_owned(),
        mtu: 1500,
        ..Interface::default()
    };
    let vm = Vm {
        slice: request.slice,
        name: request.name,
        vm_id: 1000,
        worker: request.worker,
        interfaces: vec![interface("eth0"), interface("eth1")],
        ..Vm::default()
    };
    MoveVmResponse {
        revision: 1000,
        vm: Some(vm),
    }
}
