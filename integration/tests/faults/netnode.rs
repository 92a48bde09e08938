//! On the network node: gateways, DHCP, NAT, the way out; and strangers in their places.

use std::net::{Ipv4Addr, UdpSocket};

use nix::sys::signal::Signal;
use trunkline_integration::lab::NETNODE_PROGRAM;
use trunkline_integration::lab::layout::{NETNODE, ROUTER_ADDRESS, UPLINK_ADDRESS};

use crate::scene::{GUESTS, INTERNET, Scene};
use crate::table::{Heal, Row, nothing};

const UPLINK: &str = "ens3";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

pub(crate) fn rows() -> Vec<Row> {
    [repaired(), of_dhcp(), in_others_hands(), of_the_way_out()].concat()
}

fn gateway(scene: &Scene) -> String {
    format!("gw_vlan{}", scene.plain())
}

fn namespace(scene: &Scene) -> String {
    format!("ns-dhcp-vlan{}", scene.plain())
}

fn file(scene: &Scene, name: &str) -> String {
    format!("/var/lib/trunkline-netnode/dhcp/vlan{}/{name}", scene.plain())
}

/// What the network node puts right at once.
fn repaired() -> Vec<Row> {
    [of_a_gateway(), of_a_server(), of_the_rules()].concat()
}

fn of_a_gateway() -> Vec<Row> {
    vec![
        Row::repaired(
            "a gateway's address is removed",
            GUESTS,
            |s| {
                s.on(NETNODE, &["ip", "address", "flush", "dev", &gateway(s)]);
                nothing()
            },
            "nn put right gateway gw_vlan{vlan}: gateway address was gone",
        ),
        Row::repaired(
            "a gateway is set down",
            GUESTS,
            |s| {
                s.on(NETNODE, &["ip", "link", "set", &gateway(s), "down"]);
                nothing()
            },
            "nn put right gateway gw_vlan{vlan}: its device was down",
        ),
        Row::repaired(
            "a gateway's port leaves the switch",
            INTERNET,
            |s| {
                s.vsctl(NETNODE, &["del-port", "br-int", "gw_vlan400"]);
                nothing()
            },
            "nn put right gateway gw_vlan400: the switch port was gone",
        ),
        Row::repaired(
            "the network node's flows are flushed",
            INTERNET,
            |s| {
                s.ofctl(NETNODE, &["del-flows", "br-int"]);
                nothing()
            },
            "nn put right trunk uplink: the flow that makes the bridge forward was gone",
        ),
    ]
}

fn of_a_server() -> Vec<Row> {
    vec![
        Row::repaired(
            "a DHCP server's namespace is deleted",
            GUESTS,
            |s| {
                s.on(NETNODE, &["ip", "netns", "delete", &namespace(s)]);
                nothing()
            },
            "nn put right dhcp dhcp_v{vlan}: the namespace was gone",
        ),
        Row::repaired(
            "dnsmasq is killed",
            GUESTS,
            |s| {
                s.on(NETNODE, &["kill", "-KILL", &s.dnsmasq(s.plain())]);
                nothing()
            },
            "nn put right dhcp dhcp_v{vlan}: dnsmasq did not run",
        ),
        Row::repaired(
            "dnsmasq's configuration is edited",
            GUESTS,
            |s| {
                s.shell(
                    NETNODE,
                    &format!("echo dhcp-option=option:mtu,576 >> {}", file(s, "dnsmasq.conf")),
                );
                nothing()
            },
            "dnsmasq's file was edited (dnsmasq.conf)",
        ),
        Row::repaired(
            "dnsmasq's reservations are deleted",
            GUESTS,
            |s| {
                s.on(NETNODE, &["rm", &file(s, "hosts")]);
                nothing()
            },
            "dnsmasq's file hosts was gone",
        ),
    ]
}

fn of_the_rules() -> Vec<Row> {
    vec![
        Row::repaired(
            "the nftables table is flushed",
            INTERNET,
            |s| {
                s.on(NETNODE, &["nft", "flush", "table", "inet", "trunkline"]);
                nothing()
            },
            "nn put right nat nat_vlan400: nftables table was not as rendered",
        ),
        Row::repaired(
            "the nftables table is deleted",
            INTERNET,
            |s| {
                s.on(NETNODE, &["nft", "delete", "table", "inet", "trunkline"]);
                nothing()
            },
            "nn put right nat nat_vlan400: nftables table was",
        ),
        Row::repaired(
            "ip_forward is switched off",
            INTERNET,
            |s| {
                s.shell(NETNODE, &format!("echo 0 > {FORWARD}"));
                nothing()
            },
            "nn put right nat nat_vlan400: ip_forward was off",
        ),
    ]
}

