//! The lab itself: what it makes, and that nothing of it stays.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trunkline_integration::lab::{Lab, Options};
use trunkline_integration::wait::until;

const LIMIT: Duration = Duration::from_secs(20);

fn without_daemons() -> Options {
    Options {
        daemons: false,
        ..Options::default()
    }
}

/// Processes that live in the network namespace of `pid`, or whose command line names the folder.
fn network_of(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
}

fn processes_in(networks: &[PathBuf]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(network) = fs::read_link(entry.path().join("ns/net")) else {
            continue;
        };
        if networks.contains(&network) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

fn assert_all_gone(networks: &[PathBuf], folder: &Path) {
    until("the end of every process of the lab", LIMIT, || {
        let left = processes_in(networks);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .unwrap();
    until("the removal of the lab's folder", LIMIT, || {
        if folder.exists() {
            Err(format!("{} is there", folder.display()))
        } else {
            Ok(())
        }
    })
    .unwrap();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&*folder.to_string_lossy()), "a mount stayed: {mounts}");
}

fn interfaces() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir("/sys/class/net")
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn hosts_see_each_other_and_nothing_stays() {
    let before = interfaces();
    let lab = Lab::start(&without_daemons()).unwrap();
    let networks: Vec<PathBuf> = lab.hosts().map(|host| network_of(host.pid())).collect();
    assert_eq!(interfaces(), before, "the machine's own interfaces changed");

    let worker = lab.host("w1").unwrap();
    assert_eq!(worker.must(&["hostname"]).unwrap(), "w1\n");
    worker.must(&["ping", "-c1", "-W2", "10.0.10.2"]).unwrap();
    worker.must(&["ping", "-c1", "-W2", "10.0.10.12"]).unwrap();
    lab.host("nn")
        .unwrap()
        .must(&["ping", "-c1", "-W2", "198.51.100.1"])
        .unwrap();
    assert!(
        !worker.exec(&["ping", "-c1", "-W1", "198.51.100.1"]).unwrap().ok(),
        "a worker must not reach the internet"
    );

    // Each node has a switch of its own, at the usual paths.
    worker
        .must(&[
            "ovs-vsctl",
            "--timeout=5",
            "add-br",
            "only-here",
            "--",
            "set",
            "bridge",
            "only-here",
            "datapath_type=netdev",
        ])
        .unwrap();
    assert_eq!(
        worker.must(&["ovs-vsctl", "--timeout=5", "list-br"]).unwrap(),
        "only-here\n"
    );
    assert_eq!(
        lab.host("w2")
            .unwrap()
            .must(&["ovs-vsctl", "--timeout=5", "list-br"])
            .unwrap(),
        ""
    );

    let folder = lab.folder().to_owned();
    drop(lab);
    assert_all_gone(&networks, &folder);
}

#[test]
fn a_switch_that_was_killed_can_be_started_again() {
    let lab = Lab::start(&Options {
        workers: 1,
        ..without_daemons()
    })
    .unwrap();
    let worker = lab.host("w1").unwrap();
    worker
        .must(&[
            "ovs-vsctl",
            "--timeout=5",
            "add-br",
            "kept",
            "--",
            "set",
            "bridge",
            "kept",
            "datapath_type=netdev",
        ])
        .unwrap();
    lab.kill_daemon("w1", "ovs-vswitchd").unwrap();
    assert!(lab.daemon_pid("w1", "ovs-vswitchd").is_none());
    lab.start_daemon("w1", "ovs-vswitchd").unwrap();
    assert_eq!(worker.must(&["ovs-vsctl", "--timeout=5", "list-br"]).unwrap(), "kept\n");
}

#[test]
fn two_labs_at_once_do_not_meet() {
    let one = Lab::start(&Options {
        workers: 1,
        ..without_daemons()
    })
    .unwrap();
    let other = Lab::start(&Options {
        workers: 1,
        ..without_daemons()
    })
    .unwrap();
    one.host("w1")
        .unwrap()
        .must(&["ip", "tuntap", "add", "mine", "mode", "tap"])
        .unwrap();
    assert!(
        !other
            .host("w1")
            .unwrap()
            .exec(&["ip", "link", "show", "mine"])
            .unwrap()
            .ok()
    );
    assert_ne!(one.controller_endpoint(), other.controller_endpoint());
}

#[test]
fn an_unknown_host_is_answered_with_those_there_are() {
    let lab = Lab::start(&Options {
        workers: 1,
        ..without_daemons()
    })
    .unwrap();
    let error = lab.host("w9").err().unwrap().to_string();
    assert_eq!(
        error,
        r#"there is no host "w9" in this lab; there are: ctl fabric inet nn w1"#
    );
}

/// A lab held by a process of its own, its hosts' networks, and its folder.
fn supervised() -> (Child, Vec<PathBuf>, PathBuf) {
    let folder = tempfile::tempdir().unwrap().keep();
    let mut supervisor = Command::new(env!("CARGO_BIN_EXE_trunkline-lab"))
        .args(["supervise", "--without-daemons", "--workers=1", "--folder"])
        .arg(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    let state = fs::read_to_string(folder.join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let hosts = state["hosts"].as_object().unwrap();
    let networks: Vec<PathBuf> = hosts
        .values()
        .map(|pid| network_of(u32::try_from(pid.as_u64().unwrap()).unwrap()))
        .collect();
    assert!(processes_in(&networks).iter().any(|line| line.contains("ovs-vswitchd")));
    (supervisor, networks, folder)
}

#[test]
fn a_killed_supervisor_leaves_nothing() {
    let (mut supervisor, networks, folder) = supervised();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    assert_all_gone(&networks, &folder);
}

#[test]
fn when_a_terminated_supervisor_has_ended_everything_is_gone_already() {
    let (mut supervisor, networks, folder) = supervised();
    let pid = Pid::from_raw(i32::try_from(supervisor.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let status = supervisor.wait().unwrap();
    assert_eq!(status.code(), Some(128 + 15));
    assert_eq!(processes_in(&networks), Vec::<String>::new());
    assert!(!folder.exists());
}

#[test]
fn a_lab_ends_although_somebody_still_holds_a_process_in_it() {
    let lab = Lab::start(&Options {
        workers: 1,
        ..without_daemons()
    })
    .unwrap();
    let mut held = lab.host("w1").unwrap().spawn("sleep", &["sleep", "1000"]).unwrap();
    let host = Arc::clone(lab.host("w1").unwrap());
    drop(lab);
    assert!(held.ended().is_some());
    assert!(host.exec(&["true"]).is_err());
}
