//! One trace goes from `trunkctl apply` through the controller and every node's switch to "converged".

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use trunkline_integration::demo::{Fleet, TOPOLOGY};
use trunkline_integration::lab::layout::CONTROLLER;
use trunkline_integration::lab::{Lab, Options, Tuning, programs};
use trunkline_integration::wait::until;

use crate::looks::file;
use crate::support::LIMIT;

/// A span as it came, and from whom.
#[derive(Debug, Clone)]
struct Seen {
    service: String,
    /// Node, for a node's program.
    instance: String,
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    attributes: BTreeMap<String, String>,
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for from in request.into_inner().resource_spans {
            let resource = words(&from.resource.unwrap_or_default().attributes);
            let of = |key: &str| resource.get(key).cloned().unwrap_or_default();
            let spans = from.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| Seen {
                service: of("service.name"),
                instance: of("service.instance.id"),
                attributes: words(&span.attributes),
                name: span.name,
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn words(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.clone()?.value? {
        Value::StringValue(text) => Some((attribute.key.clone(), text)),
        Value::IntValue(number) => Some((attribute.key.clone(), number.to_string())),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}

impl Collector {
    /// Listens on the loopback of every host with a daemon, and on the machine's own: a socket stays in the network
    /// that it was made in, wherever it is read.
    fn listen(&self, lab: &Lab, runtime: &Runtime) -> String {
        let own = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = own.local_addr().unwrap();
        let mut listeners = vec![own];
        for host in [CONTROLLER.to_owned()].into_iter().chain(lab.layout().nodes()) {
            let bind = || TcpListener::bind(("127.0.0.1", 4317));
            listeners.push(lab.host(&host).unwrap().run(bind).unwrap().unwrap());
        }
        for listener in listeners {
            let collector = self.clone();
            runtime.spawn(async move {
                listener.set_nonblocking(true).unwrap();
                let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
                let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector));
                server.serve_with_incoming(incoming).await.unwrap();
            });
        }
        format!("http://{address}")
    }

    /// The spans of the trace that this span of `trunkctl` began.
    fn trace_of(&self, root: &str) -> Vec<Seen> {
        let all = self.0.lock().unwrap().clone();
        let traces: BTreeSet<_> = all
            .iter()
            .filter(|span| span.name == root)
            .map(|span| span.trace.clone())
            .collect();
        assert!(traces.len() <= 1, "{root} began {} traces", traces.len());
        all.into_iter().filter(|span| traces.contains(&span.trace)).collect()
    }
}

/// `service/instance name`, the instance only of a node.
fn label(span: &Seen) -> String {
    let Seen {
        service,
        instance,
        name,
        ..
    } = span;
    match service.as_str() {
        "trunkline-agent" | "trunkline-netnode" => format!("{service}/{instance} {name}"),
        _ => format!("{service} {name}"),
    }
}

/// For a failed test: a span a line, its parent's name after it.
fn drawn(spans: &[Seen]) -> String {
    let parent = |span: &Seen| {
        spans
            .iter()
            .find(|other| other.id == span.parent)
            .map_or("-".to_owned(), label)
    };
    spans
        .iter()
        .map(|span| format!("{} <- {} {:?}\n", label(span), parent(span), span.attributes))
        .collect()
}

fn spans<'a>(all: &'a [Seen], wanted: &'a str) -> impl Iterator<Item = &'a Seen> {
    all.iter().filter(move |span| label(span) == wanted)
}

/// Names from a span up to the root.
fn way_up(all: &[Seen], from: &Seen) -> Vec<String> {
    let mut way = vec![label(from)];
    let mut at = from;
    while let Some(parent) = all.iter().find(|other| other.id == at.parent) {
        way.push(label(parent));
        at = parent;
    }
    way
}

#[test]
fn one_trace_goes_from_apply_to_every_switch_and_to_converged() {
    let runtime = Runtime::new().unwrap();
    let tuning = Tuning {
        otlp_endpoint: Some("http://127.0.0.1:4317".to_owned()),
        ..Tuning::default()
    };
    let lab = Lab::start(&Options {
        daemons: false,
        tuning,
        ..Options::default()
    })
    .unwrap();
    let collector = Collector::default();
    let endpoint = collector.listen(&lab, &runtime);
    lab.start_daemons().unwrap();
    Fleet::connect(&lab).unwrap().await_nodes().unwrap();

    let status = Command::new(programs::find("trunkctl").unwrap())
        .args(["apply", "-f", &file(&lab, TOPOLOGY), "--deploy", "--wait"])
        .env("TRUNKLINE_CONTROLLER", lab.controller_endpoint())
        .env("TRUNKLINE_BUNDLE", lab.bundle("operator"))
        .env("TRUNKLINE_OTLP", endpoint)
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));

    let controller = ["call", "transition", "compile", "commit", "push", "converged"]
        .map(|name| format!("trunkline-controller {name}"));
    let nodes = ["trunkline-agent/w1", "trunkline-agent/w2", "trunkline-netnode/nn"];
    let on_nodes = nodes
        .iter()
        .flat_map(|node| ["take update", "pass", "ovs transaction"].map(|name| format!("{node} {name}")));
    let wanted: Vec<String> = ["trunkctl trunkctl apply".to_owned()]
        .into_iter()
        .chain(controller)
        .chain(on_nodes)
        .collect();
    // Each program sends its spans in its own time.
    let trace = until("the whole trace", LIMIT, || {
        let trace = collector.trace_of("trunkctl apply");
        let missing: Vec<_> = wanted
            .iter()
            .filter(|name| spans(&trace, name).next().is_none())
            .collect();
        let ids: BTreeSet<_> = trace.iter().map(|span| &span.id).collect();
        let orphans = trace
            .iter()
            .filter(|span| !span.parent.is_empty() && !ids.contains(&span.parent))
            .count();
        if missing.is_empty() && orphans == 0 {
            Ok(trace)
        } else {
            Err(format!(
                "missing {missing:?}, {orphans} without their parent:\n{}",
                drawn(&trace)
            ))
        }
    })
    .unwrap();

    let roots: Vec<_> = trace.iter().filter(|span| span.parent.is_empty()).map(label).collect();
    assert_eq!(roots, ["trunkctl trunkctl apply"], "one tree:\n{}", drawn(&trace));
    let converged: BTreeSet<_> = spans(&trace, "trunkline-controller converged")
        .map(|span| span.attributes["slice"].as_str())
        .collect();
    assert_eq!(converged, BTreeSet::from(["blue", "green"]), "{}", drawn(&trace));
    let pushed: BTreeSet<_> = spans(&trace, "trunkline-controller push")
        .map(|span| span.attributes["node"].as_str())
        .collect();
    assert_eq!(pushed, BTreeSet::from(["nn", "w1", "w2"]), "{}", drawn(&trace));
    for node in nodes {
        let name = format!("{node} ovs transaction");
        let way = way_up(&trace, spans(&trace, &name).next().unwrap());
        let expected = [
            name.as_str(),
            &format!("{node} pass"),
            "trunkline-controller call",
            "trunkctl trunkctl apply",
        ];
        assert_eq!(way, expected, "{}", drawn(&trace));
    }
}
