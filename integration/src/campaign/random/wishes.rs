//! What operators wish: slices, and changes of single parts of them.

use super::Dice;
use crate::campaign::steps::Step;
use crate::campaign::wish::{Wish, WishedLink, WishedVm};

const SLICES: [&str; 4] = ["amber", "birch", "cedar", "dune"];
const VMS: [&str; 4] = ["one", "two", "three", "four"];
/// Interfaces beside `eth0` of every VM, so that a link may end at any.
const DATA: u32 = 3;

impl Dice {
    /// A whole slice, a part of one, or what is deployed.
    pub(super) fn change(&mut self) -> Vec<Step> {
        let (slice, twice) = (self.slice(), self.twice());
        match self.rng.u8(..24) {
            0..=8 => {
                let deploy = self.rng.u8(..5) > 0;
                vec![self.apply(slice, deploy)]
            }
            9..=14 => {
                let part = self.part(&slice);
                let deploy = Step::Deploy { slice, twice };
                part.into_iter().chain([deploy]).collect()
            }
            15..=16 => self.moving(slice),
            17..=18 => vec![Step::Deploy { slice, twice }],
            19..=20 => {
                let number = self.rng.u32(1..=6);
                vec![Step::Rollback { slice, number, twice }]
            }
            21..=22 => vec![Step::Undeploy { slice, twice }],
            _ => {
                self.drafts.remove(&slice);
                vec![Step::Delete { slice, twice }]
            }
        }
    }

    pub(super) fn slice(&mut self) -> String {
        SLICES[self.rng.usize(..SLICES.len())].to_owned()
    }

    /// Another slice in the place of one, or a new one.
    pub(super) fn deployed(&mut self) -> Step {
        let slice = self.slice();
        self.apply(slice, true)
    }

    /// As many VMs and ends as there may be, deployed.
    pub(super) fn large(&mut self, name: String) -> Step {
        let vms = VMS
            .iter()
            .enumerate()
            .map(|(number, vm)| self.vm(&name, number, vm))
            .collect();
        let ends = |number: u32| {
            let mut ends: Vec<String> = VMS.iter().map(|vm| format!("{vm}.eth{number}")).collect();
            ends.sort();
            ends
        };
        let links = (1..=DATA).map(|number| WishedLink {
            name: format!("net{number}"),
            ends: ends(number),
            mtu: 1500,
            dhcp: true,
            secured: false,
            protected: false,
        });
        let slice = Wish {
            links: links.collect(),
            name,
            vms,
        };
        self.wished(slice.sorted(), true)
    }

    fn apply(&mut self, slice: String, deploy: bool) -> Step {
        let slice = self.wish(slice);
        self.wished(slice, deploy)
    }

    fn wished(&mut self, slice: Wish, deploy: bool) -> Step {
        let twice = self.twice();
        self.drafts.insert(slice.name.clone(), slice.clone());
        Step::Apply { slice, deploy, twice }
    }

    /// One VM or one link more or less. A VM goes with its links before it.
    fn part(&mut self, slice: &str) -> Vec<Step> {
        let Some(mut draft) = self.drafts.remove(slice) else {
            return vec![self.apply(slice.to_owned(), false)];
        };
        let twice = self.twice();
        let name = slice.to_owned();
        let absent = VMS
            .iter()
            .enumerate()
            .find(|(_, vm)| draft.vms.iter().all(|each| each.name != **vm));
        let mut steps = Vec::new();
        match (self.rng.u8(..4), absent, draft.links.len()) {
            (0, Some((number, vm)), _) => {
                let vm = self.vm(slice, number, vm);
                draft.vms.push(vm.clone());
                steps.push(Step::AddVm { slice: name, vm, twice });
            }
            (0 | 1, _, _) if draft.vms.len() > 2 => {
                let vm = draft.vms.remove(self.rng.usize(..draft.vms.len())).name;
                let ends_there = |link: &WishedLink| link.ends.iter().any(|end| end.starts_with(&format!("{vm}.")));
                for link in draft.links.iter().filter(|link| ends_there(link)) {
                    let (slice, link) = (name.clone(), link.name.clone());
                    steps.push(Step::RemoveLink { slice, link, twice });
                }
                draft.links.retain(|link| !ends_there(link));
                steps.push(Step::RemoveVm { slice: name, vm, twice });
            }
            (_, _, count) if count == usize::try_from(DATA).unwrap_or(0) || (count > 0 && self.rng.bool()) => {
                let link = draft.links.remove(self.rng.usize(..count)).name;
                steps.push(Step::RemoveLink {
                    slice: name,
                    link,
                    twice,
                });
            }
            _ => {
                let free = (1..=DATA).find(|number| draft.links.iter().all(|link| link.name != format!("net{number}")));
                let count = self.rng.usize(2..=draft.vms.len().max(2));
                if let Some(link) = free.and_then(|number| self.link(&draft.vms, number, count)) {
                    draft.links.push(link.clone());
                    steps.push(Step::AddLink {
                        slice: name,
                        link,
                        twice,
                    });
                }
            }
        }
        self.drafts.insert(slice.to_owned(), draft.sorted());
        steps
    }

    fn moving(&mut self, slice: String) -> Vec<Step> {
        let (worker, twice) = (self.worker(), self.twice());
        let pick = self.rng.usize(..VMS.len());
        let vm = match self.drafts.get_mut(&slice).filter(|draft| !draft.vms.is_empty()) {
            Some(draft) => {
                let at = pick % draft.vms.len();
                draft.vms[at].worker.clone_from(&worker);
                draft.vms[at].name.clone()
            }
            None => VMS[pick].to_owned(),
        };
        let deploy = Step::Deploy {
            slice: slice.clone(),
            twice,
        };
        let moving = Step::Move {
            slice,
            vm,
            worker,
            twice,
        };
        vec![moving, deploy]
    }

    fn vm(&mut self, slice: &str, number: usize, vm: &str) -> WishedVm {
        let worker = (number + slice.len()) % usize::from(self.workers) + 1;
        WishedVm {
            name: vm.to_owned(),
            worker: format!("w{worker}"),
            internet: self.rng.u8(..3) == 0,
            data: DATA,
        }
    }

    fn wish(&mut self, name: String) -> Wish {
        let mut vms: Vec<WishedVm> = Vec::new();
        for (number, vm) in VMS.iter().enumerate().take(self.rng.usize(2..=VMS.len())) {
            vms.push(self.vm(&name, number, vm));
        }
        let mut links = Vec::new();
        // Each link takes an interface number of its own, so none is taken twice.
        for number in 1..=DATA {
            let count = self.rng.usize(0..=vms.len());
            links.extend(self.link(&vms, number, count));
        }
        Wish { name, vms, links }.sorted()
    }

    fn link(&mut self, vms: &[WishedVm], number: u32, count: usize) -> Option<WishedLink> {
        if count < 2 {
            return None;
        }
        let mut ends: Vec<String> = vms.iter().map(|vm| format!("{}.eth{number}", vm.name)).collect();
        self.rng.shuffle(&mut ends);
        ends.truncate(count);
        ends.sort();
        Some(WishedLink {
            name: format!("net{number}"),
            mtu: [1500, 1500, 1400, 9000][self.rng.usize(..4)],
            dhcp: self.rng.u8(..4) > 0,
            secured: self.rng.u8(..3) == 0,
            // Of two guests it would be no link at all, and is refused.
            protected: count > 2 && self.rng.u8(..3) == 0,
            ends,
        })
    }
}
