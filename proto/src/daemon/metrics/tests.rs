#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::io::Write;
use std::process::{Command, Stdio};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::*;

fn busy() -> Arc<Metrics> {
    let metrics = Arc::new(Metrics::new("trunkline-test", "1.2.3"));
    metrics.certificate_expiry(1_900_000_000);
    metrics.register(|registry| {
        let passes = Family::<[(&str, &str); 1], Counter>::default();
        passes.get_or_create(&[("outcome", "failed")]).inc();
        registry.register("trunkline_passes", "Reconcile passes by outcome", passes);
        let seconds = Histogram::new([0.01, 0.1, 1.0]);
        seconds.observe(0.05);
        registry.register("trunkline_pass_duration_seconds", "Time of a pass", seconds);
    });
    metrics
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn counters_are_named_as_prometheus_has_it() {
    let text = busy().text();
    assert!(
        text.contains("# TYPE trunkline_passes_total counter\ntrunkline_passes_total{outcome=\"failed\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("# TYPE trunkline_pass_duration_seconds histogram\n"),
        "{text}"
    );
    assert!(
        text.contains("trunkline_build_info{program=\"trunkline-test\",version=\"1.2.3\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("trunkline_certificate_expiry_timestamp_seconds 1900000000\n"),
        "{text}"
    );
    assert!(!text.contains("EOF"), "{text}");
}

#[test]
fn promtool_finds_nothing_to_say() {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = spawned.expect("promtool, from Debian's package prometheus");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(busy().text().as_bytes())
        .unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && words.trim().is_empty(), "{words}");
}

#[tokio::test]
async fn only_get_metrics_is_answered() {
    let server = busy().bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.local_addr();
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.run(stop.clone()));
    let good = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        good.starts_with("HTTP/1.1 200 OK\r\n") && good.contains("trunkline_build_info"),
        "{good}"
    );
    assert!(
        ask(address, "GET / HTTP/1.1\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        ask(address, "POST /metrics HTTP/1.1\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 405 ")
    );
    assert!(
        ask(address, &format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_MAX)))
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    stop.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn only_loopback_is_served() {
    let error = busy().bind("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, MetricsError::NotLoopback(_)));
    let configured = toml::from_str::<MetricsConfig>("listen = \"192.0.2.1:9464\"").unwrap_err();
    assert!(configured.message().contains("write 127.0.0.1:9464"), "{configured}");
    assert!(toml::from_str::<MetricsConfig>("listen = \"[::1]:9464\"").is_ok());
}
