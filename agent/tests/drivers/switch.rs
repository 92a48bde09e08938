use std::collections::{BTreeMap, BTreeSet};

use trunkline_agent::netlink::{Handle, TapRequest};
use trunkline_agent::ovsdb::Client;
use trunkline_agent::switch::{
    self, Access, BridgeSpec, Datapath, FailMode, Labels, Mark, Observed, Plan, PortKind, SwitchPort, SwitchState,
    UplinkSpec,
};
use trunkline_agent::tap;
use trunkline_proto::VlanId;
use trunkline_proto::resource::{Port, PortOwner, State, Trunk};

use super::stand::{LIMIT, Ovs, alone, eventually, netlink, run, veth};

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

fn port(vm: u32, id: Option<u32>) -> Port {
    Port {
        tap: format!("tap_{vm}_eth1").parse().unwrap(),
        vlan: id.map(vlan),
        mac: "52:54:00:03:e8:01".parse().unwrap(),
        addresses: Vec::new(),
        mtu: 1500,
        owner: PortOwner {
            slice: "red".into(),
            vm: "web".into(),
            interface: "eth1".into(),
        },
    }
}

fn desired(ports: &[Port], trunks: &[u32]) -> SwitchState {
    SwitchState {
        mark: Mark::new("w1"),
        bridge: BridgeSpec {
            name: "br-int".into(),
            datapath: Datapath::Netdev,
            adopt: false,
            fail_mode: FailMode::Standalone,
        },
        uplink: Some(UplinkSpec {
            name: "trunk0".into(),
            vlans: trunks.iter().map(|id| vlan(*id)).collect(),
        }),
        ports: ports
            .iter()
            .map(|port| (port.tap.to_string(), SwitchPort::from(port)))
            .collect(),
    }
}

fn internal(id: u32) -> SwitchPort {
    let mac = format!("52:55:00:01:00:{id:02x}").parse().unwrap();
    SwitchPort {
        kind: PortKind::Internal { mac, mtu: 1400 },
        access: Access::Vlan(vlan(id)),
        labels: Labels {
            kind: "gateway".into(),
            ..Labels::default()
        },
    }
}

/// A worker without its runtime: one pass is what the reconcile loop does.
struct Worker {
    ovs: Ovs,
    client: Client,
    netlink: Handle,
}

impl Worker {
    async fn start() -> Self {
        let ovs = Ovs::start().await;
        veth("trunk0");
        let client = ovs.client().await;
        Self {
            ovs,
            client,
            netlink: netlink(),
        }
    }

    async fn observe(&self) -> Observed {
        switch::observe(&self.client, &self.netlink).await.unwrap()
    }

    async fn taps(&self, ports: &[Port]) -> tap::Plan {
        let observed = self.observe().await;
        let plan = tap::plan(
            ports.iter().map(tap::Tap::from),
            observed.devices.values().map(|device| &device.link),
        );
        assert!(tap::create_and_correct(&plan, &self.netlink).await.is_empty());
        plan
    }

    async fn plan(&self, state: &SwitchState) -> Plan {
        switch::plan(state, &self.observe().await).unwrap()
    }

    async fn apply(&self, state: &SwitchState) -> Plan {
        let plan = self.plan(state).await;
        switch::execute(&plan, &self.client, &self.netlink, Some("00-trace-00"), LIMIT)
            .await
            .unwrap();
        plan
    }

    /// TAPs, ports, removals.
    async fn pass(&self, ports: &[Port], trunks: &[u32]) -> Plan {
        let taps = self.taps(ports).await;
        let plan = self.apply(&desired(ports, trunks)).await;
        tap::remove(&taps, &self.netlink).await.unwrap();
        plan
    }

    async fn judge(&self, port: &Port, trunks: &[u32]) -> switch::Judgement {
        let state = desired(std::slice::from_ref(port), trunks);
        switch::judge_port(port, &state, &self.observe().await, &BTreeMap::new())
    }

    async fn ready(&self, port: &Port, trunks: &[u32]) {
        eventually("port ready", async || {
            let judgement = self.judge(port, trunks).await;
            if judgement.state == State::Ready {
                Ok(())
            } else {
                Err(judgement.reason)
            }
        })
        .await;
    }
}

