//! DHCP on a real Open vSwitch and dnsmasq: many servers, lost namespaces, addresses that change hands.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::Ipv4Addr;
use std::time::Instant;

use support::guest::Guest;
use support::world::{STRANGER, WEB_ETH0, WEB_ETH1, link_reservations, nothing_of_ours_is_left};
use support::{desired, dhcp, gateway, nat, on_private_host, reservation, run, trunk};

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
            let heir = web.becomes(STRANGER);
            let lease = heir.lease().await.expect("a lease for the heir");
            assert_eq!(lease.address, Ipv4Addr::new(10, 60, 7, 10));
            let web = heir.becomes(WEB_ETH0);
            assert!(web.lease().await.is_none(), "nothing is reserved for it any more");
        },
    );
}
