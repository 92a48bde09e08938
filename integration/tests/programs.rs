//! What a person starts: the demo and the lab in the background.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
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
fn arguments_are_checked_before_any_set_up() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    for (script, arguments) in [
        ("demo", vec!["--bogus"]),
        ("lab", vec!["up", "--workers", "0"]),
        ("lab", vec!["up", "--workers=201"]),
        ("lab", vec!["up", "--bogus"]),
        ("lab", vec!["bogus"]),
    ] {
        let output = Command::new(format!("{}/{script}", env!("CARGO_MANIFEST_DIR")))
            .args(&arguments)
            .env("CARGO_TARGET_DIR", &target)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{script} {arguments:?}");
        assert!(!output.stderr.contains(&27), "an escape code in {output:?}");
        assert!(!target.exists(), "{script} {arguments:?} began a set-up");
    }
}

#[test]
fn an_interrupted_demo_says_nothing_false_and_leaves_nothing() {
    for stage in ["starting a controller", "applying two slices", "starting guests"] {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = program(folder.path())
            .args(["demo", "--once"])
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines();
        await_line(&mut lines, stage);
        // To the whole group, as a terminal does it.
        killpg(Pid::from_raw(i32::try_from(demo.id()).unwrap()), Signal::SIGINT).unwrap();
        let said: Vec<String> = lines.map_while(Result::ok).collect();
        assert_eq!(demo.wait().unwrap().code(), Some(128 + 2), "{stage}: {said:?}");
        assert!(!said.iter().any(|line| line.contains("error")), "{stage}: {said:?}");
        assert_nothing_left(folder.path());
    }
}

/// As `eval "$(./integration/lab env)"` would have it.
fn trunkctl(at: &Path, arguments: &str) {
    let script = format!("eval \"$({PROGRAM} env)\" && trunkctl {arguments}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("TMPDIR", at)
        .env("TRUNKLINE_LAB_FOLDER", at.join("run"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn a_daemon_that_died_is_told_and_started_again(at: &Path) {
    let line = |program: &str| {
        let said = must(at, &["status"]);
        let ours = |line: &&str| line.contains("w1 ") && line.contains(program);
        said.lines().find(ours).unwrap_or(&said).trim_end().to_owned()
    };
    let said = must(at, &["start", "w1"]);
    assert_eq!(said, "w1: nothing to do. Everything that belongs there runs.\n");
    assert_eq!(must(at, &["stop", "w1"]), "w1: stopped trunkline-agent.\n");
    assert!(
        line("trunkline-agent").ends_with("not running"),
        "{}",
        line("trunkline-agent")
    );
    assert_eq!(must(at, &["start", "w1"]), "w1: started trunkline-agent.\n");
    must(at, &["exec", "w1", "pkill -KILL -x trunkline-agent"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !line("trunkline-agent").contains("ended") {
        assert!(Instant::now() < deadline, "{}", line("trunkline-agent"));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(must(at, &["restart", "w1"]), "w1: started again trunkline-agent.\n");
    assert!(line("trunkline-agent").contains("running"));
    let nothing = run(at, &["start", "inet"]);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("nothing of ours belongs on inet"));
}

fn faults_are_made_listed_and_healed(at: &Path) {
    let refused = |arguments: &[&str]| {
        let output = run(at, &[&["fault"], arguments].concat());
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(must(at, &["fault", "list"]), "There is no fault.\n");
    assert_eq!(must(at, &["fault", "heal"]), "There is no fault.\n");
    let said = must(at, &["fault", "vlan-drop", "110", "w1"]);
    let end = "./integration/lab fault heal 1 ends it.";
    assert_eq!(said, format!("Fault 1: VLAN 110 does not pass to and from w1. {end}\n"));
    must(at, &["fault", "one-way", "w1", "nn", "120"]);
    must(at, &["fault", "mtu", "w2", "1400"]);
    let said = must(at, &["fault", "partition", "w2", "--from-controller", "--one-way"]);
    assert!(
        said.starts_with("Fault 4: w2 is heard no more by the controller."),
        "{said}"
    );
    let listed = must(at, &["fault", "list"]);
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert!(listed.contains("VLAN 120 does not pass w1 -> nn"), "{listed}");
    let said = must(at, &["fault", "heal", "2"]);
    assert!(
        said.starts_with("Healed fault 2: VLAN 120 does not pass w1 -> nn. It dropped "),
        "{said}"
    );
    let listed: Value = serde_json::from_str(&must(at, &["fault", "list", "--json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(listed[1]["fault"]["kind"], "mtu", "{listed}");
    assert!(must(at, &["status"]).contains("3 faults stand: ./integration/lab fault list"));
    for (arguments, why) in [
        (&["vlan-drop", "4095", "w1"][..], "there is no VLAN 4095"),
        (&["vlan-drop", "many", "w1"], "invalid value 'many'"),
        (&["vlan-drop", "110", "w9"], "there are: w1 w2 nn"),
        (&["one-way", "w1", "w1"], "name two hosts"),
        (&["mtu", "w1", "9217"], "68 to 9216"),
        (
            &["partition", "w1", "--from-all", "--from-controller"],
            "cannot be used with",
        ),
        (&["partition", "ctl", "--from-controller"], "the controller's host"),
        (&["heal", "2"], "there is no fault 2; there are: 1 3 4"),
        (&["heal", "w1"], "neither \"all\" nor a fault's number"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    assert_eq!(must(at, &["fault", "heal", "all"]).lines().count(), 3);
    assert_eq!(must(at, &["fault", "list"]), "There is no fault.\n");
}

/// A reader that has seen enough is none of our trouble; a full disk is told in one line.
fn nobody_needs_to_listen(at: &Path) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = program(at).arg("status").stdout(writer).output().unwrap();
    assert_eq!((closed.status.code(), closed.stderr.as_slice()), (Some(0), &b""[..]));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let full = program(at)
        .arg("status")
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(
        said.starts_with("error: cannot write to standard output") && said.lines().count() == 1,
        "{said}"
    );
}

/// Reads what the demo says until it says this.
fn await_line(lines: &mut impl Iterator<Item = std::io::Result<String>>, part: &str) {
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

    trunkctl(at, &format!("apply -f {TOPOLOGY} --deploy --wait"));

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
    assert_eq!(must(at, &["guest", "exec", "left", "echo one; echo two"]), "one\ntwo\n");
    let resolver = must(at, &["guest", "exec", "right", "cat", "/etc/resolv.conf"]);
    assert_eq!(resolver.trim(), "nameserver 8.8.8.8");
    a_daemon_that_died_is_told_and_started_again(at);
    faults_are_made_listed_and_healed(at);
    trunkctl(at, "link remove green/left-eth1--right-eth1");
    trunkctl(at, "vm remove green/left");
    let listed = must(at, &["guest", "list"]);
    let line = listed
        .lines()
        .find(|line| line.contains("green/left"))
        .unwrap_or_default();
    assert!(line.contains("its VM was removed"), "{listed}");
    assert!(!listed.contains("right ("), "{listed}");
    nobody_needs_to_listen(at);
    must(at, &["guest", "del", "left"]);
    let unknown = run(at, &["guest", "add", "nobody"]);
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("there are: blue/"));

    assert_eq!(must(at, &["down"]), "The lab is gone.\n");
    assert_nothing_left(at);
    assert_eq!(must(at, &["down"]), "There is no lab.\n");
}
