//! The whole way on a real Open vSwitch, dnsmasq and nftables.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use support::guest::{Guest, internet_server, read_line};
use support::{
    Lab, desired, dhcp, dhcp_with_dns, gateway, nat, on_private_host, reservation, run, succeeds, sysctl, trunk, wait,
};
use trunkline_agent::node::Host;
use trunkline_proto::resource::{Facts, Reservation, State};

const WEB_ETH0: &str = "52:54:00:03:ea:00";
const WEB_ETH1: &str = "52:54:00:03:ea:01";
const DB_ETH1: &str = "52:54:00:03:eb:01";
const STRANGER: &str = "02:00:00:00:00:99";

fn link_reservations() -> [Reservation; 2] {
    [
        reservation(WEB_ETH1, "10.64.110.10", "web", true),
        reservation(DB_ETH1, "10.64.110.11", "db", false),
    ]
}

fn internet_reservations() -> [Reservation; 1] {
    [reservation(WEB_ETH0, "10.60.7.10", "web", false)]
}

/// One link and the internet.
fn everything() -> trunkline_agent::node::Desired {
    desired([
        trunk(&[110, 400]),
        gateway(110),
        dhcp(110, &link_reservations()),
        gateway(400),
        dhcp(400, &internet_reservations()),
        nat(),
    ])
}

fn table_handle() -> String {
    run(&["nft", "-a", "list", "tables"])
        .lines()
        .find(|line| line.contains("trunkline"))
        .unwrap()
        .to_owned()
}

fn nothing_of_ours_is_left(lab: &Lab) {
    assert_eq!(
        run(&["nft", "list", "tables"])
            .lines()
            .filter(|l| l.contains("trunkline"))
            .count(),
        0
    );
    assert_eq!(
        run(&["ip", "netns", "list"])
            .lines()
            .filter(|l| l.starts_with("ns-dhcp"))
            .count(),
        0
    );
    let links = run(&["ip", "-br", "link"]);
    assert!(!links.contains("gw_vlan") && !links.contains("dhcp_v"), "{links}");
    let ports = lab.vsctl(&["list-ports", "br-int"]);
    assert!(!ports.contains("gw_vlan") && !ports.contains("dhcp_v"), "{ports}");
    assert_eq!(std::fs::read_dir(lab.state_dir().join("dhcp")).unwrap().count(), 0);
    let dnsmasq =
        trunkline_agent::process::find(|argv| argv.first().is_some_and(|name| name.ends_with("dnsmasq"))).unwrap();
    assert!(dnsmasq.is_empty(), "{dnsmasq:?}");
}

