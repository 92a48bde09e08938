//! Reservations that go with a new version of their server, and what VLAN 400 stands on.

use std::time::Duration;

use trunkline_proto::{
    LinkSubnet, PortName,
    resource::{Dhcp, Gateway, Key, Nat, Reservation},
};

use super::*;

fn netnode() -> Judge {
    Judge {
        kinds: &[Kind::Trunk, Kind::Gateway, Kind::Dhcp, Kind::Nat],
        validate: Arc::new(|_| Ok(())),
    }
}

/// Guest `n` has the MAC of VM 1000 + n.
fn guest(n: u32, host: u8) -> Reservation {
    Reservation {
        mac: Mac::of_interface(VmId::try_from(1000 + n).unwrap(), 0),
        address: std::net::Ipv4Addr::new(10, 60, 7, host),
        hostname: format!("vm{n}").parse().unwrap(),
        no_router: false,
    }
}

fn guests(of: std::ops::Range<u8>) -> Vec<Reservation> {
    of.map(|n| guest(n.into(), n + 10)).collect()
}

fn internet(reservations: Vec<Reservation>) -> Vec<Envelope> {
    let (vlan, subnet): (_, LinkSubnet) = (VlanId::INTERNET, LinkSubnet::INTERNET.parse().unwrap());
    let dhcp = Dhcp {
        vlan,
        address: subnet.dhcp_server(),
        mac: Mac::of_dhcp(vlan),
        mtu: 1500,
        range: None,
        router: subnet.gateway().address,
        dns: vec![],
        lease: Duration::from_secs(3600),
        reservations,
    };
    let gateway = Gateway {
        vlan,
        address: subnet.gateway(),
        mac: Mac::of_gateway(vlan),
        mtu: 1500,
    };
    let nat = Nat {
        vlan,
        subnet,
        gateway_port: PortName::gateway(vlan),
    };
    let specs = [Spec::Gateway(gateway), Spec::Dhcp(dhcp), Spec::Nat(nat)];
    let sealed = specs.iter().map(|spec| Envelope::seal(spec, ""));
    sealed.chain([trunk(&[400])]).collect()
}

/// What the node makes of it: everybody with a reservation.
fn served(held: &Held) -> Vec<Reservation> {
    let desired = held.desired();
    desired
        .dhcps()
        .flat_map(|(_, _, dhcp)| dhcp.reservations.clone())
        .collect()
}

fn first(reservations: Vec<Reservation>) -> Held {
    let empty = Held::default();
    empty
        .take(change(&empty, at(1, 5), &internet(reservations)), &netnode())
        .unwrap()
}

fn next(held: &Held, generation: u64, reservations: Vec<Reservation>, intended: bool) -> Held {
    let all = internet(reservations);
    let change = Change {
        intended,
        ..change(held, at(1, generation), &all)
    };
    let next = held.take(change, &netnode()).unwrap();
    assert_eq!(next.digest(), digest(&all), "both sides agree on what is held");
    let again = store::decode(&store::encode(&next), &netnode()).unwrap();
    assert_eq!((again.desired(), again.removals()), (next.desired(), next.removals()));
    next
}

#[test]
fn a_guest_that_nobody_asked_away_keeps_its_reservation_until_an_operator_confirms() {
    let held = next(&first(guests(0..4)), 6, guests(0..2), false);
    assert_eq!(served(&held), guests(0..4), "also when they are few");
    assert_eq!((held.waiting().len(), held.held_back()), (0, 2));
    let told = held.removals();
    assert_eq!(
        (told.term, told.generation, told.total, told.reservations),
        (1, 6, 2, 2)
    );
    let named: Vec<&str> = told.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(named, ["dhcp_v400"], "the server that they are of");
    // A new guest is served at once.
    let more = next(&held, 7, guests(0..2).into_iter().chain([guest(9, 99)]).collect(), true);
    assert_eq!(served(&more).len(), 5);
    assert!(more.confirmed(at(1, 6)).is_none());
    let confirmed = more.confirmed(at(1, 7)).unwrap();
    assert_eq!((served(&confirmed).len(), confirmed.held_back()), (3, 0));
    assert_eq!(confirmed.removals(), wire::HeldRemovals::default());
}

#[test]
fn a_guest_that_an_operator_asked_away_is_served_no_more() {
    let held = next(&first(guests(0..4)), 6, guests(0..2), true);
    assert_eq!((served(&held), held.held_back()), (guests(0..2), 0));
}

#[test]
fn a_server_that_waited_and_is_brought_back_keeps_the_guests_that_nobody_asked_away() {
    let first = first(guests(0..4));
    let gone = change(&first, at(1, 6), &[trunk(&[])]);
    let gone = Change {
        intended: false,
        ..gone
    };
    let waits = first.take(gone, &netnode()).unwrap();
    assert_eq!(served(&waits), guests(0..4));
    let back = next(&waits, 7, guests(0..2), true);
    assert_eq!(
        served(&back),
        guests(0..4),
        "an operator asked for two guests, not for the end of two others"
    );
    assert_eq!((back.waiting().len(), back.held_back()), (0, 2));
}

