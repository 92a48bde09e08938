//! The API as a product: a client in another language, which knows only what the server reflects.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use serde_json::Value;
use trunkline_integration::lab::{Options, programs};

use support::{await_clean, fleet};

#[test]
fn a_python_client_that_knows_only_reflection_runs_a_slice_through_its_life() {
    let lab = fleet(&Options::default());
    let python = programs::guest_file("busybox")
        .unwrap()
        .parent()
        .unwrap()
        .with_file_name("venv/bin/python");
    let endpoint = lab.controller_endpoint();
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/client.py"))
        .arg(endpoint.trim_start_matches("https://"))
        .arg(lab.bundle("operator"))
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let steps: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let step = |name: &str| steps.iter().find(|step| step["step"] == name).unwrap();
    let services = step("reflected")["services"].to_string();
    for service in ["SliceService", "FleetService", "WatchService", "EventService"] {
        assert!(services.contains(&format!("trunkline.v1.{service}")), "{services}");
    }
    assert_eq!(
        step("applied")["revision"],
        step("applied")["again"],
        "the same request id is the same call"
    );
    assert_eq!(step("ready")["resources"], step("ready")["resources_ready"]);
    assert_eq!(step("refused")["code"], "INVALID_ARGUMENT");
    assert_eq!(step("refused")["details"], 1);
    assert_eq!(steps.last().unwrap()["step"], "removed");
    await_clean(&lab);
}
