#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use trunkline_proto::{Hash, resource::State};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const MILLION: usize = 1_000_000;

fn path() -> wire::ProbePath {
    wire::ProbePath {
        peer: "w2".into(),
        largest: 1500,
        loss_permille: 1000,
        round_trip_us: 1,
        last_seen_ms: 1_700_000_000_000,
        largest_heard: 65_535,
    }
}

fn probe(paths: Vec<wire::ProbePath>) -> Facts {
    Facts::Probe(wire::ProbeFacts { paths, period_ms: 1000 })
}

fn lease() -> wire::LeaseFacts {
    wire::LeaseFacts {
        mac: "52:54:00:03:ea:01".into(),
        address: "10.60.7.10".into(),
        expires: 1_700_003_600,
    }
}

fn storm() -> wire::StormFacts {
    wire::StormFacts {
        port: "tap_1002_eth1".into(),
        dropped: 17,
    }
}

/// What a node of good faith says, one of each kind.
fn good() -> Vec<Facts> {
    vec![
        Facts::Port(wire::PortFacts {
            exists: true,
            up: true,
            ofport: 65_279,
            tag: 4095,
            carrier: true,
            received: 1 << 50,
        }),
        Facts::Port(wire::PortFacts {
            ofport: -1,
            tag: -1,
            ..wire::PortFacts::default()
        }),
        Facts::Trunk(wire::TrunkFacts {
            interface: "ens3".into(),
            vlans: (1..=4095).collect(),
            up: true,
        }),
        Facts::Gateway(wire::GatewayFacts {
            up: true,
            ofport: 3,
            addresses: vec!["10.64.110.1/24".into(), "fe80::5054:ff:fe03:ea01/64".into()],
        }),
        Facts::Dhcp(wire::DhcpFacts {
            pid: 4_194_303,
            leases: 4094,
            current: true,
            held: vec![lease(), wire::LeaseFacts { expires: 0, ..lease() }],
        }),
        Facts::Nat(wire::NatFacts {
            uplink: "ens3".into(),
            packets: 1 << 60,
            bytes: 1 << 62,
            forwarding: true,
        }),
        Facts::Flows(wire::FlowsFacts {
            flows: 90_000,
            storms: vec![storm()],
        }),
        probe(vec![path()]),
    ]
}

fn kind(facts: &Facts) -> Kind {
    match facts {
        Facts::Port(_) => Kind::Port,
        Facts::Trunk(_) => Kind::Trunk,
        Facts::Gateway(_) => Kind::Gateway,
        Facts::Dhcp(_) => Kind::Dhcp,
        Facts::Nat(_) => Kind::Nat,
        Facts::Flows(_) => Kind::Flows,
        Facts::Probe(_) => Kind::Probe,
    }
}

fn seen(kind: Kind, facts: Facts) -> Observation {
    let key = Key {
        kind,
        name: "it".parse().unwrap(),
    };
    Observation {
        key,
        hash: Hash::of(b"it"),
        state: State::Degraded,
        reason: String::new(),
        facts: Some(facts),
    }
}

fn judged(mut facts: Facts) -> Result<u64, &'static str> {
    let mut whole = seen(kind(&facts), facts.clone());
    let judged = self::facts(&mut facts, NOW);
    match (observation(&mut whole, NOW), judged) {
        (Ok((CLOCK, unknown)), Ok(count)) => assert_eq!((unknown, whole.facts), (count, Some(facts))),
        (Ok((TOO_LONG, 1)), Err(TOO_LONG)) => assert_eq!(whole.facts, None, "the state counts"),
        (Err(IMPOSSIBLE), Err(IMPOSSIBLE)) => {}
        other => panic!("{other:?}"),
    }
    judged
}

/// One kind's facts with something changed.
macro_rules! but {
    ($kind:ident, |$facts:ident| $change:expr) => {{
        let mut all = good().into_iter();
        let Some(Facts::$kind(mut $facts)) = all.find(|facts| kind(facts) == Kind::$kind) else {
            unreachable!()
        };
        $change;
        Facts::$kind($facts)
    }};
}

