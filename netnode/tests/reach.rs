//! What guests of the internet VLAN reach through NAT, and how much of it, on a real Open vSwitch and nftables.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::TcpStream;
use std::process::Command;

use support::guest::{Guest, internet_server, read_line};
use support::world::{DB_ETH1, STRANGER, WEB_ETH0, everything};
use support::{Lab, desired, dhcp, gateway, nat, on_private_host, reservation, run, succeeds, trunk, wait};
use trunkline_agent::node::Desired;
use trunkline_netnode::config::NatSection;
use trunkline_proto::resource::State;

const DB_ETH0: &str = "52:54:00:03:eb:00";
/// On the internet, behind the router.
const INTERNET: &str = "198.51.100.1";
/// The router, which is beside the network node.
const ROUTER: &str = "203.0.113.1";
const LIMIT: usize = 16;

async fn plugged(lab: &Lab, name: &str, vlan: u32, mac: &str) -> Guest {
    let guest = Guest::plug(lab, name, vlan, mac);
    guest.configure(&guest.lease().await.expect("a lease"));
    guest
}

fn section(lines: &str) -> NatSection {
    let text = include_str!("../netnode.example.toml");
    let (before, after) = text.split_once("[nat]").unwrap();
    let after = after.split_once("[dhcp]").unwrap().1;
    let text = format!("{before}[nat]\n{lines}\n[dhcp]{after}");
    let path = std::path::Path::new("/run/netnode.toml");
    std::fs::write(path, text).unwrap();
    trunkline_netnode::config::NetnodeConfig::load(path).unwrap().nat
}

#[test]
fn guests_reach_what_is_behind_the_uplinks_router_and_not_what_is_beside_it() {
    on_private_host(
        "guests_reach_what_is_behind_the_uplinks_router_and_not_what_is_beside_it",
        |lab| async move {
            for (address, device) in [
                ("192.0.2.9/32", "lo"),
                ("203.0.113.53/24", "up0"),
                ("169.254.169.254/32", "lo"),
            ] {
                run(&["ip", "-n", "internet", "addr", "add", address, "dev", device]);
            }
            let mut node = lab.node().await;
            node.until_ready(&everything()).await;
            let web = plugged(&lab, "web", 400, WEB_ETH0).await;
            internet_server().await;
            assert!(web.pings(INTERNET) && web.connect("198.51.100.1:80").await.is_some());
            assert!(web.pings("192.0.2.9"));
            for beside in [ROUTER, "203.0.113.53", "169.254.169.254"] {
                assert!(!web.pings(beside), "{beside}");
            }
            assert!(
                succeeds(&["ping", "-c1", "-W2", "203.0.113.53"]),
                "the node itself does"
            );

            // The addresses of the uplink are looked at again in each pass.
            run(&["ip", "addr", "add", "192.0.2.1/24", "dev", "ens3"]);
            run(&["ip", "-n", "internet", "route", "add", "192.0.2.1/32", "dev", "up0"]);
            node.until_ready(&everything()).await;
            assert!(!web.pings("192.0.2.9"), "it is beside the uplink now");
            assert!(web.pings(INTERNET));
            run(&["ip", "addr", "del", "192.0.2.1/24", "dev", "ens3"]);
            drop(node);

            let allow = "allow = [\"203.0.113.53/32\"]";
            let mut node = lab.node_with(section(allow)).await;
            node.until_ready(&everything()).await;
            assert!(web.pings("203.0.113.53") && !web.pings(ROUTER), "{allow}");
            drop(node);

            let deny = "deny = [\"198.51.100.0/24\", \"198.51.0.0/16\"]\nallow = [\"198.51.100.1/32\"]";
            let mut node = lab.node_with(section(deny)).await;
            node.until_ready(&everything()).await;
            assert!(web.pings(ROUTER) && web.pings(INTERNET), "{deny}");
            run(&["ip", "-n", "internet", "addr", "add", "198.51.100.2/32", "dev", "lo"]);
            assert!(!web.pings("198.51.100.2"), "{deny}");
            drop(node);

            let mut node = lab.node_with(section("deny = []")).await;
            node.until_ready(&everything()).await;
            assert!(web.pings(ROUTER) && web.pings("198.51.100.2"), "nothing is denied");
        },
    );
}

