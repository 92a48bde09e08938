//! What is done to one slice or VM is not noticed by another, however much their names look alike.

use std::time::Duration;

use trunkline_integration::guest::Guest;
use trunkline_integration::lab::layout::{INTERNET_ADDRESS, NETNODE};
use trunkline_integration::lab::{AGENT_PROGRAM, Lab, Options};
use trunkline_integration::wait::until;

use crate::looks::*;
use crate::streams::{Flow, Pings};
use crate::support::{LIMIT, apply, await_clean, fleet, guests, must_trunkctl, traces_of};

/// Slices `a` and `ab`, VMs `vm1` and `vm10`: each name begins with another.
const LOOK_ALIKES: &str = "
slices:
  - name: a
    vms:
      - { name: vm1, worker: w1, data_interfaces_count: 2 }
      - { name: vm10, worker: w1, internet_enabled: true, data_interfaces_count: 1 }
      - { name: vm2, worker: w2, data_interfaces_count: 2 }
    links:
      - { name: wire, ends: [vm1.eth1, vm2.eth1] }
      - { name: wire2, ends: [vm10.eth1, vm2.eth2] }
  - name: ab
    vms:
      - { name: vm1, worker: w1, internet_enabled: true, data_interfaces_count: 1 }
      - { name: vm10, worker: w2, internet_enabled: true, data_interfaces_count: 1 }
    links:
      - { name: wire, ends: [vm1.eth1, vm10.eth1] }
";

/// Traffic of slice `ab`, and what must not change while something is done to `a`.
struct Witness<'a> {
    lab: &'a Lab,
    pings: Vec<Pings<'a>>,
    flows: Vec<Flow>,
    ports: Vec<(&'static str, String, String)>,
    servers: Vec<(u32, String)>,
    leases: String,
}

impl<'a> Witness<'a> {
    fn start(lab: &'a Lab, vm1: &'a Guest, vm10: &'a Guest) -> Self {
        let (near, far) = (address(lab, "ab/vm1.eth1"), address(lab, "ab/vm10.eth1"));
        let link = slice(lab, "ab").links[0].vlan;
        let servers = dhcp_servers(lab);
        let mut ports = Vec::new();
        for (node, tap) in [
            ("w1", "ab/vm1.eth0"),
            ("w1", "ab/vm1.eth1"),
            ("w2", "ab/vm10.eth0"),
            ("w2", "ab/vm10.eth1"),
        ] {
            ports.push((node, interface(lab, tap).tap));
        }
        for port in [
            format!("gw_vlan{link}"),
            format!("dhcp_v{link}"),
            "gw_vlan400".into(),
            "dhcp_v400".into(),
        ] {
            ports.push((NETNODE, port));
        }
        let number = |(node, port): (&'static str, String)| {
            let number = ofports(lab, node)[&port].clone();
            (node, port, number)
        };
        Self {
            lab,
            pings: vec![
                Pings::start(vm1, far),
                Pings::start(vm10, near),
                Pings::start(vm1, INTERNET_ADDRESS),
                Pings::start(vm10, INTERNET_ADDRESS),
            ],
            flows: vec![
                Flow::between(vm1, vm10, far),
                Flow::to_internet(vm1, lab),
                Flow::to_internet(vm10, lab),
            ],
            ports: ports.into_iter().map(number).collect(),
            servers: [link, INTERNET_VLAN]
                .map(|vlan| (vlan, servers[&vlan].clone()))
                .to_vec(),
            leases: leases(lab, link),
        }
    }

    /// Nothing was lost, restarted, renumbered or reset since the start.
    fn assert_undisturbed(&self, by: &str) {
        self.flows.iter().for_each(Flow::await_more);
        self.pings.iter().for_each(Pings::assert_lossless);
        for (node, port, number) in &self.ports {
            assert_eq!(
                ofports(self.lab, node).get(port),
                Some(number),
                "{by} renumbered {port} of {node}"
            );
        }
        let servers = dhcp_servers(self.lab);
        for (vlan, pid) in &self.servers {
            assert_eq!(
                servers.get(vlan),
                Some(pid),
                "{by} restarted the DHCP server of VLAN {vlan}"
            );
        }
        assert_eq!(
            leases(self.lab, self.servers[0].0),
            self.leases,
            "{by} touched the leases"
        );
    }
}

