//! The whole way on a real Open vSwitch, dnsmasq and nftables.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use support::far::Far;
use support::guest::{Guest, internet_server, read_line};
use support::world::{
    DB_ETH1, STRANGER, WEB_ETH0, WEB_ETH1, everything, internet_reservations, link_reservations,
    nothing_of_ours_is_left,
};
use support::{
    desired, dhcp, dhcp_with_dns, gateway, nat, on_private_host, probe, reservation, run, succeeds, sysctl, trunk, wait,
};
use trunkline_agent::node::Host;
use trunkline_proto::resource::{Facts, Spec, State};

fn table_handle() -> String {
    run(&["nft", "-a", "list", "tables"])
        .lines()
        .find(|line| line.contains("trunkline"))
        .unwrap()
        .to_owned()
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

            let mut open = web0.connect("198.51.100.1:80").await.unwrap();
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
    assert!(web0.pings("10.60.7.1") && web0.pings("198.51.100.1"));
    let mut stream = web0.connect("198.51.100.1:80").await.expect("the internet");
    assert_eq!(read_line(&mut stream).as_deref(), Some("203.0.113.2"), "masqueraded");

    assert!(!db1.pings("198.51.100.1"), "a link leads to no internet");
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
fn a_vlan_is_proved_to_the_worker_at_the_other_end_of_the_trunk() {
    on_private_host(
        "a_vlan_is_proved_to_the_worker_at_the_other_end_of_the_trunk",
        async |lab| {
            let mut node = lab.node().await;
            let all = desired([trunk(&[110]), gateway(110), Spec::Probe(probe(110, &["w1"]))]);
            let seen = node.pass(&all).await;
            assert_eq!(seen.of("probe_vlan110").state, State::Pending);
            let far = Far::start("w1", "trunk0-far", probe(110, &["n1"])).await;
            let seen = node.until_ready(&all).await;
            let Some(Facts::Probe(facts)) = &seen.of("probe_vlan110").facts else {
                panic!("no facts")
            };
            assert_eq!((facts.paths[0].largest, facts.period_ms), (1500, 1000));
            let deadline = Instant::now() + support::PATIENCE;
            while far.state() != (State::Ready, String::new()) {
                assert!(Instant::now() < deadline, "{:?}", far.state());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(lab.vsctl(&["get", "port", "tlprobe0", "trunks"]).trim(), "[110]");

            // Its end is told by the node that hears nothing any more.
            drop(far);
            let deadline = Instant::now() + support::PATIENCE;
            loop {
                let seen = node.pass(&all).await;
                let probe = seen.of("probe_vlan110");
                if probe.state == State::Degraded {
                    assert_eq!(probe.reason, "vlan 110 does not pass w1 -> n1");
                    break;
                }
                assert!(Instant::now() < deadline, "{probe:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }

            let fewer = desired([trunk(&[110]), gateway(110)]);
            node.until_ready(&fewer).await;
            assert!(!run(&["ip", "-br", "link"]).contains("tlprobe0"));
        },
    );
}
