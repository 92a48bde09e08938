//! Guests that speak for another one in DHCP messages, on a real Open vSwitch, dnsmasq and nftables.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use support::guest::{BOOTP, DECLINE, DISCOVER, Ear, Guest, INFORM, Message, RELEASE, REQUEST};
use support::world::{DB_ETH1, WEB_ETH0, WEB_ETH1, link_reservations, nothing_of_ours_is_left};
use support::{Lab, desired, dhcp, gateway, nat, on_private_host, reservation, run, trunk, wait};
use trunkline_agent::node::Desired;
use trunkline_proto::resource::State;

const DB_ETH0: &str = "52:54:00:03:eb:00";
const WEB: Ipv4Addr = Ipv4Addr::new(10, 60, 7, 10);
const DB: Ipv4Addr = Ipv4Addr::new(10, 60, 7, 11);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 60, 7, 254);

fn internet() -> Desired {
    desired([
        trunk(&[400]),
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

/// What a guest says to end the hold on an address.
fn ends(kind: u8, of: &Guest, address: Ipv4Addr) -> Message {
    let message = Message {
        server: Some(SERVER),
        ..Message::new(kind, of.mac)
    };
    if kind == RELEASE {
        return Message {
            ciaddr: address,
            ..message
        };
    }
    // dnsmasq takes the address off the reservation for ten minutes.
    Message {
        requested: Some(address),
        ..message
    }
}

fn is_leased(lab: &Lab, vlan: u32, address: Ipv4Addr) -> bool {
    let file = lab.state_dir().join(format!("dhcp/vlan{vlan}/leases"));
    let leases = std::fs::read_to_string(file).unwrap();
    leases.split_whitespace().any(|word| word == address.to_string())
}

async fn both(lab: &Lab) -> (Guest, Guest) {
    let web = Guest::plug(lab, "web", 400, WEB_ETH0);
    let db = Guest::plug(lab, "db", 400, DB_ETH0);
    assert_eq!(web.lease().await.expect("a lease").address, WEB);
    assert_eq!(db.lease().await.expect("a lease").address, DB);
    (web, db)
}

#[test]
fn a_guest_of_the_internet_vlan_cannot_speak_for_another_inside_a_message() {
    on_private_host(
        "a_guest_of_the_internet_vlan_cannot_speak_for_another_inside_a_message",
        |lab| async move {
            let mut node = lab.node().await;
            node.until_ready(&internet()).await;
            let (web, db) = both(&lab).await;
            for kind in [RELEASE, DECLINE] {
                db.say(ends(kind, &web, WEB)).await;
            }
            assert!(db.with_mac(WEB_ETH0).lease().await.is_none(), "an offer for another");
            // From one port one after the other: what was said before has been heard.
            assert_eq!(db.lease().await.expect("a lease").address, DB);
            assert!(is_leased(&lab, 400, WEB), "another guest ended its lease");
            assert_eq!(web.lease().await.expect("a lease").address, WEB);

            for kind in [RELEASE, DECLINE] {
                assert_eq!(web.lease().await.expect("a lease").address, WEB);
                web.say(ends(kind, &web, WEB)).await;
                wait(&format!("message {kind} to end the lease"), || {
                    !is_leased(&lab, 400, WEB)
                });
            }
        },
    );
}

#[test]
fn a_guest_of_the_internet_vlan_cannot_pose_as_a_relay_or_name_other_hardware() {
    on_private_host(
        "a_guest_of_the_internet_vlan_cannot_pose_as_a_relay_or_name_other_hardware",
        |lab| async move {
            let mut node = lab.node().await;
            node.until_ready(&internet()).await;
            let (_, db) = both(&lab).await;
            let discover = Message::new(DISCOVER, db.mac);
            assert!(db.ask(discover.clone()).await.is_some());
            for head in [[1, 6, 6], [1, 1, 5], [1, 1, 16], [2, 1, 6]] {
                let odd = Message {
                    head,
                    ..discover.clone()
                };
                assert!(db.ask(odd).await.is_none(), "{head:?}");
            }
            // The answer would go to the relay, at this port too.
            db.configure(&db.lease().await.expect("a lease"));
            let relayed = Message {
                giaddr: WEB,
                ..discover.clone()
            };
            let before = passed();
            db.say(relayed).await;
            assert_eq!(db.lease().await.expect("a lease").address, DB);
            // DISCOVER and REQUEST of the honest one.
            assert_eq!(passed() - before, 2, "datagrams that came to the server");
        },
    );
}

#[test]
fn nobody_hears_what_the_internet_vlans_server_says_to_another() {
    on_private_host(
        "nobody_hears_what_the_internet_vlans_server_says_to_another",
        |lab| async move {
            let mut node = lab.node().await;
            node.until_ready(&internet()).await;
            let (web, db) = both(&lab).await;
            let ear = web.run(Ear::open).await;
            // Answers to `ciaddr`, and such as come without one.
            for kind in [DISCOVER, REQUEST, INFORM, BOOTP] {
                let mut message = Message::new(kind, db.mac);
                message.ciaddr = WEB;
                assert!(db.ask(message.clone()).await.is_none(), "{kind}");
            }
            assert!(
                db.ask(Message::new(BOOTP, db.mac)).await.is_none(),
                "plain BOOTP was answered"
            );
            // Whoever asks for an answer by broadcast is answered, himself.
            let lease = db.lease().await.expect("a lease");
            let renewal = Message {
                ciaddr: DB,
                ..Message::new(REQUEST, db.mac)
            };
            db.configure(&lease);
            assert_eq!(db.ask(renewal).await.expect("a renewal").address, DB);
            assert_eq!(ear.next(Duration::ZERO), None);

            // A refusal is a broadcast always: few of them.
            let not_his = Message {
                requested: Some(WEB),
                ..Message::new(REQUEST, db.mac)
            };
            for _ in 0..30 {
                db.say(not_his.clone()).await;
            }
            assert_eq!(db.lease().await.expect("a lease").address, DB);
            let refusals = std::iter::from_fn(|| ear.next(Duration::ZERO)).count();
            assert!((1..=8).contains(&refusals), "{refusals}");
        },
    );
}

#[test]
fn one_guest_of_the_internet_vlan_cannot_keep_the_server_from_the_others() {
    on_private_host(
        "one_guest_of_the_internet_vlan_cannot_keep_the_server_from_the_others",
        |lab| async move {
            let mut node = lab.node().await;
            node.until_ready(&internet()).await;
            let (web, db) = both(&lab).await;
            let (before, began) = (passed(), std::time::Instant::now());
            for _ in 0..500 {
                db.say(Message::new(DISCOVER, db.mac)).await;
            }
            assert_eq!(web.lease().await.expect("a lease").address, WEB);
            let (heard, most) = (passed() - before, 50 + 20 * (began.elapsed().as_secs() + 1));
            assert!((40..=most).contains(&heard), "{heard} of 500, and at most {most}");
            let pid = node.until_ready(&internet()).await.pid("dhcp_v400");
            assert!(pid > 0, "the table reads as it did");
        },
    );
}

/// Datagrams that came to the server of VLAN 400.
fn passed() -> u64 {
    counted(&run(&[
        "ip",
        "netns",
        "exec",
        "ns-dhcp-vlan400",
        "cat",
        "/proc/net/snmp",
    ]))
}

/// Datagrams that UDP has delivered.
fn counted(snmp: &str) -> u64 {
    let udp: Vec<&str> = snmp.lines().filter(|line| line.starts_with("Udp:")).collect();
    let place = udp[0]
        .split_whitespace()
        .position(|word| word == "InDatagrams")
        .unwrap();
    udp[1].split_whitespace().nth(place).unwrap().parse().unwrap()
}

#[test]
fn the_filter_of_a_dhcp_namespace_is_mended_and_goes_with_it() {
    on_private_host(
        "the_filter_of_a_dhcp_namespace_is_mended_and_goes_with_it",
        |lab| async move {
            let inside = ["ip", "netns", "exec", "ns-dhcp-vlan400", "nft"];
            let nft = |what: &[&str]| run(&[&inside[..], what].concat());
            let mut node = lab.node().await;
            let pid = node.until_ready(&internet()).await.pid("dhcp_v400");
            let (web, _) = both(&lab).await;
            web.configure(&web.lease().await.unwrap());
            assert!(web.pings("10.60.7.254"), "echo is answered");

            let written = nft(&["list", "table", "inet", "trunkline"]);
            nft(&["flush", "chain", "inet", "trunkline", "prerouting"]);
            node.until_ready(&internet()).await;
            assert_eq!(nft(&["list", "table", "inet", "trunkline"]), written);
            nft(&["delete", "table", "inet", "trunkline"]);
            let seen = node.until_ready(&internet()).await;
            assert_eq!(nft(&["list", "table", "inet", "trunkline"]), written);
            assert_eq!(seen.pid("dhcp_v400"), pid, "no reason to restart dnsmasq");

            // Somebody else's table of that name is named, and kept.
            nft(&["delete", "table", "inet", "trunkline"]);
            nft(&["add", "table", "inet", "trunkline"]);
            let seen = node.pass(&internet()).await;
            let server = seen.of("dhcp_v400");
            assert!(
                server.state == State::Failed && server.reason.contains("was not made by this program"),
                "{}",
                server.reason
            );
            nft(&["delete", "table", "inet", "trunkline"]);

            // Where nothing is reserved nobody is heard.
            let empty = desired([trunk(&[400]), gateway(400), dhcp(400, &[])]);
            node.until_ready(&empty).await;
            assert!(web.lease().await.is_none());
            node.until_ready(&desired([trunk(&[])])).await;
            nothing_of_ours_is_left(&lab);
        },
    );
}

/// Client identifiers are guessed easily: most are the MAC with a 1 before it, and machines made of one image have the same.
#[test]
fn a_guest_cannot_speak_for_another_by_its_client_identifier() {
    on_private_host(
        "a_guest_cannot_speak_for_another_by_its_client_identifier",
        |lab| async move {
            let mut node = lab.node().await;
            let wanted = desired([trunk(&[110]), gateway(110), dhcp(110, &link_reservations())]);
            node.until_ready(&wanted).await;
            let web = Guest::plug(&lab, "web", 110, WEB_ETH1);
            let db = Guest::plug(&lab, "db", 110, DB_ETH1);
            let (of_web, of_db) = (Ipv4Addr::new(10, 64, 110, 10), Ipv4Addr::new(10, 64, 110, 11));
            let id = Some([&[1], &web.mac.octets()[..]].concat());
            for (guest, address) in [(&web, of_web), (&db, of_db)] {
                let named = |message| Message {
                    client_id: id.clone(),
                    ..message
                };
                let offer = guest
                    .ask(named(Message::new(DISCOVER, guest.mac)))
                    .await
                    .expect("an offer");
                let request = named(Message::request(guest.mac, &offer));
                assert_eq!(request.kind, REQUEST);
                assert_eq!(guest.ask(request).await.expect("a lease").address, address);
            }
            assert!(
                is_leased(&lab, 110, of_web),
                "it lost its lease to one of the same name"
            );
            let release = Message {
                ciaddr: of_web,
                server: Some(Ipv4Addr::new(10, 64, 110, 254)),
                client_id: id,
                ..Message::new(RELEASE, db.mac)
            };
            db.say(release).await;
            assert_eq!(db.lease().await.expect("a lease").address, of_db);
            assert!(is_leased(&lab, 110, of_web), "another guest ended its lease");
        },
    );
}
