//! The compute worker: a TAP and a switch port for each interface of its virtual machines, and the uplink's VLAN list.
//!
//! ```text
//!   pass:  look -> make TAPs -> shut their ingress -> [bridge] -> flows -> ports, one OVS transaction -> remove TAPs -> look again -> judge
//! ```
//!
//! A TAP comes before its port and goes after it. The bridge lets nothing pass that no flow allows, and a port's flows come before the
//! port, so there is no moment in which a guest could send what it may not. When the flows cannot be set, new ports stay out. What is
//! reported is what the second look found, never what was asked for.

mod desired;
mod drift;
mod flows;
mod judge;
mod shut;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::Instrument;
use trunkline_certs::Role;
use trunkline_proto::{
    daemon::telemetry,
    resource::{Facts, Kind, Observation, Spec, State},
};

pub use desired::Base;
use desired::KNOWN_WAIT;
use flows::{Compared, Guarded, Refusals, Settled, Storms, Unmetered};
use steps::{Rest, links, only_what_shuts, planned, touched, without_guests};

use crate::{
    config::NodeConfig,
    flows::Network,
    ingress::Ingress,
    netlink,
    node::{BoxError, Desired, Doing, Host, HostFacts, NodeContext, Pass, Program, Repair, Validate},
    openflow::{self, FlowSet},
    orphans::{self, Orphan, Orphans, Thing},
    ovsdb,
    probe::{self, Prober},
    report::COUNTERS_EVERY,
    switch::{self, BridgeStep, FailMode, Observed, SwitchState},
    tap,
};

/// The worker's program.
pub const PROGRAM: Program = Program {
    service: "trunkline-agent",
    version: env!("CARGO_PKG_VERSION"),
    role: Role::Worker,
    kinds: &[Kind::Port, Kind::Trunk, Kind::Flows, Kind::Probe],
};

/// How long Open vSwitch's database may be away before a pass goes without it.
const OVS_WAIT: Duration = Duration::from_secs(2);
/// How long ovs-vswitchd may take for one transaction. 800 new ports took about a second.
const SWITCH_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to answer when nothing is to be done.
const ALIVE_LIMIT: Duration = Duration::from_secs(5);
/// How old its last sign of life may be: the database goes on telling of ports when ovs-vswitchd is dead.
pub const ALIVE_EVERY: Duration = Duration::from_secs(20);

/// The host of a compute worker.
#[derive(Debug)]
pub struct Worker {
    base: Base,
    ovs: ovsdb::Client,
    openflow: openflow::Client,
    netlink: netlink::Handle,
    ingress: Ingress,
    prober: Prober,
    doing: Doing,
    storms: Storms,
    unmetered: Unmetered,
    refusals: Refusals,
    /// Guests that are shut because their port is not in its VLAN yet, by its name.
    moving: BTreeSet<String>,
    orphans: Orphans,
    /// Those that the last pass has left.
    left: Vec<Orphan>,
    /// The flows as the last pass has left them.
    settled: Option<Arc<Settled>>,
    /// The flows that follow from a network.
    compiled: Option<(Network, Arc<FlowSet>)>,
    compared: Option<Compared>,
    /// When the bridge has shown all its flows, and by which connection: it does at the beginning of each.
    read: Option<(u64, Instant)>,
    /// When frames were counted last, and how many each device had received.
    received: Option<(Instant, Arc<BTreeMap<String, u64>>)>,
    /// The ports as the last pass judged them.
    ports: Vec<Observation>,
    alive: Option<Instant>,
    alive_every: Duration,
    /// No pass has looked at the flows yet.
    fresh: bool,
}

/// What the worker refuses.
pub fn validate(config: &NodeConfig) -> Validate {
    let base = Base::new(config.node.name.as_str(), &config.switch, FailMode::Secure);
    Arc::new(move |spec: &Spec| base.validate(spec))
}

