//! `trunkctl` as a script meets it: exit codes, data on standard output, nothing for terminals on a pipe.

use std::process::Command;

use serde_json::Value;
use trunkline_integration::demo::TOPOLOGY;
use trunkline_integration::lab::process::{Output, code};
use trunkline_integration::lab::{AGENT_PROGRAM, Lab, programs};

use crate::looks::{file, on};
use crate::support::{api, must_trunkctl, trunkctl, with_two_slices};

/// Reads, and what each must tell of.
const READS: &[(&[&str], &str)] = &[
    (&["slice", "list"], "blue"),
    (&["slice", "show", "blue"], "front"),
    (&["slice", "revisions", "blue"], "operator"),
    (&["vm", "list"], "web"),
    (&["link", "list"], "front"),
    (&["status"], "ready"),
    (&["status", "green"], "green"),
    (&["node", "list"], "w1"),
    (&["node", "show", "nn"], "netnode"),
    (&["events"], "slice."),
    (&["vm", "netdev", "blue/web"], "-netdev"),
];

fn assert_code(output: &Output, wanted: i32, says: &[&str]) {
    assert_eq!(output.status, wanted, "{}{}", output.stdout, output.stderr);
    for part in says {
        assert!(output.stderr.contains(part), "no {part:?} in: {}", output.stderr);
    }
}