#[test]
fn what_a_node_of_good_faith_says_is_taken() {
    for facts in good() {
        assert_eq!(judged(facts.clone()), Ok(0), "{facts:?}");
    }
}

#[test]
fn no_value_that_cannot_be_is_taken() {
    let with = |change: fn(&mut wire::ProbePath)| {
        let mut path = path();
        change(&mut path);
        probe(vec![self::path(), path])
    };
    let impossible = [
        but!(Port, |f| f.ofport = -2),
        but!(Port, |f| f.ofport = 65_536),
        but!(Port, |f| f.ofport = i32::MIN),
        but!(Port, |f| f.tag = -2),
        but!(Port, |f| f.tag = 4096),
        but!(Port, |f| f.received = u64::MAX),
        but!(Trunk, |f| f.vlans.push(4096)),
        but!(Trunk, |f| f.vlans = vec![u32::MAX]),
        but!(Gateway, |f| f.ofport = i32::MAX),
        but!(Dhcp, |f| f.pid = u32::MAX),
        but!(Dhcp, |f| f.leases = u32::MAX),
        but!(Dhcp, |f| f.held[0].mac = "nobody".into()),
        but!(Dhcp, |f| f.held[1].mac = "5".repeat(1 << 20)),
        but!(Dhcp, |f| f.held[0].address = "10.60.7.300".into()),
        but!(Dhcp, |f| f.held[0].address = "\u{1b}[2J".into()),
        but!(Dhcp, |f| f.held[0].expires = u64::MAX),
        but!(Nat, |f| f.packets = u64::MAX),
        but!(Nat, |f| f.bytes = 1 << 63),
        but!(Flows, |f| f.flows = u32::MAX),
        but!(Flows, |f| f.storms[0].dropped = u64::MAX),
        but!(Probe, |f| f.period_ms = u32::MAX),
        with(|p| p.peer = "../w2".into()),
        with(|p| p.largest = 65_536),
        with(|p| p.largest_heard = u32::MAX),
        with(|p| p.loss_permille = 1001),
    ];
    for facts in impossible {
        assert_eq!(judged(facts.clone()), Err(IMPOSSIBLE), "{facts:?}");
    }
}

#[test]
fn no_text_and_no_list_is_longer_than_it_can_be() {
    let long = "x".repeat(1 << 20);
    let too_long = [
        but!(Trunk, |f| f.interface = long.clone()),
        but!(Trunk, |f| f.interface = "ens\n3".into()),
        but!(Gateway, |f| f.addresses[0] = long.clone()),
        but!(Gateway, |f| f.addresses[0] = "10.0.0.1\u{7}".into()),
        but!(Nat, |f| f.uplink = long.clone()),
        but!(Flows, |f| f.storms[0].port = long.clone()),
        // A million items, wherever there is a list.
        but!(Trunk, |f| f.vlans = vec![1; MILLION]),
        but!(Gateway, |f| f.addresses = vec![String::new(); MILLION]),
        but!(Dhcp, |f| f.held = vec![wire::LeaseFacts::default(); MILLION]),
        but!(Flows, |f| f.storms = vec![wire::StormFacts::default(); MILLION]),
        but!(Probe, |f| f.paths = vec![wire::ProbePath::default(); MILLION]),
    ];
    for facts in too_long {
        assert_eq!(judged(facts), Err(TOO_LONG));
    }
}

#[test]
fn a_wrong_clock_makes_a_time_unknown_and_nothing_else() {
    let days = |n: u64| 1_700_000_000_000 + n * 86_400_000;
    let at = |last_seen_ms| wire::ProbePath { last_seen_ms, ..path() };
    for (ahead, unknown) in [(days(29), 0), (days(31), 1), (days(40_000), 1), (u64::MAX, 1)] {
        let mut said = probe(vec![at(ahead), path()]);
        assert_eq!(facts(&mut said, NOW), Ok(unknown), "{ahead}");
        let kept = if unknown == 0 { ahead } else { 0 };
        assert_eq!(said, probe(vec![at(kept), path()]), "all the rest counts");
    }
    let mut slow = probe(vec![wire::ProbePath {
        round_trip_us: u32::MAX,
        ..path()
    }]);
    assert_eq!(facts(&mut slow, NOW), Ok(1));
    let unknown = wire::ProbePath {
        round_trip_us: 0,
        ..path()
    };
    assert_eq!(slow, probe(vec![unknown]));
}

