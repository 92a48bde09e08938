//! A small world for the tests of the pure part: two workers, a network node, and short ways to ask for things.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use trunkline_proto::{
    Name,
    resource::{Envelope, Facts, Observation, State as Health},
    wire,
};

use crate::{
    compile::NodeDesired,
    converge::{NodeView, Views},
    leftovers::HeldBack,
    model::{Link, NodeRole, ProbeSecret, Slice, Timestamp, Vm},
    settings::Settings,
    transition::{Context, Intent, Rejection, State, Step, Violation},
};

/// A state that moves on with every intent, and its clock.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) settings: Settings,
    pub(crate) now: Timestamp,
    pub(crate) connected: BTreeSet<Name>,
    pub(crate) held: BTreeMap<Name, Arc<HeldBack>>,
    pub(crate) traceparent: String,
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl World {
    /// `w1`, `w2` and `n1` have joined.
    pub(crate) fn new() -> Self {
        let mut world = Self::empty(Settings::default());
        world.join("w1", NodeRole::Worker);
        world.join("w2", NodeRole::Worker);
        world.join("n1", NodeRole::Netnode);
        world
    }

    pub(crate) fn empty(settings: Settings) -> Self {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let mut state = State::new("cluster");
        state.cluster.meta.probe_with(ProbeSecret::new([7; 32]), now);
        Self {
            state,
            settings,
            now,
            connected: BTreeSet::new(),
            held: BTreeMap::new(),
            traceparent: String::new(),
        }
    }

    pub(crate) fn join(&mut self, node: &str, role: NodeRole) -> Step {
        self.must(Intent::NodeJoined { name: name(node), role })
    }

    pub(crate) fn try_do(&mut self, intent: Intent) -> Result<Step, Rejection> {
        let cx = Context {
            now: self.now,
            actor: "operator/alice",
            settings: &self.settings,
            connected: &self.connected,
            held: &self.held,
            traceparent: &self.traceparent,
            fresh_secret: Some(&ProbeSecret::new([8; 32])),
            holdings: None,
        };
        let step = self.state.step(intent, &cx)?;
        self.state = step.state.clone();
        Ok(step)
    }

    pub(crate) fn must(&mut self, intent: Intent) -> Step {
        self.try_do(intent).unwrap()
    }

    pub(crate) fn apply(&mut self, slices: Vec<wire::SliceSpec>, deploy: bool) -> Result<Step, Rejection> {
        self.try_do(Intent::Apply {
            slices,
            expected: BTreeMap::new(),
            deploy,
        })
    }

    /// Every mistake of a request that must be turned down; nothing may have changed.
    pub(crate) fn violations(&mut self, slices: Vec<wire::SliceSpec>) -> Vec<Violation> {
        let before = self.state.clone();
        let rejection = self.apply(slices, true).expect_err("it must be turned down");
        assert_eq!(self.state, before);
        match rejection {
            Rejection::Invalid(list) | Rejection::Exhausted(list) => list,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn deploy(&mut self, slice: &str) -> Step {
        self.must(Intent::Deploy {
            name: slice.into(),
            expected: 0,
        })
    }

    pub(crate) fn undeploy(&mut self, slice: &str) -> Step {
        self.must(Intent::Undeploy {
            name: slice.into(),
            expected: 0,
        })
    }

    pub(crate) fn delete(&mut self, slice: &str) -> Step {
        self.must(Intent::DeleteSlice {
            name: slice.into(),
            expected: 0,
        })
    }

    /// The node reports that it has cleaned everything up to now.
    pub(crate) fn clean(&mut self, node: &str) -> Step {
        let position = self.state.cluster.position();
        self.must(Intent::NodeClean {
            name: name(node),
            term: position.term,
            generation: position.generation,
        })
    }

    pub(crate) fn wait(&mut self, seconds: u64) -> Step {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.must(Intent::Tick)
    }

    /// All nodes are connected and report everything ready, with these facts.
    pub(crate) fn reported_ready(&self, facts: impl Fn(&Envelope) -> Option<Facts>) -> Views {
        let view = |(node, desired): (&Name, &Arc<NodeDesired>)| {
            let observations = desired.resources.iter().map(|(key, envelope)| {
                let observation = Observation {
                    key: key.clone(),
                    hash: envelope.hash,
                    state: Health::Ready,
                    reason: String::new(),
                    facts: facts(envelope),
                };
                (key.clone(), observation)
            });
            let view = NodeView {
                connected: true,
                last_seen: Some(self.now),
                complete: true,
                acked: desired.changed,
                seen: desired.changed,
                in_step: true,
                observations: observations.collect(),
                ..NodeView::default()
            };
            (node.clone(), view)
        };
        self.state.desired.nodes().map(view).collect()
    }

    pub(crate) fn slice(&self, slice: &str) -> &Slice {
        &self.state.cluster.slices[&name(slice)]
    }

    pub(crate) fn vm(&self, slice: &str, vm: &str) -> &Vm {
        &self.slice(slice).vms[&name(vm)]
    }

    pub(crate) fn link(&self, slice: &str, link: &str) -> &Link {
        &self.slice(slice).links[&name(link)]
    }
}

/// A VM on `worker` (empty: placed) with that many data interfaces.
pub(crate) fn vm(name: &str, worker: &str, data: u32) -> wire::VmSpec {
    wire::VmSpec {
        name: name.into(),
        worker: worker.into(),
        data_interfaces_count: data,
        ..wire::VmSpec::default()
    }
}

/// The same with internet.
pub(crate) fn online(name: &str, worker: &str, data: u32) -> wire::VmSpec {
    wire::VmSpec {
        internet_enabled: true,
        ..vm(name, worker, data)
    }
}

pub(crate) fn interface(name: &str, mac: &str, address: &str) -> wire::InterfaceSpec {
    wire::InterfaceSpec {
        name: name.into(),
        mac: mac.into(),
        address: address.into(),
    }
}

/// A link without a name between these ends.
pub(crate) fn link(ends: &[&str]) -> wire::LinkSpec {
    wire::LinkSpec {
        ends: ends.iter().map(ToString::to_string).collect(),
        ..wire::LinkSpec::default()
    }
}

pub(crate) fn slice(name: &str, vms: Vec<wire::VmSpec>, links: Vec<wire::LinkSpec>) -> wire::SliceSpec {
    wire::SliceSpec {
        name: name.into(),
        vms,
        links,
        vlan_pool_size: 0,
    }
}

/// `web` on w1 and `db` on w2, joined by one link; `web` has internet.
pub(crate) fn shop(name: &str) -> wire::SliceSpec {
    slice(
        name,
        vec![online("web", "w1", 1), vm("db", "w2", 1)],
        vec![link(&["web.eth1", "db.eth1"])],
    )
}
