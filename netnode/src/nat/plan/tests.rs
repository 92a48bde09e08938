#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use trunkline_proto::resource::Reservation;

use super::*;
use crate::nat::observe::Uplink;
use crate::nat::render::User;
use crate::nft::{self, Noted};
use crate::testing::{dhcp, gateway, nat, reservation, way};

/// A host with none of ours, forwarding as given.
fn bare(forwarding: bool) -> Observed {
    Observed {
        table: Table::Absent,
        record: Record::default(),
        forwarding: Forwarding {
            on: forwarding,
            before: None,
        },
        uplink: Uplink {
            name: "ens3".into(),
            exists: true,
            up: true,
            default_route: true,
            beside: BTreeSet::new(),
        },
        limits: limits::Seen::default(),
        dropping: Vec::new(),
    }
}

/// What the executor does, done to the model. The readback of a table is modelled as its rendered content.
fn apply(plan: &Plan, observed: &mut Observed) {
    if plan.conflict.is_some() {
        return;
    }
    match plan.forwarding {
        ForwardingStep::Keep => {}
        ForwardingStep::Enable { record } => {
            observed.forwarding = Forwarding {
                on: true,
                before: record.or(observed.forwarding.before),
            };
        }
        ForwardingStep::RecordOn => observed.forwarding.before = Some(true),
        ForwardingStep::Restore { off } => {
            observed.forwarding = Forwarding {
                on: observed.forwarding.on && !off,
                before: None,
            };
        }
    }
    match &plan.limits {
        limits::Step::Keep => {}
        limits::Step::Delete => observed.limits.table = nft::State::Absent,
        limits::Step::Replace(batch) => {
            let content = Fingerprint::of(batch);
            observed.limits.table = nft::State::Ours(content);
            observed.record.limits = Noted {
                rendered: Some(content),
                readback: Some(content),
            };
        }
    }
    match &plan.table {
        TableStep::Keep => {}
        TableStep::Delete => observed.table = Table::Absent,
        TableStep::Replace { rendered, .. } => {
            observed.table = Table::Ours(Readback {
                fingerprint: *rendered,
                whole: true,
                counters: BTreeMap::new(),
            });
            observed.record.noted = Noted {
                rendered: Some(*rendered),
                readback: Some(*rendered),
            };
        }
    }
    observed.record.served.clone_from(&plan.served);
}

/// What stands when the executor is killed before it has ended a connection.
fn apply_until_killed(plan: &Plan, observed: &mut Observed) {
    let mut record = observed.record.clone();
    record.served.subnets.extend(&plan.served.subnets);
    record.served.users.extend(&plan.served.users);
    apply(plan, observed);
    observed.record = Record {
        noted: Noted::default(),
        ..record
    };
}

fn filter(gateways: &BTreeSet<u32>, internet: bool) -> Filter {
    serving(gateways, internet, Vec::new())
}

fn serving(gateways: &BTreeSet<u32>, internet: bool, guests: Vec<Reservation>) -> Filter {
    let gateways: Vec<_> = gateways.iter().map(|id| gateway(*id)).collect();
    let nats = if internet { vec![nat()] } else { Vec::new() };
    Filter::new(&way(), &gateways, &nats, &[dhcp(400, guests)], &BTreeSet::new())
}

/// The internet for these: (place of the address, virtual machine that has it).
fn internet_for(guests: impl IntoIterator<Item = (u32, u32)>) -> Filter {
    let guest = |(place, vm)| Reservation {
        address: reservation(400, 1000 + place, 0, "guest", false).address,
        ..reservation(400, 1000 + vm, 0, "guest", false)
    };
    serving(&BTreeSet::from([400]), true, guests.into_iter().map(guest).collect())
}

fn filters() -> impl Strategy<Value = Filter> {
    (proptest::collection::btree_set(1_u32..4095, 0..6), any::<bool>())
        .prop_map(|(ids, internet)| filter(&ids, internet))
}

/// No guest, or some of a few machines at some of a few addresses.
fn internets() -> impl Strategy<Value = Filter> {
    let guests = proptest::collection::btree_map(0_u32..6, 0_u32..3, 0..6).prop_map(internet_for);
    prop_oneof![guests, Just(filter(&BTreeSet::new(), false))]
}

fn end(connections: &mut BTreeSet<User>, plan: &Plan) {
    connections.retain(|open| !plan.forget.iter().any(|block| block.contains(&open.address)));
}

/// The blocks as they are given to conntrack.
fn blocks(plan: &Plan) -> Vec<String> {
    plan.forget.iter().map(Ipv4Net::to_string).collect()
}