#[test]
fn what_is_done_to_slice_a_is_not_noticed_in_slice_ab() {
    let lab = fleet(&Options::default());
    apply(&lab, LOOK_ALIKES);
    let guests = guests(&lab, &["a", "ab"]);
    for (guest, nic) in [
        ("ab/vm1", "eth0"),
        ("ab/vm1", "eth1"),
        ("ab/vm10", "eth0"),
        ("ab/vm10", "eth1"),
    ] {
        guests[guest].await_lease(nic, LIMIT).unwrap();
    }
    guests["a/vm10"].await_lease("eth0", LIMIT).unwrap();
    guests["a/vm2"].await_lease("eth2", LIMIT).unwrap();
    guests["a/vm10"].await_lease("eth1", LIMIT).unwrap();
    let witness = Witness::start(&lab, &guests["ab/vm1"], &guests["ab/vm10"]);
    let own = Flow::between(&guests["a/vm2"], &guests["a/vm10"], address(&lab, "a/vm10.eth1"));
    let out = Flow::to_internet(&guests["a/vm10"], &lab);
    let counted = nat_packets(&lab);
    assert!(counted > 0);

    // A link goes, a later one and another slice's stay.
    let gone = slice(&lab, "a")
        .links
        .iter()
        .find(|link| link.name == "wire")
        .unwrap()
        .vlan;
    must_trunkctl(&lab, &["link", "remove", "a/wire"]);
    must_trunkctl(&lab, &["slice", "deploy", "a", "--wait"]);
    await_gone(&lab, NETNODE, &format!("vlan{gone}"));
    witness.assert_undisturbed("deleting a link of slice a");
    own.await_more();
    out.await_more();
    assert_trunks(&lab, &["a", "ab"]);

    // `vm1` goes, `vm10` stays on the same worker.
    let removed = interface(&lab, "a/vm1.eth0").tap.replace("eth0", "");
    let kept = [interface(&lab, "a/vm10.eth0").tap, interface(&lab, "a/vm10.eth1").tap];
    let numbers = || {
        kept.clone()
            .map(|tap| (ofports(&lab, "w1")[&tap].clone(), index(&lab, &tap)))
    };
    let before = numbers();
    must_trunkctl(&lab, &["vm", "remove", "a/vm1"]);
    must_trunkctl(&lab, &["slice", "deploy", "a", "--wait"]);
    await_gone(&lab, "w1", &removed);
    assert_eq!(numbers(), before, "vm10's ports were touched");
    own.await_more();
    out.await_more();
    witness.assert_undisturbed("removing vm1 of slice a");
    assert_trunks(&lab, &["a", "ab"]);

    // The counter went on while all of this was written anew.
    assert!(nat_packets(&lab) >= counted, "the NAT counter was reset");
    let counted = nat_packets(&lab);
    assert!(guests["ab/vm1"].http_get(INTERNET_ADDRESS).unwrap().is_some());
    assert!(nat_packets(&lab) > counted);

    // The whole slice goes. The worker's agent is dead, so that the guest keeps its TAP and really goes on sending.
    let source = address(&lab, "a/vm10.eth0").to_string();
    assert!(connections(&lab, &source).contains("ESTABLISHED"));
    drop(own);
    lab.kill_daemon("w1", AGENT_PROGRAM).unwrap();
    must_trunkctl(&lab, &["slice", "undeploy", "a"]);
    await_only_holder(&lab, "a", "w1");
    out.assert_silent(Duration::from_secs(3));
    assert!(
        !connections(&lab, &source).contains(&format!("dst={INTERNET_ADDRESS}")),
        "its connections are remembered"
    );
    witness.assert_undisturbed("undeploying slice a");
    drop(out);
    lab.start_daemon("w1", AGENT_PROGRAM).unwrap();
    until("slice a to be gone", LIMIT, || {
        status(&lab, "a").map_or(Ok(()), |left| Err(left.reason))
    })
    .unwrap();
    witness.assert_undisturbed("the end of slice a");
    assert!(nat_packets(&lab) > counted);
    assert_trunks(&lab, &["ab"]);
}

fn index(lab: &Lab, tap: &str) -> String {
    on(lab, "w1", &["cat", &format!("/sys/class/net/{tap}/ifindex")])
}

/// Waits until nothing of that name is on a node.
fn await_gone(lab: &Lab, node: &str, name: &str) {
    until(&format!("{name} to be gone from {node}"), LIMIT, || {
        let mut left = traces_of(lab, node);
        left.retain(|line| line.contains(name));
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .unwrap();
}

const ALONE: &str = "
slices:
  - name: alone
    vms:
      - { name: web, worker: w1, internet_enabled: true }
";

#[test]
fn the_last_user_of_the_internet_takes_its_connections_rules_and_forwarding_with_it() {
    let lab = fleet(&Options::default());
    assert_eq!(forwarding(&lab), "0");
    apply(&lab, ALONE);
    assert_eq!(forwarding(&lab), "1");
    let alone = guests(&lab, &["alone"]);
    alone["alone/web"].await_lease("eth0", LIMIT).unwrap();
    let source = address(&lab, "alone/web.eth0").to_string();
    let open = Flow::to_internet(&alone["alone/web"], &lab);
    assert!(connections(&lab, &source).contains("ESTABLISHED"));

    // The worker's agent is dead, so that the guest keeps its TAP and really goes on sending.
    lab.kill_daemon("w1", AGENT_PROGRAM).unwrap();
    must_trunkctl(&lab, &["slice", "undeploy", "alone"]);
    await_clean_netnode(&lab);
    assert_eq!(connections(&lab, "10.60.7.0/24"), "", "its connections are remembered");
    open.assert_silent(Duration::from_secs(3));
    assert_eq!(trunk(&lab, "w1"), "[400]", "the guest was to be able to send");
    assert_eq!(forwarding(&lab), "0", "it was us who had switched it on");
    drop(open);
    lab.start_daemon("w1", AGENT_PROGRAM).unwrap();
    drop(alone);
    await_clean(&lab);

    // On a host that forwarded before us it stays on, and a stranger's rules stay as they are.
    on(&lab, NETNODE, &["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    on(&lab, NETNODE, &["nft", "add", "table", "inet", "strangers"]);
    must_trunkctl(&lab, &["slice", "deploy", "alone", "--wait"]);
    assert!(on(&lab, NETNODE, &["nft", "list", "ruleset"]).contains("masquerade"));
    must_trunkctl(&lab, &["slice", "undeploy", "alone", "--wait"]);
    until("our table to be gone", LIMIT, || {
        match on(&lab, NETNODE, &["nft", "list", "tables"]) {
            tables if tables.trim() == "table inet strangers" => Ok(()),
            tables => Err(tables),
        }
    })
    .unwrap();
    assert_eq!(forwarding(&lab), "1", "it was on before us");
}

fn await_clean_netnode(lab: &Lab) {
    until("nothing to be left on the network node", LIMIT, || {
        let left = traces_of(lab, NETNODE);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .unwrap();
}