impl Worker {
    /// Built by the runtime.
    pub fn build(cx: &NodeContext) -> Result<Self, BoxError> {
        let base = Base::new(cx.node.as_str(), &cx.config.switch, FailMode::Secure);
        // ovs-vswitchd puts both into one directory.
        let directory = cx
            .config
            .switch
            .socket
            .parent()
            .unwrap_or(Path::new("/run/openvswitch"));
        let socket = directory.join(format!("{}.mgmt", base.bridge.name));
        let openflow = openflow::Client::start(socket, cx.cancel.clone());
        cx.wake.follow(openflow.changes());
        Ok(Self {
            base,
            ovs: cx.ovs.clone(),
            openflow,
            netlink: cx.netlink.clone(),
            ingress: shut::watched(cx, ALIVE_EVERY),
            prober: Prober::start(&cx.node, cx.board.clone(), &cx.metrics, cx.cancel.clone(), &cx.tasks),
            doing: cx.doing.clone(),
            storms: Storms::default(),
            unmetered: Unmetered::default(),
            refusals: Refusals::default(),
            moving: BTreeSet::default(),
            orphans: Orphans::default(),
            left: Vec::new(),
            settled: None,
            compiled: None,
            compared: None,
            read: None,
            received: None,
            ports: Vec::new(),
            alive: None,
            alive_every: ALIVE_EVERY,
            fresh: true,
        })
    }

    /// Asks ovs-vswitchd for a sign of life more or less often.
    #[must_use]
    pub fn alive_every(mut self, every: Duration) -> Self {
        self.alive_every = every;
        self.ingress.every(every);
        self
    }

    /// Gives ovs-vswitchd another time for an answer about flows.
    #[must_use]
    pub fn answer_within(mut self, limit: Duration) -> Self {
        self.openflow = self.openflow.answer_within(limit);
        self
    }

    /// Removes leftovers sooner or later than [`crate::orphans::SECOND_LOOK`].
    #[must_use]
    pub fn orphans_after(mut self, wait: Duration) -> Self {
        self.orphans = Orphans::new(wait);
        self
    }

    /// Looks, acts, looks again. An error means that nothing is known.
    async fn realise(&mut self, desired: &Desired) -> Result<Seen, switch::Error> {
        self.doing.step("looking at the host");
        self.ovs.ready(OVS_WAIT).await?;
        let mut observed = self.look().await?;
        if self.prober.clear(&observed, &self.netlink).await {
            observed = switch::observe(&self.ovs, &self.netlink).await?;
        }
        let mut acts = Acts::default();

        let mut taps = tap::plan(desired::taps(desired), links(&observed));
        let mut whole = desired::switch(&self.base, desired);
        if let Some(port) = self.prober.port(desired) {
            whole.ports.insert(probe::PORT.to_owned(), port);
        }
        let first = switch::plan(&whole, &observed).ok();
        acts.repairs = drift::repairs(desired, &whole, &observed, &taps, first.as_ref());
        let probe = self.prober.repairs(desired, &whole, &observed, first.as_ref());
        acts.repairs.extend(probe);
        let unwanted = drift::unwanted(&taps, first.as_ref(), &observed);
        let now = tokio::time::Instant::now();
        let wanted = drift::wanted(desired, &whole);
        let look = orphans::Look {
            there: drift::there(&wanted, &observed),
            wanted,
            in_the_way: drift::in_the_way(&unwanted, &whole, &observed),
            unwanted,
            leaving: Some(&desired.leaving),
        };
        acts.kept = self.orphans.look(look, now);
        if whole.ports.contains_key(probe::PORT) && self.take_off_probe(&whole, &observed, &mut acts).await {
            observed = switch::observe(&self.ovs, &self.netlink).await?;
        }
        taps.remove.retain(|(name, _)| !acts.keeps(drift::TAP, name));
        let mut missing = taps.conflicts.clone();
        if !taps.is_empty() {
            self.doing.step("making TAPs");
            let failed = tap::create_and_correct(&taps, &self.netlink).await;
            for (name, error) in failed {
                let text = crate::chain(&error);
                if taps.create.iter().any(|tap| tap.name == name) {
                    missing.insert(name, text);
                } else {
                    acts.troubles.insert(name, text);
                }
            }
            let made = taps.create.iter().map(|tap| &tap.name);
            let touched = made.chain(taps.correct.iter().map(|correction| &correction.tap.name));
            acts.touched = touched.cloned().collect();
            observed = switch::observe_again(&self.ovs, &self.netlink, &observed, &acts.touched).await?;
        }
        acts.troubles.extend(missing.clone());
        // Before any port joins.
        let lost = self.shut_ingress(&observed);
        acts.repairs.extend(drift::ingress(desired, &lost));

        let mut state = desired::without(whole, &missing);
        let taken = probe::port::taken(&observed, &state.mark);
        Prober::without(&mut state, &mut acts.troubles, taken);
        let observed = self.guard_and_switch(desired, &state, observed, &mut acts).await?;
        if acts.switched && !taps.remove.is_empty() {
            // Their ports have left the switch.
            self.doing.step("removing TAPs");
            if let Err(error) = tap::remove(&taps, &self.netlink).await {
                tracing::warn!(error = crate::chain(&error), "TAPs could not be removed");
            }
        }
        self.doing.step("looking again");
        acts.touched.extend(taps.remove.iter().map(|(name, _)| name.clone()));
        let observed = if acts.uplink {
            switch::observe(&self.ovs, &self.netlink).await?
        } else {
            switch::observe_again(&self.ovs, &self.netlink, &observed, &acts.touched).await?
        };
        // The bridge may be another now, and TAPs have gone.
        self.shut_ingress(&observed);
        let guarded = self.look_at_flows(desired, &state, &observed, &mut acts).await;
        if std::mem::take(&mut self.fresh) && guarded.is_ok() && !observed.behind {
            // Whoever has just told of all flows is alive: a start with nothing to do writes nothing.
            self.alive = Some(Instant::now());
        }
        self.prove_alive(&mut acts).await;
        let trouble = acts.probe_trouble(guarded.as_ref().err());
        self.prober
            .attend(desired, &state, &observed, trouble, &self.netlink)
            .await;
        let tidy = guarded.as_ref().is_ok_and(Guarded::is_tidy) && self.ingress.is_tidy();
        let received = self.received().await?;
        let rest = Rest::new(&state, desired, &observed);
        self.left = self.orphans.list(&rest.unwanted);
        let clean = acts.switched && !acts.silent && tidy && rest.is_nothing;
        let heard = self.heard(&observed);
        Ok(Seen {
            state,
            observed,
            received,
            guarded,
            heard,
            acts,
            clean,
        })
    }