#[test]
fn guests_get_leases_and_the_internet_and_all_of_it_goes_again() {
    on_private_host(
        "guests_get_leases_and_the_internet_and_all_of_it_goes_again",
        |lab| async move {
            run(&["nft", "add", "table", "inet", "strangers"]);
            assert_eq!(sysctl("net/ipv4/ip_forward"), "0");
            let mut node = lab.node().await;
            node.until_ready(&everything()).await;

            let addresses = run(&["ip", "-br", "addr", "show", "dev", "gw_vlan110"]);
            assert!(
                addresses.contains("10.64.110.1/24") && !addresses.contains("fe80"),
                "{addresses}"
            );
            let addresses = run(&["ip", "-n", "ns-dhcp-vlan110", "-br", "addr", "show", "dev", "dhcp_v110"]);
            assert!(
                addresses.contains("10.64.110.254/24") && !addresses.contains("fe80"),
                "{addresses}"
            );
            assert_eq!(sysctl("net/ipv4/conf/gw_vlan110/arp_ignore"), "1");
            assert_eq!(sysctl("net/ipv4/ip_forward"), "1");

            let web1 = Guest::plug(&lab, "web1", 110, WEB_ETH1);
            let db1 = Guest::plug(&lab, "db1", 110, DB_ETH1);
            let web0 = Guest::plug(&lab, "web0", 400, WEB_ETH0);
            leases(&web1, &db1, &web0).await;
            traffic(&web1, &db1, &web0).await;

            let before = table_handle();
            let seen = node.until_ready(&everything()).await;
            assert_eq!(table_handle(), before, "written again though nothing differed");
            let Some(Facts::Nat(facts)) = seen.of("nat_vlan400").facts.clone() else {
                panic!()
            };
            assert!(facts.packets > 0 && facts.forwarding, "{facts:?}");
            let Some(Facts::Dhcp(served)) = seen.of("dhcp_v110").facts.clone() else {
                panic!()
            };
            assert!(served.leases == 3 && served.current, "{served:?}");
            let uid = run(&["ps", "-o", "uid=", "-p", &served.pid.to_string()]);
            assert_ne!(uid.trim(), "0", "dnsmasq has a user of its own");

            let mut open = web0.connect("203.0.113.1:80").await.unwrap();
            assert_eq!(read_line(&mut open).as_deref(), Some("203.0.113.2"));
            let counted = node.host.counters(&everything()).await;
            let nat = counted
                .iter()
                .find(|seen| seen.key.name.as_str() == "nat_vlan400")
                .unwrap();
            let more = matches!(&nat.facts, Some(Facts::Nat(now)) if now.packets > facts.packets);
            assert!(more && nat.state == State::Ready, "{nat:?}");
            let link = desired([
                trunk(&[110]),
                gateway(110),
                dhcp(110, &link_reservations()),
                gateway(400),
            ]);
            node.until_ready(&link).await;
            assert_eq!(sysctl("net/ipv4/ip_forward"), "0", "it was us who switched it on");
            assert!(
                !run(&["conntrack", "-L", "-s", "10.60.7.0/24"]).contains("10.60.7.10"),
                "its connections are ended"
            );
            open.write_all(b"still there?\n").unwrap();
            assert_eq!(read_line(&mut open), None);
            assert!(web1.pings("10.64.110.1"), "the link does not notice");

            node.until_ready(&desired([trunk(&[])])).await;
            nothing_of_ours_is_left(&lab);
            assert!(run(&["nft", "list", "tables"]).contains("inet strangers"));
            assert!(
                lab.vsctl(&["list-ports", "br-int"]).contains("web1"),
                "a port without our mark stays"
            );
        },
    );
}

async fn leases(web1: &Guest, db1: &Guest, web0: &Guest) {
    let started = Instant::now();
    let web = web1.lease().await.expect("a lease for web.eth1");
    assert!(started.elapsed() < Duration::from_secs(1), "no-ping");
    assert_eq!(web.address, Ipv4Addr::new(10, 64, 110, 10));
    assert_eq!(web.address_option(3), None, "its default route is on eth0");
    assert_eq!(web.address_option(6), Some(Ipv4Addr::new(8, 8, 8, 8)));
    assert_eq!(web.options[&26], 1500_u16.to_be_bytes());
    assert_eq!(web.options[&12], b"web");
    web1.configure(&web);

    let db = db1.lease().await.expect("a lease for db.eth1");
    assert_eq!(
        (db.address, db.address_option(3)),
        (Ipv4Addr::new(10, 64, 110, 11), Some(Ipv4Addr::new(10, 64, 110, 1)))
    );
    db1.configure(&db);
    let other = db1.with_mac(STRANGER).lease().await.expect("a dynamic lease");
    assert!(
        (10..=250).contains(&other.address.octets()[3]) && other.address.octets()[3] > 11,
        "{other:?}"
    );

    let internet = web0.lease().await.expect("a lease for web.eth0");
    assert_eq!(internet.address, Ipv4Addr::new(10, 60, 7, 10));
    assert_eq!(internet.address_option(3), Some(Ipv4Addr::new(10, 60, 7, 1)));
    web0.configure(&internet);
    assert!(
        web0.with_mac(STRANGER).lease().await.is_none(),
        "VLAN 400 knows reservations only"
    );
}