#[test]
fn ports_converge_are_read_back_ready_and_the_next_plan_is_empty() {
    alone(|| async {
        let worker = Worker::start().await;
        let ports = [port(1000, Some(110)), port(1001, None)];
        let plan = worker.pass(&ports, &[110, 111]).await;
        assert!(plan.conflicts.is_empty(), "{plan:?}");
        let next = worker.plan(&desired(&ports, &[110, 111])).await;
        assert!(next.is_empty(), "{next:#?}");

        let column = |record: &str, column: &str| worker.ovs.vsctl(&["get", "port", record, column]);
        assert_eq!(
            (column("tap_1000_eth1", "tag"), column("tap_1000_eth1", "vlan_mode")),
            ("110".into(), "access".into())
        );
        assert_eq!(
            (column("tap_1001_eth1", "tag"), column("tap_1001_eth1", "protected")),
            ("0".into(), "true".into())
        );
        assert_eq!(
            (column("trunk0", "trunks"), column("trunk0", "vlan_mode")),
            ("[110, 111]".into(), "trunk".into())
        );
        assert_eq!(column("tap_1000_eth1", "external_ids:trunkline"), "w1");
        assert_eq!(column("tap_1000_eth1", "external_ids:trunkline-slice"), "red");
        assert!(
            worker.ovs.log().contains("trace 00-trace-00"),
            "the database's log names the trace"
        );

        for port in &ports {
            worker.ready(port, &[110, 111]).await;
        }
        let state = desired(&ports, &[110, 111]);
        let trunk = Trunk {
            vlans: BTreeSet::from([vlan(110), vlan(111)]),
        };
        let judgement = switch::judge_trunk(&trunk, &state, &worker.observe().await, &BTreeMap::new());
        assert_eq!(judgement.state, State::Ready, "{judgement:?}");

        let observed = worker.observe().await;
        assert!(observed.devices["trunk0"].link.up);
        assert!(!observed.devices["br-int"].link.up, "the local port stays down");
        assert_eq!(
            std::fs::read_to_string("/proc/thread-self/net/if_inet6")
                .unwrap()
                .matches("br-int")
                .count(),
            0
        );
        assert_eq!(
            trunkline_agent::netns::read_sysctl(None, "net/ipv6/conf/br-int/disable_ipv6")
                .await
                .unwrap(),
            "1"
        );
    });
}

#[test]
fn everything_goes_again_but_the_bridge_and_an_uplink_that_carries_nothing() {
    alone(|| async {
        let worker = Worker::start().await;
        worker.pass(&[port(1000, Some(110))], &[110]).await;
        worker.pass(&[], &[]).await;
        assert_eq!(worker.ovs.vsctl(&["list-ports", "br-int"]), "trunk0");
        assert_eq!(worker.ovs.vsctl(&["get", "port", "trunk0", "trunks"]), "[4095]");
        assert!(worker.netlink.link("tap_1000_eth1").await.unwrap().is_none());
    });
}

#[test]
fn two_hundred_ports_are_one_transaction() {
    alone(|| async {
        let worker = Worker::start().await;
        worker.apply(&desired(&[], &[])).await;
        let ports: Vec<Port> = (0..200).map(|n| port(1000 + n, Some(100 + n))).collect();
        let trunks: Vec<u32> = (100..300).collect();
        let before = worker.client.snapshot().unwrap().root.next_cfg;
        worker.pass(&ports, &trunks).await;
        assert_eq!(worker.client.snapshot().unwrap().root.next_cfg, before + 1);
        let observed = worker.observe().await;
        let state = desired(&ports, &trunks);
        for port in &ports {
            let judgement = switch::judge_port(port, &state, &observed, &BTreeMap::new());
            assert_eq!(judgement.state, State::Ready, "{}", judgement.reason);
        }
        assert!(worker.plan(&state).await.is_empty());
        worker.pass(&[], &[]).await;
        assert!(
            worker
                .netlink
                .links()
                .await
                .unwrap()
                .iter()
                .all(|link| !tap::is_tap(link))
        );
    });
}

#[test]
fn internal_ports_get_their_mac_and_mtu() {
    alone(|| async {
        let worker = Worker::start().await;
        let mut state = desired(&[], &[110]);
        state.ports.insert("gw_vlan110".into(), internal(110));
        worker.apply(&state).await;
        let link = worker.netlink.link("gw_vlan110").await.unwrap().unwrap();
        assert_eq!(
            (link.mac, link.mtu),
            (Some([0x52, 0x55, 0, 1, 0, 110]), 1400),
            "{link:?}"
        );
        assert!(worker.plan(&state).await.is_empty());
        assert_eq!(
            switch::port_problem(
                "gw_vlan110",
                &state.ports["gw_vlan110"],
                &state,
                &worker.observe().await
            ),
            None
        );
    });
}

