//! The flows of a worker's guests: what they follow from, how they are set, and what a look at them says.

mod refusals;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::Instrument;
use trunkline_proto::{
    VlanId,
    resource::{Facts, Flows, Key, Observation, Port, State},
    wire,
};

pub(super) use refusals::Refusals;

use super::{Acts, Seen, Worker, drift::Lost};
use crate::{
    flows::{self, Guest, Network, Policy, Segment, ServiceAddress, Standing, Storm, StormLimits, Uplink},
    node::Desired,
    openflow::{self, FlowSet, Fragments, MeterCounters, Table},
    probe,
    switch::{Addition, Observed, ObservedPort, Plan, PortColumns, SwitchState},
};

/// How long the bridge may take to answer on its management socket: it does at once, unless it was made just now.
const WAIT: Duration = Duration::from_secs(2);

/// Meters that the switch cannot have, by number, and why.
pub(super) type Unmetered = BTreeMap<u32, String>;

/// What a look at the flows found.
pub(super) struct Guarded {
    /// What they follow from.
    pub(super) network: Network,
    /// OpenFlow numbers of the guests' ports, by name.
    pub(super) numbers: BTreeMap<String, u32>,
    /// Of each VLAN.
    pub(super) standings: BTreeMap<VlanId, Standing>,
    /// What is still to be done, and what others have there.
    pub(super) rest: Arc<openflow::Plan>,
    /// VLANs with a guest whose limits the switch cannot have, and why.
    pub(super) unlimited: BTreeMap<VlanId, String>,
    /// What the flows see of fragments.
    pub(super) fragments: Fragments,
    wanted: FlowSet,
    there: FlowSet,
}

impl Guarded {
    /// True when nothing of ours is there that should not be.
    pub(super) fn is_tidy(&self) -> bool {
        self.rest.remove.is_empty() && self.rest.remove_meters.is_empty()
    }

    /// What the next pass compares with: only what has changed since then was changed by somebody else.
    pub(super) fn settled(self) -> Settled {
        Settled {
            network: self.network,
            there: self.there,
        }
    }

    /// Why a port is not held to what it may.
    pub(super) fn port_problem(&self, number: u32) -> Option<String> {
        flows::port_problem(number, &self.wanted, &self.there)
    }
}

/// The flows as a pass has left them.
#[derive(Debug)]
pub(super) struct Settled {
    network: Network,
    there: FlowSet,
}

/// Flows that were compared, and what came of it: all looks of a pass, and most passes, are at the same ones.
#[derive(Debug)]
pub(super) struct Compared {
    wanted: Arc<FlowSet>,
    there: FlowSet,
    rest: Arc<openflow::Plan>,
}

impl Compared {
    fn is_of(&self, wanted: &Arc<FlowSet>, there: &FlowSet) -> bool {
        Arc::ptr_eq(&self.wanted, wanted)
            && Arc::ptr_eq(&self.there.flows, &there.flows)
            && self.there.meters == there.meters
    }
}

/// What setting the flows has found.
pub(super) struct Set {
    /// What was there.
    pub(super) before: Table,
    /// It is no longer so.
    changed: bool,
    /// Limits that the switch refused, by the meter's number.
    unmetered: Unmetered,
}

