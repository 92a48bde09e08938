//! What was asked for and answered. Nothing of it may be lost, nothing else may be there, and nothing falls back.

use std::collections::BTreeMap;

use trunkline_proto::wire::Slice;

use super::wish::Wish;

/// The operator's own book.
#[derive(Debug, Default, Clone)]
pub(super) struct Ledger {
    slices: BTreeMap<String, Entry>,
    revision: u64,
    order: (u64, u64),
    /// What the journal must tell of.
    told: Vec<Told>,
}

/// An intent that was answered, as the journal must tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Whose.
    pub(super) slice: String,
    /// `slice.deployed`, ...
    pub(super) kind: &'static str,
    /// Of the answer.
    pub(super) revision: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    draft: Wish,
    deployed: Option<u32>,
    numbers: BTreeMap<u32, Wish>,
}

impl Ledger {
    /// A draft was made what is wished.
    pub(super) fn draft(&mut self, wish: &Wish) {
        let entry = self.slices.entry(wish.name.clone()).or_insert_with(|| Entry {
            draft: wish.clone(),
            deployed: None,
            numbers: BTreeMap::new(),
        });
        entry.draft = wish.clone();
    }

    /// The draft was deployed with this number. True when the number is a new one.
    pub(super) fn deployed(&mut self, slice: &str, number: u32) -> Result<bool, String> {
        let draft = self.entry(slice)?.draft.clone();
        self.stands(slice, number, draft)
    }

    /// What had one number was deployed again with another.
    pub(super) fn rolled_back(&mut self, slice: &str, from: u32, number: u32) -> Result<bool, String> {
        let wish = self.entry(slice)?.numbers.get(&from).cloned();
        let wish = wish.ok_or_else(|| format!("{slice} was rolled back to {from}, which was never deployed"))?;
        self.stands(slice, number, wish)
    }

    /// Nothing of it is deployed any more. True when something was.
    pub(super) fn undeployed(&mut self, slice: &str) -> Result<bool, String> {
        Ok(self.entry(slice)?.deployed.take().is_some())
    }

    /// A part of a draft was changed.
    pub(super) fn edited(&mut self, slice: &str, edit: impl FnOnce(&mut Wish)) -> Result<(), String> {
        let draft = &mut self.entry(slice)?.draft;
        edit(draft);
        *draft = draft.clone().sorted();
        Ok(())
    }

    /// Where a draft has a VM.
    pub(super) fn home(&self, slice: &str, vm: &str) -> Option<String> {
        let draft = &self.slices.get(slice)?.draft;
        let vm = draft.vms.iter().find(|each| each.name == vm)?;
        Some(vm.worker.clone())
    }

    /// Every VM of a worker is on another one now, and what is deployed has a new number for it. Answers whose VMs moved.
    pub(super) fn drained(&mut self, worker: &str, onto: &str) -> Vec<String> {
        let mut moved = Vec::new();
        for (name, entry) in &mut self.slices {
            let mut any = entry.draft.relocate(worker, onto);
            let now = entry.deployed.and_then(|number| entry.numbers.get(&number).cloned());
            if let Some(mut now) = now
                && now.relocate(worker, onto)
            {
                any = true;
                let number = entry.numbers.keys().next_back().map_or(1, |last| last + 1);
                entry.numbers.insert(number, now.sorted());
                entry.deployed = Some(number);
            }
            entry.draft = entry.draft.clone().sorted();
            moved.extend(any.then(|| name.clone()));
        }
        moved
    }

    /// The journal must tell of this.
    pub(super) fn told(&mut self, slice: &str, kind: &'static str, revision: u64) {
        let slice = slice.to_owned();
        self.told.push(Told { slice, kind, revision });
    }

    /// What the journal must tell of since this was asked for last.
    pub(super) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// The highest term that was seen.
    pub(super) fn term(&self) -> u64 {
        self.order.0
    }

    /// The book of the time of an export comes back: all that was answered since is lost with the controller's state. Order goes on.
    pub(super) fn restore(&mut self, then: Ledger) {
        let Ledger { slices, .. } = then;
        self.slices = slices;
        self.revision = 0;
        self.told.clear();
    }

    /// It is no more.
    pub(super) fn deleted(&mut self, slice: &str) -> Result<(), String> {
        let gone = self.slices.remove(slice);
        gone.map(drop)
            .ok_or_else(|| format!("{slice} was deleted, and was not there"))
    }

    /// What the controller says of its own order.
    pub(super) fn saw(&mut self, revision: u64, order: Option<(u64, u64)>) -> Result<(), String> {
        if revision < self.revision {
            return Err(format!("the revision fell from {} to {revision}", self.revision));
        }
        self.revision = revision;
        if let Some(order) = order {
            if order < self.order {
                return Err(format!("term and generation fell from {:?} to {order:?}", self.order));
            }
            self.order = order;
        }
        Ok(())
    }

    /// Names of the slices that are deployed.
    pub(super) fn deployed_names(&self) -> impl Iterator<Item = &String> {
        self.slices
            .iter()
            .filter(|(_, entry)| entry.deployed.is_some())
            .map(|(name, _)| name)
    }

    /// What is not as it was answered: drafts and deployed slices as the API shows them now.
    pub(super) fn compare(&self, drafts: &[Slice], deployed: &[Slice]) -> Vec<String> {
        let mut wrong = Vec::new();
        for slice in drafts {
            let Some(entry) = self.slices.get(&slice.name) else {
                wrong.push(format!("slice {} is there, and was deleted or never made", slice.name));
                continue;
            };
            let shown = Wish::shown(slice);
            if shown != entry.draft {
                wrong.push(format!("the draft is {shown:?}, and was answered as {:?}", entry.draft));
            }
            let number = slice.deployed.as_ref().map(|deployed| deployed.number);
            if number != entry.deployed {
                let name = &slice.name;
                wrong.push(format!(
                    "{name} is deployed as {number:?}, and was answered as {:?}",
                    entry.deployed
                ));
            }
        }
        for slice in deployed {
            let entry = self.slices.get(&slice.name);
            let asked = entry.and_then(|entry| entry.numbers.get(&entry.deployed?));
            let shown = Wish::shown(slice);
            if asked != Some(&shown) {
                wrong.push(format!("deployed is {shown:?}, and was answered as {asked:?}"));
            }
        }
        let lost = self
            .slices
            .keys()
            .filter(|name| drafts.iter().all(|slice| slice.name != **name));
        wrong.extend(lost.map(|name| format!("slice {name} was made, and is lost")));
        wrong
    }

    fn stands(&mut self, slice: &str, number: u32, wish: Wish) -> Result<bool, String> {
        let entry = self.entry(slice)?;
        let highest = entry.numbers.keys().next_back().copied().unwrap_or_default();
        if let Some(earlier) = entry.numbers.get(&number).filter(|earlier| **earlier != wish) {
            return Err(format!("{slice} #{number} was {earlier:?} before, and is {wish:?} now"));
        }
        if number < highest {
            return Err(format!("{slice} is deployed as #{number} after #{highest}"));
        }
        entry.deployed = Some(number);
        Ok(entry.numbers.insert(number, wish).is_none())
    }

    fn entry(&mut self, slice: &str) -> Result<&mut Entry, String> {
        self.slices
            .get_mut(slice)
            .ok_or_else(|| format!("{slice} was answered for, and is not there"))
    }
}
