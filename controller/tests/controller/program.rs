//! The program itself: its commands, its end, and what every gRPC tool expects of a server.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::common::{Controller, apply};
use tokio_stream::iter;
use tonic_reflection::pb::{
    v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request,
        server_reflection_response,
    },
    v1alpha,
};
use trunkline_certs::Role;
use trunkline_proto::{
    client::{Client, ClientConfig},
    wire,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline-controller");

/// A configuration file for the program, with the bundle of a controller that this process made.
async fn configured(extra: &str) -> (Controller, std::path::PathBuf) {
    let mut controller = Controller::start().await;
    controller.down().await;
    let file = controller.dir.path().join("controller.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nbundle = {:?}\n{extra}\n[state]\ndir = {:?}\n",
        controller.config.bundle,
        controller.state_dir()
    );
    fs::write(&file, text).unwrap();
    (controller, file)
}

fn run(file: &std::path::Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("--config")
        .arg(file)
        .args(arguments)
        .output()
        .unwrap()
}

/// Kills what a failed test leaves.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn it_serves_until_sigterm_and_ends_well() {
    let (_controller, file) = configured("").await;
    let child = Command::new(PROGRAM)
        .arg("--config")
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let log = BufReader::new(running.0.stderr.take().unwrap());
    let mut lines = log.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("ready")), "it never was ready");
    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(15);
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it did not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
}

/// Starts it, and says where it listens.
fn start(file: &std::path::Path) -> (Running, String) {
    let child = Command::new(PROGRAM)
        .arg("--config")
        .arg(file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let log = BufReader::new(running.0.stderr.take().unwrap());
    let ready = log
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains("\"ready\""))
        .expect("it never was ready");
    let (_, rest) = ready.split_once("127.0.0.1:").expect("the log names the address");
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (running, format!("https://127.0.0.1:{port}"))
}

#[tokio::test]
async fn what_was_answered_survives_kill_9_of_the_program() {
    let (controller, file) = configured("telemetry = { log_format = \"json\" }").await;
    let bundle = controller.bundle(Role::Operator, "alice");
    let mut names = Vec::new();
    for round in 0..3 {
        let (mut running, endpoint) = start(&file);
        let operator = Client::connect(ClientConfig::new(endpoint, &bundle)).await.unwrap();
        let list = wire::ListSlicesRequest::default();
        let slices = operator.slices().list_slices(list).await.unwrap().into_inner().slices;
        assert_eq!(slices.into_iter().map(|slice| slice.name).collect::<Vec<_>>(), names);
        for n in 0..5 {
            let name = format!("s{round}-{n}");
            let slice = wire::SliceSpec {
                name: name.clone(),
                ..wire::SliceSpec::default()
            };
            operator.slices().apply_slices(apply(vec![slice], true)).await.unwrap();
            names.push(name);
        }
        running.0.kill().unwrap();
        running.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_by_name_and_a_right_file_is_said_to_be_right() {
    let (_controller, file) = configured("").await;
    assert!(run(&file, &["check-config"]).status.success());
    let (_controller, file) = configured("lissen = 1").await;
    let output = run(&file, &["check-config"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("lissen") && error.contains("controller.toml:3"),
        "{error}"
    );
}

#[tokio::test]
async fn export_and_restore_are_commands() {
    let (controller, file) = configured("").await;
    let export = controller.dir.path().join("export.jsonl");
    let export = export.to_str().unwrap();
    assert!(run(&file, &["export", export]).status.success());
    let refused = run(&file, &["restore", export]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("already holds"));
    fs::rename(controller.state_dir(), controller.dir.path().join("old")).unwrap();
    let restored = run(&file, &["restore", export]);
    assert!(
        restored.status.success(),
        "{}",
        String::from_utf8_lossy(&restored.stderr)
    );
    assert!(String::from_utf8_lossy(&restored.stdout).contains("term is now 2"));
}

fn services(answer: server_reflection_response::MessageResponse) -> Vec<String> {
    match answer {
        server_reflection_response::MessageResponse::ListServicesResponse(list) => {
            list.service.into_iter().map(|s| s.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn health_and_both_reflections_are_served() {
    let controller = Controller::start().await;
    let operator = controller.client(Role::Operator, "alice").await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(operator.service());
    for service in ["", "trunkline.v1.SliceService", "trunkline.v1.NodeService"] {
        let request = tonic_health::pb::HealthCheckRequest {
            service: service.into(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(
            answer.status(),
            tonic_health::pb::health_check_response::ServingStatus::Serving,
            "{service}"
        );
    }
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut v1 = ServerReflectionClient::new(operator.service());
    let mut answers = v1.server_reflection_info(iter([ask])).await.unwrap().into_inner();
    let names = services(answers.message().await.unwrap().unwrap().message_response.unwrap());
    for service in [
        "SliceService",
        "FleetService",
        "WatchService",
        "EventService",
        "NodeService",
    ] {
        assert!(
            names.contains(&format!("trunkline.v1.{service}")),
            "{service} not in {names:?}"
        );
    }
    let ask = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "trunkline.v1.SliceService".into(),
            ),
        ),
    };
    let mut alpha = v1alpha::server_reflection_client::ServerReflectionClient::new(operator.service());
    let mut answers = alpha.server_reflection_info(iter([ask])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(
        matches!(
            answer,
            v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)
        ),
        "{answer:?}"
    );
}
