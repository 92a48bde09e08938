//! What a hostile guest sends to its gateway, on a real Open vSwitch and nftables: in another's name, in fragments, in masses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::guest::Guest;
use support::raw::{FIRST_FRAGMENT, MARKER, Route, Wire, echo, icmp, ipv4};
use support::world::{DB_ETH1, STRANGER, WEB_ETH0, link_reservations};
use support::{
    Lab, Node, desired, dhcp, gateway, nat, on_private_host, reservation, run, succeeds, sysctl, trunk, vlan, wait,
};
use trunkline_agent::node::Desired;
use trunkline_proto::Mac;

const DB_ETH0: &str = "52:54:00:03:eb:00";
const WEB: Ipv4Addr = Ipv4Addr::new(10, 60, 7, 10);
const DB: Ipv4Addr = Ipv4Addr::new(10, 60, 7, 11);
const GATEWAY_110: Ipv4Addr = Ipv4Addr::new(10, 64, 110, 1);
const GATEWAY_400: Ipv4Addr = Ipv4Addr::new(10, 60, 7, 1);
const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// Two links and the internet.
fn wanted() -> Desired {
    desired([
        trunk(&[110, 120, 400]),
        gateway(110),
        dhcp(110, &link_reservations()),
        gateway(120),
        dhcp(120, &[]),
        gateway(400),
        dhcp(
            400,
            &[
                reservation(WEB_ETH0, "10.60.7.10", "web", false),
                reservation(DB_ETH0, "10.60.7.11", "db", false),
            ],
        ),
        nat(),
    ])
}

async fn plugged(lab: &Lab, name: &str, vlan: u32, mac: &str) -> Guest {
    let guest = Guest::plug(lab, name, vlan, mac);
    guest.configure(&guest.lease().await.expect("a lease"));
    guest
}

/// A network node that has all of it, and guests of a link and of the internet.
struct Stage {
    node: Node,
    db: Guest,
    web: Guest,
    db0: Guest,
}

impl Stage {
    async fn set(lab: &Lab) -> Self {
        let mut node = lab.node().await;
        node.until_ready(&wanted()).await;
        Self {
            node,
            db: plugged(lab, "db", 110, DB_ETH1).await,
            web: plugged(lab, "web", 400, WEB_ETH0).await,
            db0: plugged(lab, "db0", 400, DB_ETH0).await,
        }
    }
}

fn route(guest: &Guest, id: u32) -> Route {
    Route {
        from: guest.mac,
        to: Mac::of_gateway(vlan(id)),
    }
}

fn pings(guest: &Guest, size: &str, to: Ipv4Addr) -> bool {
    let inside = ["netns", "exec", &guest.name, "ping", "-n", "-c1", "-W2", "-s", size];
    let output = Command::new("ip").args(inside).arg(to.to_string()).output().unwrap();
    output.status.success()
}

async fn internet() -> Wire {
    Wire::at(Path::new("/run/netns/internet"), "up0").await
}

