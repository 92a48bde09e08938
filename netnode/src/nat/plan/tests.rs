#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::nat::observe::Uplink;
use crate::testing::{gateway, nat, uplink};

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
        },
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
    match &plan.table {
        TableStep::Keep => {}
        TableStep::Delete => observed.table = Table::Absent,
        TableStep::Replace { rendered, .. } => {
            observed.table = Table::Ours(Readback {
                fingerprint: *rendered,
                counters: BTreeMap::new(),
            });
            observed.record.rendered = Some(*rendered);
            observed.record.readback = Some(*rendered);
        }
    }
    observed.record.subnets.clone_from(&plan.subnets);
}

fn filter(gateways: &BTreeSet<u32>, internet: bool) -> Filter {
    let gateways: Vec<_> = gateways.iter().map(|id| gateway(*id)).collect();
    let nats = if internet { vec![nat()] } else { Vec::new() };
    Filter::new(&uplink(), &gateways, &nats, &BTreeSet::new())
}

fn filters() -> impl Strategy<Value = Filter> {
    (proptest::collection::btree_set(1_u32..4095, 0..6), any::<bool>())
        .prop_map(|(ids, internet)| filter(&ids, internet))
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
        prop_assert!(host.record.subnets.is_empty());
        prop_assert_eq!(Observed { record: Record::default(), ..host }, bare(on));
    }

    #[test]
    fn a_strangers_table_of_our_name_is_left_alone(wanted in filters()) {
        let host = Observed { table: Table::Foreign, ..bare(false) };
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
    assert_eq!(gone.forget, BTreeSet::from([nat().subnet]));
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
    let docker = Observed {
        dropping: vec!["ip filter FORWARD".into()],
        ..host.clone()
    };
    let (state, reason) = check(&docker, None);
    assert!(
        state == State::Degraded && reason.contains("ip filter FORWARD"),
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
