//! What a person starts: the demo and the lab in the background.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline-lab");
const TOPOLOGY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/two-slices.yaml");

/// A program whose labs' folders are all in `folder`.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env("TMPDIR", folder)
        .env("TRUNKLINE_LAB_FOLDER", folder.join("run"));
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder).args(arguments).output().unwrap()
}

fn must(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Whether anything that was started for this folder runs: everything of a lab names its folder or runs in its hosts.
fn assert_nothing_left(folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(left.iter().all(|name| name == "lab.log"), "left: {left:?}");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(&*folder.to_string_lossy()), "{line} still runs");
    }
}

#[test]
fn the_demo_proves_everything_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["demo", "--once", "--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    let proof: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert_eq!(proof["ok"], true, "{proof:#}\n{errors}");
    assert!(output.status.success(), "{errors}");
    let names = proof["proof"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap());
    let names: Vec<&str> = names.collect();
    for part in [
        "lease by DHCP",
        "->",
        "reaches the internet",
        "names only the network node",
        "nothing of the other slice",
    ] {
        assert!(
            names.iter().any(|name| name.contains(part)),
            "no point about {part}: {names:?}"
        );
    }
    assert_nothing_left(folder.path());
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = program(folder.path())
        .args(["demo", "--once"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    await_line(&mut demo, "applying two slices");
    kill(Pid::from_raw(i32::try_from(demo.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(128 + 2));
    assert_nothing_left(folder.path());
}

/// Reads what the demo says until it says this.
fn await_line(demo: &mut Child, part: &str) {
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines();
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Some(Ok(line)) = lines.next() {
        if line.contains(part) {
            return;
        }
        assert!(Instant::now() < deadline, "the demo did not say {part}");
    }
    panic!("the demo ended before it said {part}");
}

#[test]
fn a_lab_in_the_background_is_played_with_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let said = must(at, &["up", "--workers", "2"]);
    assert!(said.contains("ctl fabric inet nn w1 w2"), "{said}");
    assert!(
        String::from_utf8(run(at, &["up"]).stderr)
            .unwrap()
            .contains("a lab is running already")
    );

    // As eval "$(./integration/lab env)" would have it.
    let script = format!("eval \"$({PROGRAM} env)\" && trunkctl apply -f {TOPOLOGY} --deploy --wait");
    let applied = Command::new("bash")
        .args(["-c", &script])
        .env("TMPDIR", at)
        .env("TRUNKLINE_LAB_FOLDER", at.join("run"))
        .output()
        .unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));

    let bridge = must(at, &["exec", "w1", "ovs-vsctl", "--timeout=5", "list-br"]);
    assert_eq!(bridge, "br-int\n");
    must(at, &["guest", "add", "left"]);
    must(at, &["guest", "add", "green/right", "--kind", "machine"]);
    let addresses = must(at, &["guest", "exec", "right", "ip", "address", "show", "eth1"]);
    assert!(addresses.contains("52:54:"), "{addresses}");
    let failed = run(at, &["guest", "exec", "left", "sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7));
    let status: Value = serde_json::from_str(&must(at, &["status", "--json"])).unwrap();
    let guests = status["status"]["guests"].as_array().unwrap();
    assert_eq!(guests.len(), 2);
    assert!(must(at, &["status"]).contains("trunkline-controller"));
    must(at, &["guest", "del", "left"]);
    let unknown = run(at, &["guest", "add", "nobody"]);
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("there are: blue/"));

    assert_eq!(must(at, &["down"]), "The lab is gone.\n");
    assert_nothing_left(at);
    assert!(
        String::from_utf8(run(at, &["down"]).stderr)
            .unwrap()
            .contains("no lab is running")
    );
}