/// Somebody listens where a DHCP server would.
fn port_taken(scene: &mut Scene) -> Heal {
    let pid = scene.dnsmasq(scene.plain());
    scene.signal(NETNODE, NETNODE_PROGRAM, Signal::SIGSTOP);
    scene.on(NETNODE, &["kill", "-KILL", &pid]);
    let host = scene.lab.host(NETNODE).unwrap();
    let listen = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67));
    let taken = trunkline_integration::wait::until("the port of a dnsmasq that ends", crate::support::LIMIT, || {
        host.run_in_netns(&namespace(scene), listen)
            .unwrap()
            .map_err(|error| error.to_string())
    });
    scene.signal(NETNODE, NETNODE_PROGRAM, Signal::SIGCONT);
    let taken = taken.unwrap();
    Box::new(move |_| drop(taken))
}

/// Something that cannot be replaced is where the configuration would be.
fn path_taken(scene: &mut Scene) -> Heal {
    let path = file(scene, "dnsmasq.conf");
    scene.unseen(NETNODE, |s| {
        s.on(NETNODE, &["kill", "-KILL", &s.dnsmasq(s.plain())]);
        s.shell(NETNODE, &format!("rm {path} && mkdir {path} && touch {path}/theirs"));
    });
    Box::new(move |scene| drop(scene.on(NETNODE, &["rm", "-r", &path])))
}

fn of_dhcp() -> Vec<Row> {
    vec![
        Row::broken(
            "dnsmasq cannot start: its port is taken",
            GUESTS,
            port_taken,
            ("lease", NETNODE),
            "dnsmasq does not start",
            "on nn end what holds DHCP's port there: `ip netns exec ns-dhcp-vlan{vlan} ss -ulnp` names it",
        )
        .of_one_slice(),
        Row::unknown(
            "dnsmasq's file cannot be read",
            GUESTS,
            path_taken,
            ("lease", NETNODE),
            "dnsmasq.conf: Is a directory",
            "mend on nn what is said there",
        )
        .of_one_slice(),
    ]
}

fn stranger_for_namespace(scene: &mut Scene) -> Heal {
    let name = namespace(scene);
    scene.unseen(NETNODE, |s| {
        s.on(NETNODE, &["kill", "-KILL", &s.dnsmasq(s.plain())]);
        s.on(NETNODE, &["ip", "netns", "delete", &name]);
        s.on(NETNODE, &["ip", "netns", "add", &name]);
    });
    Box::new(move |scene| drop(scene.on(NETNODE, &["ip", "netns", "delete", &name])))
}

fn stranger_for_gateway(scene: &Scene, vlan: u16) -> Heal {
    let name = format!("gw_vlan{vlan}");
    scene.unseen(NETNODE, |s| {
        s.on(NETNODE, &["ovs-vsctl", "--timeout=10", "del-port", "br-int", &name]);
        s.on(NETNODE, &["ip", "link", "add", &name, "type", "bridge"]);
    });
    Box::new(move |scene| drop(scene.on(NETNODE, &["ip", "link", "delete", &name])))
}

fn stranger_for_table(scene: &mut Scene) -> Heal {
    scene.unseen(NETNODE, |s| {
        s.on(NETNODE, &["nft", "delete", "table", "inet", "trunkline"]);
        s.on(NETNODE, &["nft", "add", "table", "inet", "trunkline"]);
    });
    Box::new(|scene| drop(scene.on(NETNODE, &["nft", "delete", "table", "inet", "trunkline"])))
}

