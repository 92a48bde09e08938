//! Links: names, VLANs, subnets, and the addresses of their ends.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use trunkline_proto::{Endpoint, LinkSubnet, Name, VlanId};

use super::{LinkWork, Planner, Work};
use crate::{
    allocate::{AddressProblem, LinkConflict, Want, assign},
    intent::SliceIntent,
    model::{Link, Slice},
};

/// The sound links of a slice, each with its name and what it is today. A link without a name is the one that has these ends.
pub(super) fn named<'a>(intent: &'a SliceIntent, old: Option<&'a Slice>) -> Vec<LinkWork<'a>> {
    let old_links = || old.into_iter().flat_map(|s| s.links.values());
    let mut taken: BTreeSet<Name> = intent.links.iter().filter_map(|l| l.name.clone()).collect();
    let mut works = Vec::new();
    for link in intent.links.iter().filter(|l| !l.broken) {
        let ends: Vec<Endpoint> = link.ends.iter().flatten().cloned().collect();
        let set: BTreeSet<&Endpoint> = ends.iter().collect();
        let name = link.name.clone().or_else(|| {
            let same = old_links().find(|l| l.ends.iter().collect::<BTreeSet<_>>() == set);
            let same = same.map(|l| l.name.clone()).filter(|name| !taken.contains(name));
            let name = same.or_else(|| derived_name(&ends, &taken))?;
            taken.insert(name.clone());
            Some(name)
        });
        let Some(name) = name else { continue };
        works.push(LinkWork {
            intent: link,
            old: old.and_then(|s| s.links.get(&name)).map(AsRef::as_ref),
            name,
            ends,
            link: None,
        });
    }
    works
}

/// `web-eth1--db-eth1`; when that is no name or taken, `link-` and some of the hash of the ends.
fn derived_name(ends: &[Endpoint], taken: &BTreeSet<Name>) -> Option<Name> {
    let parts: Vec<String> = ends.iter().map(|e| format!("{}-{}", e.vm, e.interface)).collect();
    let long = parts.join("--");
    let hash = hex::encode(Sha256::digest(long.as_bytes()));
    let short = [12, 20].into_iter().map(|n| format!("link-{}", &hash[..n]));
    let names = std::iter::once(long).chain(short).filter_map(|text| text.parse().ok());
    names.into_iter().find(|name| !taken.contains(name))
}

