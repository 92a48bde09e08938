//! VLAN pools: ranges of their own for every slice.

use std::collections::BTreeSet;

use trunkline_proto::{Name, VlanId};

use super::Ledger;
use crate::model::{Pool, VlanRange};

impl Ledger<'_> {
    /// Adds `more` VLANs to a slice's pool, in one range when there is room for it, else in the lowest pieces that are free.
    /// `avoid` are VLANs that other slices of the same request ask for. On failure says how many are free.
    pub(crate) fn grow(
        &mut self,
        slice: &Name,
        pool: &mut Pool,
        more: u32,
        avoid: &BTreeSet<VlanId>,
    ) -> Result<(), usize> {
        if more == 0 {
            return Ok(());
        }
        let wanted = usize::try_from(more).unwrap_or(usize::MAX);
        let free = self.free_for_pools(avoid);
        let room: usize = free.iter().map(Vec::len).sum();
        let chosen: Vec<VlanId> = match free.iter().find(|run| run.len() >= wanted) {
            Some(run) => run.iter().copied().take(wanted).collect(),
            None if room >= wanted => free.into_iter().flatten().take(wanted).collect(),
            None => return Err(room),
        };
        let old: Vec<VlanId> = pool.vlans().collect();
        let mut all: Vec<VlanId> = old.into_iter().chain(chosen).collect();
        all.sort_unstable();
        let before = std::mem::take(&mut pool.ranges);
        pool.ranges = runs(all)
            .iter()
            .filter_map(|run| {
                Some(VlanRange {
                    first: *run.first()?,
                    last: *run.last()?,
                })
            })
            .collect();
        self.held.set_pool(&before, &pool.ranges, slice);
        Ok(())
    }

    fn free_for_pools(&self, avoid: &BTreeSet<VlanId>) -> Vec<Vec<VlanId>> {
        let (first, last) = (self.settings.vlan_first, self.settings.vlan_last);
        let pooled: BTreeSet<VlanId> = self.held.pools.iter().flat_map(|(range, _)| range.vlans()).collect();
        let free = (VlanRange { first, last }).vlans().filter(|v| {
            !self.settings.is_reserved(*v)
                && !self.held.vlans.contains_key(v)
                && !avoid.contains(v)
                && !pooled.contains(v)
                && !self.holds_back(*v)
        });
        runs(free)
    }
}

/// Ascending VLANs, cut where one is missing.
fn runs(vlans: impl IntoIterator<Item = VlanId>) -> Vec<Vec<VlanId>> {
    let mut runs: Vec<Vec<VlanId>> = Vec::new();
    for vlan in vlans {
        match runs.last_mut() {
            Some(run) if run.last().and_then(|v| v.next()) == Some(vlan) => run.push(vlan),
            _ => runs.push(vec![vlan]),
        }
    }
    runs
}
