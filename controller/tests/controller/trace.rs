//! One trace from the caller's to "converged", as a collector sees it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use crate::common::{
    Controller, apply, eventually,
    node::{Disk, Node},
    vm,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};
use tracing::Instrument;
use trunkline_proto::{
    daemon::{TelemetryConfig, telemetry},
    wire,
};

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request
            .into_inner()
            .resource_spans
            .into_iter()
            .flat_map(|r| r.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn a_deployment_is_one_trace_from_the_caller_to_converged() {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let endpoint = format!("http://{}", incoming.local_addr().unwrap());
    let collector = Collector::default();
    let server = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    let served = tokio::spawn(server.serve_with_incoming(incoming));
    let config = TelemetryConfig {
        otlp_endpoint: Some(endpoint),
        ..TelemetryConfig::default()
    };
    let telemetry = telemetry::init("trunkline-controller", "test", &config).unwrap();

    let controller = Controller::start().await;
    let mut w1 = Node::up(&controller, Disk::worker("w1")).await;
    let operator = controller.operator().await;
    let slice = wire::SliceSpec {
        name: "solo".into(),
        vms: vec![vm("a", "w1", 0)],
        ..wire::SliceSpec::default()
    };
    let caller = tracing::info_span!(parent: None, "caller");
    let trace = telemetry::traceparent(&caller)[3..35].to_owned();
    let call = async { operator.slices().apply_slices(apply(vec![slice], true)).await.unwrap() };
    call.instrument(caller).await;
    let update = w1.take().await;
    assert!(
        update.upserts.iter().all(|r| r.traceparent[3..35] == trace),
        "the node can go on with the trace"
    );
    w1.report_ready().await;
    let events = || async {
        operator
            .events()
            .list_events(wire::ListEventsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .events
    };
    eventually("ready", events, |events| {
        events.iter().any(|e| e.r#type == "slice.ready")
    })
    .await;
    telemetry.shutdown().await;

    let spans = collector.0.lock().unwrap().clone();
    served.abort();
    let ours: BTreeMap<&str, &Span> = spans
        .iter()
        .filter(|span| hex::encode(&span.trace_id) == trace)
        .map(|span| (span.name.as_str(), span))
        .collect();
    for name in ["caller", "call", "transition", "compile", "commit", "push", "converged"] {
        assert!(ours.contains_key(name), "{name} is not in the trace: {:?}", ours.keys());
    }
    for (child, parent) in [
        ("call", "caller"),
        ("transition", "call"),
        ("compile", "transition"),
        ("commit", "call"),
        ("push", "call"),
        ("converged", "call"),
    ] {
        assert_eq!(
            ours[child].parent_span_id, ours[parent].span_id,
            "{child} is a child of {parent}"
        );
    }
    assert!(ours["converged"].end_time_unix_nano >= ours["push"].end_time_unix_nano);
}
