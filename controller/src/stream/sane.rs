//! What a node may say: values that cannot be are left out, by reason, before anything is made of them.

use trunkline_proto::{
    Name,
    resource::{Facts, Observation},
    wire,
};

use crate::model::Timestamp;

/// Longest text of a repair, in bytes: nodes cut theirs there.
const TEXT: usize = Observation::MAX_REASON;

/// Largest payload of an Ethernet frame that any device knows.
const PAYLOAD: u32 = 65_535;

/// Longest address in text: `fe80:...` and a scope.
const ADDRESS: usize = 64;

/// True when an observation's facts can be.
pub(super) fn facts(facts: &Facts, now: Timestamp) -> bool {
    match facts {
        Facts::Probe(probe) => probe.paths.iter().all(|path| self::path(path, now)),
        Facts::Dhcp(dhcp) => {
            let lease = |lease: &wire::LeaseFacts| lease.mac.len() <= ADDRESS && lease.address.len() <= ADDRESS;
            dhcp.held.iter().all(lease)
        }
        Facts::Port(port) => (-1..=4095).contains(&port.tag),
        _ => true,
    }
}

fn path(path: &wire::ProbePath, now: Timestamp) -> bool {
    let wire::ProbePath {
        peer,
        largest,
        loss_permille,
        round_trip_us: _,
        last_seen_ms,
        largest_heard,
    } = path;
    let seen = i64::try_from(*last_seen_ms).map(Timestamp::from_millis);
    peer.parse::<Name>().is_ok()
        && *largest <= PAYLOAD
        && *largest_heard <= PAYLOAD
        && *loss_permille <= 1000
        && seen.is_ok_and(|seen| seen.is_credible(now))
}

/// When a repair was made, if that and its words can be.
pub(super) fn repair(repair: &wire::Repair, now: Timestamp) -> Option<Timestamp> {
    let at = match repair.at {
        None => now,
        Some(at) => Timestamp::try_from(at).ok().filter(|at| at.is_credible(now))?,
    };
    (1..=TEXT).contains(&repair.what.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn probe(path: wire::ProbePath) -> Facts {
        Facts::Probe(wire::ProbeFacts {
            paths: vec![path],
            period_ms: 1000,
        })
    }

    #[test]
    fn what_a_probe_cannot_have_seen_is_refused() {
        let good = wire::ProbePath {
            peer: "w2".into(),
            largest: 1500,
            loss_permille: 1000,
            round_trip_us: 1,
            last_seen_ms: 1_700_000_000_000,
            largest_heard: 65_535,
        };
        assert!(facts(&probe(good.clone()), NOW));
        let with = |change: fn(&mut wire::ProbePath)| {
            let mut path = good.clone();
            change(&mut path);
            path
        };
        for bad in [
            with(|p| p.peer = "../w2".into()),
            with(|p| p.largest = 65_536),
            with(|p| p.largest_heard = u32::MAX),
            with(|p| p.loss_permille = 1001),
            with(|p| p.last_seen_ms = 4_000_000_000_000),
            with(|p| p.last_seen_ms = u64::MAX),
        ] {
            assert!(!facts(&probe(bad.clone()), NOW), "{bad:?}");
        }
    }

    #[test]
    fn a_repair_has_words_and_a_time_that_can_be() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let said = |what: &str, at| {
            let what = what.to_owned();
            repair(&wire::Repair { key: None, what, at }, NOW)
        };
        assert_eq!(said("tag", None), Some(NOW));
        assert_eq!(
            said("tag", at(1_700_086_400)),
            Some(Timestamp::from_millis(1_700_086_400_000)),
            "a clock a day ahead"
        );
        assert_eq!(said("tag", at(9_999_999_999)), None);
        assert_eq!(said("tag", at(i64::MAX)), None);
        assert_eq!(said("", None), None);
        assert_eq!(said(&"x".repeat(TEXT + 1), None), None);
    }
}