    /// A probe's port that has lost its device leaves the switch, so that a new one is made. True when it did.
    async fn take_off_probe(&mut self, whole: &SwitchState, observed: &Observed, acts: &mut Acts) -> bool {
        // A switch that is dead has no devices at all, and makes them anew by itself.
        if !probe::port::lost(observed, &whole.mark) || !self.openflow.is_connected() {
            return false;
        }
        let mut without = whole.clone();
        without.ports.remove(probe::PORT);
        let Ok(mut plan) = switch::plan(&without, observed) else {
            return false;
        };
        if !matches!(plan.bridge, BridgeStep::Keep(_)) {
            return false;
        }
        plan.remove.retain(|removal| removal.name == probe::PORT);
        (plan.add, plan.modify) = (Vec::new(), Vec::new());
        (plan.quiet_local, plan.raise_uplink) = (None, None);
        tracing::warn!(device = probe::PORT, "the device is gone; its port is made again");
        self.switch(&plan, ALIVE_LIMIT, acts).await;
        std::mem::take(&mut acts.switched)
    }

    /// The first look of a pass; at the frames that devices have received as well, when it is time for that.
    async fn look(&mut self) -> Result<Observed, switch::Error> {
        if self.counted().is_some() {
            return switch::observe(&self.ovs, &self.netlink).await;
        }
        let ((links, received), addresses, routes) = tokio::try_join!(
            self.netlink.links_with_received(),
            self.netlink.addresses(),
            self.netlink.routes()
        )?;
        self.received = Some((Instant::now(), Arc::new(received)));
        switch::observe_beside(&self.ovs, &links, &addresses, &routes)
    }

    fn counted(&self) -> Option<Arc<BTreeMap<String, u64>>> {
        let (at, received) = self.received.as_ref()?;
        (at.elapsed() < COUNTERS_EVERY).then(|| received.clone())
    }

    /// Frames that each device has received, as they were counted at most some seconds ago.
    async fn received(&mut self) -> Result<Arc<BTreeMap<String, u64>>, netlink::Error> {
        if let Some(received) = self.counted() {
            return Ok(received);
        }
        let received = Arc::new(self.netlink.received().await?);
        self.received = Some((Instant::now(), received.clone()));
        Ok(received)
    }

