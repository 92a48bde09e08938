//! Everything that somebody may change, one after the other.

use super::*;

type Break<'a> = Box<dyn Fn() + 'a>;

#[test]
fn whatever_is_changed_behind_the_network_nodes_back_is_put_right_and_told_of() {
    on_private_host(
        "repaired::whatever_is_changed_behind_the_network_nodes_back_is_put_right_and_told_of",
        |lab| async move {
            let mut stand = Stand::new(lab).await;
            let (node, mut session) = stand.with(&all()).await;
            let lab = &stand.lab;
            let before = picture(lab);
            let (gateway, server, nat) = ("gateway gw_vlan110", "dhcp dhcp_v110", "nat nat_vlan400");
            let command = |argv: &'static [&'static str]| -> Break<'_> { Box::new(move || drop(run(argv))) };
            let vsctl = |args: &'static [&'static str]| -> Break<'_> { Box::new(move || drop(lab.vsctl(args))) };
            let table: Vec<(&str, Break<'_>, &str, &str)> = vec![
                (
                    "address",
                    command(&["ip", "addr", "flush", "dev", "gw_vlan110"]),
                    gateway,
                    "gateway address was gone",
                ),
                (
                    "foreign address",
                    command(&["ip", "addr", "add", "192.0.2.7/32", "dev", "gw_vlan110"]),
                    gateway,
                    "its device had the foreign address 192.0.2.7/32",
                ),
                (
                    "down",
                    command(&["ip", "link", "set", "gw_vlan110", "down"]),
                    gateway,
                    "its device was down",
                ),
                (
                    "port",
                    vsctl(&["del-port", "br-int", "gw_vlan110"]),
                    gateway,
                    "the switch port was gone",
                ),
                (
                    "tag",
                    vsctl(&["set", "port", "gw_vlan110", "tag=120"]),
                    gateway,
                    "switch port had tag 120, not 110",
                ),
                (
                    "gateway's device",
                    command(&["ip", "link", "del", "gw_vlan110"]),
                    gateway,
                    "its device was gone",
                ),
                (
                    "DHCP port",
                    vsctl(&["del-port", "br-int", "dhcp_v110"]),
                    server,
                    "the switch port was gone",
                ),
                (
                    "trunk list",
                    vsctl(&["set", "port", "trunk0", "trunks=400"]),
                    "trunk uplink",
                    "uplink's VLAN list lacked 110",
                ),
                (
                    "name of the namespace",
                    command(&["ip", "netns", "del", "ns-dhcp-vlan110"]),
                    server,
                    "the namespace was gone",
                ),
                ("dnsmasq", Box::new(|| kill_dnsmasq(110)), server, "dnsmasq did not run"),
                (
                    "namespace",
                    Box::new(|| {
                        run(&["ip", "netns", "del", "ns-dhcp-vlan110"]);
                        kill_dnsmasq(110);
                    }),
                    server,
                    "the namespace was gone",
                ),
                (
                    "hosts",
                    Box::new(|| edit(lab, "hosts", "52:54:00:03:ea:01,10.64.110.66")),
                    server,
                    "dnsmasq's file was edited (hosts)",
                ),
                (
                    "configuration",
                    Box::new(|| edit(lab, "dnsmasq.conf", "port=53")),
                    server,
                    "dnsmasq's file was edited (dnsmasq.conf)",
                ),
                (
                    "no configuration",
                    Box::new(|| {
                        std::fs::remove_file(lab.state_dir().join("dhcp/vlan110/dnsmasq.conf")).unwrap();
                    }),
                    server,
                    "dnsmasq's file dnsmasq.conf was gone",
                ),
                (
                    "chain",
                    command(&["nft", "flush", "chain", "inet", "trunkline", "forward"]),
                    nat,
                    "nftables table was not as rendered",
                ),
                (
                    "table",
                    command(&["nft", "delete", "table", "inet", "trunkline"]),
                    nat,
                    "nftables table was gone",
                ),
                (
                    "forwarding",
                    command(&["sysctl", "-qw", "net.ipv4.ip_forward=0"]),
                    nat,
                    "ip_forward was off",
                ),
                (
                    "bridge",
                    vsctl(&["del-br", "br-int"]),
                    "trunk uplink",
                    "the bridge br-int was gone",
                ),
                (
                    "flows",
                    Box::new(|| drop(lab.ofctl(&["del-flows"], &[]))),
                    "trunk uplink",
                    "the flow that makes the bridge forward was gone",
                ),
                (
                    "database",
                    Box::new(|| lab.wipe_database()),
                    server,
                    "the switch port was gone",
                ),
                (
                    "ovs-vswitchd",
                    Box::new(|| {
                        lab.kill_vswitchd();
                        lab.start_vswitchd();
                    }),
                    server,
                    "its device was not in its namespace",
                ),
                (
                    "database while ovs-vswitchd is dead",
                    Box::new(|| {
                        lab.kill_vswitchd();
                        lab.wipe_database();
                        lab.start_vswitchd();
                    }),
                    gateway,
                    "the switch port was gone",
                ),
                (
                    "a gateway's row while ovs-vswitchd is dead",
                    Box::new(|| {
                        lab.kill_vswitchd();
                        lab.vsctl(&["--no-wait", "del-port", "gw_vlan110"]);
                        lab.start_vswitchd();
                    }),
                    gateway,
                    "the switch port was gone",
                ),
            ];
            for (name, break_it, key, words) in table {
                println!("{name}");
                let began = std::time::Instant::now();
                break_it();
                let seen = session.reports_until(|s| s.is_repaired(key, words)).await;
                println!("  {:?} {:?}", began.elapsed(), seen.repairs);
                as_before(lab, &before, name).await;
            }
            node.stop().await;
        },
    );
}