/// Packets that the kernel keeps the beginning of.
fn unfinished() -> u32 {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("FRAG:")).unwrap();
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn an_echo_with_a_forged_source_is_answered_to_nobody() {
    on_private_host("an_echo_with_a_forged_source_is_answered_to_nobody", |lab| async move {
        let Stage { mut node, db, web, db0 } = Stage::set(&lab).await;
        let other = plugged(&lab, "other", 120, STRANGER).await;
        let of_other = other.lease().await.unwrap().address;
        assert_eq!(sysctl("net/ipv4/conf/gw_vlan110/rp_filter"), "1");
        // The node knows all of them, so an answer would find its way.
        assert!(db.pings("10.64.110.1") && other.pings("10.64.120.1"));
        assert!(web.pings("10.60.7.1") && db0.pings("10.60.7.1"));
        assert!(succeeds(&["ping", "-c1", "-W2", "203.0.113.1"]));

        // The rules alone are enough.
        for device in ["all", "gw_vlan110", "gw_vlan400"] {
            run(&["sysctl", "-qw", &format!("net.ipv4.conf.{device}.rp_filter=0")]);
        }
        let mut elsewhere = [Wire::of(&other).await, Wire::of(&web).await, internet().await];
        let beside = Ipv4Addr::new(203, 0, 113, 1);
        let (link, shared) = (Wire::of(&db).await, Wire::of(&db0).await);
        for (n, forged) in (0..).zip([of_other, WEB, INTERNET, beside, Ipv4Addr::new(203, 0, 113, 2)]) {
            link.send(&route(&db, 110).packet(&echo(forged, GATEWAY_110, n)));
            shared.send(&route(&db0, 400).packet(&echo(forged, GATEWAY_400, n)));
        }
        assert!(db.pings("10.64.110.1") && db0.pings("10.60.7.1"), "in their own name");
        for (wire, name) in elsewhere
            .iter_mut()
            .zip(["another slice", "the internet VLAN", "the uplink"])
        {
            assert!(!wire.heard_marker().await, "an answer went to {name}");
        }

        // What is sent by a gateway's port is for its own subnet, whoever sends it.
        run(&["ip", "route", "add", "192.0.2.0/24", "dev", "gw_vlan110"]);
        assert!(!succeeds(&["ping", "-c1", "-W1", "192.0.2.1"]));
        let asked = run(&["ip", "neigh", "show", "dev", "gw_vlan110"]);
        assert!(!asked.contains("192.0.2.1"), "{asked}");
        assert!(succeeds(&["ip", "route", "del", "192.0.2.0/24", "dev", "gw_vlan110"]));

        node.until_ready(&wanted()).await;
        assert_eq!(sysctl("net/ipv4/conf/gw_vlan110/rp_filter"), "1");
        run(&["nft", "delete", "table", "arp", "trunkline"]);
        let seen = node.pass(&wanted()).await;
        let told = seen
            .repairs
            .iter()
            .any(|(name, what)| name == "nat_vlan400" && what == "nftables table was gone");
        assert!(told, "{:?}", seen.repairs);
        assert!(run(&["nft", "list", "table", "arp", "trunkline"]).contains("own_subnets"));
    });
}

#[test]
fn fragments_of_others_never_come_where_packets_are_put_together() {
    on_private_host(
        "fragments_of_others_never_come_where_packets_are_put_together",
        |lab| async move {
            let stage = Stage::set(&lab).await;
            let (db, web, db0) = (&stage.db, &stage.web, &stage.db0);
            assert!(pings(web, "3000", INTERNET), "a guest's own fragments pass through NAT");
            assert!(!pings(db, "3000", GATEWAY_110), "a gateway takes no fragments");
            wait("what was begun to be finished", || unfinished() == 0);

            let own = Ipv4Addr::new(10, 64, 110, 11);
            let (link, shared) = (Wire::of(db).await, Wire::of(db0).await);
            for id in 0..5000 {
                let far = Ipv4Addr::from(0x0102_0304 + u32::from(id));
                for (from, to) in [(far, INTERNET), (WEB, INTERNET), (own, GATEWAY_110), (far, GATEWAY_110)] {
                    let part = ipv4(from, to, 17, (id, FIRST_FRAGMENT | 3), &[0; 1400]);
                    link.send(&route(db, 110).packet(&part));
                }
                if id % 50 == 0 {
                    let part = ipv4(WEB, INTERNET, 17, (id, FIRST_FRAGMENT | 3), MARKER);
                    shared.send(&route(db0, 400).packet(&part));
                    assert!(id % 1000 != 0 || pings(web, "3000", INTERNET), "meanwhile");
                }
            }
            assert!(db.pings("10.64.110.1") && db0.pings("10.60.7.1"), "all of it has come");
            assert_eq!(unfinished(), 0);
            assert!(pings(web, "3000", INTERNET));
        },
    );
}