/// What ping says, errors of routers included.
fn ping(guest: &Guest, args: &[&str]) -> String {
    let inside = ["netns", "exec", &guest.name, "ping", "-n", "-c1", "-W1"];
    let output = Command::new("ip").args(inside).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_gateway_says_nothing_of_packets_that_it_does_not_pass_on() {
    on_private_host(
        "a_gateway_says_nothing_of_packets_that_it_does_not_pass_on",
        |lab| async move {
            let mut node = lab.node().await;
            node.until_ready(&everything()).await;
            let db = plugged(&lab, "db", 110, DB_ETH1).await;
            let web = plugged(&lab, "web", 400, WEB_ETH0).await;
            let errors = |said: &str| said.contains("From ") || said.contains("exceeded") || said.contains("Redirect");
            assert!(db.pings("10.64.110.1") && web.pings("10.60.7.1"));
            assert!(
                !ping(&db, &["-s", "4000", "10.64.110.1"]).contains("1 received"),
                "in fragments"
            );
            for to in [INTERNET, ROUTER, "10.60.7.1", "10.60.7.10", "203.0.113.2"] {
                let said = ping(&db, &["-t", "1", to]);
                assert!(!errors(&said), "a link, to {to}: {said}");
            }
            run(&["ip", "-n", "web", "route", "add", "10.60.7.77/32", "via", "10.60.7.1"]);
            let said = ping(&web, &["10.60.7.77"]);
            assert!(!errors(&said), "its own subnet: {said}");
            let said = ping(&web, &["-t", "1", INTERNET]);
            assert!(said.contains("From 10.60.7.1"), "traceroute to the internet: {said}");
            assert!(ping(&web, &[INTERNET]).contains("1 received"));
            assert!(!ping(&web, &["-R", INTERNET]).contains("1 received"), "with IP options");
        },
    );
}

fn internet_for(guests: &[(&str, &str)]) -> Desired {
    let guests: Vec<_> = guests
        .iter()
        .map(|(mac, address)| reservation(mac, address, "guest", false))
        .collect();
    desired([trunk(&[400]), gateway(400), dhcp(400, &guests), nat()])
}

/// Opens up to so many connections.
async fn open(guest: &Guest, most: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    while all.len() < most {
        let Some(mut one) = guest.connect("198.51.100.1:80").await else {
            break;
        };
        assert!(read_line(&mut one).is_some());
        all.push(one);
    }
    all
}

#[test]
fn a_guest_has_no_more_connections_than_its_limit_and_others_do_not_notice() {
    on_private_host(
        "a_guest_has_no_more_connections_than_its_limit_and_others_do_not_notice",
        |lab| async move {
            let two = [(WEB_ETH0, "10.60.7.10"), (DB_ETH0, "10.60.7.11")];
            let mut node = lab
                .node_with(section(&format!("connections_per_guest = {LIMIT}")))
                .await;
            node.until_ready(&internet_for(&two)).await;
            let web = plugged(&lab, "web", 400, WEB_ETH0).await;
            let db = plugged(&lab, "db", 400, DB_ETH0).await;
            internet_server().await;
            let of_web = open(&web, LIMIT + 4).await;
            assert_eq!(of_web.len(), LIMIT);
            assert_eq!(open(&db, 3).await.len(), 3, "another guest");

            let seen = node.pass(&internet_for(&two)).await;
            let nat = seen.of("nat_vlan400");
            assert!(
                nat.state == State::Degraded
                    && nat.reason.contains("10.60.7.10 ")
                    && !nat.reason.contains("10.60.7.11"),
                "{}",
                nat.reason
            );
            let counter = run(&[
                "nft",
                "list",
                "counter",
                "inet",
                "trunkline-connections",
                "refused_vlan400",
            ]);
            assert!(
                counter.contains("packets") && !counter.contains("packets 0"),
                "{counter}"
            );

            // What was open counts on when another guest comes or the program starts again.
            drop(node);
            let three = [&two[..], &[(STRANGER, "10.60.7.12")]].concat();
            let mut node = lab
                .node_with(section(&format!("connections_per_guest = {LIMIT}")))
                .await;
            node.pass(&internet_for(&three)).await;
            assert_eq!(open(&web, 1).await.len(), 0);
            drop(of_web);
            let mut again = Vec::new();
            for _ in 0..5 {
                again = open(&web, LIMIT).await;
                if !again.is_empty() {
                    break;
                }
            }
            assert!(!again.is_empty(), "what is closed counts no more");

            run(&["nft", "flush", "chain", "inet", "trunkline-connections", "forward"]);
            node.pass(&internet_for(&three)).await;
            let chain = run(&["nft", "list", "chain", "inet", "trunkline-connections", "forward"]);
            assert!(chain.contains("ct count over 16"), "{chain}");
            node.until_ready(&desired([trunk(&[400]), gateway(400)])).await;
            wait("the table to go", || {
                !run(&["nft", "list", "tables"]).contains("trunkline-connections")
            });
        },
    );
}
