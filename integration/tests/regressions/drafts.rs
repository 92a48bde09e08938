//! A draft touches no host, and a VLAN that was given up rests before somebody else gets it.

use std::time::{Duration, Instant};

use trunkline_integration::lab::{AGENT_PROGRAM, Lab, Options, Tuning};
use trunkline_integration::wait::until;
use trunkline_proto::wire::State;

use crate::looks::*;
use crate::support::{LIMIT, apply, await_clean, await_ready, fleet, must_trunkctl, traces_of, trunkctl};

const DRAFT: &str = "
slices:
  - name: shop
    vms:
      - { name: web, worker: w1, internet_enabled: true, data_interfaces_count: 1 }
      - { name: db, worker: w2, data_interfaces_count: 1 }
    links:
      - { name: wire, ends: [web.eth1, db.eth1] }
";

const OTHER: &str = "
slices:
  - name: other
    vms:
      - { name: web, worker: w1, data_interfaces_count: 1 }
      - { name: db, worker: w2, data_interfaces_count: 1 }
    links:
      - { name: wire, ends: [web.eth1, db.eth1] }
";

#[test]
fn a_link_has_its_vlan_on_both_interfaces_at_once_but_nothing_is_provisioned_until_deploy() {
    let lab = fleet(&Options::default());
    let before: Vec<Vec<String>> = lab.layout().nodes().iter().map(|node| everything(&lab, node)).collect();
    draft(&lab, DRAFT);
    let vlan = slice(&lab, "shop").links[0].vlan;
    assert!(vlan != 0 && vlan != INTERNET_VLAN);
    assert_eq!(interface(&lab, "shop/web.eth1").vlan, vlan);
    assert_eq!(interface(&lab, "shop/db.eth1").vlan, vlan);
    assert_eq!(interface(&lab, "shop/web.eth0").vlan, INTERNET_VLAN);
    assert_eq!(interface(&lab, "shop/db.eth0").vlan, 0);
    for (node, before) in lab.layout().nodes().iter().zip(&before) {
        assert_eq!(&everything(&lab, node), before, "{node} changed");
    }

    // Once another slice is ready every node has had the time to do what it must not do.
    apply(&lab, OTHER);
    assert_trunks(&lab, &["other"]);
    let mut names: Vec<String> = vec![format!("vlan{vlan}"), format!("dhcp_v{vlan}")];
    names.extend(["vlan400", "dhcp_v400", "masquerade"].map(str::to_owned));
    for each in ["shop/web.eth0", "shop/web.eth1", "shop/db.eth0", "shop/db.eth1"] {
        names.push(interface(&lab, each).tap);
    }
    for node in lab.layout().nodes() {
        let text = everything(&lab, &node).join("\n");
        for name in &names {
            assert!(!text.contains(name), "{node} has {name}:\n{text}");
        }
    }
    assert_eq!(forwarding(&lab), "0");
    assert!(status(&lab, "shop").is_none(), "a draft has no status");

    // The same look finds all of it when it is there.
    must_trunkctl(&lab, &["slice", "deploy", "shop", "--wait"]);
    let all: String = lab
        .layout()
        .nodes()
        .iter()
        .flat_map(|node| everything(&lab, node))
        .collect();
    for name in &names {
        assert!(all.contains(name), "{name} is nowhere");
    }
    assert_trunks(&lab, &["shop", "other"]);

    // An edited draft is a draft again.
    let trunks = [trunk(&lab, "w1"), trunk(&lab, "w2"), trunk(&lab, "nn")];
    must_trunkctl(&lab, &["link", "remove", "shop/wire"]);
    must_trunkctl(&lab, &["vm", "remove", "shop/db"]);
    must_trunkctl(&lab, &["vm", "add", "other/third", "--worker", "w2", "--internet"]);
    must_trunkctl(&lab, &["slice", "deploy", "other", "--wait"]);
    assert_eq!(trunk(&lab, "w1"), trunks[0]);
    assert_eq!(trunk(&lab, "nn"), trunks[2]);
    assert_ne!(trunk(&lab, "w2"), trunks[1], "VLAN 400 has come to w2");
    assert_eq!(status(&lab, "shop").unwrap().state(), State::Ready);
    must_trunkctl(&lab, &["slice", "undeploy", "shop", "--wait"]);
    must_trunkctl(&lab, &["slice", "undeploy", "other", "--wait"]);
    await_clean(&lab);
    for node in lab.layout().nodes() {
        assert_eq!(trunk(&lab, &node), "[4095]", "{node}");
    }
}

