//! Frames that a hostile guest tags itself.

use std::net::Ipv4Addr;

use trunkline_integration::lab::Options;

use crate::forbidden::{TOPOLOGY, servers};
use crate::frames::Wire;
use crate::looks::*;
use crate::support::{LIMIT, apply, fleet, guests};

/// As `TOPOLOGY` has `red`; its `in` is not started as a guest here, we are that guest.
#[test]
fn tags_that_a_guest_writes_itself_lead_nowhere() {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    let guests = guests(&lab, &["sea"]);
    let [red, sea] = ["red", "sea"].map(|name| slice(&lab, name).links[0].vlan);
    let ((red_gateway, _), (sea_gateway, _)) = (servers(&lab, "red"), servers(&lab, "sea"));
    let internet: Ipv4Addr = "10.60.7.1".parse().unwrap();
    for nic in ["eth0", "eth1"] {
        guests["sea/out"].await_lease(nic, LIMIT).unwrap();
    }
    guests["sea/in"].await_lease("eth1", LIMIT).unwrap();
    let foreign = ["sea/in.eth1", "sea/out.eth1", "sea/out.eth0"].map(|name| address(&lab, name));
    let foreign = [&foreign[..], &[sea_gateway, internet]].concat();
    let own = address(&lab, "red/in.eth1");

    let mut eth1 = Wire::open(&lab, "w1", &interface(&lab, "red/in.eth1"));
    // Frames from here do get an answer, where they may.
    assert_eq!(eth1.arp(&[&[]], own, &[red_gateway]), [red_gateway].into());
    let mut eth0 = Wire::open(&lab, "w1", &interface(&lab, "red/in.eth0"));
    let stacks: [&[u32]; 7] = [
        &[],
        &[0],
        &[sea],
        &[INTERNET_VLAN],
        &[0, sea],
        &[red, sea],
        &[red, INTERNET_VLAN],
    ];
    for (nic, wire) in [("eth0", &mut eth0), ("eth1", &mut eth1)] {
        for from in [own, Ipv4Addr::new(10, 60, 7, 200)] {
            assert_eq!(wire.arp(&stacks, from, &foreign), [].into(), "{nic}, as {from}");
        }
    }
    assert_eq!(
        eth0.arp(&[&[], &[red]], own, &[red_gateway]),
        [].into(),
        "eth0 without a VLAN"
    );
    assert_eq!(
        eth1.arp(&[&[]], own, &[red_gateway]),
        [red_gateway].into(),
        "to the last"
    );
}
