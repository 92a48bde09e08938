//! What becomes of open connections when guests of the internet VLAN come and go, on a real Open vSwitch and nftables.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use support::guest::{Guest, read_line};
use support::{Lab, desired, dhcp, gateway, nat, on_private_host, reservation, run, succeeds, trunk, wait};
use trunkline_agent::{netns, node::Desired};

const WEB: &str = "52:54:00:03:ea:00";
const DB: &str = "52:54:00:03:eb:00";
const HEIR: &str = "52:54:00:03:ec:00";
const FIRST: &str = "10.60.7.10";
const SECOND: &str = "10.60.7.11";

/// The internet for these: (MAC, address).
fn internet_for(guests: &[(&str, &str)]) -> Desired {
    let guests: Vec<_> = guests
        .iter()
        .map(|(mac, address)| reservation(mac, address, "guest", false))
        .collect();
    desired([trunk(&[400]), gateway(400), dhcp(400, &guests), nat()])
}

async fn plugged(lab: &Lab, name: &str, mac: &str) -> Guest {
    let guest = Guest::plug(lab, name, 400, mac);
    guest.configure(&guest.lease().await.expect("a lease"));
    guest
}

/// A connection whose two ends we hold.
struct Open {
    guest: TcpStream,
    internet: TcpStream,
}

impl Open {
    async fn from(guest: &Guest, server: &TcpListener) -> Self {
        let guest = guest.connect("198.51.100.1:81").await.expect("the internet");
        let internet = server.accept().unwrap().0;
        Self { guest, internet }
    }

    fn passes(&mut self) -> bool {
        self.says_to_the_internet() && self.hears_from_the_internet()
    }

    fn says_to_the_internet(&mut self) -> bool {
        self.guest.write_all(b"out\n").is_ok() && read_line(&mut self.internet).is_some()
    }

    fn hears_from_the_internet(&mut self) -> bool {
        self.internet.write_all(b"in\n").is_ok() && read_line(&mut self.guest).is_some()
    }
}

fn connections(address: &str) -> String {
    run(&["conntrack", "-L", "-f", "ipv4", "-s", address])
}

/// Nothing of the connection passes, from either side, and trying leaves nothing behind.
fn is_ended(mut open: Open, address: &str) {
    assert_eq!(connections(address), "", "its connections are remembered");
    assert!(
        !open.hears_from_the_internet(),
        "what is still on its way comes through"
    );
    assert!(!open.says_to_the_internet(), "the old guest still gets out");
    assert_eq!(connections(address), "", "a late packet opened a connection");
    let towards = run(&["conntrack", "-L", "-f", "ipv4", "-d", address]);
    assert_eq!(towards, "", "a late packet opened a connection");
}

#[test]
fn the_connections_of_a_guest_end_with_its_hold_on_the_address_and_no_others() {
    on_private_host(
        "the_connections_of_a_guest_end_with_its_hold_on_the_address_and_no_others",
        |lab| async move {
            let mut node = lab.node().await;
            node.until_ready(&internet_for(&[(WEB, FIRST), (DB, SECOND)])).await;
            let (web, db) = (plugged(&lab, "web", WEB).await, plugged(&lab, "db", DB).await);
            let server = netns::on_thread_in(Some(Path::new("/run/netns/internet")), || {
                TcpListener::bind("198.51.100.1:81").unwrap()
            });
            let server = server.await.unwrap();
            let mut of_web = Open::from(&web, &server).await;
            let mut of_db = Open::from(&db, &server).await;
            assert!(of_web.passes() && of_db.passes());
            assert!(connections(FIRST).contains("ESTABLISHED"));

            // It leaves while the program is not there to see it.
            drop(node);
            let mut node = lab.node().await;
            node.until_ready(&internet_for(&[(DB, SECOND)])).await;
            is_ended(of_web, FIRST);
            assert!(
                !web.pings("198.51.100.1"),
                "an address that nobody was given has no internet"
            );
            assert!(of_db.passes(), "another guest's connection");

            // Nor can the internet reach a guest by itself, should somebody there know the way.
            run(&[
                "ip",
                "-n",
                "internet",
                "route",
                "add",
                "10.60.7.0/24",
                "via",
                "203.0.113.2",
            ]);
            for address in [FIRST, SECOND] {
                assert!(!succeeds(&[
                    "ip", "netns", "exec", "internet", "ping", "-c1", "-W1", address
                ]));
            }

            node.until_ready(&internet_for(&[(HEIR, SECOND)])).await;
            is_ended(of_db, SECOND);
            run(&["ip", "-n", "db", "link", "set", "db", "down"]);
            let heir = plugged(&lab, "heir", HEIR).await;
            let mut of_heir = Open::from(&heir, &server).await;
            assert!(of_heir.passes());

            node.until_ready(&desired([trunk(&[400]), gateway(400)])).await;
            is_ended(of_heir, SECOND);
            node.until_ready(&desired([trunk(&[])])).await;
            wait("our table to go", || {
                !run(&["nft", "list", "tables"]).contains("trunkline")
            });
        },
    );
}

#[test]
fn a_whole_subnet_of_scattered_guests_is_forgotten_in_time() {
    on_private_host(
        "a_whole_subnet_of_scattered_guests_is_forgotten_in_time",
        |lab| async move {
            let guests: Vec<(String, String)> = (10..=250)
                .map(|host| (format!("52:54:00:04:{host:02x}:00"), format!("10.60.7.{host}")))
                .collect();
            let guests: Vec<(&str, &str)> = guests.iter().map(|(mac, at)| (mac.as_str(), at.as_str())).collect();
            let mut node = lab.node().await;
            node.until_ready(&internet_for(&guests)).await;
            let stay: Vec<_> = guests.iter().copied().step_by(2).collect();
            let started = std::time::Instant::now();
            // A pass that takes longer than the time between two signs of life would be in the way of everything else.
            node.until_ready(&internet_for(&stay)).await;
            println!(
                "120 scattered guests forgotten and the rest ready after {:?}",
                started.elapsed()
            );
            assert!(started.elapsed() < std::time::Duration::from_secs(10));
        },
    );
}
