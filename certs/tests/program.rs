//! The program as an operator meets it.
#![cfg(feature = "authority")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn certs(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trunkline-certs"))
        .current_dir(dir)
        .args(arguments)
        .output()
        .unwrap()
}

fn good(dir: &Path, arguments: &[&str]) -> String {
    let output = certs(dir, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn bad(dir: &Path, arguments: &[&str]) -> String {
    let output = certs(dir, arguments);
    assert!(!output.status.success(), "{arguments:?} was taken");
    assert!(output.stdout.is_empty(), "an error speaks on standard error");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn init_issue_and_show_go_together() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    assert!(good(dir, &["init", "--dir", "ca"]).starts_with("made the authority of trunkline.local in ca\n"));
    let issued = good(
        dir,
        &[
            "issue",
            "--dir",
            "ca",
            "controller",
            "c1",
            "--dns",
            "c1.example.org",
            "--ip",
            "::1",
            "--out",
            "c1",
        ],
    );
    assert!(issued.starts_with("issued controller/c1 in c1\n"), "{issued}");
    assert!(issued.contains("spiffe://trunkline.local/controller/c1"), "{issued}");
    assert!(issued.contains("serves as   c1.example.org, ::1\n"), "{issued}");
    assert!(good(dir, &["show", "c1"]).starts_with("c1: a right bundle of controller/c1\n"));
    assert!(good(dir, &["show", "c1/cert.pem"]).contains("key and authority were not checked"));
    let renewed = good(
        dir,
        &[
            "issue",
            "--dir",
            "ca",
            "controller",
            "c1",
            "--dns",
            "c1",
            "--out",
            "c1",
            "--replace",
        ],
    );
    assert!(renewed.contains("serves as   c1\n"), "{renewed}");
}

#[test]
fn an_error_is_one_line_that_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let none = bad(dir, &["issue", "--dir", "ca", "worker", "w1", "--out", "w1"]);
    assert!(none.contains("`trunkline-certs init` makes one"), "{none}");
    good(dir, &["init", "--dir", "ca", "--trust-domain", "lab.example.org"]);
    for (arguments, words) in [
        (&["init", "--dir", "ca"][..], "holds an authority already"),
        (
            &["issue", "--dir", "ca", "controller", "c1", "--out", "x"],
            "give at least one --dns or --ip",
        ),
        (
            &["issue", "--dir", "ca", "worker", "w1", "--dns", "w1", "--out", "x"],
            "only a controller has --dns and --ip",
        ),
        (
            &["issue", "--dir", "ca", "worker", "w_1", "--out", "x"],
            "1 to 32 of a-z 0-9 - .",
        ),
        (
            &["issue", "--dir", "ca", "viewer", "v", "--days", "0", "--out", "x"],
            "valid for 1 to 1825 days",
        ),
        (&["show", "nothing"], "neither a bundle's directory nor a cert.pem"),
    ] {
        let said = bad(dir, arguments);
        assert!(
            said.starts_with("error: ") && said.lines().count() == 1 && said.contains(words),
            "{said}"
        );
        assert!(!dir.join("x").exists());
    }
    let role = bad(dir, &["issue", "--dir", "ca", "boss", "x", "--out", "x"]);
    assert!(
        role.contains("none of controller, worker, netnode, operator, viewer"),
        "{role}"
    );
}