proptest! {
    #[test]
    fn applied_to_the_model_the_next_plan_is_empty(steps in proptest::collection::vec(filters(), 1..5), on in any::<bool>()) {
        let mut host = bare(on);
        for wanted in &steps {
            apply(&plan(wanted, &host), &mut host);
            prop_assert!(plan(wanted, &host).is_empty());
        }
        apply(&plan(&filter(&BTreeSet::new(), false), &host), &mut host);
        prop_assert_eq!(&host.record.served, &Served::default());
        prop_assert_eq!(Observed { record: Record::default(), ..host }, bare(on));
    }

    #[test]
    fn a_connection_never_outlives_its_guests_hold_on_the_address(
        steps in proptest::collection::vec((internets(), any::<bool>()), 1..8),
    ) {
        let mut host = bare(false);
        let mut connections = BTreeSet::new();
        for (wanted, killed) in &steps {
            if *killed {
                apply_until_killed(&plan(wanted, &host), &mut host);
                // Those who are let through now open one before the next pass.
                connections.extend(wanted.users());
                continue;
            }
            let plan = plan(wanted, &host);
            end(&mut connections, &plan);
            apply(&plan, &mut host);
            let users: BTreeSet<User> = wanted.users().collect();
            prop_assert!(connections.is_subset(&users), "{connections:?} {users:?}");
            connections = users;
        }
    }

    #[test]
    fn connections_of_guests_who_stay_are_left_alone(before in internets(), after in internets()) {
        let mut host = bare(false);
        apply(&plan(&before, &host), &mut host);
        let forget = plan(&after, &host).forget;
        let (before, after): (BTreeSet<User>, BTreeSet<User>) = (before.users().collect(), after.users().collect());
        for stays in before.intersection(&after) {
            prop_assert!(!forget.iter().any(|block| block.contains(&stays.address)));
        }
    }

    #[test]
    fn a_strangers_table_of_our_name_is_left_alone(wanted in filters()) {
        let host = Observed { table: Table::Foreign("inet"), ..bare(false) };
        let plan = plan(&wanted, &host);
        prop_assert!(plan.is_empty() && plan.conflict.is_some());
    }
}

#[test]
fn a_table_that_somebody_changed_is_written_again_with_its_counters() {
    let wanted = filter(&BTreeSet::from([400]), true);
    let mut host = bare(false);
    apply(&plan(&wanted, &host), &mut host);
    let counters = BTreeMap::from([(VlanId::INTERNET, Counter { packets: 7, bytes: 700 })]);
    host.table = Table::Ours(Readback {
        fingerprint: Fingerprint::of("other"),
        whole: true,
        counters,
    });
    let TableStep::Replace { batch, .. } = plan(&wanted, &host).table else {
        panic!("kept")
    };
    assert!(batch.contains("packets 7 bytes 700"), "{batch}");
}

#[test]
fn counting_alone_is_no_reason_to_write_the_table() {
    let wanted = filter(&BTreeSet::from([400]), true);
    let mut host = bare(false);
    apply(&plan(&wanted, &host), &mut host);
    if let Table::Ours(readback) = &mut host.table {
        readback
            .counters
            .insert(VlanId::INTERNET, Counter { packets: 7, bytes: 700 });
    }
    assert!(plan(&wanted, &host).is_empty());
}

#[test]
fn ip_forward_is_given_back_only_if_it_was_us() {
    for (wanted, on, before, step) in [
        (true, false, None, ForwardingStep::Enable { record: Some(false) }),
        (true, true, None, ForwardingStep::RecordOn),
        (true, false, Some(false), ForwardingStep::Enable { record: None }),
        (true, true, Some(false), ForwardingStep::Keep),
        (false, true, Some(false), ForwardingStep::Restore { off: true }),
        (false, true, Some(true), ForwardingStep::Restore { off: false }),
        (false, false, Some(false), ForwardingStep::Restore { off: false }),
        (false, true, None, ForwardingStep::Keep),
    ] {
        assert_eq!(
            forwarding(wanted, Forwarding { on, before }),
            step,
            "wanted {wanted} on {on} before {before:?}"
        );
    }
}

#[test]
fn connections_of_a_subnet_that_went_are_ended() {
    let mut host = bare(false);
    apply(&plan(&filter(&BTreeSet::from([400]), true), &host), &mut host);
    let gone = plan(&filter(&BTreeSet::from([110]), false), &host);
    assert_eq!(blocks(&gone), ["10.60.7.0/24"]);
}

