//! Traces by OTLP, into a collector of our own.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::{
    fake::Fake,
    fixtures::cluster,
    run::{run_as, run_with},
};

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn apply_exports_the_root_span_of_the_trace_that_the_controller_is_told() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);

    let fake = Fake::start(cluster()).await;
    let file = "slices: [{name: shop}]";
    let ran = run_with(&fake, &["apply", "-f", "-"], file, &[("TRUNKLINE_OTLP", &endpoint)]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    server.abort();

    let spans = collector.0.lock().unwrap();
    let root = spans
        .iter()
        .find(|s| s.name == "trunkctl apply")
        .expect("the root span");
    assert!(root.parent_span_id.is_empty());
    let trace: String = root.trace_id.iter().map(|b| format!("{b:02x}")).collect();
    let traceparent = fake.script().asked[0].2.clone();
    assert!(
        traceparent.starts_with(&format!("00-{trace}-")),
        "{traceparent} is not of {trace}"
    );
}

#[tokio::test]
async fn a_collector_that_is_gone_stops_nothing() {
    let fake = Fake::start(cluster()).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{free}");
    let file = "slices: [{name: shop}]";
    let ran = run_with(&fake, &["apply", "-f", "-"], file, &[("TRUNKLINE_OTLP", &endpoint)]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let without = run_as(&fake, "alice", &["apply", "-f", "-"], file).await;
    assert_eq!(ran.stdout, without.stdout);
}