#[test]
fn what_others_changed_is_mended_and_what_they_added_stays() {
    alone(|| async {
        let worker = Worker::start().await;
        let ports = [port(1000, Some(110))];
        worker.pass(&ports, &[110]).await;
        run("ip", &["tuntap", "add", "foreign", "mode", "tap"]);
        worker.ovs.vsctl(&["add-port", "br-int", "foreign"]);
        worker
            .ovs
            .vsctl(&["set", "port", "tap_1000_eth1", "tag=666", "external_ids:their=note"]);
        worker.ovs.vsctl(&["clear", "port", "trunk0", "trunks"]);
        let trunks = || worker.ovs.vsctl(&["get", "port", "trunk0", "trunks"]);
        eventually("the stranger's change", async || {
            let snapshot = worker.client.snapshot().unwrap();
            if snapshot.port("trunk0").unwrap().1.trunks.is_empty() {
                Ok(())
            } else {
                Err(trunks())
            }
        })
        .await;
        assert_eq!(worker.judge(&ports[0], &[110]).await.state, State::Failed);
        worker.pass(&ports, &[110]).await;
        assert_eq!(trunks(), "[110]");
        assert_eq!(worker.ovs.vsctl(&["get", "port", "tap_1000_eth1", "tag"]), "110");
        assert_eq!(
            worker
                .ovs
                .vsctl(&["get", "port", "tap_1000_eth1", "external_ids:their"]),
            "note"
        );
        worker.pass(&[], &[]).await;
        assert_eq!(worker.ovs.vsctl(&["list-ports", "br-int"]), "foreign\ntrunk0");
    });
}

#[test]
fn a_name_that_a_stranger_holds_fails_alone() {
    alone(|| async {
        let worker = Worker::start().await;
        worker.pass(&[], &[]).await;
        run("ip", &["tuntap", "add", "theirs", "mode", "tap"]);
        worker.ovs.vsctl(&[
            "add-port",
            "br-int",
            "tap_1000_eth1",
            "tag=7",
            "--",
            "set",
            "interface",
            "tap_1000_eth1",
            "type=internal",
        ]);
        eventually("the stranger's port", async || {
            worker
                .client
                .snapshot()
                .unwrap()
                .port("tap_1000_eth1")
                .map(|_| ())
                .ok_or("not seen")
        })
        .await;
        let ports = [port(1001, Some(110))];
        worker.taps(&ports).await;
        let plan = worker
            .apply(&desired(&[port(1000, Some(110)), port(1001, Some(110))], &[110]))
            .await;
        assert!(
            plan.conflicts["tap_1000_eth1"].contains("not made by Trunkline"),
            "{plan:?}"
        );
        assert_eq!(worker.ovs.vsctl(&["get", "port", "tap_1000_eth1", "tag"]), "7");
        worker.ready(&ports[0], &[110]).await;
    });
}

#[test]
fn an_unmarked_bridge_is_refused_unless_it_is_adopted() {
    alone(|| async {
        let worker = Worker::start().await;
        worker.ovs.vsctl(&[
            "add-br",
            "br-int",
            "--",
            "set",
            "bridge",
            "br-int",
            "datapath_type=netdev",
            "fail_mode=secure",
            "--",
            "add-port",
            "br-int",
            "trunk0",
        ]);
        eventually("the stranger's port", async || {
            worker
                .client
                .snapshot()
                .unwrap()
                .port("trunk0")
                .map(|_| ())
                .ok_or("not seen")
        })
        .await;
        let mut state = desired(&[], &[110]);
        let reason = switch::plan(&state, &worker.observe().await).unwrap_err();
        assert!(reason.contains("adopt = true"), "{reason}");

        state.bridge.adopt = true;
        worker.apply(&state).await;
        assert_eq!(worker.ovs.vsctl(&["get", "port", "trunk0", "trunks"]), "[110]");
        // How it forwards stays its operator's business.
        assert_eq!(worker.ovs.vsctl(&["get", "bridge", "br-int", "fail_mode"]), "secure");
        assert!(worker.plan(&state).await.is_empty());
    });
}

