//! The program's command line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, Output};

fn check(config: &std::path::Path) -> Output {
    let program = env!("CARGO_BIN_EXE_trunkline-netnode");
    Command::new(program)
        .arg("check-config")
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

#[test]
fn the_example_configuration_can_be_used() {
    let output = check(concat!(env!("CARGO_MANIFEST_DIR"), "/netnode.example.toml").as_ref());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout).unwrap().contains("ok, node n1"));
}

#[test]
fn a_wrong_key_ends_the_program_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("netnode.toml");
    let text = include_str!("../netnode.example.toml").replace("[nat]", "[nat]\nuplnik = \"ens3\"");
    std::fs::write(&file, text).unwrap();
    let output = check(&file);
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && words.contains("uplnik"), "{words}");
}