    /// Bridge, then flows, then ports. Answers the look that the ports were planned by.
    async fn guard_and_switch(
        &mut self,
        desired: &Desired,
        state: &SwitchState,
        mut observed: Observed,
        acts: &mut Acts,
    ) -> Result<Observed, switch::Error> {
        let Some(mut plan) = planned(state, &observed, acts) else {
            return Ok(observed);
        };
        if !matches!(plan.bridge, BridgeStep::Keep(_)) {
            // Flows need a bridge, and a change of its failure mode loses all that it had.
            self.switch(&without_guests(plan, state), SWITCH_LIMIT, acts).await;
            observed = switch::observe(&self.ovs, &self.netlink).await?;
            match planned(state, &observed, acts) {
                Some(next) if acts.switched => plan = next,
                _ => return Ok(observed),
            }
        }
        acts.switched = false;
        acts.touched.extend(touched(&plan));
        acts.uplink |= plan.raise_uplink.is_some();
        acts.troubles.extend(flows::uplink_problem(state, &observed));
        let network = flows::network(desired, state, &observed, Some(&plan), &self.moving);
        self.moving = flows::moving(desired, &network, &observed);
        let settled = self.settled.clone();
        self.doing.step("setting flows");
        let set = self.set_flows(&network).await;
        if let Ok(set) = &set {
            let lost = flows::lost(settled.as_deref(), &network, &set.before.set);
            acts.repairs.extend(drift::flows(desired, &lost));
        }
        if let Err(error) = set {
            let text = crate::chain(&error);
            tracing::warn!(error = text, "flows could not be set");
            let waiting = plan
                .add
                .iter()
                .map(|a| &a.name)
                .chain(plan.modify.iter().map(|m| &m.name));
            let reason = format!("waits for its flows: {text}");
            acts.troubles.extend(waiting.map(|name| (name.clone(), reason.clone())));
            // What shuts needs no flows. Whoever left the flows without an answer may not act on ports either, but will when it wakes.
            let limit = if error.is_answer() { SWITCH_LIMIT } else { ALIVE_LIMIT };
            self.switch(&only_what_shuts(plan, state), limit, acts).await;
            acts.switched = false;
            if !error.is_answer() {
                acts.blind = Some(text);
            }
            return Ok(observed);
        }
        self.switch(&plan, SWITCH_LIMIT, acts).await;
        Ok(observed)
    }

    /// Brings the switch where a plan says, in one transaction.
    async fn switch(&mut self, plan: &switch::Plan, limit: Duration, acts: &mut Acts) {
        if plan.is_empty() {
            acts.switched = true;
            return;
        }
        let (add, modify, remove) = (plan.add.len(), plan.modify.len(), plan.remove.len());
        self.doing.step("setting switch ports");
        let span = tracing::info_span!("ovs transaction", add, modify, remove);
        let act = async {
            let trace = telemetry::current_traceparent();
            let trace = (!trace.is_empty()).then_some(&*trace);
            switch::execute(plan, &self.ovs, &self.netlink, trace, limit).await
        };
        match act.instrument(span).await {
            Ok(()) => {
                tracing::info!(add, modify, remove, "switch ports set");
                acts.switched = true;
                if switch::transaction(plan, None).is_some() {
                    self.alive = Some(Instant::now());
                }
            }
            Err(error) => {
                let text = crate::chain(&error);
                tracing::warn!(error = text, "switch ports could not be set");
                let changed = plan
                    .modify
                    .iter()
                    .map(|m| &m.name)
                    .chain(plan.add.iter().map(|a| &a.name));
                acts.troubles.extend(changed.map(|name| (name.clone(), text.clone())));
            }
        }
    }

    async fn prove_alive(&mut self, acts: &mut Acts) {
        if self.alive.is_some_and(|at| at.elapsed() < self.alive_every) {
            return;
        }
        self.doing.step("asking ovs-vswitchd for a sign of life");
        match switch::prove_alive(&self.ovs, ALIVE_LIMIT).await {
            Ok(()) => self.alive = Some(Instant::now()),
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "no sign of life from ovs-vswitchd");
                acts.silent = true;
            }
        }
    }
}