/// What became of each VLAN's flows since `settled`. Without an earlier look only VLANs count that have none at all: another version of
/// this program may have made others.
pub(super) fn lost(settled: Option<&Settled>, network: &Network, found: &FlowSet) -> BTreeMap<VlanId, Lost> {
    let Some(Settled { network, there }) = settled else {
        let standings = flows::standings(network, &compile(network), found);
        let gone = standings.into_iter().filter(|(_, standing)| standing.there == 0);
        let lost = |(vlan, standing): (VlanId, Standing)| {
            let missing = standing.missing;
            (vlan, Lost { missing, foreign: 0 })
        };
        return gone.map(lost).collect();
    };
    if Arc::ptr_eq(&there.flows, &found.flows) {
        return BTreeMap::new();
    }
    let ours = |held: Option<&openflow::Held>| held.is_some_and(|(cookie, _)| cookie.is_ours());
    let (mut before, mut new) = (FlowSet::default(), FlowSet::default());
    for (rule, was, is) in openflow::beside(&there.flows, &found.flows) {
        let flow = |(cookie, actions): &openflow::Held| openflow::Flow {
            rule: rule.clone(),
            cookie: *cookie,
            actions: actions.clone(),
        };
        // One that a stranger's stands in the place of is not put right.
        if was != is && ours(was) && (is.is_none() || ours(is)) {
            before.extend(was.map(flow));
        }
        if was.is_none() && ours(is) {
            new.extend(is.map(flow));
        }
    }
    let mut lost: BTreeMap<VlanId, Lost> = BTreeMap::new();
    for (vlan, standing) in flows::standings(network, &before, found) {
        lost.entry(vlan).or_default().missing = standing.missing;
    }
    // Those that belong to no VLAN are counted for the first one.
    for (at, (vlan, standing)) in flows::standings(network, &new, found).into_iter().enumerate() {
        let shared = if at == 0 { flows::shared(network, &new) } else { 0 };
        lost.entry(vlan).or_default().foreign = standing.there + shared;
    }
    lost
}

impl Worker {
    /// As [`compile`]; what was compiled last is kept, because all looks of a pass mostly are at the same network.
    fn compiled(&mut self, network: &Network) -> Arc<FlowSet> {
        if let Some((of, set)) = &self.compiled
            && of == network
        {
            return set.clone();
        }
        let set = Arc::new(compile(network));
        self.compiled = Some((network.clone(), set.clone()));
        set
    }

    /// As [`openflow::plan`]; the last one is kept.
    fn rest(&mut self, wanted: &Arc<FlowSet>, there: &FlowSet) -> Arc<openflow::Plan> {
        if let Some(compared) = self.compared.as_ref().filter(|last| last.is_of(wanted, there)) {
            return compared.rest.clone();
        }
        let rest = Arc::new(openflow::plan(wanted, there));
        self.compared = Some(Compared {
            wanted: wanted.clone(),
            there: there.clone(),
            rest: rest.clone(),
        });
        rest
    }

    /// All that is on the bridge, as it has told it; now and then as it shows it, in case that something was lost on the way.
    async fn table(&mut self) -> Result<Table, openflow::Error> {
        let connection = self.openflow.connection();
        if let Some(connection) = connection
            && self.read.is_none_or(|(of, _)| of != connection)
        {
            // It has just told all of them.
            self.read = Some((connection, Instant::now()));
        }
        if self.read.is_some_and(|(_, at)| at.elapsed() < self.alive_every) {
            return self.openflow.told().await;
        }
        let table = self.openflow.table().await?;
        self.read = connection.map(|connection| (connection, Instant::now()));
        Ok(table)
    }

    /// Brings the flows where they are to be. A switch that cannot have a limit has the flows without it.
    pub(super) async fn set_flows(&mut self, network: &Network) -> Result<Set, openflow::Error> {
        tokio::select! {
            ready = self.openflow.ready(WAIT) => ready?,
            // Without the database nobody makes the bridge that would answer, and what follows needs the database as well.
            () = self.ovs.lost() => self.openflow.ready(Duration::ZERO).await?,
        }
        let wanted = self.compiled(network);
        let mut unmetered = self.refusals.known(self.openflow.connection(), &wanted.meters);
        let (before, changed) = match self.set(&wanted, &unmetered).await {
            Err(openflow::Error::Unmetered { refused }) => {
                self.refusals.note(&refused, &wanted.meters);
                unmetered.extend(refused);
                self.set(&wanted, &unmetered).await?
            }
            done => done?,
        };
        Ok(Set {
            before,
            changed,
            unmetered,
        })
    }

