//! The compute worker: a TAP and a switch port for each interface of its virtual machines, and the uplink's VLAN list.
//!
//! ```text
//!   pass:  look -> make TAPs -> one OVS transaction -> remove TAPs -> look again -> judge
//! ```
//!
//! A TAP comes before its port and goes after it. What is reported is what the second look found, never what was asked for.

mod desired;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::Instrument;
use trunkline_certs::Role;
use trunkline_proto::{
    daemon::telemetry,
    resource::{Kind, Observation, Spec, State},
};

pub use desired::Base;

use crate::{
    config::NodeConfig,
    netlink,
    node::{BoxError, Desired, Host, HostFacts, NodeContext, Pass, Program, Validate},
    ovsdb,
    switch::{self, Judgement, Observed, SwitchState},
    tap,
};

/// The worker's program.
pub const PROGRAM: Program = Program {
    service: "trunkline-agent",
    version: env!("CARGO_PKG_VERSION"),
    role: Role::Worker,
    kinds: &[Kind::Port, Kind::Trunk],
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
    netlink: netlink::Handle,
    alive: Option<Instant>,
    alive_every: Duration,
}

/// What the worker refuses.
pub fn validate(config: &NodeConfig) -> Validate {
    let base = Base::new(config.node.name.as_str(), &config.switch);
    Arc::new(move |spec: &Spec| base.validate(spec))
}

impl Worker {
    /// Built by the runtime.
    pub fn build(cx: &NodeContext) -> Result<Self, BoxError> {
        Ok(Self {
            base: Base::new(cx.node.as_str(), &cx.config.switch),
            ovs: cx.ovs.clone(),
            netlink: cx.netlink.clone(),
            alive: None,
            alive_every: ALIVE_EVERY,
        })
    }

    /// Asks ovs-vswitchd for a sign of life more or less often.
    #[must_use]
    pub fn alive_every(mut self, every: Duration) -> Self {
        self.alive_every = every;
        self
    }

    /// Looks, acts, looks again. An error means that nothing is known.
    async fn realise(&mut self, desired: &Desired) -> Result<Seen, switch::Error> {
        self.ovs.ready(OVS_WAIT).await?;
        let mut observed = switch::observe(&self.ovs, &self.netlink).await?;
        let mut acts = Acts::default();

        let taps = tap::plan(desired::taps(desired), links(&observed));
        let mut missing = taps.conflicts.clone();
        if !taps.is_empty() {
            let failed = tap::create_and_correct(&taps, &self.netlink).await;
            for (name, error) in failed {
                let text = crate::chain(&error);
                if taps.create.iter().any(|tap| tap.name == name) {
                    missing.insert(name, text);
                } else {
                    acts.troubles.insert(name, text);
                }
            }
            observed = switch::observe(&self.ovs, &self.netlink).await?;
        }
        acts.troubles.extend(missing.clone());

        let state = desired::without(desired::switch(&self.base, desired), &missing);
        self.switch(&state, &observed, &mut acts).await;
        if acts.switched && !taps.remove.is_empty() {
            // Their ports have left the switch.
            if let Err(error) = tap::remove(&taps, &self.netlink).await {
                tracing::warn!(error = crate::chain(&error), "TAPs could not be removed");
            }
        }
        self.prove_alive(&mut acts).await;

        let observed = switch::observe(&self.ovs, &self.netlink).await?;
        let clean = acts.switched && !acts.silent && nothing_left(&state, desired, &observed);
        Ok(Seen {
            state,
            observed,
            acts,
            clean,
        })
    }

    /// Brings the switch where it is to be, in one transaction.
    async fn switch(&mut self, state: &SwitchState, observed: &Observed, acts: &mut Acts) {
        let plan = match switch::plan(state, observed) {
            Ok(plan) => plan,
            Err(reason) => {
                acts.refused = Some(reason);
                return;
            }
        };
        acts.troubles.extend(plan.conflicts.clone());
        if plan.is_empty() {
            acts.switched = true;
            return;
        }
        let (add, modify, remove) = (plan.add.len(), plan.modify.len(), plan.remove.len());
        let span = tracing::info_span!("ovs transaction", add, modify, remove);
        let act = async {
            let trace = telemetry::current_traceparent();
            let trace = (!trace.is_empty()).then_some(&*trace);
            switch::execute(&plan, &self.ovs, &self.netlink, trace, SWITCH_LIMIT).await
        };
        match act.instrument(span).await {
            Ok(()) => {
                tracing::info!(add, modify, remove, "switch ports set");
                acts.switched = true;
                if switch::transaction(&plan, None).is_some() {
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
    /// The switch took everything that was asked of it.
    switched: bool,
    /// ovs-vswitchd gives no sign of life.
    silent: bool,
}

/// What a pass found at its end.
struct Seen {
    state: SwitchState,
    observed: Observed,
    acts: Acts,
    clean: bool,
}

impl Host for Worker {
    fn facts(&self) -> HostFacts {
        self.base.facts(&self.ovs)
    }

    async fn pass(&mut self, desired: &Desired) -> Pass {
        let retry_after = Some(self.alive_every);
        match self.realise(desired).await {
            Ok(seen) => Pass {
                observations: judge(desired, &seen),
                clean: seen.clean,
                retry_after,
            },
            Err(error) => Pass {
                observations: desired.all(State::Unknown, &crate::chain(&error)),
                clean: false,
                retry_after,
            },
        }
    }
}

fn links(observed: &Observed) -> impl Iterator<Item = &netlink::Link> {
    observed.devices.values().map(|device| &device.link)
}

/// True when a second look finds nothing that should not be there: no port, no VLAN on the uplink, no TAP.
fn nothing_left(state: &SwitchState, desired: &Desired, observed: &Observed) -> bool {
    let taps = tap::plan(desired::taps(desired), links(observed));
    let switch = switch::plan(state, observed);
    let tidy = |plan: switch::Plan| plan.remove.is_empty() && plan.modify.is_empty();
    taps.remove.is_empty() && switch.is_ok_and(tidy) && !observed.behind
}

/// Every resource, as the second look found it.
fn judge(desired: &Desired, seen: &Seen) -> Vec<Observation> {
    let Seen {
        state,
        observed,
        acts,
        clean: _,
    } = seen;
    let judged = desired.items.iter().filter_map(|(key, item)| {
        let Judgement { state, reason, facts } = match &item.spec {
            Spec::Port(port) => switch::judge_port(port, state, observed, &acts.troubles),
            Spec::Trunk(trunk) => switch::judge_trunk(trunk, state, observed, &acts.troubles),
            // Refused before it came here.
            Spec::Gateway(_) | Spec::Dhcp(_) | Spec::Nat(_) | Spec::Flows(_) => return None,
        };
        let (state, reason) = match &acts.refused {
            Some(refused) => (State::Failed, refused.clone()),
            None if acts.silent => (
                State::Unknown,
                "ovs-vswitchd gives no sign of life; is it running?".to_owned(),
            ),
            None => (state, reason),
        };
        Some(item.observation(key, state, reason, Some(facts)))
    });
    judged.collect()
}
