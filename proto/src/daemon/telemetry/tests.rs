#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A subscriber that traces into nothing.
fn tracing() -> (SdkTracerProvider, impl tracing::Subscriber + Send + Sync) {
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    (provider, tracing_subscriber::registry().with(layer))
}

#[test]
fn a_child_carries_its_parents_trace_with_a_span_of_its_own() {
    let (_provider, subscriber) = tracing();
    tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!("child");
        set_parent(&span, PARENT);
        let ours = span.in_scope(current_traceparent);
        assert_eq!(ours[..35], PARENT[..35]);
        assert_ne!(ours[36..52], PARENT[36..52]);
    });
}

#[test]
fn nonsense_is_no_parent() {
    let (_provider, subscriber) = tracing();
    tracing::subscriber::with_default(subscriber, || {
        for text in [
            "",
            "x",
            "00-0-0-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            let span = tracing::info_span!("child");
            set_parent(&span, text);
            assert!(!traceparent(&span).is_empty());
        }
    });
}

#[test]
fn metadata_carries_the_trace_across() {
    let (_provider, subscriber) = tracing();
    tracing::subscriber::with_default(subscriber, || {
        let mut metadata = MetadataMap::new();
        let span = tracing::info_span!("call");
        span.in_scope(|| inject(&mut metadata));
        assert_eq!(extract(&metadata), traceparent(&span));
        assert_eq!(extract(&metadata).len(), 55);
    });
}

#[test]
fn without_tracing_nothing_is_sent() {
    let mut metadata = MetadataMap::new();
    inject(&mut metadata);
    assert_eq!(extract(&metadata), "");
    assert_eq!(current_traceparent(), "");
}

#[test]
fn a_wrong_filter_is_named() {
    let config = TelemetryConfig {
        log_filter: "x=loud".to_owned(),
        ..TelemetryConfig::default()
    };
    let error = init("test", "t1", &config).unwrap_err();
    assert!(error.to_string().contains("x=loud"), "{error}");
}

/// A collector that hands on whatever it is sent.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn shutdown_sends_the_last_spans_with_the_service_they_are_of() {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let endpoint = format!("http://{}", incoming.local_addr().unwrap());
    let (sender, mut exported) = mpsc::channel(8);
    let server = Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    let served = tokio::spawn(server.serve_with_incoming(incoming));

    let provider = provider("trunkline-test", "t1", &endpoint).unwrap();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let ours = tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let span = tracing::info_span!("work");
        set_parent(&span, PARENT);
        traceparent(&span)
    });
    Telemetry {
        provider: Some(provider),
    }
    .shutdown()
    .await;

    let request = tokio::time::timeout(Duration::from_secs(10), exported.recv())
        .await
        .expect("no export")
        .unwrap();
    let resource = &request.resource_spans[0];
    let attributes = format!("{:?}", resource.resource.as_ref().unwrap().attributes);
    assert!(
        attributes.contains("trunkline-test") && attributes.contains("t1"),
        "{attributes}"
    );
    let span = &resource.scope_spans[0].spans[0];
    assert_eq!(
        (span.name.as_str(), hex::encode(&span.trace_id).as_str()),
        ("work", &PARENT[3..35])
    );
    assert_eq!(
        (hex::encode(&span.span_id), hex::encode(&span.parent_span_id)),
        (ours[36..52].to_owned(), PARENT[36..52].to_owned())
    );
    served.abort();
}