async fn traffic(web1: &Guest, db1: &Guest, web0: &Guest) {
    internet_server().await;
    let node_server = std::net::TcpListener::bind("0.0.0.0:22").unwrap();
    assert!(web1.pings("10.64.110.11") && web1.pings("10.64.110.1"));
    assert!(web0.pings("10.60.7.1") && web0.pings("203.0.113.1"));
    let mut stream = web0.connect("203.0.113.1:80").await.expect("the internet");
    assert_eq!(read_line(&mut stream).as_deref(), Some("203.0.113.2"), "masqueraded");

    assert!(!db1.pings("203.0.113.1"), "a link leads to no internet");
    assert!(!db1.pings("10.60.7.10"), "nor to VLAN 400");
    assert!(!db1.pings("10.60.7.1"), "nor to another gateway");
    assert!(!web0.pings("203.0.113.2"), "nor VLAN 400 to the node itself");
    for closed in ["10.64.110.1:22", "203.0.113.2:22"] {
        assert!(db1.connect(closed).await.is_none(), "{closed}");
    }
    assert!(web0.connect("10.60.7.1:22").await.is_none());
    assert!(
        std::net::TcpStream::connect("203.0.113.2:22").is_ok(),
        "the node's own traffic is as before"
    );
    drop(node_server);
}

#[test]
fn what_breaks_is_mended_and_what_works_is_left_alone() {
    on_private_host("what_breaks_is_mended_and_what_works_is_left_alone", |lab| async move {
        let wanted = everything();
        let mut node = lab.node().await;
        let first = node.until_ready(&wanted).await.pid("dhcp_v110");
        let guest = Guest::plug(&lab, "guest", 110, WEB_ETH1);
        guest.lease().await.expect("a lease");

        drop(node);
        let mut node = lab.node().await;
        let seen = node.until_ready(&wanted).await;
        assert_eq!(seen.pid("dhcp_v110"), first, "dnsmasq outlives the program");

        let more = [
            &link_reservations()[..],
            &[reservation(STRANGER, "10.64.110.77", "late", false)],
        ]
        .concat();
        let wanted = desired([
            trunk(&[110, 400]),
            gateway(110),
            dhcp(110, &more),
            gateway(400),
            dhcp(400, &internet_reservations()),
            nat(),
        ]);
        let seen = node.until_ready(&wanted).await;
        assert_eq!(seen.pid("dhcp_v110"), first, "a reservation is no reason to restart");
        let late = guest.with_mac(STRANGER).lease().await.expect("a lease");
        assert_eq!(late.address, Ipv4Addr::new(10, 64, 110, 77));

        let wanted = desired([trunk(&[110]), gateway(110), dhcp_with_dns(110, &more, "9.9.9.9")]);
        let seen = node.until_ready(&wanted).await;
        assert_ne!(seen.pid("dhcp_v110"), first, "a configuration is");
        let Some(Facts::Dhcp(facts)) = &seen.of("dhcp_v110").facts else {
            panic!()
        };
        assert_eq!(facts.leases, 2, "leases survive");
        let again = guest.lease().await.unwrap();
        assert_eq!(again.address_option(6), Some(Ipv4Addr::new(9, 9, 9, 9)));

        run(&["kill", "-9", &seen.pid("dhcp_v110").to_string()]);
        wait("dnsmasq to end", || {
            trunkline_agent::process::Identity::of(seen.pid("dhcp_v110")).is_none()
        });
        node.until_ready(&wanted).await;
        guest.lease().await.expect("a lease after dnsmasq was killed");

        run(&["nft", "flush", "chain", "inet", "trunkline", "forward"]);
        node.until_ready(&wanted).await;
        assert!(run(&["nft", "list", "chain", "inet", "trunkline", "forward"]).contains("drop"));
        run(&["ip", "addr", "flush", "dev", "gw_vlan110"]);
        run(&["ip", "-n", "ns-dhcp-vlan110", "link", "set", "dhcp_v110", "down"]);
        node.until_ready(&wanted).await;

        let sysctl_inside = |what: &[&str]| {
            let inside = ["ip", "netns", "exec", "ns-dhcp-vlan110", "sysctl"];
            run(&[&inside[..], what].concat()).trim().to_owned()
        };
        sysctl_inside(&["-qw", "net.ipv4.ip_forward=1"]);
        node.until_ready(&wanted).await;
        assert_eq!(
            sysctl_inside(&["-n", "net.ipv4.ip_forward"]),
            "0",
            "a DHCP server's namespace forwards nothing"
        );

        lab.kill_vswitchd();
        lab.start_vswitchd();
        node.until_ready(&wanted).await;
        let guest = Guest::plug(&lab, "guest2", 110, DB_ETH1);
        guest.lease().await.expect("a lease after the switch was restarted");

        lab.kill_vswitchd();
        lab.vsctl(&["--no-wait", "del-port", "gw_vlan110"]);
        assert!(
            succeeds(&["ip", "link", "show", "gw_vlan110"]),
            "the device stays behind"
        );
        lab.start_vswitchd();
        node.until_ready(&desired([trunk(&[])])).await;
        nothing_of_ours_is_left(&lab);
    });
}

