//! What the first look of a pass found other than it should be, in words, and what it found left over. Pure. Whether it is news is for
//! the runtime to say.

use std::collections::BTreeSet;

use trunkline_agent::node::{Desired, Repair};
use trunkline_agent::orphans::Thing;
use trunkline_agent::switch::{self, Drift, ObservedPort};
use trunkline_proto::VlanId;
use trunkline_proto::resource::{Dhcp, Key, Spec};

use super::pass::{Look, Wanted};
use crate::dhcp::NamespaceState;
use crate::nat::Table;
use crate::{dhcp, gateway, nat};

pub(super) const SWITCH_PORT: &str = "switch port";
pub(super) const GATEWAY: &str = "gateway";
const GONE: &str = "its device was gone";
const NAMESPACE: &str = "namespace";
const DNSMASQ: &str = "dnsmasq";

/// Everything that is to be there.
pub(super) fn wanted(wanted: &Wanted) -> BTreeSet<Thing> {
    let uplink = wanted.switch.uplink.iter().map(|uplink| &uplink.name);
    let ports = wanted.switch.ports.keys().chain(uplink);
    let ports = ports.map(|name| Thing::new(SWITCH_PORT, name));
    let gateways = wanted.gateways.values().map(|g| Thing::new(GATEWAY, g.port().as_str()));
    let servers = wanted.servers.keys().flat_map(|vlan| server(*vlan));
    ports.chain(gateways).chain(servers).collect()
}

/// How many of the things that are wanted are there.
pub(super) fn there(wanted: &BTreeSet<Thing>, look: &Look) -> usize {
    let ours = look.servers.sites.iter();
    let ours = ours.filter(|(_, site)| site.namespace == NamespaceState::Ours);
    let servers: BTreeSet<Thing> = ours.flat_map(|(vlan, _)| server(*vlan)).collect();
    let is_there = |thing: &&Thing| match thing.kind {
        NAMESPACE | DNSMASQ => servers.contains(*thing),
        _ => look.switch.port(&thing.name).is_some(),
    };
    wanted.iter().filter(is_there).count()
}

/// What carries our mark and is not. An uplink of before is none: two at once could make a loop.
pub(super) fn unwanted(wanted: &Wanted, look: &Look) -> BTreeSet<Thing> {
    let mut things = BTreeSet::new();
    if let Ok(plan) = switch::plan(&wanted.switch, &look.switch) {
        let replaced: BTreeSet<&str> = plan.add.iter().map(|add| &*add.name).collect();
        let leaves = |name: &&String| {
            let uplink = look.switch.port(name).is_some_and(ObservedPort::is_uplink);
            !replaced.contains(name.as_str()) && !uplink
        };
        let ports = plan.remove.iter().map(|removal| &removal.name).filter(leaves);
        things.extend(ports.map(|name| Thing::new(SWITCH_PORT, name)));
    }
    let is_wanted = |name: &str| wanted.gateways.values().any(|gateway| gateway.port().as_str() == name);
    let gateways = look.gateways.orphans.keys().filter(|name| !is_wanted(name));
    things.extend(gateways.map(|name| Thing::new(GATEWAY, name)));
    for (vlan, removal) in dhcp::plan(&wanted.servers, &look.servers).remove {
        let [namespace, dnsmasq] = server(vlan);
        things.extend(removal.namespace.then_some(namespace));
        things.extend((!removal.stop.is_empty() || removal.files).then_some(dnsmasq));
    }
    things
}

/// What a DHCP server consists of, besides its port.
pub(super) fn server(vlan: VlanId) -> [Thing; 2] {
    [
        Thing::new(NAMESPACE, Dhcp::namespace_of(vlan)),
        Thing::new(DNSMASQ, format!("vlan{vlan}")),
    ]
}

/// What was not as it should be, resource by resource.
pub(super) fn repairs(desired: &Desired, wanted: &Wanted, look: &Look) -> Vec<Repair> {
    let Ok(plan) = switch::plan(&wanted.switch, &look.switch) else {
        return Vec::new();
    };
    let switch = Drift::new(&wanted.switch, &look.switch, &plan);
    let behind_port = |port: &str, words: Vec<String>| {
        let row = switch.port(port);
        // Without its port everything behind it is made anew.
        if switch.is_gone(port) {
            row
        } else {
            [row, words].concat()
        }
    };
    let mut repairs = Vec::new();
    for (key, item) in &desired.items {
        let words = match &item.spec {
            Spec::Trunk(_) => switch.trunk(),
            Spec::Gateway(gateway) if look.lost.contains(&gateway.port()) => vec![GONE.to_owned()],
            Spec::Dhcp(dhcp) if look.lost.contains(&dhcp.port()) && is_in_place(look, dhcp.vlan) => {
                vec![GONE.to_owned()]
            }
            Spec::Gateway(gateway) => behind_port(gateway.port().as_str(), gateway::drift(gateway, &look.gateways)),
            Spec::Dhcp(dhcp) => {
                let site = look.servers.sites.get(&dhcp.vlan);
                let server = wanted.servers.get(&dhcp.vlan).zip(site);
                let words = server.map(|(wanted, site)| dhcp::drift(wanted, site));
                behind_port(dhcp.port().as_str(), words.unwrap_or_default())
            }
            Spec::Nat(_) | Spec::Port(_) | Spec::Flows(_) | Spec::Probe(_) => continue,
        };
        repairs.extend(Repair::all(key, words));
    }
    if let (Some(key), Ok(nat)) = (of_filter(desired), &look.nat) {
        repairs.extend(Repair::all(key, filter(nat, desired.nats().next().is_some())));
    }
    repairs
}

/// Without the namespace everything in it is gone as well, and that is another matter.
fn is_in_place(look: &Look, vlan: VlanId) -> bool {
    let site = look.servers.sites.get(&vlan);
    site.is_some_and(|site| site.namespace == NamespaceState::Ours)
}

/// The table is all gateways': told of once, by the NAT if there is one.
fn of_filter(desired: &Desired) -> Option<&Key> {
    let nat = desired.nats().next().map(|(key, _, _)| key);
    nat.or_else(|| desired.gateways().next().map(|(key, _, _)| key))
}

fn filter(observed: &nat::Observed, forwards: bool) -> Vec<String> {
    let mut words = Vec::new();
    // Only what was written to its end can have been changed since.
    if let (Some(_), Some(readback)) = (observed.record.noted.rendered, observed.record.noted.readback) {
        match &observed.table {
            Table::Absent => words.push("nftables table was gone".to_owned()),
            Table::Ours(seen) if !seen.whole => words.push("nftables table was gone".to_owned()),
            Table::Ours(seen) if seen.fingerprint != readback => {
                words.push("nftables table was not as rendered".to_owned());
            }
            // A stranger's is not touched, so nothing is put right.
            Table::Ours(_) | Table::Foreign(_) => {}
        }
    }
    if forwards && !observed.forwarding.on && observed.forwarding.before.is_some() {
        words.push("ip_forward was off".to_owned());
    }
    words
}
