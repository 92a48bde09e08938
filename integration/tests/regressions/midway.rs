//! A deployment that cannot be finished: what can be there is there, what cannot is named, and the rest comes by itself.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trunkline_integration::lab::{Lab, OVSDB, Options, VSWITCHD};
use trunkline_proto::wire::{Kind, LinkStatus, ResourceStatus, SliceStatus, State};

use crate::looks::*;
use crate::support::{LIMIT, await_clean, await_ready, fleet, guests, must_trunkctl};

const TOPOLOGY: &str = "
slices:
  - name: shop
    vms:
      - { name: web, worker: w1, internet_enabled: true, data_interfaces_count: 2 }
      - { name: app, worker: w1, data_interfaces_count: 1 }
      - { name: db, worker: w2, data_interfaces_count: 2 }
    links:
      - { name: taken, ends: [web.eth1, db.eth1] }
      - { name: across, ends: [web.eth2, db.eth2] }
";

fn resources(status: &SliceStatus) -> Vec<&ResourceStatus> {
    let links = status.links.iter().flat_map(|link| &link.resources);
    links.chain(status.vms.iter().flat_map(|vm| &vm.resources)).collect()
}

/// Every resource of a node but the named one is ready, and but for its probes, which need the other end as well.
fn all_ready_on(status: &SliceStatus, node: &str, but: &str) -> bool {
    let all = resources(status);
    let mut rest = all.iter().filter(|each| {
        let key = each.key.as_ref().unwrap();
        each.node == node && key.name != but && key.kind() != Kind::Probe
    });
    rest.all(|each| each.state() == State::Ready)
}

/// A process of a worker, held still: it neither works nor goes away.
struct Frozen(Pid);

