//! An earlier revision as it can be today: what has been taken meanwhile is replaced, and told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trunkline_proto::{InterfaceName, LinkSubnet, Mac, Name};

use super::{Context, Mistakes, Rejection};
use crate::{
    allocate::{Claim, Holdings, Ledger, Want, What, assign},
    model::{Cluster, Frozen, Link, NodeRole, Slice, Vm},
};

/// VMs, links, and in words what is not as it was.
type Restored = (BTreeMap<Name, Arc<Vm>>, BTreeMap<Name, Arc<Link>>, Vec<String>);

/// The revision with new values where another holds the old ones. The draft stays as it is, and nothing of it is taken.
pub(super) fn restore(
    cluster: &Cluster,
    held: &Holdings,
    slice: &Slice,
    wanted: &Frozen,
    cx: &Context,
) -> Result<Restored, Rejection> {
    workers(cluster, slice, wanted)?;
    let mut rollback = Rollback {
        slice,
        cx,
        ledger: Ledger::of(cluster, held, cx.settings, &BTreeSet::new()),
        mistakes: Mistakes::default(),
        told: Vec::new(),
    };
    let links: BTreeMap<Name, Arc<Link>> = wanted
        .links
        .iter()
        .map(|(name, link)| (name.clone(), rollback.link(link)))
        .collect();
    let mut vms: BTreeMap<Name, Vm> = wanted.vms.iter().map(|(n, vm)| (n.clone(), Vm::clone(vm))).collect();
    for (name, link) in &links {
        if wanted.links.get(name) != Some(link) {
            rollback.ends(&mut vms, link);
        }
    }
    for vm in vms.values_mut() {
        rollback.macs(vm);
        rollback.internet(vm);
    }
    let Rollback { mistakes, mut told, .. } = rollback;
    mistakes.finish()?;
    told.extend(moves(slice, wanted));
    let vms = vms.into_iter().map(|(name, vm)| {
        let same = wanted.vms.get(&name).filter(|w| ***w == vm).cloned();
        (name, same.unwrap_or_else(|| Arc::new(vm)))
    });
    Ok((vms.collect(), links, told))
}

fn workers(cluster: &Cluster, slice: &Slice, wanted: &Frozen) -> Result<(), Rejection> {
    for vm in wanted.vms.values() {
        let record = cluster.nodes.get(&vm.worker).filter(|n| n.role == NodeRole::Worker);
        let there = slice.deployed().and_then(|now| now.vms.get(&vm.name));
        let there = there.is_some_and(|now| now.id == vm.id && now.worker == vm.worker);
        if record.is_some_and(|record| record.cordoned) && !there {
            return Err(Rejection::Precondition {
                kind: "CORDONED",
                subject: format!("vm {}", vm.name),
                description: format!(
                    "vm {} was on worker {w}, which is cordoned and takes no new VMs; open it with `trunkctl node uncordon {w}`, or \
                     deploy a draft that has the VM elsewhere",
                    vm.name,
                    w = vm.worker
                ),
            });
        }
        if record.is_none() {
            return Err(Rejection::Precondition {
                kind: "WORKER_GONE",
                subject: format!("vm {}", vm.name),
                description: format!(
                    "vm {} was on worker {}, which is gone; deploy a draft that has it elsewhere",
                    vm.name, vm.worker
                ),
            });
        }
    }
    Ok(())
}

/// VMs that have been moved since: they go back, too.
fn moves(slice: &Slice, wanted: &Frozen) -> impl Iterator<Item = String> {
    let now = slice.deployed();
    wanted.vms.values().filter_map(move |vm| {
        let now = now?
            .vms
            .get(&vm.name)
            .filter(|now| now.id == vm.id && now.worker != vm.worker)?;
        Some(format!(
            "vm {}: worker {} -> {}, as it was",
            vm.name, now.worker, vm.worker
        ))
    })
}

struct Rollback<'a> {
    slice: &'a Slice,
    cx: &'a Context<'a>,
    ledger: Ledger<'a>,
    mistakes: Mistakes,
    told: Vec<String>,
}