/// Everything on a node that a deployment could make, by name.
fn everything(lab: &Lab, node: &str) -> Vec<String> {
    let mut all = traces_of(lab, node);
    all.extend(on(lab, node, &["nft", "list", "ruleset"]).lines().map(str::to_owned));
    all
}

const QUARANTINE: Duration = Duration::from_secs(5);

#[test]
fn a_vlan_is_given_again_only_after_every_node_let_go_of_it_and_the_quarantine_is_over() {
    let tuning = Tuning {
        network: vec![format!("quarantine = \"{}s\"", QUARANTINE.as_secs())],
        ..Tuning::default()
    };
    let lab = fleet(&Options {
        tuning,
        ..Options::default()
    });
    apply(&lab, DRAFT);
    let vlan = slice(&lab, "shop").links[0].vlan;
    let taker = OTHER.replace("name: wire,", &format!("name: wire, vlan: {vlan},"));

    // Every node answers: it is the quarantine alone that keeps the VLAN.
    let began = Instant::now();
    must_trunkctl(&lab, &["slice", "delete", "shop", "--wait"]);
    refused(&lab, &taker, vlan);
    let path = file(&lab, OTHER);
    must_trunkctl(&lab, &["apply", "-f", &path]);
    assert_ne!(
        slice(&lab, "other").links[0].vlan,
        vlan,
        "the controller itself chose a resting VLAN"
    );
    must_trunkctl(&lab, &["slice", "delete", "other"]);
    await_taken(&lab, &taker);
    assert!(began.elapsed() >= QUARANTINE, "free after {:?}", began.elapsed());
    must_trunkctl(&lab, &["slice", "deploy", "other", "--wait"]);
    assert_trunks(&lab, &["other"]);

    // A node that is cut off goes on forwarding: however long it takes, nobody gets the VLAN.
    lab.kill_daemon("w2", AGENT_PROGRAM).unwrap();
    must_trunkctl(&lab, &["slice", "delete", "other"]);
    await_only_holder(&lab, "other", "w2");
    let taker = taker.replace("name: other", "name: shop");
    let end = Instant::now() + QUARANTINE + QUARANTINE / 2;
    while Instant::now() < end {
        refused(&lab, &taker, vlan);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(trunk(&lab, "w2"), format!("[{vlan}]"), "w2 was to hold it all the time");
    let back = Instant::now();
    lab.start_daemon("w2", AGENT_PROGRAM).unwrap();
    await_taken(&lab, &taker);
    assert!(
        back.elapsed() >= QUARANTINE,
        "free {:?} after w2 came back",
        back.elapsed()
    );
    must_trunkctl(&lab, &["slice", "deploy", "shop"]);
    await_ready(&lab, "shop");
}

/// The topology asks for a VLAN that is not free yet.
fn refused(lab: &Lab, topology: &str, vlan: u32) {
    let output = trunkctl(lab, &["apply", "--dry-run", "-f", &file(lab, topology)]);
    assert_eq!(
        output.status, 2,
        "vlan {vlan} was given away: {}{}",
        output.stdout, output.stderr
    );
    assert!(output.stderr.contains(&vlan.to_string()), "{}", output.stderr);
}

/// Applies the topology as soon as the controller takes it.
fn await_taken(lab: &Lab, topology: &str) {
    let path = file(lab, topology);
    until("the VLAN to be free", LIMIT, || {
        let output = trunkctl(lab, &["apply", "-f", &path]);
        if output.ok() { Ok(()) } else { Err(output.stderr) }
    })
    .unwrap();
}