#[test]
fn a_kept_reservation_gives_way_to_whoever_has_its_mac_or_its_address_now() {
    let held = next(&first(guests(0..4)), 6, vec![], false);
    assert_eq!(served(&held), guests(0..4));
    // Guest 0 is back, guest 1 elsewhere, and the address of guest 2 is another's.
    let now = vec![guest(0, 10), guest(1, 77), guest(50, 12)];
    let held = next(&held, 7, now.clone(), true);
    let mut expected: Vec<_> = now.into_iter().chain([guest(3, 13)]).collect();
    expected.sort();
    assert_eq!((served(&held), held.held_back()), (expected, 1));
}

#[test]
fn what_vlan_400_stands_on_waits_however_little_it_is_and_serves_its_guests() {
    let first = first(guests(0..4));
    let nothing = |intended| Change {
        intended,
        ..change(&first, at(1, 6), &[trunk(&[])])
    };
    let held = first.take(nothing(false), &netnode()).unwrap();
    assert_eq!(
        names(&held),
        [
            "trunk uplink",
            "gateway gw_vlan400",
            "dhcp dhcp_v400",
            "nat nat_vlan400"
        ]
    );
    assert_eq!((served(&held), held.removals().total), (guests(0..4), 3));
    let carried = held
        .desired()
        .trunks()
        .any(|(_, _, trunk)| trunk.vlans.contains(&VlanId::INTERNET));
    assert!(carried, "its vlan stays on the uplink");
    let confirmed = held.confirmed(at(1, 6)).unwrap();
    assert_eq!(names(&confirmed), ["trunk uplink"]);
    let asked = first.take(nothing(true), &netnode()).unwrap();
    assert_eq!(names(&asked), ["trunk uplink"]);
}

#[test]
fn reservations_that_were_kept_go_with_their_server_when_an_operator_removes_it() {
    let held = next(&first(guests(0..4)), 6, guests(0..2), false);
    let held = held.take(change(&held, at(1, 7), &[trunk(&[])]), &netnode()).unwrap();
    assert_eq!((held.held_back(), served(&held).len()), (0, 0));
    // And wait on with a server that waits itself.
    let held = next(&first(guests(0..4)), 6, guests(0..2), false);
    let unasked = Change {
        intended: false,
        ..change(&held, at(1, 7), &[trunk(&[])])
    };
    let held = held.take(unasked, &netnode()).unwrap();
    assert_eq!((served(&held), held.held_back()), (guests(0..4), 5));
    assert_eq!(held.removals().keys.len(), 3, "the server is named once");
}

#[test]
fn a_node_that_names_some_of_what_waits_says_how_many_there_are() {
    let many: Vec<_> = (1000..7000).map(|id| port(id, 110, 1500)).collect();
    let first = held(&many);
    let held = first.take(unasked(&first, at(1, 6), &[]), &judge()).unwrap();
    let told = held.removals();
    assert_eq!((told.keys.len(), told.total, told.reservations), (5000, 6000, 0));
}

proptest! {
    /// However versions follow each other, no guest loses its reservation unasked, and none has two.
    #[test]
    fn no_guest_goes_unasked(
        steps in proptest::collection::vec((proptest::collection::btree_map(0_u8..8, 0_u8..12, 0..8), any::<bool>()), 1..8),
    ) {
        let mut held = first(guests(0..8));
        for (generation, (who, intended)) in (6_u64..).zip(steps) {
            // Addresses are given once; hosts begin where nothing else is.
            let mut used = std::collections::BTreeSet::new();
            let now: Vec<_> = who
                .iter()
                .filter(|(_, host)| used.insert(**host))
                .map(|(n, host)| guest((*n).into(), host + 10))
                .collect();
            let before = served(&held);
            let after = { held = next(&held, generation, now.clone(), intended); served(&held) };
            let one = |of: fn(&Reservation) -> String| {
                let all: std::collections::BTreeSet<_> = after.iter().map(of).collect();
                all.len() == after.len()
            };
            prop_assert!(one(|r| r.mac.to_string()) && one(|r| r.address.to_string()));
            prop_assert!(now.iter().all(|r| after.contains(r)));
            if !intended {
                for lost in before.iter().filter(|r| !after.contains(r)) {
                    let taken = now.iter().any(|r| r.mac == lost.mac || r.address == lost.address);
                    prop_assert!(taken, "{lost:?}");
                }
            }
            let keys: Vec<Key> = held.desired().items.keys().cloned().collect();
            prop_assert_eq!(keys.len(), 4);
        }
        if let Some(end) = held.confirmed(held.position) {
            prop_assert_eq!(end.held_back(), 0);
        }
    }
}
