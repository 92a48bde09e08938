//! The expected table: what is tried, by whom, and who must not hear of it. Each row that must be dropped names the row
//! that must pass in its place.

mod deeper;
mod rows;
mod uplink;

pub use deeper::{DEEPER, DHCP_TAKEN_AWAY, FRAGMENTS, PARTS};
pub use rows::{DHCP_IN_ANOTHERS_NAME, HONEST, HOSTILE, STORMS, TAGS};
pub use uplink::UPLINK;

use super::what::What;
use super::world::Kind;

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// The interface it is meant for hears it, whatever else happens.
    Reaches,
    /// Every other interface on the VLAN hears it, or the one that it is for.
    ReachesPeers,
    /// It is answered.
    Answered,
    /// The sender's own network stack takes it: a host's datagram to itself.
    Heard,
    /// Nobody outside the sender's VLAN hears it, and none but a guest of that VLAN answers.
    Confined,
    /// As `Confined`, and no other guest hears it either.
    NoGuest,
    /// As `NoGuest`, but the sender may be answered.
    NoOther,
    /// As `NoGuest`, and it does not leave the network node either.
    Inside,
    /// Nobody hears it at all: it ends at the sender's own port.
    Dropped,
    /// A part of it reaches the peers, or the gateway where peers are kept apart: the limit bites, and shows. Nothing of
    /// it is heard by anybody else.
    Limited,
}

impl Expect {
    /// Must something pass?
    pub fn passes(self) -> bool {
        matches!(self, Self::Reaches | Self::ReachesPeers | Self::Answered | Self::Heard)
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name.
    pub id: &'static str,
    /// From which interfaces.
    pub from: &'static [Kind],
    /// What.
    pub what: What,
    /// What must come of it.
    pub expect: Expect,
    /// The row that must pass, so that a dead wire cannot look like a safe one. Empty for a row that passes itself.
    pub twin: &'static str,
}

const fn pass(id: &'static str, from: &'static [Kind], what: What, expect: Expect) -> Rule {
    let twin = "";
    Rule {
        id,
        from,
        what,
        expect,
        twin,
    }
}

const fn rule(id: &'static str, from: &'static [Kind], what: What, expect: Expect, twin: &'static str) -> Rule {
    Rule {
        id,
        from,
        what,
        expect,
        twin,
    }
}

/// Every row that must not pass.
pub fn hostile() -> impl Iterator<Item = &'static Rule> {
    let usual = HOSTILE.iter().chain(DEEPER).chain(PARTS).chain(UPLINK).chain(TAGS);
    usual.chain(STORMS).chain(FRAGMENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_that_must_not_pass_has_a_twin_that_must() {
        for row in hostile() {
            assert!(!row.expect.passes(), "{}", row.id);
            let twin = HONEST.iter().find(|honest| honest.id == row.twin);
            assert!(twin.is_some_and(|twin| twin.expect.passes()), "{}", row.id);
        }
    }

    #[test]
    fn no_two_rows_have_one_name() {
        let rows = || HONEST.iter().chain(hostile());
        let names: std::collections::BTreeSet<&str> = rows().map(|row| row.id).collect();
        assert_eq!(names.len(), rows().count());
    }

    #[test]
    fn every_kind_of_interface_is_attacked_from() {
        use Kind::{Internet, Nowhere, Plain, Protected, Secure, Wire};
        for kind in &[Plain, Secure, Protected, Internet, Nowhere, Wire] {
            assert!(hostile().filter(|row| row.from.contains(kind)).count() > 4, "{kind:?}");
        }
    }
}