#[test]
fn facts_are_of_the_kind_that_the_key_names() {
    for facts in good() {
        for kind in [
            Kind::Port,
            Kind::Trunk,
            Kind::Gateway,
            Kind::Dhcp,
            Kind::Nat,
            Kind::Flows,
            Kind::Probe,
        ] {
            let fits = kind == self::kind(&facts);
            let mut said = seen(kind, facts.clone());
            let judged = observation(&mut said, NOW).unwrap();
            let expected = if fits { (CLOCK, 0) } else { (OTHER_KIND, 1) };
            assert_eq!((judged, said.facts.is_some()), (expected, fits), "{kind} {facts:?}");
        }
        let unknown = observation(&mut seen(Kind::Other(77), facts), NOW);
        assert_eq!(unknown, Ok((OTHER_KIND, 1)));
    }
}

#[test]
fn a_reason_is_one_line_without_control_characters() {
    let mut said = seen(Kind::Port, good().remove(0));
    said.reason = "one\ntwo\u{1b}[31m".into();
    observation(&mut said, NOW).unwrap();
    assert_eq!(said.reason, "one two [31m");
}

#[test]
fn a_repair_has_words_and_a_time_that_can_be() {
    let at = |seconds| time(Some(prost_types::Timestamp { seconds, nanos: 0 }), NOW);
    assert_eq!(time(None, NOW), Some(NOW));
    assert_eq!(
        at(1_700_086_400),
        Some(Timestamp::from_millis(1_700_086_400_000)),
        "a clock a day ahead"
    );
    assert_eq!(at(9_999_999_999), None);
    assert_eq!(at(i64::MAX), None);
    assert!(words("tag") && words(&"x".repeat(TEXT)));
    assert!(!words("") && !words(&"x".repeat(TEXT + 1)));
}

proptest! {
    /// Whatever numbers a node makes up, what is taken of them can be shown as times and kept as gauges.
    #[test]
    fn whatever_is_taken_lies_within_bounds(
        (ofport, tag, received) in any::<(i32, i32, u64)>(),
        (largest, loss, trip, seen, heard, period) in any::<(u32, u32, u32, u64, u32, u32)>(),
        (pid, leases, expires) in any::<(u32, u32, u64)>(),
    ) {
        let mut port = but!(Port, |f| (f.ofport, f.tag, f.received) = (ofport, tag, received));
        if facts(&mut port, NOW).is_ok() {
            prop_assert!((-1..=65_535).contains(&ofport) && (-1..=4095).contains(&tag) && i64::try_from(received).is_ok());
        }
        let path = wire::ProbePath { peer: "w2".into(), largest, loss_permille: loss, round_trip_us: trip, last_seen_ms: seen, largest_heard: heard };
        let mut said = Facts::Probe(wire::ProbeFacts { paths: vec![path], period_ms: period });
        if facts(&mut said, NOW).is_ok() {
            let Facts::Probe(said) = said else { unreachable!() };
            let kept = &said.paths[0];
            let at = Timestamp::from_millis(i64::try_from(kept.last_seen_ms).unwrap());
            prop_assert!(at.is_credible(NOW) && kept.round_trip_us <= ROUND_TRIP && kept.largest <= PAYLOAD && kept.loss_permille <= 1000);
        }
        let mut dhcp = but!(Dhcp, |f| (f.pid, f.leases, f.held[0].expires) = (pid, leases, expires));
        if facts(&mut dhcp, NOW).is_ok() {
            prop_assert!(pid <= PID && leases <= 65_536 && expires <= LEASE_END);
        }
    }
}