impl Frozen {
    fn new(lab: &Lab, host: &str, program: &str) -> Self {
        let pid = Pid::from_raw(i32::try_from(lab.daemon_pid(host, program).unwrap()).unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[test]
fn a_strangers_device_and_a_dead_database_hold_up_only_what_needs_them() {
    let lab = fleet(&Options::default());
    draft(&lab, TOPOLOGY);
    let tap = interface(&lab, "shop/web.eth1").tap;
    on(&lab, "w1", &["ip", "link", "add", &tap, "type", "bridge"]);
    on(&lab, "w1", &["ip", "address", "add", "192.0.2.1/24", "dev", &tap]);
    let stranger = || on(&lab, "w1", &["ip", "-d", "address", "show", "dev", &tap]);
    let before = stranger();
    lab.kill_daemon("w2", OVSDB).unwrap();
    must_trunkctl(&lab, &["slice", "deploy", "shop"]);

    let seen = await_status(&lab, "shop", "to be ready where nothing is in the way", |status| {
        all_ready_on(status, "w1", &tap) && all_ready_on(status, "nn", "")
    });
    let of = |seen: &SliceStatus, node: &str, name: &str| {
        let all = resources(seen);
        let found = all
            .iter()
            .find(|each| each.node == node && each.key.as_ref().unwrap().name == name)
            .unwrap();
        (found.state(), found.reason.clone())
    };
    let (state, reason) = of(&seen, "w1", &tap);
    assert_eq!(state, State::Failed, "{reason}");
    assert!(
        reason.contains("not made by Trunkline") && reason.contains("remove or rename it"),
        "{reason}"
    );
    let db = interface(&lab, "shop/db.eth2").tap;
    let seen = await_status(&lab, "shop", "to say what is wrong on w2", |status| {
        let (state, reason) = of(status, "w2", &db);
        matches!(state, State::Unknown | State::Failed) && reason.contains("w2") && reason.contains("Open vSwitch")
    });
    assert_ne!(seen.state(), State::Ready);
    assert_eq!(stranger(), before, "the stranger was touched");
    assert!(
        !try_on(&lab, "w1", &["ovs-vsctl", "--timeout=10", "get", "port", &tap, "tag"]).ok(),
        "a stranger in the switch"
    );

    // The database comes back: all of w2 becomes ready, w1's trouble stays and is named.
    lab.start_daemon("w2", OVSDB).unwrap();
    let is_across = |link: &&LinkStatus| link.name == "across";
    let seen = await_status(&lab, "shop", "to be ready on w2", |status| {
        let across = status.links.iter().find(is_across);
        all_ready_on(status, "w2", "") && across.is_some_and(|link| link.state() == State::Ready)
    });
    assert_eq!(seen.state(), State::Failed);
    assert!(
        seen.reason.contains(&tap) && seen.reason.contains("w1"),
        "{}",
        seen.reason
    );
    assert_eq!(stranger(), before, "the stranger was touched");

    // The stranger goes: it converges without a hand.
    on(&lab, "w1", &["ip", "link", "delete", &tap]);
    await_ready(&lab, "shop");
    assert_trunks(&lab, &["shop"]);
    let guests = guests(&lab, &["shop"]);
    for nic in ["eth1", "eth2"] {
        guests["shop/web"].await_lease(nic, LIMIT).unwrap();
        guests["shop/db"].await_lease(nic, LIMIT).unwrap();
        assert!(
            guests["shop/web"]
                .ping(address(&lab, &format!("shop/db.{nic}")))
                .unwrap(),
            "over {nic}"
        );
    }
    drop(guests);

    // Another one in the way of a gateway, while nothing of the slice is there.
    must_trunkctl(&lab, &["slice", "undeploy", "shop", "--wait"]);
    await_clean(&lab);
    let gateway = format!("gw_vlan{}", interface(&lab, "shop/web.eth1").vlan);
    on(&lab, "nn", &["ip", "link", "add", &gateway, "type", "bridge"]);
    let stranger = || on(&lab, "nn", &["ip", "-d", "address", "show", "dev", &gateway]);
    let before = stranger();
    must_trunkctl(&lab, &["slice", "deploy", "shop"]);
    let seen = await_status(&lab, "shop", "to be ready but for the gateway", |status| {
        all_ready_on(status, "nn", &gateway) && all_ready_on(status, "w1", "") && all_ready_on(status, "w2", "")
    });
    assert_eq!(seen.state(), State::Failed);
    assert!(seen.reason.contains(&gateway), "{}", seen.reason);
    assert_eq!(stranger(), before, "the stranger was touched");
    on(&lab, "nn", &["ip", "link", "delete", &gateway]);
    await_ready(&lab, "shop");
}

#[test]
fn a_switch_that_hangs_in_the_middle_of_a_deployment_is_named_and_caught_up_with() {
    let lab = fleet(&Options::default());
    let frozen = Frozen::new(&lab, "w2", VSWITCHD);
    draft(&lab, TOPOLOGY);
    must_trunkctl(&lab, &["slice", "deploy", "shop"]);
    let seen = await_status(&lab, "shop", "to be ready but for w2", |status| {
        let ports = resources(status).into_iter().filter(|each| each.node == "w2");
        let mut ports = ports.filter(|each| each.key.as_ref().unwrap().kind() == Kind::Port);
        let told = ports
            .all(|each| matches!(each.state(), State::Failed | State::Unknown) && each.reason.contains("ovs-vswitchd"));
        told && all_ready_on(status, "w1", "") && all_ready_on(status, "nn", "")
    });
    assert!(seen.reason.contains("w2"), "{}", seen.reason);
    drop(frozen);
    await_ready(&lab, "shop");
    assert_trunks(&lab, &["shop"]);
    // And one that died for good while something was to go.
    lab.kill_daemon("w2", VSWITCHD).unwrap();
    must_trunkctl(&lab, &["slice", "undeploy", "shop"]);
    await_only_holder(&lab, "shop", "w2");
    lab.start_daemon("w2", VSWITCHD).unwrap();
    await_clean(&lab);
}
