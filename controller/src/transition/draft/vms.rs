//! VMs: ids, workers, interfaces, addresses of VLAN 400.

use trunkline_proto::{InterfaceName, Mac, Name, PortName, VlanId, VmId};

use super::{Planner, VmWork, Work};
use crate::{
    allocate::{What, placement::refused},
    intent::VmIntent,
    model::{Interface, Slice, Vm},
};

impl<'a> Planner<'a> {
    /// Every VM with its id, its interfaces and its worker; VMs that stay where they are count before new ones are placed.
    pub(super) fn vms(&mut self, works: &mut [Work<'a>]) {
        for work in works.iter_mut() {
            let (intent, old) = (work.intent, work.old);
            for vm in &intent.vms {
                if work.vms.iter().any(|w| w.vm.name == vm.name) {
                    continue;
                }
                if let Some(vm) = self.vm(vm, old) {
                    self.claim_macs(work, &vm);
                    work.vms.push(vm);
                }
            }
        }
        for vm in works.iter_mut().flat_map(|w| &mut w.vms) {
            if let Some(worker) = self.settled_worker(vm) {
                self.placement.count(&worker);
                vm.vm.worker = worker;
            }
        }
        for vm in works.iter_mut().flat_map(|w| &mut w.vms) {
            if vm.vm.placed && vm.old.is_none() {
                self.place(vm);
            }
        }
    }

    fn vm(&mut self, intent: &'a VmIntent, slice: Option<&'a Slice>) -> Option<VmWork<'a>> {
        let old = slice.and_then(|s| s.vms.get(&intent.name)).map(AsRef::as_ref);
        let id = match old {
            Some(old) => old.id,
            None => self.next_id(intent)?,
        };
        let mut interfaces = Vec::new();
        for index in 0..=intent.data_interfaces {
            let name = InterfaceName::new(index).ok()?;
            interfaces.push(self.interface(intent, id, name)?);
        }
        // What has no node yet stands on its own name until it is placed; a mistake then says so.
        let worker = old.map_or_else(|| intent.name.clone(), |o| o.worker.clone());
        let vm = Vm {
            name: intent.name.clone(),
            id,
            worker,
            placed: intent.worker.is_none(),
            internet: intent.internet,
            interfaces,
        };
        Some(VmWork { intent, old, vm })
    }

    fn next_id(&mut self, intent: &VmIntent) -> Option<VmId> {
        let id = VmId::try_from(self.next_vm_id).ok();
        if id.is_none() {
            self.mistakes.exhausted(&intent.path, "every VM id has been given out");
        }
        self.next_vm_id += 1;
        id
    }

    /// Name, TAP and MAC; link, VLAN and address come later.
    fn interface(&mut self, intent: &VmIntent, id: VmId, name: InterfaceName) -> Option<Interface> {
        let tap = match PortName::tap(id, name) {
            Ok(tap) => tap,
            Err(problem) => {
                let text = format!("{problem}; this VM would get id {id}, so use fewer data interfaces");
                self.mistakes
                    .add(format!("{}.data_interfaces_count", intent.path), text);
                return None;
            }
        };
        let given = intent.interfaces.get(&name);
        let mac = given.and_then(|g| g.mac);
        Some(Interface {
            name,
            tap,
            mac: mac.unwrap_or_else(|| Mac::of_interface(id, name.index())),
            mac_given: mac.is_some(),
            address_given: given.and_then(|g| g.address),
            address: None,
            link: None,
            vlan: None,
        })
    }

    fn claim_macs(&mut self, work: &Work, vm: &VmWork) {
        for interface in vm.vm.interfaces.iter().filter(|i| i.mac_given) {
            let label = format!("{}.{}", vm.vm.name, interface.name);
            let claim = work.claim(What::Interface(vm.vm.id, interface.name), label);
            if let Err(conflict) = self.ledger.claim_mac(interface.mac, &claim)
                && let Some(given) = vm.intent.interfaces.get(&interface.name)
            {
                self.mistakes.add(format!("{}.mac", given.path), conflict);
            }
        }
    }

