//! The last look before a change is stored: rules over the whole of what is deployed, checked without the bookkeeping that was
//! meant to keep them. A failure is a bug of ours, and nothing is stored.

mod index;
mod probes;

use std::{collections::BTreeSet, net::Ipv4Addr};

pub use index::Index;
use index::Protection;

use trunkline_proto::{
    LinkSubnet, Mac, Name, VlanId,
    resource::{Flows, Key, Kind, Spec, Trunk},
};

use crate::{
    compile::{Desired, NodeDesired},
    model::Cluster,
    parallel,
    settings::Settings,
};

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Frames of one would reach the other.
    #[error("vlan {vlan} is in two places: {one} and {other}")]
    Vlan {
        /// The VLAN.
        vlan: VlanId,
        /// Who has it.
        one: String,
        /// Who has it too.
        other: String,
    },
    /// A VLAN that no link may have.
    #[error("{link} has the reserved vlan {vlan}")]
    Reserved {
        /// The link.
        link: String,
        /// Its VLAN.
        vlan: VlanId,
    },
    /// Two interfaces with one MAC.
    #[error("mac {0} is in use twice")]
    Mac(Mac),
    /// Two guests with one address on one VLAN.
    #[error("address {address} is in use twice on vlan {vlan}")]
    Address {
        /// The address.
        address: Ipv4Addr,
        /// The VLAN.
        vlan: VlanId,
    },
    /// An address that its subnet does not give to guests.
    #[error("address {address} is not one for guests in {subnet}")]
    Outside {
        /// The address.
        address: Ipv4Addr,
        /// The subnet.
        subnet: LinkSubnet,
    },
    /// Two subnets share addresses.
    #[error("subnets {one} and {other} overlap")]
    Subnets {
        /// The lower one.
        one: LinkSubnet,
        /// The other.
        other: LinkSubnet,
    },
    /// An interface says another VLAN than its link, or none where it must.
    #[error("{interface} does not have the vlan of its link")]
    Interface {
        /// `shop/web.eth1`.
        interface: String,
    },
    /// A node's uplink does not carry just what the node's resources need.
    #[error("the trunk of {node} does not carry just the vlans of its resources")]
    Trunk {
        /// The node.
        node: Name,
    },
    /// A worker's guests would send under no rules, or under others than were asked for.
    #[error("the flows of {node} are not just those of the vlans of its guests")]
    Flows {
        /// The node.
        node: Name,
    },
    /// A VLAN that joins nodes is not proved between just those that it joins, each way.
    #[error("{probe} of {node} does not agree with its peers' or with where the vlan is")]
    Probe {
        /// The node.
        node: Name,
        /// Which one.
        probe: Key,
    },
    /// A resource that a node could not read.
    #[error("a resource of {node} cannot be opened: {reason}")]
    Unreadable {
        /// The node.
        node: Name,
        /// What is wrong with it.
        reason: String,
    },
}

/// Checks all deployed revisions, and on the nodes that a change touched the trunk, the flows, the probes and every resource that was not there
/// `before`.
pub fn check<'a>(
    cluster: &Cluster,
    desired: &Desired,
    before: &Desired,
    touched: impl IntoIterator<Item = &'a Name> + Clone,
    settings: &Settings,
) -> Result<Index, CheckError> {
    let index = Index::of(cluster, settings)?;
    check_nodes(&index, cluster, desired, before, touched)?;
    Ok(index)
}

/// The same after a change of `old`, of which this was the index.
pub fn check_change<'a>(
    (old, index): (&Cluster, &Index),
    cluster: &Cluster,
    desired: &Desired,
    before: &Desired,
    touched: impl IntoIterator<Item = &'a Name> + Clone,
    settings: &Settings,
) -> Result<Index, CheckError> {
    let index = index.follow(old, cluster, settings)?;
    check_nodes(&index, cluster, desired, before, touched)?;
    Ok(index)
}

fn check_nodes<'a>(
    index: &Index,
    cluster: &Cluster,
    desired: &Desired,
    before: &Desired,
    touched: impl IntoIterator<Item = &'a Name> + Clone,
) -> Result<(), CheckError> {
    let names: Vec<&Name> = touched.clone().into_iter().collect();
    let one = |name: &&Name| {
        let (Some(node), before) = (desired.node(name), before.node(name)) else {
            return Ok(());
        };
        let carried = readable(name, node, before.map(AsRef::as_ref), index)?;
        let needed = needed(index, cluster, name);
        if carried != needed {
            return Err(CheckError::Trunk { node: (*name).clone() });
        }
        // Guests are on workers only.
        let guests = cluster.meta.netnode.as_ref() != Some(*name);
        let wanted = needed.iter().filter(|_| guests).map(|vlan| Flows::name_of(*vlan));
        if flows(node) != wanted.collect() {
            return Err(CheckError::Flows { node: (*name).clone() });
        }
        Ok(())
    };
    // Those that are there already are only passed over.
    let new = |name: &&Name| {
        let count = |of: &Desired| of.node(name).map_or(0, |node| node.resources.len());
        count(desired).abs_diff(count(before))
    };
    let weight = names.iter().map(new).sum();
    let (probes, nodes) = parallel::both(
        weight,
        || probes::check(index, cluster, desired, before, touched),
        || parallel::map(&names, weight, one),
    );
    nodes.into_iter().collect::<Result<(), _>>()?;
    probes
}

/// Opens the trunk and what is new, and gives back the VLANs that the trunk carries.
fn readable(
    name: &Name,
    node: &NodeDesired,
    before: Option<&NodeDesired>,
    index: &Index,
) -> Result<BTreeSet<VlanId>, CheckError> {
    let mut carried = None;
    for (key, envelope) in &node.resources {
        let old = before.and_then(|b| b.resources.get(key));
        // The trunk is looked at in any case: what it carries must follow what the rest needs.
        if key.kind != Kind::Trunk && old.is_some_and(|o| o.hash == envelope.hash) {
            continue;
        }
        let spec = envelope.open().map_err(|problem| CheckError::Unreadable {
            node: name.clone(),
            reason: problem.to_string(),
        })?;
        match spec {
            Spec::Trunk(Trunk { vlans }) => carried = Some(vlans),
            Spec::Flows(flows) => {
                let held_to = Protection {
                    port_security: flows.port_security,
                    protected: flows.protected,
                };
                if index.protection(flows.vlan) != Some(held_to) {
                    return Err(CheckError::Flows { node: name.clone() });
                }
            }
            Spec::Port(_) | Spec::Gateway(_) | Spec::Dhcp(_) | Spec::Nat(_) | Spec::Probe(_) => {}
        }
    }
    carried.ok_or_else(|| CheckError::Trunk { node: name.clone() })
}

/// Names of a node's flows.
fn flows(node: &NodeDesired) -> BTreeSet<String> {
    let keys = node.resources.keys().filter(|key| key.kind == Kind::Flows);
    keys.map(|key| key.name.to_string()).collect()
}

/// The VLANs of a node, from the deployed revisions alone.
fn needed(index: &Index, cluster: &Cluster, node: &Name) -> BTreeSet<VlanId> {
    if cluster.meta.netnode.as_ref() == Some(node) {
        index.all_vlans().collect()
    } else {
        index.vlans(node).collect()
    }
}