/// Nobody tells of these; the slow look finds them.
#[test]
fn what_changes_inside_a_dhcp_namespace_is_found_by_the_next_look() {
    on_private_host(
        "what_changes_inside_a_dhcp_namespace_is_found_by_the_next_look",
        |lab| async move {
            let wanted = desired([trunk(&[110]), gateway(110), dhcp(110, &link_reservations())]);
            let mut node = lab.node().await;
            node.until_ready(&wanted).await;
            let guest = Guest::plug(&lab, "guest", 110, WEB_ETH1);
            let inside = ["ip", "-n", "ns-dhcp-vlan110"];
            let sysctl = ["ip", "netns", "exec", "ns-dhcp-vlan110", "sysctl", "-qw"];
            for (command, words) in [
                (
                    [&inside[..], &["addr", "flush", "dev", "dhcp_v110"]].concat(),
                    "its address was gone",
                ),
                (
                    [&inside[..], &["link", "set", "dhcp_v110", "down"]].concat(),
                    "its device was down",
                ),
                (
                    [&inside[..], &["link", "set", "lo", "down"]].concat(),
                    "lo was down in its namespace",
                ),
                (
                    [&inside[..], &["link", "del", "dhcp_v110"]].concat(),
                    "its device was gone",
                ),
                (
                    [&sysctl[..], &["net.ipv4.ip_forward=1"]].concat(),
                    "IPv6, forwarding or ARP settings of its namespace were changed",
                ),
            ] {
                run(&command);
                let seen = node.pass(&wanted).await;
                let told = |(of, what): &(String, String)| of == "dhcp_v110" && what == words;
                assert!(seen.repairs.iter().any(told), "{command:?}: {:?}", seen.repairs);
                node.until_ready(&wanted).await;
                guest.lease().await.expect("a lease");
                assert!(node.pass(&wanted).await.repairs.is_empty(), "told once: {command:?}");
            }
        },
    );
}