#[test]
fn an_uplink_that_the_host_uses_is_refused_and_ports_go_on() {
    alone(|| async {
        let worker = Worker::start().await;
        let conflict = async || {
            worker
                .plan(&desired(&[], &[110]))
                .await
                .conflicts
                .get("trunk0")
                .cloned()
        };
        run("ip", &["addr", "add", "192.0.2.1/24", "dev", "trunk0"]);
        assert!(conflict().await.unwrap().contains("has the address 192.0.2.1/24"));
        run("ip", &["addr", "flush", "dev", "trunk0"]);
        run("ip", &["link", "set", "trunk0", "up"]);
        run("ip", &["route", "add", "198.51.100.0/24", "dev", "trunk0"]);
        assert!(conflict().await.unwrap().contains("route to 198.51.100.0/24"));
        run("ip", &["route", "flush", "dev", "trunk0"]);
        run("ip", &["link", "add", "ubr", "type", "bridge"]);
        run("ip", &["link", "set", "trunk0", "master", "ubr"]);
        assert!(conflict().await.unwrap().contains("belongs to ubr"));

        let ports = [port(1000, Some(110))];
        worker.pass(&ports, &[110]).await;
        worker.ready(&ports[0], &[110]).await;
        run("ip", &["link", "set", "trunk0", "nomaster"]);
        assert_eq!(conflict().await, None);
    });
}

#[test]
fn a_transaction_that_fails_changes_nothing() {
    alone(|| async {
        let worker = Worker::start().await;
        worker.apply(&desired(&[], &[])).await;
        let plan = worker
            .plan(&desired(&[port(1000, Some(110)), port(1001, Some(110))], &[110]))
            .await;
        // Somebody takes one of the names between the look and the act.
        worker.ovs.vsctl(&[
            "add-port",
            "br-int",
            "tap_1001_eth1",
            "--",
            "set",
            "interface",
            "tap_1001_eth1",
            "type=internal",
        ]);
        let error = switch::execute(&plan, &worker.client, &worker.netlink, None, LIMIT)
            .await
            .unwrap_err();
        assert!(matches!(error, switch::Error::Ovsdb(_)), "{error}");
        assert_eq!(worker.ovs.vsctl(&["list-ports", "br-int"]), "tap_1001_eth1\ntrunk0");
        assert_eq!(worker.ovs.vsctl(&["get", "port", "trunk0", "trunks"]), "[4095]");
    });
}

#[test]
fn ports_come_back_after_vswitchd_died() {
    alone(|| async {
        let mut worker = Worker::start().await;
        let ports = [port(1000, Some(110))];
        worker.pass(&ports, &[110]).await;
        worker.ovs.kill_vswitchd();
        assert!(
            switch::prove_alive(&worker.client, std::time::Duration::from_millis(200))
                .await
                .is_err()
        );
        worker.ovs.start_vswitchd();
        switch::prove_alive(&worker.client, LIMIT).await.unwrap();
        worker.ready(&ports[0], &[110]).await;
        worker.pass(&ports, &[110]).await;
        assert!(worker.plan(&desired(&ports, &[110])).await.is_empty());
        assert!(!worker.observe().await.devices["br-int"].link.up);
    });
}

#[test]
fn a_tap_that_was_deleted_under_its_port_is_made_again_and_taken_again() {
    alone(|| async {
        let worker = Worker::start().await;
        let ports = [port(1000, Some(110))];
        worker.pass(&ports, &[110]).await;
        worker.ready(&ports[0], &[110]).await;
        run("ip", &["link", "del", "tap_1000_eth1"]);
        assert_eq!(worker.judge(&ports[0], &[110]).await.state, State::Failed);
        eventually("port mended", async || {
            worker.pass(&ports, &[110]).await;
            let judgement = worker.judge(&ports[0], &[110]).await;
            if judgement.state == State::Ready {
                Ok(())
            } else {
                Err(judgement.reason)
            }
        })
        .await;
        let link = worker.netlink.link("tap_1000_eth1").await.unwrap().unwrap();
        assert_eq!(
            worker.ovs.vsctl(&["get", "interface", "tap_1000_eth1", "ifindex"]),
            link.index.to_string()
        );
    });
}

#[test]
fn a_strangers_tap_is_a_conflict_and_is_not_touched() {
    alone(|| async {
        let worker = Worker::start().await;
        run("ip", &["tuntap", "add", "tap_1000_eth1", "mode", "tap"]);
        let observed = worker.observe().await;
        let plan = tap::plan(
            [tap::Tap::from(&port(1000, Some(110)))],
            observed.devices.values().map(|device| &device.link),
        );
        assert!(
            plan.is_empty() && plan.conflicts.contains_key("tap_1000_eth1"),
            "{plan:?}"
        );
        let request = TapRequest {
            name: "tap_1000_eth1".into(),
            alias: tap::ALIAS.into(),
            mtu: 1500,
        };
        assert!(worker.netlink.create_taps(&[request]).await[0].is_err());
    });
}