impl Planner<'_> {
    /// Links whose VLAN is given or kept: first those with a derived subnet, then those that give one, so that the mistake is
    /// found where something was given.
    pub(super) fn fixed_links(&mut self, works: &mut [Work]) {
        for gives_subnet in [false, true] {
            for work in works.iter_mut() {
                for i in 0..work.links.len() {
                    let link = &work.links[i];
                    let vlan = link.intent.vlan.or(link.old.map(|l| l.vlan));
                    if let Some(vlan) = vlan
                        && link.intent.subnet.is_some() == gives_subnet
                    {
                        self.take(work, i, vlan);
                    }
                }
            }
        }
    }

    /// VLANs for the other links: the lowest free ones of the slice's pool.
    pub(super) fn free_links(&mut self, works: &mut [Work]) {
        for work in works {
            for i in 0..work.links.len() {
                let LinkWork { intent, old, .. } = &work.links[i];
                if intent.vlan.is_some() || old.is_some() {
                    continue;
                }
                match self.ledger.free_vlan(work.pool.vlans(), intent.subnet.is_none()) {
                    Some(vlan) => self.take(work, i, vlan),
                    None if work.starved => {}
                    None => self.pool_is_empty(work, &intent.path),
                }
            }
        }
    }

    fn pool_is_empty(&mut self, work: &Work, path: &str) {
        let size = work.pool.size();
        let resting = match self.ledger.resting(work.pool.vlans()) {
            0 => String::new(),
            n => format!(" ({n} of them will be free again once every node has reported their removal)"),
        };
        let text = format!(
            "the {size} VLANs of the slice's pool are used up{resting}; set vlan_pool_size to more than {size}, which moves \
             nothing, or remove a link{}",
            self.ledger.held_back()
        );
        self.mistakes.exhausted(format!("{path}.vlan"), text);
    }

    fn take(&mut self, work: &mut Work, i: usize, vlan: VlanId) {
        let LinkWork { intent, name, ends, .. } = &work.links[i];
        let subnet = intent.subnet.unwrap_or_else(|| LinkSubnet::derived(vlan));
        let claim = work.link_claim(name);
        if let Err(conflict) = self.ledger.claim_link(vlan, subnet, &claim) {
            let (field, text) = match conflict {
                LinkConflict::Vlan(text) => ("vlan", text.0),
                LinkConflict::Subnet(text) if intent.subnet.is_some() => ("subnet", text.0),
                LinkConflict::Subnet(text) => ("vlan", format!("{text}; or give this link a subnet of its own")),
            };
            self.mistakes.add(format!("{}.{field}", intent.path), text);
            return;
        }
        let link = Link {
            name: name.clone(),
            ends: ends.clone(),
            vlan,
            vlan_given: intent.vlan.is_some(),
            subnet,
            subnet_given: intent.subnet.is_some(),
            dhcp: intent.dhcp,
            mtu: intent.mtu.unwrap_or(self.cx.settings.default_mtu),
            mtu_given: intent.mtu.is_some(),
            port_security: intent.port_security,
            protected: intent.protected,
        };
        work.links[i].link = Some(link);
    }

    /// Addresses of all ends; interfaces learn their link and VLAN.
    pub(super) fn link_addresses(&mut self, works: &mut [Work]) {
        for work in works {
            let Work { links, vms, old, .. } = work;
            let index: BTreeMap<Name, usize> = vms.iter().enumerate().map(|(i, w)| (w.vm.name.clone(), i)).collect();
            for link in links.iter().filter_map(|w| Some((w.intent, w.link.as_ref()?))) {
                let (intent, link) = link;
                let mut wants = Vec::new();
                for end in &link.ends {
                    let at = usize::from(end.interface.index());
                    let vm = index.get(&end.vm).map(|i| &vms[*i]);
                    let before = vm.and_then(|w| w.old).and_then(|v| v.interfaces.get(at));
                    wants.push(Want {
                        given: vm.and_then(|w| w.vm.interfaces.get(at)).and_then(|i| i.address_given),
                        kept: before
                            .filter(|i| i.link.as_ref() == Some(&link.name))
                            .and_then(|i| i.address),
                    });
                }
                let avoid = deployed_addresses(*old, link);
                let results = assign(link.subnet, &wants, &avoid);
                for ((end, want), result) in link.ends.iter().zip(&wants).zip(results) {
                    let at = usize::from(end.interface.index());
                    let Some(vm) = index.get(&end.vm).map(|i| &mut vms[*i]) else {
                        continue;
                    };
                    let given = vm
                        .intent
                        .interfaces
                        .get(&end.interface)
                        .map(|i| format!("{}.address", i.path));
                    let Some(interface) = vm.vm.interfaces.get_mut(at) else {
                        continue;
                    };
                    interface.link = Some(link.name.clone());
                    interface.vlan = Some(link.vlan);
                    match result {
                        Ok(address) => interface.address = Some(address),
                        Err(problem) => {
                            let (field, text) = problem_of(problem, want, link);
                            let field = match (field, given) {
                                (Field::Address, Some(path)) => path,
                                _ => format!("{}.subnet", intent.path),
                            };
                            self.mistakes.add(field, text);
                        }
                    }
                }
            }
        }
    }
}

enum Field {
    Address,
    Subnet,
}

fn problem_of(problem: AddressProblem, want: &Want, link: &Link) -> (Field, String) {
    let (first, last) = link.subnet.guests();
    let address = want.given.map(|a| a.to_string()).unwrap_or_default();
    let (name, subnet) = (&link.name, link.subnet);
    match problem {
        AddressProblem::Outside => (
            Field::Address,
            format!(
                "{address} is not an address for guests in {subnet} of link {name}; write one from {first} to {last}"
            ),
        ),
        AddressProblem::Taken => (
            Field::Address,
            format!("{address} is that of another end of link {name}; write another, or leave it out"),
        ),
        AddressProblem::Full => (
            Field::Subnet,
            format!(
                "{subnet} holds {} guest(s) and link {name} has {} ends; give it a larger subnet",
                subnet.guest_addresses().count(),
                link.ends.len()
            ),
        ),
    }
}

/// Addresses that guests may be using on this VLAN today.
fn deployed_addresses(old: Option<&Slice>, link: &Link) -> BTreeSet<std::net::Ipv4Addr> {
    let frozen = old.and_then(|s| s.deployed());
    let interfaces = frozen
        .into_iter()
        .flat_map(|f| f.vms.values())
        .flat_map(|vm| &vm.interfaces);
    interfaces
        .filter(|i| i.vlan == Some(link.vlan))
        .filter_map(|i| i.address)
        .collect()
}