fn json(lab: &Lab, arguments: &[&str]) -> Value {
    let text = must_trunkctl(lab, &[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

#[test]
fn what_is_read_is_data_and_a_pipe_gets_no_escape_codes() {
    let lab = with_two_slices();
    for (arguments, says) in READS {
        let from_json = json(&lab, arguments);
        assert!(from_json.to_string().contains(says), "no {says} in {from_json:#}");
        let yaml = must_trunkctl(&lab, &[*arguments, &["-o", "yaml"]].concat());
        let from_yaml: Value =
            serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {yaml}"));
        assert!(from_yaml.to_string().contains(says), "no {says} in {yaml}");
        let table = trunkctl(&lab, arguments);
        assert_code(&table, 0, &[]);
        let all = table.stdout + &table.stderr + &yaml;
        assert!(
            !all.contains('\u{1b}'),
            "{arguments:?} writes escape codes to a pipe: {all:?}"
        );
    }
    // So does the display of what is waited for, and an error.
    for arguments in [
        &["slice", "undeploy", "green", "--wait"][..],
        &["slice", "deploy", "green", "--wait"],
        &["slice", "show", "none"],
    ] {
        let output = trunkctl(&lab, arguments);
        let all = output.stdout + &output.stderr;
        assert!(
            !all.is_empty() && !all.contains('\u{1b}') && !all.contains('\r'),
            "{arguments:?}: {all:?}"
        );
    }
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let lab = with_two_slices();

    let again = trunkctl(&lab, &["apply", "-f", &file(&lab, TOPOLOGY), "--deploy", "--wait"]);
    assert_code(&again, 0, &[]);
    assert!(again.stdout.to_lowercase().contains("nothing"), "{}", again.stdout);

    let revision = api(&lab).status().unwrap().revision;
    let bad = "slices:\n  - name: Bad_Name\n    vms:\n      - { name: a, wroker: w1 }\n      - { name: a }\n    links: [[a.eth1]]\n";
    let path = file(&lab, bad);
    let at = |place: &str| format!("{path}:{place}: ");
    assert_code(
        &trunkctl(&lab, &["apply", "-f", &path]),
        2,
        &[&at("2:11"), &at("4:20"), &at("5:17"), &at("6:13")],
    );
    // What only the controller can know is shown in the file as well.
    let path = file(
        &lab,
        "slices:\n  - name: new\n    vms:\n      - { name: a, worker: w9 }\n",
    );
    assert_code(
        &trunkctl(&lab, &["apply", "-f", &path]),
        2,
        &[&format!("{path}:4:28: "), "w9"],
    );
    assert_eq!(api(&lab).status().unwrap().revision, revision);

    assert_code(&trunkctl(&lab, &["slice", "show", "nobody"]), 3, &["nobody"]);
    assert_code(&trunkctl(&lab, &["vm", "netdev", "blue/nobody"]), 3, &["nobody"]);
    assert_code(&trunkctl(&lab, &["node", "show", "w9"]), 3, &["w9"]);
    assert_code(
        &trunkctl(&lab, &["slice", "deploy", "green", "--expect-revision", "999999"]),
        4,
        &["999999"],
    );
    assert_code(&trunkctl(&lab, &["vm", "add", "green/left"]), 4, &["left"]);
    assert_code(
        &trunkctl(&lab, &["slice", "list", "--controller", "https://127.0.0.1:1"]),
        5,
        &["127.0.0.1:1"],
    );
    let worker = Command::new(programs::find("trunkctl").unwrap())
        .args(["slice", "list"])
        .env("TRUNKLINE_CONTROLLER", lab.controller_endpoint())
        .env("TRUNKLINE_BUNDLE", lab.bundle("w1"))
        .output()
        .unwrap();
    assert_eq!(code(worker.status), 5, "{}", String::from_utf8_lossy(&worker.stderr));

    // While a worker's agent is away nothing becomes ready there, and it is named.
    lab.kill_daemon("w2", AGENT_PROGRAM).unwrap();
    must_trunkctl(&lab, &["vm", "add", "green/third", "--worker", "w2"]);
    let waited = trunkctl(&lab, &["slice", "deploy", "green", "--wait", "--timeout", "3s"]);
    assert_code(&waited, 6, &["green", "w2"]);
}

#[test]
fn a_launcher_is_told_the_taps_that_are_there() {
    let lab = with_two_slices();
    let datapath = json(&lab, &["node", "show", "w1"]);
    assert!(datapath.to_string().contains("netdev"), "{datapath:#}");
    for vm in api(&lab).slices().unwrap().iter().flat_map(|slice| &slice.vms) {
        let name = format!("{}/{}", vm.slice, vm.name);
        let lines = must_trunkctl(&lab, &["vm", "netdev", &name, "--only", "qemu"]);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines.len(), 4 * vm.interfaces.len(), "{lines:?}");
        for (end, four) in vm.interfaces.iter().zip(lines.chunks(4)) {
            let [netdev, tap, device, nic] = four else {
                panic!("{four:?}")
            };
            assert_eq!((*netdev, *device), ("-netdev", "-device"));
            let backend: Vec<&str> = tap.split(',').collect();
            let ifname = backend.iter().find_map(|part| part.strip_prefix("ifname=")).unwrap();
            on(&lab, &vm.worker, &["ip", "link", "show", "dev", ifname]);
            let flags = on(
                &lab,
                &vm.worker,
                &["cat", &format!("/sys/class/net/{ifname}/tun_flags")],
            );
            assert!(flags.starts_with("0x"), "{ifname} is no TAP: {flags}");
            assert!(
                backend.contains(&"vnet_hdr=off") && backend.contains(&"script=no"),
                "{tap}"
            );
            assert!(
                nic.contains(&format!("mac={}", end.mac)) && nic.starts_with("virtio-net-pci,"),
                "{nic}"
            );
        }
        let xml = must_trunkctl(&lab, &["vm", "netdev", &name, "--only", "libvirt"]);
        for end in &vm.interfaces {
            assert!(
                xml.contains(&format!("<target dev='{}' managed='no'/>", end.tap)),
                "{xml}"
            );
            assert!(xml.contains(&format!("<mac address='{}'/>", end.mac)), "{xml}");
        }
        assert_eq!(xml.matches("csum='off'").count(), 2 * vm.interfaces.len(), "{xml}");
    }
}

#[test]
fn events_tell_who_asked_for_what() {
    let lab = with_two_slices();
    must_trunkctl(&lab, &["vm", "add", "green/third", "--worker", "w1"]);
    must_trunkctl(&lab, &["slice", "undeploy", "blue", "--wait"]);
    let events = json(&lab, &["events"]);
    let all = events.as_array().unwrap_or_else(|| panic!("{events:#}"));
    let found = |kind: &str, slice: &str| {
        all.iter()
            .find(|event| event["type"] == kind && event["slice"] == slice)
            .unwrap_or_else(|| panic!("no {kind} of {slice} in {events:#}"))
    };
    for (kind, slice) in [
        ("slice.deployed", "blue"),
        ("slice.deployed", "green"),
        ("slice.undeployed", "blue"),
    ] {
        let event = found(kind, slice);
        assert_eq!(event["actor"], "operator/operator", "{event:#}");
        assert!(
            event["revision"].as_u64().is_some() && event["at"].is_string(),
            "{event:#}"
        );
        assert!(
            event["message"].as_str().is_some_and(|text| text.contains(slice)),
            "{event:#}"
        );
    }
    assert!(
        all.iter().any(|event| event["type"] == "slice.applied"
            && event["message"].as_str().is_some_and(|text| text.contains("vm third"))),
        "{events:#}"
    );
    found("slice.ready", "green");
    for node in lab.layout().nodes() {
        let joined = all
            .iter()
            .find(|event| event["type"] == "node.connected" && event["node"] == node.as_str());
        assert!(joined.is_some(), "nothing of {node} in {events:#}");
    }
    let of_green = json(&lab, &["events", "--slice", "green"]);
    assert!(
        of_green
            .as_array()
            .unwrap()
            .iter()
            .all(|event| event["slice"] == "green"),
        "{of_green:#}"
    );
}
