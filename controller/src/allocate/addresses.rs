//! Addresses of the ends of one link.

use std::{collections::BTreeSet, net::Ipv4Addr};

use trunkline_proto::LinkSubnet;

/// What one end would have.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Want {
    /// Given by the operator: this or a mistake.
    pub(crate) given: Option<Ipv4Addr>,
    /// What it has; kept when it still can be.
    pub(crate) kept: Option<Ipv4Addr>,
}

/// Why an end has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressProblem {
    /// The given one is not for guests of this subnet.
    Outside,
    /// The given one is another end's.
    Taken,
    /// The subnet has no address left.
    Full,
}

/// One address per end: the given, else the one it has, else the lowest free one. `avoid` are addresses that other guests may
/// still be using; they are taken only when nothing else is left.
pub(crate) fn assign(
    subnet: LinkSubnet,
    wants: &[Want],
    avoid: &BTreeSet<Ipv4Addr>,
) -> Vec<Result<Ipv4Addr, AddressProblem>> {
    let mut taken = BTreeSet::new();
    let mut results: Vec<Option<Result<Ipv4Addr, AddressProblem>>> = vec![None; wants.len()];
    for (want, result) in wants.iter().zip(&mut results) {
        if let Some(given) = want.given {
            *result = Some(if !subnet.holds_guest(given) {
                Err(AddressProblem::Outside)
            } else if taken.insert(given) {
                Ok(given)
            } else {
                Err(AddressProblem::Taken)
            });
        }
    }
    for (want, result) in wants.iter().zip(&mut results) {
        let kept = want.kept.filter(|kept| subnet.holds_guest(*kept));
        if let (None, Some(kept)) = (*result, kept)
            && taken.insert(kept)
        {
            *result = Some(Ok(kept));
        }
    }
    let mut fresh = subnet.guest_addresses().filter(|a| !avoid.contains(a));
    let mut reused = subnet.guest_addresses().filter(|a| avoid.contains(a));
    let mut next = || fresh.by_ref().chain(reused.by_ref()).find(|a| taken.insert(*a));
    results
        .into_iter()
        .map(|result| result.unwrap_or_else(|| next().ok_or(AddressProblem::Full)))
        .collect()
}