#[test]
fn what_belongs_to_somebody_else_is_named_and_never_touched() {
    on_private_host(
        "what_belongs_to_somebody_else_is_named_and_never_touched",
        |lab| async move {
            run(&["nft", "add", "table", "ip", "filter"]);
            run(&[
                "nft",
                "add",
                "chain",
                "ip",
                "filter",
                "FORWARD",
                "{ type filter hook forward priority 0 ; policy drop ; }",
            ]);
            run(&["ip", "netns", "add", "ns-dhcp-vlan120"]);
            run(&[
                "ip",
                "link",
                "add",
                "gw_vlan120",
                "type",
                "veth",
                "peer",
                "name",
                "far120",
            ]);
            let theirs = run(&["ip", "link", "show", "gw_vlan120"]);
            run(&["ip", "link", "add", "lan0", "type", "bridge"]);
            run(&["ip", "link", "set", "lan0", "up"]);
            run(&["ip", "route", "add", "10.64.130.0/25", "dev", "lan0"]);
            run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);

            let wanted = desired([
                trunk(&[110, 120, 130, 400]),
                gateway(110),
                gateway(120),
                dhcp(120, &[]),
                gateway(130),
                dhcp(130, &[]),
                gateway(400),
                nat(),
            ]);
            let mut node = lab.node().await;
            node.pass(&wanted).await;
            let seen = node.pass(&wanted).await;
            let said = |name: &str| (seen.of(name).state, seen.of(name).reason.clone());
            let (state, reason) = said("nat_vlan400");
            assert!(
                state == State::Degraded && reason.contains("ip filter FORWARD"),
                "{reason}"
            );
            let (state, reason) = said("gw_vlan130");
            assert!(
                state == State::Failed && reason.contains("10.64.130.0/25 by lan0"),
                "{reason}"
            );
            let (state, reason) = said("gw_vlan120");
            assert!(
                state == State::Failed && reason.contains("a device gw_vlan120 is there"),
                "{reason}"
            );
            let (state, reason) = said("dhcp_v120");
            assert!(state == State::Failed && reason.contains("ns-dhcp-vlan120"), "{reason}");
            for sibling in ["gw_vlan110", "gw_vlan400", "dhcp_v130", "uplink"] {
                assert_eq!(said(sibling).0, State::Ready, "{sibling}: {:?}", said(sibling));
            }

            run(&["ip", "route", "del", "default"]);
            let seen = node.pass(&wanted).await;
            assert!(seen.of("nat_vlan400").state == State::Degraded);
            run(&["ip", "link", "set", "ens3", "down"]);
            let seen = node.pass(&wanted).await;
            assert_eq!(seen.of("nat_vlan400").reason, "the uplink ens3 is down");
            run(&["ip", "link", "del", "ens3"]);
            let seen = node.pass(&wanted).await;
            assert!(seen.of("nat_vlan400").reason.contains("ens3 does not exist"));

            let seen = node.pass(&desired([trunk(&[])])).await;
            assert!(
                seen.clean,
                "what is not ours is no reason to say that something is left"
            );
            assert_eq!(sysctl("net/ipv4/ip_forward"), "1", "it was on before us");
            assert_eq!(run(&["ip", "link", "show", "gw_vlan120"]), theirs);
            assert!(run(&["ip", "netns", "list"]).contains("ns-dhcp-vlan120"));
            assert!(run(&["nft", "list", "ruleset"]).contains("policy drop"));

            run(&["nft", "add", "table", "inet", "trunkline"]);
            let seen = node.pass(&desired([trunk(&[110]), gateway(110)])).await;
            let (state, reason) = (seen.of("gw_vlan110").state, &seen.of("gw_vlan110").reason);
            assert!(state == State::Failed && reason.contains("inet trunkline"), "{reason}");
            let addresses = run(&["ip", "-br", "addr", "show", "dev", "gw_vlan110"]);
            assert!(
                !addresses.contains("10.64.110.1"),
                "no address while nothing filters it: {addresses}"
            );
        },
    );
}

#[test]
fn three_hundred_links_with_dhcp_work_on_one_node() {
    on_private_host("three_hundred_links_with_dhcp_work_on_one_node", |lab| async move {
        let ids: Vec<u32> = (401..701).collect();
        let specs = ids
            .iter()
            .flat_map(|id| [gateway(*id), dhcp(*id, &[])])
            .chain([trunk(&ids)]);
        let wanted = desired(specs);
        let mut node = lab.node().await;
        let started = Instant::now();
        let seen = node.until_ready(&wanted).await;
        let took = started.elapsed();
        let again = Instant::now();
        node.until_ready(&wanted).await;
        println!(
            "300 links: ready after {took:?}; a pass that finds nothing to do: {:?}",
            again.elapsed()
        );
        let pids: std::collections::BTreeSet<u32> = ids.iter().map(|id| seen.pid(&format!("dhcp_v{id}"))).collect();
        assert_eq!(pids.len(), 300);
        let guest = Guest::plug(&lab, "guest", 700, STRANGER);
        guest.lease().await.expect("a lease on the last of them");
        node.until_ready(&desired([trunk(&[])])).await;
        nothing_of_ours_is_left(&lab);
    });
}

