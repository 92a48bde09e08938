//! The last look before a change is stored: rules over the whole of what is deployed, checked without the bookkeeping that was
//! meant to keep them. A failure is a bug of ours, and nothing is stored.

mod probes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use trunkline_proto::{
    LinkSubnet, Mac, Name, VlanId,
    resource::{Flows, Key, Kind, Spec, Trunk},
};

use crate::{
    compile::{Desired, NodeDesired},
    model::{Cluster, Link, Vm},
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
) -> Result<(), CheckError> {
    let mut seen = Seen {
        settings,
        vlans: BTreeMap::new(),
        protection: [(VlanId::INTERNET, Protection::ALL)].into(),
        macs: BTreeSet::new(),
        addresses: BTreeSet::new(),
        subnets: vec![settings.internet_subnet],
    };
    for (slice, frozen) in cluster.deployed() {
        for link in frozen.links.values() {
            seen.link(&slice.name, link)?;
        }
        for vm in frozen.vms.values() {
            seen.vm(&slice.name, vm, |name| frozen.links.get(name).map(AsRef::as_ref))?;
        }
    }
    let names: Vec<&Name> = touched.clone().into_iter().collect();
    let needed = needed(cluster, &names);
    let one = |name: &&Name| {
        let (Some(node), before) = (desired.node(name), before.node(name)) else {
            return Ok(());
        };
        let carried = readable(name, node, before.map(AsRef::as_ref), &seen.protection)?;
        let none = BTreeSet::new();
        let needed = needed.get(name).unwrap_or(&none);
        if carried != *needed {
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
        || probes::check(cluster, desired, before, touched),
        || parallel::map(&names, weight, one),
    );
    nodes.into_iter().collect::<Result<(), _>>()?;
    probes?;
    seen.subnets()
}

/// What a VLAN's guests are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Protection {
    port_security: bool,
    protected: bool,
}

impl Protection {
    const ALL: Self = Self {
        port_security: true,
        protected: true,
    };
}

struct Seen<'a> {
    settings: &'a Settings,
    vlans: BTreeMap<VlanId, String>,
    protection: BTreeMap<VlanId, Protection>,
    macs: BTreeSet<Mac>,
    addresses: BTreeSet<(VlanId, Ipv4Addr)>,
    subnets: Vec<LinkSubnet>,
}

impl Seen<'_> {
    fn link(&mut self, slice: &Name, link: &Link) -> Result<(), CheckError> {
        let (name, vlan) = (format!("{slice}/{}", link.name), link.vlan);
        if self.settings.is_reserved(vlan) {
            return Err(CheckError::Reserved { link: name, vlan });
        }
        if let Some(one) = self.vlans.insert(vlan, name.clone()) {
            return Err(CheckError::Vlan { vlan, one, other: name });
        }
        let protection = Protection {
            port_security: link.port_security,
            protected: link.protected,
        };
        self.protection.insert(vlan, protection);
        self.subnets.push(link.subnet);
        Ok(())
    }

    fn vm<'l>(&mut self, slice: &Name, vm: &Vm, link: impl Fn(&Name) -> Option<&'l Link>) -> Result<(), CheckError> {
        for interface in &vm.interfaces {
            let internet = vm.internet && interface.name.index() == 0;
            let link = interface.link.as_ref().and_then(&link);
            let (vlan, subnet) = match link {
                _ if internet => (Some(VlanId::INTERNET), Some(self.settings.internet_subnet)),
                Some(link) => (Some(link.vlan), Some(link.subnet)),
                None => (None, None),
            };
            if interface.vlan != vlan || interface.link.is_some() != (link.is_some()) {
                let interface = format!("{slice}/{}.{}", vm.name, interface.name);
                return Err(CheckError::Interface { interface });
            }
            if !self.macs.insert(interface.mac) {
                return Err(CheckError::Mac(interface.mac));
            }
            if let (Some(vlan), Some(subnet), Some(address)) = (vlan, subnet, interface.address) {
                if !subnet.holds_guest(address) {
                    return Err(CheckError::Outside { address, subnet });
                }
                if !self.addresses.insert((vlan, address)) {
                    return Err(CheckError::Address { address, vlan });
                }
            }
        }
        Ok(())
    }

    /// Sorted by their first address, subnets overlap only if neighbours do.
    fn subnets(mut self) -> Result<(), CheckError> {
        self.subnets.sort_by_key(|s| s.net().network());
        for pair in self.subnets.windows(2) {
            if let [one, other] = *pair
                && one.overlaps(other.net())
            {
                return Err(CheckError::Subnets { one, other });
            }
        }
        Ok(())
    }
}

/// Opens the trunk and what is new, and gives back the VLANs that the trunk carries.
fn readable(
    name: &Name,
    node: &NodeDesired,
    before: Option<&NodeDesired>,
    protection: &BTreeMap<VlanId, Protection>,
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
                if protection.get(&flows.vlan) != Some(&held_to) {
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

/// The VLANs of these nodes, from the deployed revisions alone.
fn needed<'a>(cluster: &Cluster, nodes: &[&'a Name]) -> BTreeMap<&'a Name, BTreeSet<VlanId>> {
    let mut needed: BTreeMap<&Name, BTreeSet<VlanId>> = nodes.iter().map(|node| (*node, BTreeSet::new())).collect();
    let netnode = cluster.meta.netnode.as_ref();
    let mut all = netnode.and_then(|netnode| needed.remove(netnode));
    for vm in cluster.deployed().flat_map(|(_, frozen)| frozen.vms.values()) {
        let vlans = || vm.interfaces.iter().filter_map(|interface| interface.vlan);
        if let Some(all) = &mut all {
            all.extend(vlans());
        }
        if let Some(here) = needed.get_mut(&vm.worker) {
            here.extend(vlans());
        }
    }
    let netnode = nodes.iter().find(|node| Some(**node) == netnode);
    needed.extend(netnode.copied().zip(all));
    needed
}
