//! A model of the switch's tables for the compiler's tests: where a frame goes.

use std::collections::BTreeMap;

use crate::openflow::{Action, Field, FlowSet, VLAN_PRESENT, port};

/// A frame, as the fields that matches look at. A field that it does not have is not matched by any value.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame(pub(super) BTreeMap<Field, u64>);

impl Frame {
    pub(super) fn with(mut self, field: Field, value: impl Into<u64>) -> Self {
        self.0.insert(field, value.into());
        self
    }

    pub(super) fn get(&self, field: Field) -> Option<u64> {
        let always = matches!(field, Field::VlanVid | Field::Reg0 | Field::IpFrag);
        self.0.get(&field).copied().or(always.then_some(0))
    }

    pub(super) fn tag(&self) -> Option<u64> {
        let vid = self.get(Field::VlanVid).unwrap_or(0);
        (vid & u64::from(VLAN_PRESENT) != 0).then_some(vid & 0xfff)
    }
}

/// One way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exit {
    /// Out of this port, which may be `NORMAL`.
    pub(super) port: u32,
    /// With this tag.
    pub(super) tag: Option<u64>,
    /// Under this limit.
    pub(super) meter: Option<u32>,
}

impl Exit {
    pub(super) fn is_normal(&self) -> bool {
        self.port == port::NORMAL
    }
}

/// All ways that a frame takes. Panics where the tables do what this compiler never means.
pub(super) fn send(set: &FlowSet, frame: &Frame) -> Vec<Exit> {
    let (mut frame, mut table, mut exits) = (frame.clone(), 0, Vec::new());
    for _ in 0..10 {
        let hits = |(rule, _): &(&crate::openflow::Rule, _)| {
            let hit = |(field, value, mask): (Field, u64, u64)| frame.get(field).is_some_and(|had| had & mask == value);
            rule.table == table && rule.matches.fields().all(hit)
        };
        let found: Vec<_> = set.flows.iter().filter(hits).collect();
        let best = found.iter().map(|(rule, _)| rule.priority).max().unwrap();
        let mut found = found.iter().filter(|(rule, _)| rule.priority == best);
        let (_, (_, actions)) = found.next().unwrap();
        for (rule, (_, others)) in found {
            // Which of two equals wins is left to chance by the switch.
            assert_eq!(
                others, actions,
                "two flows of one priority disagree: {rule} for {frame:?}"
            );
        }
        for action in &actions.apply {
            match action {
                Action::Output(port) => exits.push(Exit {
                    port: *port,
                    tag: frame.tag(),
                    meter: actions.meter,
                }),
                Action::PushVlan => assert_eq!(frame.tag(), None, "two tags"),
                Action::PopVlan => drop(frame.0.remove(&Field::VlanVid).unwrap()),
                Action::SetField(field, value) => drop(frame.0.insert(*field, *value)),
                other => panic!("{other}"),
            }
        }
        match actions.goto {
            Some(next) => {
                assert!(next > table, "a way back from table {table}");
                table = next;
            }
            None => return exits,
        }
    }
    panic!("no end for {frame:?}")
}