#[test]
fn a_namespace_that_lost_its_mount_is_mounted_again_or_made_anew() {
    on_private_host(
        "a_namespace_that_lost_its_mount_is_mounted_again_or_made_anew",
        |lab| async move {
            let wanted = desired([trunk(&[110]), gateway(110), dhcp(110, &link_reservations())]);
            let mut node = lab.node().await;
            let first = node.until_ready(&wanted).await.pid("dhcp_v110");
            let guest = Guest::plug(&lab, "guest", 110, WEB_ETH1);
            drop(node);
            run(&["umount", "-l", "/run/netns/ns-dhcp-vlan110"]);
            let mut node = lab.node().await;
            let seen = node.until_ready(&wanted).await;
            assert_eq!(seen.pid("dhcp_v110"), first, "the server that runs is kept");
            run(&["ip", "-n", "ns-dhcp-vlan110", "link", "show", "dhcp_v110"]);
            guest.lease().await.expect("a lease");

            // Our mark does not name its namespace: nothing proves that it is ours.
            drop(node);
            run(&["umount", "-l", "/run/netns/ns-dhcp-vlan110"]);
            std::fs::remove_file(lab.state_dir().join("netns/ns-dhcp-vlan110")).unwrap();
            let mut node = lab.node().await;
            let seen = node.until_ready(&wanted).await;
            assert_ne!(seen.pid("dhcp_v110"), first);
            guest.lease().await.expect("a lease from the new one");

            // Without a process the namespace itself is gone, and its device with it.
            run(&["umount", "-l", "/run/netns/ns-dhcp-vlan110"]);
            run(&["kill", "-9", &seen.pid("dhcp_v110").to_string()]);
            node.until_ready(&wanted).await;
            guest.lease().await.expect("a lease from the third");
            node.until_ready(&desired([trunk(&[])])).await;
            nothing_of_ours_is_left(&lab);
        },
    );
}

#[test]
fn a_node_is_not_clean_while_a_blocked_gateway_keeps_its_old_address() {
    on_private_host(
        "a_node_is_not_clean_while_a_blocked_gateway_keeps_its_old_address",
        |lab| async move {
            let wanted = desired([trunk(&[110]), gateway(110)]);
            let mut node = lab.node().await;
            node.until_ready(&wanted).await;
            run(&["ip", "addr", "add", "192.0.2.7/32", "dev", "gw_vlan110"]);
            run(&["ip", "link", "add", "lan0", "type", "bridge"]);
            run(&["ip", "link", "set", "lan0", "up"]);
            run(&["ip", "route", "add", "10.64.110.0/25", "dev", "lan0"]);
            let seen = node.pass(&wanted).await;
            assert!(seen.of("gw_vlan110").state == State::Failed && !seen.clean);
            run(&["ip", "link", "del", "lan0"]);
            assert!(node.until_ready(&wanted).await.clean);
        },
    );
}

#[test]
fn an_address_whose_guest_went_is_served_to_its_heir_at_once() {
    on_private_host(
        "an_address_whose_guest_went_is_served_to_its_heir_at_once",
        |lab| async move {
            let served = |mac, name| {
                desired([
                    trunk(&[400]),
                    gateway(400),
                    dhcp(400, &[reservation(mac, "10.60.7.10", name, false)]),
                    nat(),
                ])
            };
            let mut node = lab.node().await;
            node.until_ready(&served(WEB_ETH0, "web")).await;
            let web = Guest::plug(&lab, "web0", 400, WEB_ETH0);
            web.lease().await.expect("a lease");
            node.until_ready(&served(STRANGER, "heir")).await;
            let lease = web.with_mac(STRANGER).lease().await.expect("a lease for the heir");
            assert_eq!(lease.address, Ipv4Addr::new(10, 60, 7, 10));
            assert!(web.lease().await.is_none(), "nothing is reserved for it any more");
        },
    );
}