#[test]
fn connections_of_a_guest_that_went_are_ended_while_others_use_the_nat() {
    let mut host = bare(false);
    apply(&plan(&internet_for([(0, 1), (1, 2)]), &host), &mut host);
    let gone = plan(&internet_for([(1, 2)]), &host);
    assert_eq!(blocks(&gone), ["10.60.7.10/32"]);
    apply(&gone, &mut host);
    assert!(plan(&internet_for([(1, 2)]), &host).is_empty());
}

#[test]
fn connections_of_an_address_that_another_guest_has_now_are_ended() {
    let mut host = bare(false);
    apply(&plan(&internet_for([(0, 1)]), &host), &mut host);
    assert_eq!(blocks(&plan(&internet_for([(0, 2)]), &host)), ["10.60.7.10/32"]);
}

#[test]
fn what_was_not_ended_before_a_restart_is_ended_after_it() {
    let (both, one) = (internet_for([(0, 1), (1, 2)]), internet_for([(1, 2)]));
    let mut host = bare(false);
    apply(&plan(&both, &host), &mut host);
    apply_until_killed(&plan(&one, &host), &mut host);
    let noted = serde_json::to_string(&host.record).unwrap();
    host.record = serde_json::from_str(&noted).unwrap();
    assert_eq!(blocks(&plan(&one, &host)), ["10.60.7.10/32"]);
}

#[test]
fn neighbours_are_forgotten_in_as_few_blocks_as_they_make_and_a_whole_subnet_in_one() {
    let mut host = bare(false);
    apply(&plan(&internet_for((0..241).map(|n| (n, n))), &host), &mut host);
    let all = plan(&internet_for([]), &host);
    assert!(all.forget.len() <= 12, "{:?}", blocks(&all));
    assert_eq!(blocks(&plan(&filter(&BTreeSet::new(), false), &host)), ["10.60.7.0/24"]);
}

#[test]
fn a_nat_says_what_is_wrong() {
    let wanted = filter(&BTreeSet::from([400]), true);
    let mut host = bare(false);
    apply(&plan(&wanted, &host), &mut host);
    let check = |host: &Observed, gateway: Option<&str>| {
        let (state, reason, _) = judge(&nat(), &wanted, host, gateway);
        (state, reason)
    };
    assert_eq!(check(&host, None), (State::Ready, String::new()));
    assert_eq!(check(&host, Some("it is down")).0, State::Degraded);
    let uplink = |exists, up, default_route| Observed {
        uplink: Uplink {
            name: "ens3".into(),
            exists,
            up,
            default_route,
            beside: BTreeSet::from(["203.0.113.0/24".parse().unwrap()]),
        },
        ..host.clone()
    };
    assert_eq!(check(&uplink(false, false, false), None).0, State::Failed);
    assert_eq!(
        check(&uplink(true, false, false), None),
        (State::Failed, "the uplink ens3 is down".into())
    );
    let (state, reason) = check(&uplink(true, true, false), None);
    assert!(
        state == State::Degraded && reason.contains("no default route through ens3"),
        "{reason}"
    );
    let mut bare_uplink = uplink(true, true, false);
    bare_uplink.uplink.beside.clear();
    let (state, reason) = check(&bare_uplink, None);
    assert!(
        state == State::Degraded && reason.starts_with("the uplink ens3 has no address and there is no default route"),
        "{reason}"
    );
    let docker = Observed {
        dropping: vec!["ip filter FORWARD".into()],
        ..host.clone()
    };
    let (state, reason) = check(&docker, None);
    assert!(
        state == State::Degraded && reason.contains("ip filter FORWARD"),
        "{reason}"
    );
    let crowded = Observed {
        limits: limits::Seen {
            refused: BTreeSet::from([reservation(400, 1000, 0, "web", false).address]),
            ..host.limits.clone()
        },
        ..host.clone()
    };
    let (state, reason) = check(&crowded, None);
    assert!(
        state == State::Degraded && reason.starts_with("10.60.7.10 had 4096 "),
        "{reason}"
    );
    let unlimited = Observed {
        limits: limits::Seen::default(),
        ..host.clone()
    };
    let (state, reason) = check(&unlimited, None);
    assert!(
        state == State::Failed && reason.contains("trunkline-connections"),
        "{reason}"
    );
    let off = Observed {
        forwarding: Forwarding {
            on: false,
            before: Some(false),
        },
        ..host.clone()
    };
    assert_eq!(check(&off, None), (State::Failed, "net.ipv4.ip_forward is 0".into()));
    assert_eq!(check(&bare(true), None).0, State::Failed);
}
