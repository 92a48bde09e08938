//! What of a pass's repairs is news: only what was right before, in the same version, can have been changed behind our back. Pure.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_proto::{
    Hash,
    resource::{Key, Kind, Observation, Spec, State},
};

use crate::node::{Desired, Repair};

/// Most different things that are kept of one resource while it is not right again.
const WORDS: usize = 8;

/// What is remembered from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Drift {
    /// Versions that were right once, and what was made of them: an operator's word for what waited changes that alone.
    right: BTreeMap<Key, (Hash, Spec)>,
    /// True until the host was looked at: whether what an earlier process held was right is not known yet.
    unsure: bool,
    /// What was wrong with resources that are not right again yet.
    waiting: BTreeMap<Key, Vec<String>>,
}

impl Drift {
    /// What an earlier process held is taken to have been right.
    pub(super) fn after_start(desired: &Desired) -> Self {
        Self {
            right: desired
                .items
                .iter()
                .map(|(key, item)| (key.clone(), (item.hash, item.spec.clone())))
                .collect(),
            unsure: true,
            waiting: BTreeMap::new(),
        }
    }

    /// Takes what a pass found and did, and what it saw at its end; answers what is right again.
    pub(super) fn news(&mut self, desired: &Desired, repairs: Vec<Repair>, seen: &[Observation]) -> Vec<Repair> {
        self.right.retain(|key, (hash, spec)| {
            let item = desired.items.get(key);
            item.is_some_and(|item| item.hash == *hash && item.spec == *spec)
        });
        self.waiting.retain(|key, _| self.right.contains_key(key));
        for Repair { key, what } in repairs {
            if self.right.contains_key(&key) {
                let words = self.waiting.entry(key).or_default();
                if words.len() < WORDS && !words.contains(&what) {
                    words.push(what);
                }
            }
        }
        let mut news = Vec::new();
        for observation in seen {
            let Observation { key, hash, .. } = observation;
            let item = desired.items.get(key).filter(|item| item.hash == *hash);
            let Some(item) = item.filter(|_| is_right(observation)) else {
                continue;
            };
            if !self.right.contains_key(key) {
                self.right.insert(key.clone(), (*hash, item.spec.clone()));
            }
            let words = self.waiting.remove(key);
            news.extend(words.map(|words| Repair {
                key: key.clone(),
                what: words.join("; "),
            }));
        }
        let blind = |o: &Observation| o.state == State::Unknown;
        if self.unsure && !seen.iter().any(blind) {
            self.unsure = false;
            let good = seen.iter().filter(|o| is_right(o));
            let good: BTreeSet<&Key> = good.map(|o| &o.key).collect();
            self.right
                .retain(|key, _| good.contains(key) || self.waiting.contains_key(key));
        }
        news
    }
}

/// As right as this node can make it. That frames come is for the other end.
fn is_right(observation: &Observation) -> bool {
    match observation.state {
        State::Ready | State::Degraded => true,
        State::Pending => observation.key.kind == Kind::Probe,
        State::Failed | State::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::resource::{Envelope, Trunk};

    use super::*;
    use crate::node::Item;

    fn desired(vlan: u32) -> Desired {
        let vlans = [trunkline_proto::VlanId::try_from(vlan).unwrap()].into();
        let spec = Spec::Trunk(Trunk { vlans });
        let Envelope { key, hash, .. } = Envelope::seal(&spec, "");
        let item = Item {
            spec,
            hash,
            traceparent: String::new(),
        };
        Desired {
            items: [(key, item)].into(),
            ..Desired::default()
        }
    }

    /// One pass: with a repair or without, and the state at its end.
    fn pass(drift: &mut Drift, desired: &Desired, what: &[&str], state: State) -> Vec<String> {
        let key = desired.items.keys().next().unwrap();
        let repairs = Repair::all(key, what.iter().map(|what| (*what).to_owned())).collect();
        let news = drift.news(desired, repairs, &desired.all(state, ""));
        news.into_iter().map(|repair| repair.what).collect()
    }

    #[test]
    fn a_change_that_was_asked_for_is_no_drift() {
        let mut drift = Drift::default();
        assert!(pass(&mut drift, &desired(110), &["there was no port"], State::Ready).is_empty());
        assert!(pass(&mut drift, &desired(111), &["tag was 110"], State::Ready).is_empty());
        assert_eq!(
            pass(&mut drift, &desired(111), &["tag was 7"], State::Ready),
            ["tag was 7"]
        );
        assert!(pass(&mut drift, &desired(111), &[], State::Ready).is_empty());
    }

    #[test]
    fn it_is_told_once_it_is_right_again_and_in_one_piece() {
        let mut drift = Drift::default();
        pass(&mut drift, &desired(110), &[], State::Ready);
        assert!(pass(&mut drift, &desired(110), &["TAP was gone"], State::Failed).is_empty());
        assert!(
            pass(
                &mut drift,
                &desired(110),
                &["TAP was gone", "port was old"],
                State::Unknown
            )
            .is_empty()
        );
        assert_eq!(
            pass(&mut drift, &desired(110), &[], State::Ready),
            ["TAP was gone; port was old"]
        );
    }

    #[test]
    fn a_new_version_meanwhile_ends_the_matter() {
        let mut drift = Drift::default();
        pass(&mut drift, &desired(110), &[], State::Ready);
        pass(&mut drift, &desired(110), &["TAP was gone"], State::Failed);
        assert!(pass(&mut drift, &desired(111), &["TAP was gone"], State::Ready).is_empty());
    }

    #[test]
    fn what_an_operator_confirmed_is_no_drift_though_the_version_is_the_same() {
        let mut waiting = desired(110);
        let item = waiting.items.values_mut().next().unwrap();
        let Spec::Trunk(trunk) = &mut item.spec else {
            unreachable!()
        };
        // Of something whose removal waits.
        trunk.vlans.insert(trunkline_proto::VlanId::try_from(120).unwrap());
        let mut drift = Drift::default();
        assert!(pass(&mut drift, &waiting, &[], State::Ready).is_empty());
        assert_eq!(pass(&mut drift, &waiting, &["no 120"], State::Ready), ["no 120"]);
        let confirmed = desired(110);
        assert!(pass(&mut drift, &confirmed, &["120 too many"], State::Ready).is_empty());
        assert_eq!(
            pass(&mut drift, &confirmed, &["120 too many"], State::Ready),
            ["120 too many"]
        );
    }

    #[test]
    fn what_an_earlier_process_held_was_right_until_a_look_says_otherwise() {
        let mut drift = Drift::after_start(&desired(110));
        assert!(pass(&mut drift, &desired(110), &[], State::Unknown).is_empty());
        assert_eq!(
            pass(&mut drift, &desired(110), &["TAP was gone"], State::Ready),
            ["TAP was gone"]
        );
        let mut drift = Drift::after_start(&desired(110));
        pass(&mut drift, &desired(110), &[], State::Failed);
        assert!(pass(&mut drift, &desired(110), &["it is made at last"], State::Ready).is_empty());
    }
}
