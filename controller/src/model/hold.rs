//! What nobody gets for a while after a restore.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde::{Deserialize, Serialize};
use trunkline_proto::{Name, VlanId};

use super::{Cluster, Position, Timestamp};

/// An export does not know what was given away after it was made, and a node that is cut off may still have it. So VLANs and addresses
/// of VLAN 400 that no draft and no deployed revision of the export holds are nobody's until every node that it knows has cleaned up under
/// the new term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Where the restored state begins: who is clean as of this has nothing left of what the export does not know.
    pub position: Position,
    /// VLANs that drafts and deployed revisions of the export hold.
    pub vlans: BTreeSet<VlanId>,
    /// Addresses of VLAN 400 that they hold.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Nodes that have not said that they are clean.
    pub waiting: BTreeSet<Name>,
    /// Set once nobody is waited for.
    pub free_at: Option<Timestamp>,
}

impl Hold {
    /// What is being waited for, in words.
    pub fn reason(&self) -> String {
        let until = match self.free_at {
            Some(at) => format!("until {at}"),
            None => {
                let names: Vec<&str> = self.waiting.iter().map(Name::as_str).collect();
                let names = names.join(", ");
                format!(
                    "until these nodes have reported that they are clean, and a while longer: {names}; start them, confirm what one holds back with \
                     `trunkctl node confirm NODE`, or remove a node that is gone for good"
                )
            }
        };
        format!("after the restore, what the export did not hold is not given out {until}")
    }
}

impl Cluster {
    /// This state, from an export, in force again under a new term. Every node is to hear of the term, also one that has nothing to
    /// change, so that it says that it is clean.
    #[must_use]
    pub fn restored(mut self, term: u64) -> Self {
        self.meta.term = term;
        let position = self.position();
        for record in self.nodes.values_mut() {
            record.changed = position;
            // What became of it after the export was made is not known.
            record.gone = None;
        }
        let (mut vlans, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for slice in self.slices.values() {
            let frozen = slice.deployed();
            let links = slice
                .links
                .values()
                .chain(frozen.into_iter().flat_map(|f| f.links.values()));
            vlans.extend(links.map(|link| link.vlan));
            let vms = slice
                .vms
                .values()
                .chain(frozen.into_iter().flat_map(|f| f.vms.values()));
            let interfaces = vms.flat_map(|vm| &vm.interfaces);
            addresses.extend(
                interfaces
                    .filter(|i| i.vlan == Some(VlanId::INTERNET))
                    .filter_map(|i| i.address),
            );
        }
        // What was departing then may have been free soon after, and have been given to anybody.
        self.meta.hold = Some(Hold {
            position,
            vlans,
            addresses,
            waiting: self.nodes.keys().cloned().collect(),
            free_at: None,
        });
        self
    }

    /// True while something is kept from everybody until this node says that it is clean.
    pub fn awaits(&self, node: &Name) -> bool {
        let held = self.meta.hold.as_ref().is_some_and(|hold| hold.waiting.contains(node));
        held || self
            .departures
            .values()
            .any(|departure| departure.waiting.contains_key(node))
    }
}