/// What a pass did, and what it could not do.
#[derive(Debug, Default)]
struct Acts {
    /// Why the bridge cannot be had at all.
    refused: Option<String>,
    /// By port name.
    troubles: BTreeMap<String, String>,
    /// Why the flows could not be set.
    unguarded: Option<String>,
    /// Why nothing can be known of the flows.
    blind: Option<String>,
    /// The switch took everything that was asked of it.
    switched: bool,
    /// ovs-vswitchd gives no sign of life.
    silent: bool,
    /// Devices that were changed, or whose port was.
    touched: BTreeSet<String>,
    /// The uplink is one of them: there is more to it than the device itself.
    uplink: bool,
    /// Leftovers that may not go yet.
    kept: BTreeSet<Thing>,
    /// What the first look found other than it should be.
    repairs: Vec<Repair>,
}

impl Acts {
    fn keeps(&self, kind: &'static str, name: &str) -> bool {
        !self.kept.is_empty() && self.kept.contains(&Thing::new(kind, name))
    }
}

impl Acts {
    /// Why no frame of the probe can be sent, whatever its port looks like.
    fn probe_trouble(&self, blind: Option<&String>) -> Option<(State, String)> {
        let failed = |reason: &String| (State::Failed, reason.clone());
        let unknown = |reason: &str| (State::Unknown, reason.to_owned());
        let silent = || self.silent.then(|| unknown(judge::SILENT));
        self.refused
            .as_ref()
            .or(self.troubles.get(probe::PORT))
            .or(self.unguarded.as_ref())
            .map(failed)
            .or_else(silent)
            .or_else(|| blind.map(|reason| unknown(reason)))
    }
}

/// What a pass found at its end.
struct Seen {
    state: SwitchState,
    observed: Observed,
    /// Frames that each device has received.
    received: Arc<BTreeMap<String, u64>>,
    /// An error: nothing is known of the flows.
    guarded: Result<Guarded, String>,
    /// TAPs whose frames the host's own stack hears, and why.
    heard: BTreeMap<String, String>,
    acts: Acts,
    clean: bool,
}

impl Host for Worker {
    fn facts(&self) -> HostFacts {
        self.base.facts(&self.ovs)
    }

    async fn known(&self) {
        // That the bridge begins to tell of its flows would wake a second pass at once, if it were not awaited before the first.
        let flows = async {
            if self.openflow.is_there() {
                let _ = self.openflow.ready(KNOWN_WAIT).await;
            }
        };
        tokio::join!(self.base.known(&self.ovs), flows);
    }

    async fn pass(&mut self, desired: &Desired) -> Pass {
        let realised = self.realise(desired).await;
        let orphan = self.orphans.next(tokio::time::Instant::now());
        let retry_after = Some(orphan.map_or(self.alive_every, |orphan| orphan.min(self.alive_every)));
        let orphans = self.left.clone();
        match realised {
            Ok(seen) => {
                let mut observations = judge::all(desired, &seen, &self.prober);
                self.storms.stand_on(&observations, &seen);
                self.storms.mark(&mut observations);
                let ports = observations.iter().filter(|o| matches!(o.facts, Some(Facts::Port(_))));
                self.ports = ports.cloned().collect();
                if let Ok(guarded) = seen.guarded {
                    self.settled = Some(Arc::new(guarded.settled()));
                }
                Pass {
                    observations,
                    clean: seen.clean,
                    retry_after,
                    repairs: seen.acts.repairs,
                    orphans,
                }
            }
            Err(error) => {
                let reason = crate::chain(&error);
                self.prober.blind(&reason);
                Pass {
                    observations: desired.all(State::Unknown, &reason),
                    retry_after,
                    orphans,
                    ..Pass::default()
                }
            }
        }
    }

    fn let_go(&mut self, leftovers: BTreeSet<Thing>) {
        self.orphans.let_go(leftovers);
    }

    async fn counters(&mut self, desired: &Desired) -> Vec<Observation> {
        let mut changed = match self.openflow.meter_counters().await {
            Ok(counters) => self.storms.count(desired, counters),
            // The pass that its loss has woken says so.
            Err(_) => Vec::new(),
        };
        // The next pass says why it cannot be read.
        self.received = None;
        let received = self.received().await.unwrap_or_default();
        for seen in &mut self.ports {
            let is_current = desired.items.get(&seen.key).is_some_and(|item| item.hash == seen.hash);
            if let (Some(Facts::Port(facts)), Some(frames)) = (&mut seen.facts, received.get(seen.key.name.as_str()))
                && is_current
                && facts.received != *frames
            {
                facts.received = *frames;
                changed.push(seen.clone());
            }
        }
        changed
    }
}
