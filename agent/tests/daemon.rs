//! The program as an operator starts it: readiness, metrics, an orderly end, errors.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::*;
use trunkline_proto::resource::Kind;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline-agent");

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn end(&mut self) -> i32 {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        self.0.wait().unwrap().code().expect("ended by a signal")
    }
}

fn configure(dir: &Path, pki: &Pki, endpoint: &str, metrics: &str) -> std::path::PathBuf {
    let (bundle, path) = (pki.bundle("w1"), dir.join("agent.toml"));
    let text = format!(
        "[node]\nname = \"w1\"\nbundle = {bundle:?}\nstate_dir = {:?}\n[controller]\nendpoint = {endpoint:?}\n[switch]\nsocket = {:?}\n\
         [telemetry]\nlog_format = \"json\"\n{metrics}",
        dir.join("state"),
        dir.join("no-ovs.sock"),
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn check(config: &Path) -> Output {
    Command::new(PROGRAM)
        .args(["check-config", "--config"])
        .arg(config)
        .output()
        .unwrap()
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let (dir, pki) = (tempfile::tempdir().unwrap(), Pki::new());
    let path = configure(dir.path(), &pki, "https://localhost:1", "");
    let output = check(&path);
    assert!(output.status.success(), "{output:?}");
    assert!(!dir.path().join("state").exists());

    let text = std::fs::read_to_string(&path).unwrap().replace("socket", "sokcet");
    std::fs::write(&path, text).unwrap();
    let output = check(&path);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("sokcet") && error.contains("agent.toml:8"), "{error}");
}

#[test]
fn the_example_is_accepted_by_the_program() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("agent.example.toml");
    assert!(check(&example).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_ready_serves_metrics_and_ends_on_sigterm() {
    let (dir, pki) = (tempfile::tempdir().unwrap(), Pki::new());
    let mut controller = Controller::start(&pki).await;
    let endpoint = format!("https://localhost:{}", controller.address.port());
    let path = configure(dir.path(), &pki, &endpoint, "[metrics]\nlisten = \"127.0.0.1:0\"\n");
    let notify = dir.path().join("notify");
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let log = dir.path().join("log");
    let child = Command::new(PROGRAM)
        .arg("--config")
        .arg(&path)
        .env("NOTIFY_SOCKET", &notify)
        .env("WATCHDOG_USEC", "30000000")
        .stderr(std::fs::File::create(&log).unwrap())
        .stdin(Stdio::null())
        .spawn();
    let mut agent = Agent(child.unwrap());

    let mut text = [0; 256];
    let length = tokio::task::block_in_place(|| socket.recv(&mut text)).expect("no word of readiness");
    assert_eq!(&text[..length], b"READY=1\n");

    // What it refuses, it holds: nothing on this machine is touched.
    let mut session = controller.session().await;
    session.hello().await;
    session.welcome().await;
    let mut unknown = trunkline_proto::wire::Resource::from(&port(1000, 110));
    unknown.kind = 77;
    let unknown = unknown.try_into().unwrap();
    session.update(update(0, 3, &[], &[unknown])).await;
    assert_eq!(session.ack().await.refused.len(), 1);
    session.reports_until(|s| !s.items.is_empty()).await;

    let log = std::fs::read_to_string(&log).unwrap();
    let address = log
        .lines()
        .find_map(|line| Some(line.split_once("\"address\":\"")?.1.split_once('"')?.0.to_owned()));
    let metrics = scrape(&address.expect("no address in the log"));
    for line in [
        "trunkline_node_session_connected 1",
        "trunkline_node_acknowledged_generation 3",
        "trunkline_node_resources{kind=\"port\",state=\"ready\"} 0",
        "trunkline_node_updates_total{outcome=\"taken\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    let expiry = metrics
        .lines()
        .find_map(|l| l.strip_prefix("trunkline_certificate_expiry_timestamp_seconds "));
    assert!(expiry.unwrap().parse::<i64>().unwrap() > 1_700_000_000);
    assert!(!metrics.contains(&Kind::Other(77).to_string()), "labels are bounded");
    promtool(&metrics);

    let length = tokio::task::block_in_place(|| socket.recv(&mut text)).expect("no word that it is alive");
    assert_eq!(&text[..length], b"WATCHDOG=1\n");

    assert_eq!(tokio::task::block_in_place(|| agent.end()), 0);
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

/// Debian's checker has nothing to say.
fn promtool(metrics: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && said.is_empty(), "{said}\n{metrics}");
}