fn in_others_hands() -> Vec<Row> {
    vec![
        Row::broken(
            "a stranger has the namespace's name",
            GUESTS,
            stranger_for_namespace,
            ("lease", NETNODE),
            "was not made by",
            "do on nn what is said there",
        )
        .of_one_slice(),
        Row::broken(
            "a stranger has the name of a link's gateway",
            GUESTS,
            |s| stranger_for_gateway(s, s.plain()),
            ("gateway", NETNODE),
            "a device gw_vlan{vlan} is there and was not made by",
            "do on nn what is said there",
        )
        .of_one_slice(),
        Row::broken(
            "a stranger has the name of VLAN 400's gateway",
            INTERNET,
            |s| stranger_for_gateway(s, 400),
            ("gateway", NETNODE),
            "a device gw_vlan400 is there and was not made by",
            "do on nn what is said there",
        ),
        Row::broken(
            "a stranger has the nftables table's name",
            INTERNET,
            stranger_for_table,
            ("nat", NETNODE),
            "the nftables table inet trunkline is there and was not made by",
            "rename or delete that table on nn",
        ),
        Row::broken(
            "a stranger's flow is on the network node's bridge",
            INTERNET,
            |s| {
                s.ofctl(
                    NETNODE,
                    &["add-flow", "br-int", "priority=7,in_port=65000,actions=drop"],
                );
                Box::new(|s| {
                    drop(s.ofctl(
                        NETNODE,
                        &["--strict", "del-flows", "br-int", "priority=7,in_port=65000"],
                    ))
                })
            },
            ("trunk", NETNODE),
            "flows of others on br-int may stop what ours let pass",
            "on nn do what is said there",
        ),
        Row::broken(
            "the network node's bridge is a stranger's",
            INTERNET,
            |s| {
                let mark = s.vsctl(NETNODE, &["get", "bridge", "br-int", "external_ids:trunkline"]);
                let mark = format!("external_ids:trunkline={}", mark.trim());
                s.vsctl(NETNODE, &["remove", "bridge", "br-int", "external_ids", "trunkline"]);
                Box::new(move |s| drop(s.vsctl(NETNODE, &["set", "bridge", "br-int", &mark])))
            },
            ("trunk", NETNODE),
            "the bridge br-int is there and was not made by Trunkline",
            "do on nn what is said there",
        ),
    ]
}

/// The setting cannot be written.
fn forwarding_held_off(scene: &mut Scene) -> Heal {
    scene.unseen(NETNODE, |s| {
        s.shell(
            NETNODE,
            &format!(
                "echo 0 > {FORWARD} && echo 0 > /run/zero && mount --bind /run/zero {FORWARD} && mount -o remount,bind,ro {FORWARD}"
            ),
        );
    });
    Box::new(|scene| drop(scene.on(NETNODE, &["umount", FORWARD])))
}

fn uplink_gone(scene: &mut Scene) -> Heal {
    let other = format!("{UPLINK}x");
    scene.shell(
        NETNODE,
        &format!("ip link set {UPLINK} down && ip link set {UPLINK} name {other}"),
    );
    Box::new(move |scene| {
        scene.shell(
            NETNODE,
            &format!("ip link set {other} name {UPLINK} && ip link set {UPLINK} up && ip route replace default via {ROUTER_ADDRESS}"),
        );
    })
}

fn default_route(scene: &mut Scene) {
    scene.shell(
        NETNODE,
        &format!("ip link set {UPLINK} up && ip route replace default via {ROUTER_ADDRESS}"),
    );
}

fn of_the_way_out() -> Vec<Row> {
    vec![
        Row::broken(
            "ip_forward is held off",
            INTERNET,
            forwarding_held_off,
            ("nat", NETNODE),
            "set net/ipv4/ip_forward to 1: Read-only file system",
            "let the daemon of nn write /proc/sys/net/ipv4/ip_forward",
        ),
        Row::broken(
            "a foreign firewall drops what is forwarded",
            INTERNET,
            |s| {
                let chain = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
                s.on(NETNODE, &["nft", chain]);
                Box::new(|s| drop(s.on(NETNODE, &["nft", "delete", "table", "ip", "filter"])))
            },
            ("firewall", NETNODE),
            "\"ip filter FORWARD\"",
            "in that chain on nn accept what comes from gw_vlan400",
        ),
        Row::broken(
            "the way out is down",
            INTERNET,
            |s| {
                s.on(NETNODE, &["ip", "link", "set", UPLINK, "down"]);
                Box::new(default_route)
            },
            ("uplink", NETNODE),
            "the uplink ens3 is down",
            "`ip link set ens3 up`",
        ),
        Row::broken(
            "the way out is not there",
            INTERNET,
            uplink_gone,
            ("uplink", NETNODE),
            "the uplink ens3 does not exist",
            "set `nat.uplink` in the configuration of nn",
        ),
        Row::broken(
            "the way out has no default route",
            INTERNET,
            |s| {
                s.on(NETNODE, &["ip", "route", "delete", "default"]);
                Box::new(default_route)
            },
            ("uplink", NETNODE),
            "there is no default route through ens3",
            "`ip route add default via ROUTER dev ens3`",
        ),
        Row::broken(
            "the way out has no address",
            INTERNET,
            |s| {
                s.on(NETNODE, &["ip", "address", "flush", "dev", UPLINK]);
                Box::new(|s| {
                    s.on(
                        NETNODE,
                        &["ip", "address", "add", &format!("{UPLINK_ADDRESS}/24"), "dev", UPLINK],
                    );
                    default_route(s);
                })
            },
            ("uplink", NETNODE),
            "ens3 has no address",
            "`ip address add ADDRESS/PREFIX dev ens3`",
        ),
    ]
}
