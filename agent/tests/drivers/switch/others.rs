//! What is somebody else's, and what the host itself must not notice.

use super::*;

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