    /// Answers what was there before, and whether it was changed.
    async fn set(&mut self, wanted: &Arc<FlowSet>, without: &Unmetered) -> Result<(Table, bool), openflow::Error> {
        let table = self.table().await?;
        let wanted = without_limits(wanted, without, &table.set);
        // First, so that no flow of ours ever meets a fragment that it cannot see into; but only where there are any: a bridge without
        // them may be somebody else's.
        let blind = !wanted.flows.is_empty() && table.fragments != Fragments::Matched;
        if blind {
            self.match_fragments(table.fragments).await?;
        }
        let plan = self.rest(&wanted, &table.set);
        if plan.is_empty() {
            return Ok((table, blind));
        }
        let (add, remove) = (plan.add.len(), plan.remove.len());
        let span = tracing::info_span!("flows", add, remove);
        // Whoever fails from here on has changed what the next pass would compare with.
        self.settled = None;
        openflow::execute(&plan, &self.openflow).instrument(span).await?;
        tracing::info!(add, remove, "flows set");
        if !plan.remove_meters.is_empty() {
            // There may be room for another one now.
            self.refusals = Refusals::default();
        }
        Ok((table, true))
    }

    /// A switch that cannot is no reason to go without flows: they stop what they can, and the look that follows sees how it stands.
    async fn match_fragments(&self, before: Fragments) -> Result<(), openflow::Error> {
        match self.openflow.match_fragments().await {
            Ok(()) => {
                tracing::info!(%before, "flows see into fragments");
                Ok(())
            }
            Err(error) if error.is_answer() => {
                tracing::debug!(error = crate::chain(&error), "flows do not see into fragments");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The second look. A port that got another number than it asked for has no flows yet, so they follow it here; and one that has
    /// its VLAN only now is opened.
    pub(super) async fn look_at_flows(
        &mut self,
        desired: &Desired,
        state: &SwitchState,
        observed: &Observed,
        acts: &mut Acts,
    ) -> Result<Guarded, String> {
        if let Some(error) = acts.blind.take() {
            // Perhaps nobody is there any more.
            self.alive = None;
            return Err(error);
        }
        if !observed.behind {
            self.moving.clear();
        }
        let network = network(desired, state, observed, None, &self.moving);
        let (mut unmetered, mut seen) = (Unmetered::new(), None);
        // A bridge that is not ours has no flows of ours.
        if acts.refused.is_none() {
            match self.set_flows(&network).await {
                Ok(set) => {
                    unmetered = set.unmetered;
                    seen = (!set.changed).then_some(set.before);
                }
                Err(error) => {
                    let text = crate::chain(&error);
                    if !error.is_answer() {
                        self.alive = None;
                        return Err(text);
                    }
                    acts.unguarded = Some(format!("the flows could not be set: {text}"));
                }
            }
        }
        if self.unmetered != unmetered {
            if let Some(reason) = unmetered.values().next() {
                tracing::warn!(count = unmetered.len(), reason, "the switch refuses limits");
            }
            self.unmetered.clone_from(&unmetered);
        }
        let table = match seen {
            Some(table) => Ok(table),
            None => self.table().await,
        };
        match table {
            Ok(table) => {
                let wanted = without_limits(&self.compiled(&network), &unmetered, &table.set);
                let rest = self.rest(&wanted, &table.set);
                Ok(guarded(desired, observed, network, &wanted, table, rest, &unmetered))
            }
            Err(error) => {
                self.alive = None;
                Err(crate::chain(&error))
            }
        }
    }
}

fn guarded(
    desired: &Desired,
    observed: &Observed,
    network: Network,
    wanted: &FlowSet,
    table: Table,
    rest: Arc<openflow::Plan>,
    unmetered: &Unmetered,
) -> Guarded {
    let (there, fragments) = (table.set, table.fragments);
    let standings = flows::standings(&network, wanted, &there);
    let numbers = desired.ports().filter_map(|(_, _, port)| {
        let name = port.tap.to_string();
        let number = number(observed.port(&name)?)?;
        Some((name, number))
    });
    // Only what is wrong is looked at again for each port: what is not there, and what a stranger's stands in the place of.
    let wrong = rest.add.iter().chain(&rest.conflicts);
    let flow = |flow: &openflow::Flow| {
        let (cookie, actions) = wanted.flows.get(&flow.rule)?.clone();
        let rule = flow.rule.clone();
        Some(openflow::Flow { rule, cookie, actions })
    };
    let wanted: FlowSet = wrong.filter_map(flow).collect();
    Guarded {
        numbers: numbers.collect(),
        unlimited: unlimited(&network, unmetered),
        network,
        standings,
        rest,
        fragments,
        wanted,
        there,
    }
}

/// What is wanted of a switch that cannot have these limits; a copy only where there are any.
fn without_limits(wanted: &Arc<FlowSet>, unmetered: &Unmetered, there: &FlowSet) -> Arc<FlowSet> {
    let mut wanted = wanted.clone();
    if !unmetered.is_empty() {
        Arc::make_mut(&mut wanted).do_without(unmetered.keys(), there);
    }
    wanted
}

fn unlimited(network: &Network, unmetered: &Unmetered) -> BTreeMap<VlanId, String> {
    let of_guest = |(number, guest): (&u32, &Guest)| {
        let meters = [Storm::Group, Storm::Unknown].map(|storm| storm.meter(*number));
        let reason = meters.iter().find_map(|meter| unmetered.get(meter))?;
        Some((guest.vlan?, reason.clone()))
    };
    network.guests.iter().filter_map(of_guest).collect()
}

/// A worker without guests, and without a probe, has no flows at all: its bridge drops everything without them.
fn compile(network: &Network) -> FlowSet {
    if network.guests.is_empty() && network.probe.is_none() {
        FlowSet::default()
    } else {
        flows::compile(network)
    }
}

/// Why an uplink cannot be reached by flows.
pub(super) fn uplink_problem(state: &SwitchState, observed: &Observed) -> Option<(String, String)> {
    let name = &state.uplink.as_ref()?.name;
    let count = observed.port(name)?.interfaces.len();
    let reason =
        format!("the uplink {name} is a bond of {count} interfaces, which a worker cannot use yet; name one interface");
    (count > 1).then(|| (name.clone(), reason))
}

/// Guests that are to be on a VLAN, and whose port is not.
pub(super) fn moving(desired: &Desired, network: &Network, observed: &Observed) -> BTreeSet<String> {
    let shut = |port: &Port| {
        let number = observed.port(port.tap.as_str()).and_then(number)?;
        let guest = network.guests.get(&number)?;
        (port.vlan.is_some() && guest.vlan.is_none()).then(|| port.tap.to_string())
    };
    desired.ports().filter_map(|(_, _, port)| shut(port)).collect()
}

/// What the flows follow from. Ports that `plan` makes count with the numbers that they will ask for, those that leave no more.
/// `moving`: guests that were shut because their VLAN changes.
pub(super) fn network(
    desired: &Desired,
    state: &SwitchState,
    observed: &Observed,
    plan: Option<&Plan>,
    moving: &BTreeSet<String>,
) -> Network {
    let segments: BTreeMap<_, _> = desired
        .flows()
        .map(|(_, _, flows)| (flows.vlan, segment(flows)))
        .collect();
    let limits: BTreeMap<_, _> = desired
        .flows()
        .map(|(_, _, flows)| (flows.vlan, limits(flows)))
        .collect();
    let acts = plan.map(ByPort::new).unwrap_or_default();
    let number = |name: &str| {
        acts.coming
            .get(name)
            .copied()
            .or_else(|| standing(name, state, observed, &acts))
    };
    let guests = desired.ports().filter_map(|(_, _, port)| {
        let name = port.tap.as_str();
        let limits = port.vlan.and_then(|vlan| limits.get(&vlan)).copied();
        let mut guest = guest(port, limits.unwrap_or_default());
        // One that joins has its tag from the start. One that moves would send in its old VLAN what it may in the new one: it is
        // shut, and the look after the ports were changed opens it. The row says what is to be; ovs-vswitchd may not have read it.
        let taken = !(observed.behind && moving.contains(name));
        let there = |vlan: &VlanId| taken && has_tag(observed.port(name), *vlan);
        guest.vlan = guest.vlan.filter(|vlan| acts.coming.contains_key(name) || there(vlan));
        Some((number(name)?, guest))
    });
    let uplink = state.uplink.as_ref().and_then(|uplink| {
        let port = number(&uplink.name)?;
        let vlans = uplink.vlans.clone();
        Some(Uplink { port, vlans })
    });
    Network {
        uplink,
        probe: state
            .ports
            .contains_key(probe::PORT)
            .then(|| number(probe::PORT))
            .flatten(),
        guests: guests.collect(),
        segments,
    }
}

/// What a plan does, by the names of ports.
#[derive(Default)]
struct ByPort<'a> {
    /// The numbers that ports will ask for when they join.
    coming: BTreeMap<&'a str, u32>,
    leaving: BTreeSet<&'a str>,
    /// Among them those that are adopted.
    changing: BTreeSet<&'a str>,
}

impl<'a> ByPort<'a> {
    fn new(plan: &'a Plan) -> Self {
        let asks = |addition: &'a Addition| {
            let number = u32::try_from(addition.columns.interface.ofport_request?).ok()?;
            Some((addition.name.as_str(), number))
        };
        Self {
            coming: plan.add.iter().filter_map(asks).collect(),
            leaving: plan.remove.iter().map(|removal| removal.name.as_str()).collect(),
            changing: plan.modify.iter().map(|change| change.name.as_str()).collect(),
        }
    }
}

/// The number of a port that is on our bridge, is ours, and stays.
fn standing(name: &str, state: &SwitchState, observed: &Observed, acts: &ByPort<'_>) -> Option<u32> {
    let port = observed.port(name)?;
    let on_our_bridge = port
        .bridge
        .as_ref()
        .is_some_and(|(_, bridge)| *bridge == state.bridge.name);
    let ours = port.is_ours(&state.mark) || acts.changing.contains(name);
    (on_our_bridge && ours && !acts.leaving.contains(name)).then(|| number(port))?
}

/// True when `NORMAL` forwards what comes in on a port within this VLAN.
fn has_tag(port: Option<&ObservedPort>, vlan: VlanId) -> bool {
    let access = |columns: &PortColumns| {
        columns.vlan_mode.as_deref() == Some("access") && columns.tag == Some(i64::from(vlan.get()))
    };
    port.is_some_and(|port| access(&port.columns))
}

/// The number that ovs-vswitchd gave; a bond has one for each member, which is not supported.
fn number(port: &ObservedPort) -> Option<u32> {
    let [interface] = &port.interfaces[..] else { return None };
    u32::try_from(interface.ofport?).ok().filter(|number| *number > 0)
}

fn guest(port: &Port, limits: StormLimits) -> Guest {
    Guest {
        vlan: port.vlan,
        mac: port.mac,
        addresses: port.addresses.iter().copied().collect(),
        limits,
    }
}

fn limits(flows: &Flows) -> StormLimits {
    StormLimits {
        group: flows.broadcast_limit.map_or(0, NonZeroU32::get),
        unknown: flows.unknown_unicast_limit.map_or(0, NonZeroU32::get),
    }
}

fn segment(flows: &Flows) -> Segment {
    let gateway = ServiceAddress {
        mac: flows.gateway_mac,
        address: flows.gateway_address,
        dhcp: false,
    };
    let dhcp = flows.dhcp.map(|(mac, address)| ServiceAddress {
        mac,
        address,
        dhcp: true,
    });
    Segment {
        policy: match (flows.protected, flows.port_security) {
            (true, _) => Policy::Protected,
            (false, true) => Policy::Secured,
            (false, false) => Policy::Open,
        },
        services: [gateway].into_iter().chain(dhcp).collect(),
        known: flows.guests.clone(),
    }
}

/// Which limits bite, as the meters tell at every look at the counters.
#[derive(Debug, Default)]
pub(super) struct Storms {
    network: Network,
    names: BTreeMap<u32, String>,
    before: Option<BTreeMap<u32, MeterCounters>>,
    /// Ports whose limit has dropped frames between the last two looks: VLAN, and frames dropped since the port joined.
    biting: BTreeMap<String, (VlanId, u64)>,
    /// The flows as the last pass judged them, without storms.
    judged: BTreeMap<Key, Observation>,
}

impl Storms {
    /// Takes over what a pass has found.
    pub(super) fn stand_on(&mut self, observations: &[Observation], seen: &Seen) {
        let flows = observations.iter().filter(|o| matches!(o.facts, Some(Facts::Flows(_))));
        self.judged = flows.map(|o| (o.key.clone(), o.clone())).collect();
        if let Ok(guarded) = &seen.guarded {
            self.network = guarded.network.clone();
            self.names = guarded
                .numbers
                .iter()
                .map(|(name, number)| (*number, name.clone()))
                .collect();
        }
        self.biting
            .retain(|name, _| self.names.values().any(|held| held == name));
    }