/// ICMP messages that this host's own stack has taken in.
fn icmp_received() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let line = text.lines().rfind(|line| line.starts_with("Icmp:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_host_itself_neither_hears_nor_answers_on_the_uplink() {
    alone(|| async {
        let worker = Worker::start().await;
        run("ip", &["netns", "add", "peer"]);
        run("ip", &["link", "set", "cable", "netns", "peer"]);
        let peer = |args: &[&str]| run("ip", &[&["netns", "exec", "peer"], args].concat());
        peer(&["ip", "link", "set", "cable", "up"]);
        peer(&["ip", "addr", "add", "10.0.0.2/24", "dev", "cable"]);
        for args in [
            &["link", "set", "lo", "up"][..],
            &["addr", "add", "10.0.0.1/32", "dev", "lo"],
            &["link", "set", "trunk0", "up"],
        ] {
            run("ip", args);
        }
        // Nobody answers: the host has no route back. What counts is what it took in.
        let ping = || {
            let args = ["netns", "exec", "peer", "ping", "-c", "1", "-W", "1", "10.0.0.1"];
            std::process::Command::new("ip").args(args).output().unwrap();
        };
        let neighbour = || peer(&["ip", "neigh", "show", "10.0.0.1"]);
        ping();
        assert!(
            neighbour().contains("lladdr"),
            "without a shield the host answers: {}",
            neighbour()
        );
        assert_eq!(icmp_received(), 1, "without a shield the host hears");

        worker.apply(&desired(&[], &[110])).await;
        let mac = worker
            .netlink
            .link("trunk0")
            .await
            .unwrap()
            .unwrap()
            .mac
            .unwrap()
            .map(|byte| format!("{byte:02x}"))
            .join(":");
        peer(&["ip", "neigh", "replace", "10.0.0.1", "lladdr", &mac, "dev", "cable"]);
        ping();
        assert_eq!(icmp_received(), 1, "the host heard a guest");
        peer(&["ip", "neigh", "del", "10.0.0.1", "dev", "cable"]);
        // A shield that somebody took away is put back.
        trunkline_agent::netns::write_sysctl(None, "net/ipv4/conf/trunk0/arp_ignore", "0")
            .await
            .unwrap();
        worker.apply(&desired(&[], &[110])).await;
        assert!(worker.plan(&desired(&[], &[110])).await.is_empty());
        ping();
        assert!(!neighbour().contains("lladdr"), "the host answered: {}", neighbour());
    });
}

#[test]
fn an_internal_port_works_in_a_namespace_and_its_row_stays_right() {
    alone(|| async {
        let mut worker = Worker::start().await;
        let namespaces = trunkline_agent::netns::Namespaces::new("/run/marks").unwrap();
        namespaces.create("ns-dhcp-vlan110").await.unwrap();
        let path = namespaces.path("ns-dhcp-vlan110");
        let mut state = desired(&[], &[110]);
        state.ports.insert("dhcp_v110".into(), internal(110));
        worker.apply(&state).await;
        let index = worker.netlink.link("dhcp_v110").await.unwrap().unwrap().index;
        worker
            .netlink
            .move_to_namespace(index, std::fs::File::open(&path).unwrap())
            .await
            .unwrap();
        assert!(worker.plan(&state).await.is_empty());
        assert_eq!(
            switch::port_problem("dhcp_v110", &state.ports["dhcp_v110"], &state, &worker.observe().await),
            None
        );

        // After ovs-vswitchd died the old device is dead in the namespace, and a new one is in the host's.
        worker.ovs.kill_vswitchd();
        worker.ovs.start_vswitchd();
        switch::prove_alive(&worker.client, LIMIT).await.unwrap();
        let fresh = eventually("the new device", async || {
            worker.netlink.link("dhcp_v110").await.unwrap().ok_or("none")
        })
        .await;
        let inner = Handle::in_namespace(&path).await.unwrap();
        if let Some(dead) = inner.link("dhcp_v110").await.unwrap() {
            let refused = worker
                .netlink
                .move_to_namespace(fresh.index, std::fs::File::open(&path).unwrap())
                .await;
            assert_eq!(refused.unwrap_err().errno(), Some(nix::errno::Errno::EEXIST));
            inner.delete(dead.index).await.unwrap();
        }
        worker
            .netlink
            .move_to_namespace(fresh.index, std::fs::File::open(&path).unwrap())
            .await
            .unwrap();
        eventually("the port", async || {
            let problem = switch::port_problem("dhcp_v110", &state.ports["dhcp_v110"], &state, &worker.observe().await);
            problem.map_or(Ok(()), Err)
        })
        .await;
        assert!(worker.plan(&state).await.is_empty());
    });
}