/// Nobody answers the probe here, and its port is kept right all the same.
#[test]
fn whatever_somebody_does_to_the_probes_port_is_put_right_and_told_of() {
    on_private_host(
        "repaired::whatever_somebody_does_to_the_probes_port_is_put_right_and_told_of",
        |lab| async move {
            let mut stand = Stand::new(lab).await;
            let (node, mut session) = stand.with(&all()).await;
            let lab = &stand.lab;
            let mut more = all();
            more.push(controller::probe(110, &["w1"]));
            session.update(update(1, 2, &all(), &more)).await;
            let key = "probe probe_vlan110";
            let seen = session
                .reports_until(|s| s.state(key).is_some() && s.clean_generation == 2)
                .await;
            assert!(seen.repairs.is_empty(), "{:?}", seen.repairs);
            let before = picture(lab);
            let command = |argv: &'static [&'static str]| move || drop(run(argv));
            let vsctl = |args: &'static [&'static str]| move || drop(lab.vsctl(args));
            let table: [(&str, Break<'_>); 4] = [
                (
                    "its device was gone",
                    Box::new(command(&["ip", "link", "del", "tlprobe0"])),
                ),
                (
                    "its device was down",
                    Box::new(command(&["ip", "link", "set", "tlprobe0", "down"])),
                ),
                (
                    "the switch port was gone",
                    Box::new(vsctl(&["del-port", "br-int", "tlprobe0"])),
                ),
                (
                    "switch port's VLAN list lacked 400",
                    Box::new(vsctl(&["set", "port", "tlprobe0", "trunks=110"])),
                ),
            ];
            for (words, break_it) in table {
                break_it();
                let words = format!("tlprobe0: {words}");
                session.reports_until(|s| s.is_repaired(key, &words)).await;
                as_before(lab, &before, &words).await;
            }
            // What is asked for is no repair: another list.
            let fewer: Vec<_> = [trunk(&[110]), gateway(110)]
                .iter()
                .map(|spec| Envelope::seal(spec, ""))
                .chain([controller::probe(110, &["w1"])])
                .collect();
            session.update(update(2, 3, &more, &fewer)).await;
            let seen = session.reports_until(|s| s.clean_generation == 3).await;
            assert!(seen.repairs.is_empty(), "{:?}", seen.repairs);
            node.stop().await;
        },
    );
}