    /// Compares the meters with the last look; what changed in a VLAN's state is returned.
    pub(super) fn count(&mut self, desired: &Desired, now: BTreeMap<u32, MeterCounters>) -> Vec<Observation> {
        let earlier = std::mem::take(&mut self.biting);
        if let Some(before) = &self.before {
            let bitten: BTreeSet<u32> = flows::bites(&self.network, before, &now)
                .iter()
                .map(|bite| bite.port)
                .collect();
            let storm = |number: u32| {
                let dropped = |storm: Storm| now.get(&storm.meter(number)).map_or(0, |seen| seen.dropped);
                let vlan = self.network.guests.get(&number)?.vlan?;
                let all = dropped(Storm::Group).saturating_add(dropped(Storm::Unknown));
                Some((self.names.get(&number)?.clone(), (vlan, all)))
            };
            self.biting = bitten.into_iter().filter_map(storm).collect();
        }
        self.before = Some(now);
        if self.biting == earlier {
            return Vec::new();
        }
        let current = |o: &&Observation| desired.items.get(&o.key).is_some_and(|item| item.hash == o.hash);
        let mut observations: Vec<_> = self.judged.values().filter(current).cloned().collect();
        self.mark(&mut observations);
        observations
    }

    /// Writes the storms into the observations of their VLANs.
    pub(super) fn mark(&self, observations: &mut [Observation]) {
        for observation in observations {
            let Some(Facts::Flows(facts)) = &mut observation.facts else {
                continue;
            };
            let of_it = |(name, (vlan, dropped)): (&String, &(VlanId, u64))| {
                let storm = wire::StormFacts {
                    port: name.clone(),
                    dropped: *dropped,
                };
                (Flows::name_of(*vlan) == observation.key.name.as_str()).then_some(storm)
            };
            facts.storms = self.biting.iter().filter_map(of_it).collect();
            if let (Some(first), State::Ready) = (facts.storms.first(), observation.state) {
                let more = match facts.storms.len() - 1 {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                observation.reason = format!(
                    "{}{more} sends more to all, or to nobody, than its limit allows: {} frames dropped",
                    first.port, first.dropped
                );
                observation.state = State::Degraded;
            }
        }
    }
}

#[cfg(test)]
mod tests;
