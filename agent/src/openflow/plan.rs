//! From what should be and what is to what is to be done.

use std::collections::BTreeMap;

use super::{Client, Error, Flow, FlowSet, Held, Meter, beside};

/// What makes a bridge's flows right. Only flows with our cookie and meters of our range are in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Meters to make before the flows that use them.
    pub add_meters: BTreeMap<u32, Meter>,
    /// Meters to change in place.
    pub modify_meters: BTreeMap<u32, Meter>,
    /// Flows to delete, first in the bundle: one that is replaced under another rule must never be there twice.
    pub remove: Vec<Flow>,
    /// Flows to add or to replace, in the same bundle.
    pub add: Vec<Flow>,
    /// Meters to delete after the flows that used them.
    pub remove_meters: Vec<u32>,
    /// Flows of others in the place of one of ours. They are kept, so ours is missing.
    pub conflicts: Vec<Flow>,
    /// All flows of others: they may let pass what ours would drop.
    pub strangers: Vec<Flow>,
}

impl Plan {
    /// True when there is nothing to do; conflicts and strangers may still be there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            add_meters,
            modify_meters,
            remove,
            add,
            remove_meters,
            conflicts: _,
            strangers: _,
        } = self;
        add_meters.is_empty()
            && modify_meters.is_empty()
            && remove.is_empty()
            && add.is_empty()
            && remove_meters.is_empty()
    }
}

/// Compares. `observed` holds all flows and meters of the bridge, those of others too.
#[must_use]
pub fn plan(desired: &FlowSet, observed: &FlowSet) -> Plan {
    let mut plan = Plan::default();
    for (rule, wanted, held) in beside(&desired.flows, &observed.flows) {
        let flow = |(cookie, actions): &Held| Flow {
            rule: rule.clone(),
            cookie: *cookie,
            actions: actions.clone(),
        };
        match (wanted, held) {
            (_, Some(held)) if !held.0.is_ours() => {
                if wanted.is_some() {
                    plan.conflicts.push(flow(held));
                }
                plan.strangers.push(flow(held));
            }
            (Some(wanted), held) if held != Some(wanted) => plan.add.push(flow(wanted)),
            (None, Some(held)) => plan.remove.push(flow(held)),
            _ => {}
        }
    }
    for (id, meter) in &desired.meters {
        match observed.meters.get(id) {
            Some(held) if held == meter => {}
            Some(_) => drop(plan.modify_meters.insert(*id, *meter)),
            None => drop(plan.add_meters.insert(*id, *meter)),
        }
    }
    let unused = |id: &&u32| Meter::is_ours(**id) && !desired.meters.contains_key(id);
    plan.remove_meters = observed.meters.keys().filter(unused).copied().collect();
    plan
}

/// Carries a plan out: meters, then all flows in one bundle (all or nothing), then the meters that nothing uses any more.
///
/// # Errors
/// [`Error::Refused`] names the flow, [`Error::Unmetered`] the meters; no flow was changed then. After other errors it is not known.
pub async fn execute(plan: &Plan, client: &Client) -> Result<(), Error> {
    let Plan {
        add_meters,
        modify_meters,
        remove,
        add,
        remove_meters,
        conflicts: _,
        strangers: _,
    } = plan;
    if !add_meters.is_empty() || !modify_meters.is_empty() {
        client.set_meters(add_meters, modify_meters).await?;
    }
    if !remove.is_empty() || !add.is_empty() {
        client.commit(remove, add).await?;
    }
    if !remove_meters.is_empty() {
        client.delete_meters(remove_meters).await?;
    }
    Ok(())
}