impl Rollback<'_> {
    fn claim(&self, what: What, label: String) -> Claim {
        Claim {
            slice: self.slice.name.clone(),
            uid: self.slice.uid,
            what,
            label,
            takes_over: false,
        }
    }

    /// As it was, or with another VLAN or subnet. A subnet that was given is kept when only the VLAN is taken.
    fn link(&mut self, link: &Arc<Link>) -> Arc<Link> {
        let claim = self.claim(What::Link(link.name.clone()), format!("link {}", link.name));
        if self.ledger.claim_link(link.vlan, link.subnet, &claim).is_ok() {
            return link.clone();
        }
        let own = std::iter::once(link.vlan);
        let candidates = [(link.subnet_given).then_some(Some(link.subnet)), Some(None)];
        for subnet in candidates.into_iter().flatten() {
            let vlans = own.clone().chain(self.slice.pool.vlans());
            let Some(vlan) = self.ledger.free_vlan(vlans, subnet.is_none()) else {
                continue;
            };
            let derived = subnet.unwrap_or_else(|| LinkSubnet::derived(vlan));
            if self.ledger.claim_link(vlan, derived, &claim).is_ok() {
                self.told.push(format!(
                    "link {}: vlan {} -> {vlan}, subnet {} -> {derived}",
                    link.name, link.vlan, link.subnet
                ));
                return Arc::new(Link {
                    vlan,
                    vlan_given: link.vlan_given && vlan == link.vlan,
                    subnet: derived,
                    subnet_given: subnet.is_some(),
                    ..Link::clone(link)
                });
            }
        }
        let size = self.slice.pool.size();
        let text = format!(
            "vlan {} of link {} is taken, and the {size} VLANs of the slice's pool are used up; set vlan_pool_size to more \
             than {size}{}",
            link.vlan,
            link.name,
            self.ledger.held_back()
        );
        self.mistakes.exhausted("number", text);
        link.clone()
    }

    /// The ends of a link that is not as it was.
    fn ends(&mut self, vms: &mut BTreeMap<Name, Vm>, link: &Link) {
        let at = |index: InterfaceName| usize::from(index.index());
        let wants: Vec<Want> = link
            .ends
            .iter()
            .map(|end| Want {
                given: None,
                kept: vms
                    .get(&end.vm)
                    .and_then(|v| v.interfaces.get(at(end.interface))?.address),
            })
            .collect();
        let results = assign(link.subnet, &wants, &std::collections::BTreeSet::new());
        for (end, result) in link.ends.iter().zip(results) {
            let interface = vms
                .get_mut(&end.vm)
                .and_then(|v| v.interfaces.get_mut(at(end.interface)));
            let (Some(interface), Ok(address)) = (interface, result) else {
                let text = format!("subnet {} has no room for the ends of link {}", link.subnet, link.name);
                self.mistakes.exhausted("number", text);
                continue;
            };
            if let Some(old) = interface.address.filter(|old| *old != address) {
                self.told.push(format!("{end}: {old} -> {address}"));
                interface.address_given = None;
            }
            interface.vlan = Some(link.vlan);
            interface.address = Some(address);
        }
    }

    fn macs(&mut self, vm: &mut Vm) {
        let (id, name) = (vm.id, vm.name.clone());
        for interface in vm.interfaces.iter_mut().filter(|i| i.mac_given) {
            let label = format!("{name}.{}", interface.name);
            let claim = self.claim(What::Interface(id, interface.name), label.clone());
            if self.ledger.claim_mac(interface.mac, &claim).is_err() {
                let mac = Mac::of_interface(id, interface.name.index());
                self.told.push(format!("{label}: mac {} -> {mac}", interface.mac));
                interface.mac = mac;
                interface.mac_given = false;
            }
        }
    }

    fn internet(&mut self, vm: &mut Vm) {
        let (id, label) = (vm.id, format!("{}.eth0", vm.name));
        let Some(eth0) = vm.interfaces.first_mut().filter(|_| vm.internet) else {
            return;
        };
        let claim = self.claim(What::Interface(id, eth0.name), label.clone());
        let Some(old) = eth0.address else { return };
        if self.ledger.claim_internet(old, &claim).is_ok() {
            return;
        }
        let free = self.ledger.free_internet();
        let taken = free.map(|address| self.ledger.claim_internet(address, &claim));
        if let (Some(address), Some(Ok(()))) = (free, taken) {
            self.told.push(format!("{label}: {old} -> {address}"));
            eth0.address = Some(address);
            eth0.address_given = None;
        } else {
            let subnet = self.cx.settings.internet_subnet;
            let held = self.ledger.held_back();
            let text = format!("address {old} of {label} is taken, and {subnet} has no other left{held}");
            self.mistakes.exhausted("number", text);
        }
    }
}