    /// The worker that was given, or the one it is on. One that takes no new VMs keeps those that it has.
    fn settled_worker(&mut self, vm: &VmWork) -> Option<Name> {
        let was_on = vm.old.map(|o| &o.worker);
        let Some(worker) = &vm.intent.worker else {
            return was_on.cloned();
        };
        let path = || format!("{}.worker", vm.intent.path);
        match self.placement.worker(worker) {
            None => {
                let text = format!(
                    "there is no worker {worker}; {}",
                    self.placement.known(", or leave it out")
                );
                self.mistakes.add(path(), text);
            }
            // One that was declared gone may come back: what names it waits.
            Some(record) if record.cordoned && was_on != Some(worker) => {
                self.mistakes.add(path(), refused(worker, record).unwrap_or_default());
            }
            Some(_) => {}
        }
        Some(worker.clone())
    }

    fn place(&mut self, vm: &mut VmWork) {
        match self.placement.place() {
            Some(worker) => vm.vm.worker = worker,
            None => self
                .mistakes
                .add(format!("{}.worker", vm.intent.path), self.placement.full()),
        }
    }

    /// Addresses of VLAN 400: given and kept ones of all VMs first, then the lowest free ones.
    pub(super) fn internet_addresses(&mut self, works: &mut [Work]) {
        for work in works.iter_mut() {
            for i in 0..work.vms.len() {
                self.fixed_internet(work, i);
            }
        }
        for work in works.iter_mut() {
            for i in 0..work.vms.len() {
                self.free_internet(work, i);
            }
        }
    }

    fn fixed_internet(&mut self, work: &mut Work, i: usize) {
        let VmWork { intent, old, vm } = &work.vms[i];
        let Some(eth0) = vm.interfaces.first().filter(|_| vm.internet) else {
            return;
        };
        let kept = old
            .filter(|o| o.internet)
            .and_then(|o| o.interfaces.first())
            .and_then(|e| e.address);
        let Some(address) = eth0.address_given.or(kept) else {
            return;
        };
        let claim = work.claim(What::Interface(vm.id, eth0.name), format!("{}.eth0", vm.name));
        let result = self.ledger.claim_internet(address, &claim);
        let path = intent.interfaces.get(&eth0.name).map(|g| format!("{}.address", g.path));
        match (result, eth0.address_given, path) {
            (Ok(()), ..) => work.vms[i].vm.interfaces[0].address = Some(address),
            (Err(conflict), Some(_), Some(path)) => self.mistakes.add(path, conflict),
            // What it had went to somebody who gave it: it gets another.
            (Err(_), ..) => {}
        }
    }

    fn free_internet(&mut self, work: &mut Work, i: usize) {
        let VmWork { intent, vm, .. } = &work.vms[i];
        let Some(eth0) = vm.interfaces.first().filter(|_| vm.internet) else {
            return;
        };
        let claim = work.claim(What::Interface(vm.id, eth0.name), format!("{}.eth0", vm.name));
        let mut address = eth0.address;
        if address.is_none() && eth0.address_given.is_none() {
            address = self.ledger.free_internet();
            match address.map(|a| self.ledger.claim_internet(a, &claim)) {
                Some(Ok(())) => {}
                _ => {
                    let subnet = self.cx.settings.internet_subnet;
                    let text = format!(
                        "the addresses of {subnet} on vlan 400 are used up; turn internet off for some VM{}",
                        self.ledger.held_back()
                    );
                    self.mistakes
                        .exhausted(format!("{}.internet_enabled", intent.path), text);
                }
            }
        }
        let eth0 = &mut work.vms[i].vm.interfaces[0];
        eth0.address = address;
        eth0.vlan = Some(VlanId::INTERNET);
    }
}
