//! Proof on the wire: frames from node to node, on every VLAN that joins them.
//!
//! ```text
//!   pass --specs, device--> Engine (pure) <--frames--> task --> socket on tlprobe0 --> bridge --> uplink ==> peer
//!                              |                         |
//!                              '------- verdicts --------'--> Board (a change needs no pass)
//! ```
//!
//! Announcements go one way, like BFD's: the node at the end of a direction judges it, and says in its own frames what it gets, so
//! that the other end can look for the largest size that passes. A direction that fails says nothing of the other one, so a one-way
//! loss shows as one.
//!
//! - [`frame`]: what a frame says, and its signature. A frame counts when it is signed under the VLAN's key, comes from a peer of
//!   the plan and was not heard before; a peer that seems to have started anew has to show first that it hears us, unless it had
//!   fallen silent. So a recording cannot make a direction look alive beside a living peer.
//! - [`inbound`], [`outbound`], [`judge`], [`engine`], [`agenda`], [`budget`]: pure, with a clock that is handed in.
//! - [`port`], [`socket`], `task`: the port on the bridge, the raw socket, and the task that owns it.

pub mod agenda;
pub mod budget;
pub mod counts;
pub mod engine;
pub mod frame;
pub mod inbound;
pub mod judge;
pub mod outbound;
pub mod port;
pub mod socket;
mod task;
#[cfg(test)]
mod tests;
pub mod voice;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trunkline_proto::{
    Name, VlanId,
    daemon::Metrics,
    resource::{Facts, Probe, State},
};

pub use port::PORT;

use self::{counts::Counts, engine::Engine, task::Shared};
use crate::{
    netlink,
    node::{Desired, Item, Repair},
    report::Board,
    switch::{Drift, Observed, Plan, SwitchPort, SwitchState},
};

/// A node's probing, as its passes see it. The task goes on between them.
#[derive(Debug)]
pub struct Prober {
    me: Name,
    shared: Arc<Shared>,
}

impl Prober {
    /// Starts the task.
    #[must_use]
    pub fn start(
        me: &Name,
        board: Arc<Board>,
        metrics: &Metrics,
        cancel: CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let counts = Counts::registered(metrics);
        let engine = Engine::new(me, instance(), counts.clone());
        let shared = Arc::new(Shared::new(engine, board, counts));
        tasks.spawn(task::run(shared.clone(), cancel));
        Self { me: me.clone(), shared }
    }

    /// The port that probing needs now.
    #[must_use]
    pub fn port(&self, desired: &Desired) -> Option<SwitchPort> {
        port::port(&self.me, desired)
    }

    /// What the first look of a pass found other than the last pass has left it. One port for all VLANs, told of by the first.
    #[must_use]
    pub fn repairs(
        &self,
        desired: &Desired,
        state: &SwitchState,
        observed: &Observed,
        plan: Option<&Plan>,
    ) -> Vec<Repair> {
        // Another port than before is wanted: what differs was asked for.
        let same = wanted(state).is_some_and(|wanted| self.shared.lock().settled.as_ref() == Some(&wanted));
        let (Some((key, _, _)), Some(plan), true) = (desired.probes().next(), plan, same) else {
            return Vec::new();
        };
        let words = port::amiss(&Drift::new(state, observed, plan), observed, &state.mark);
        Repair::all(key, words).collect()
    }

    /// Before anything else of a pass: removes a device that was left behind. True when there was one.
    pub async fn clear(&self, observed: &Observed, netlink: &netlink::Handle) -> bool {
        let Some(index) = port::leftover(observed) else {
            return false;
        };
        match netlink.delete(index).await {
            Ok(()) => tracing::info!(device = PORT, "a device without a port was removed"),
            Err(error) => tracing::warn!(device = PORT, error = crate::chain(&error), "it cannot be removed"),
        }
        true
    }

    /// Takes over what is to be probed once a pass has set the port and its flows. `trouble`: why that could not be done.
    pub async fn attend(
        &self,
        desired: &Desired,
        state: &SwitchState,
        observed: &Observed,
        trouble: Option<(State, String)>,
        netlink: &netlink::Handle,
    ) {
        let device = match (self.port(desired), trouble) {
            (None, _) => Ok(None),
            (Some(_), Some(trouble)) => Err(trouble),
            (Some(wanted), None) => match port::ready(&wanted, state, observed, netlink).await {
                Ok(index) => Ok(Some(index)),
                Err(reason) => Err((State::Failed, reason)),
            },
        };
        let now = self.shared.now();
        let mut probing = self.shared.lock();
        let probes = desired.probes().map(|(key, item, probe)| (key, item.hash, probe));
        probing.engine.set(probes, now);
        match device {
            Ok(device) => {
                if device != probing.device || probing.engine.is_blocked() {
                    probing.engine.open(now);
                }
                probing.device = device;
                probing.settled = device.and(wanted(state));
            }
            Err((state, reason)) => {
                probing.engine.block(state, reason);
                probing.device = None;
            }
        }
        drop(probing);
        self.shared.set.notify_one();
    }

    /// Nothing could be looked at, so nothing is known.
    pub fn blind(&self, reason: &str) {
        let mut probing = self.shared.lock();
        probing.engine.block(State::Unknown, reason.to_owned());
        probing.looked = true;
        drop(probing);
        self.shared.set.notify_one();
    }

    /// What is known of a resource now. It is told again a little later, because what a pass publishes may be old by then.
    #[must_use]
    pub fn verdict(&self, item: &Item, probe: &Probe) -> (State, String, Option<Facts>) {
        let now = self.shared.now();
        let mut probing = self.shared.lock();
        probing.looked = true;
        let verdict = probing.engine.verdict(probe.vlan, item.hash, now);
        drop(probing);
        self.shared.set.notify_one();
        match verdict {
            Some(verdict) => (verdict.state, verdict.reason, verdict.facts),
            None => (State::Pending, "it is not probed yet".to_owned(), None),
        }
    }

    /// Keeps a port that may not be asked for out of what is asked for.
    pub fn without(state: &mut SwitchState, troubles: &mut BTreeMap<String, String>, taken: Option<String>) {
        if let (true, Some(reason)) = (state.ports.contains_key(PORT), taken) {
            state.ports.remove(PORT);
            troubles.insert(PORT.to_owned(), reason);
        }
    }
}

/// The port that is wanted, and what the uplink is to carry.
fn wanted(state: &SwitchState) -> Option<(SwitchPort, BTreeSet<VlanId>)> {
    let vlans = state.uplink.as_ref().map(|uplink| uplink.vlans.clone());
    Some((state.ports.get(PORT)?.clone(), vlans.unwrap_or_default()))
}

/// A number that no other life of this program has: the nanosecond it began, with the process's own number against two of one moment.
fn instance() -> u64 {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
    nanos ^ (u64::from(std::process::id()) << 32)
}