#[test]
fn echoes_to_a_gateway_take_no_place_among_the_connections() {
    on_private_host(
        "echoes_to_a_gateway_take_no_place_among_the_connections",
        |lab| async move {
            let stage = Stage::set(&lab).await;
            let (db, web, db0) = (&stage.db, &stage.web, &stage.db0);
            let (link, shared) = (Wire::of(db).await, Wire::of(db0).await);
            for id in 0..5000 {
                let own = Ipv4Addr::from(u32::from(GATEWAY_110) + 1 + u32::from(id) % 200);
                link.send(&route(db, 110).packet(&echo(own, GATEWAY_110, id)));
                shared.send(&route(db0, 400).packet(&echo(DB, GATEWAY_400, id)));
            }
            wait("another guest of the same gateway", || web.pings("10.60.7.1"));
            wait("its own turn", || db.pings("10.64.110.1") && db0.pings("10.60.7.1"));
            let count: u32 = sysctl("net/netfilter/nf_conntrack_count").parse().unwrap();
            assert!(count < 50, "{count} connections");
            assert!(web.pings("198.51.100.1"));
        },
    );
}

#[test]
fn a_guests_icmp_error_of_anothers_connection_does_not_leave() {
    on_private_host(
        "a_guests_icmp_error_of_anothers_connection_does_not_leave",
        |lab| async move {
            let stage = Stage::set(&lab).await;
            let (web, db0) = (&stage.web, &stage.db0);
            let mut up = internet().await;
            // Both have a flow to the internet.
            let udp = [0x13, 0x89, 0x27, 0x0e, 0, 8, 0, 0];
            let wire = Wire::of(web).await;
            wire.send(&route(web, 400).packet(&ipv4(WEB, INTERNET, 17, (1, 0), &udp)));
            let flows = || run(&["conntrack", "-L", "-f", "ipv4", "-p", "udp", "-s", "10.60.7.10"]);
            wait("the flow", || flows().contains("dport=9998"));

            let back = [0x27, 0x0e, 0x13, 0x89, 0, 8, 0, 0];
            let shared = Wire::of(db0).await;
            for (to, what) in [(WEB, "another guest's"), (DB, "nobody's")] {
                let quoted = [&ipv4(INTERNET, to, 17, (2, 0), &back)[..], MARKER].concat();
                for (code, rest) in [(3, [0; 4]), (4, [0, 0, 2, 40])] {
                    let error = ipv4(DB, INTERNET, 1, (3, 0), &icmp(3, code, rest, &quoted));
                    shared.send(&route(db0, 400).packet(&error));
                }
                assert!(db0.pings("198.51.100.1"), "all of it has come");
                assert!(!up.heard_marker().await, "an error of {what} connection left");
            }
            // What the internet says of a guest's own packets comes back.
            let refused = web.run(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                socket.connect("198.51.100.1:9").unwrap();
                socket.send(b"x").unwrap();
                socket.recv(&mut [0; 8]).unwrap_err().kind()
            });
            assert_eq!(refused.await, ErrorKind::ConnectionRefused);
        },
    );
}

#[test]
fn the_kernel_remembers_no_neighbours_that_a_guest_makes_up() {
    on_private_host(
        "the_kernel_remembers_no_neighbours_that_a_guest_makes_up",
        |lab| async move {
            let stage = Stage::set(&lab).await;
            let (db, db0) = (&stage.db, &stage.db0);
            let (link, shared) = (Wire::of(db).await, Wire::of(db0).await);
            for n in 0..2000_u32 {
                let foreign = Ipv4Addr::from(0x0b00_0001 + n);
                link.send(&route(db, 110).arp(foreign, GATEWAY_110));
                let unknown = Ipv4Addr::from(u32::from(GATEWAY_400) + 20 + n % 200);
                shared.send(&route(db0, 400).arp(if n % 2 == 0 { foreign } else { unknown }, GATEWAY_400));
                shared.send(&route(db0, 400).arp(WEB, GATEWAY_400));
            }
            assert!(db.pings("10.64.110.1") && db0.pings("10.60.7.1"), "in their own name");
            for (device, own) in [("gw_vlan110", "10.64.110.11"), ("gw_vlan400", "10.60.7.11")] {
                let known = run(&["ip", "-4", "neigh", "show", "dev", device]);
                let known: Vec<&str> = known.lines().filter_map(|line| line.split(' ').next()).collect();
                assert_eq!(known, [own], "{device}");
            }
        },
    );
}
