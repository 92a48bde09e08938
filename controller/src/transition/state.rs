//! The whole of what the controller knows for good and what follows from it, and the one function that changes it.

use std::{collections::BTreeSet, sync::Arc};

use trunkline_proto::Name;

use super::{
    Change, Context, Intent, NewEvent, Outcome, Rejection,
    settle::{is_astray, settle},
};
use crate::{
    allocate::Holdings,
    check::{CheckError, Index, check},
    compile::{Desired, NodeDesired},
    model::{Cluster, rows},
    parallel,
    settings::Settings,
};

/// A value: a step makes the next one and leaves this as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// What is durable.
    pub cluster: Cluster,
    /// What follows from it for the nodes.
    pub desired: Desired,
    /// Nodes whose desired state is not what their record says, because the settings or the controller changed since it was stored: found
    /// when the state is loaded, and gone with the first step.
    pub(super) astray: Arc<BTreeSet<Name>>,
    /// What the deployed revisions have together, for the last look before a change is stored.
    pub(super) index: Index,
    /// Who holds what.
    pub(super) holdings: Holdings,
}

/// A step that was made, to be stored, then shown.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is known next.
    pub state: State,
    /// Rows to store first. Empty: nothing changed and there is nothing to commit.
    pub batch: rows::Batch,
    /// For people.
    pub changes: Vec<Change>,
    /// For the journal.
    pub events: Vec<NewEvent>,
    /// For the answer.
    pub outcome: Outcome,
    /// Nodes whose desired state is another now.
    pub touched: BTreeSet<Name>,
}

impl Step {
    /// True when everything was as asked for already.
    pub fn is_noop(&self) -> bool {
        self.batch.is_empty()
    }
}

/// The stored state does not fit the settings, or itself.
#[derive(Debug, thiserror::Error)]
#[error("the stored slices break a rule under these settings; undo the change of the settings")]
pub struct LoadError(#[from] CheckError);

/// A transition's own work, before what follows from it for all: positions, departures, the check.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) changes: Vec<Change>,
    pub(super) events: Vec<NewEvent>,
    pub(super) outcome: Outcome,
}

impl State {
    /// A new cluster. `id` is drawn by the caller.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            cluster: Cluster::new(id),
            desired: Desired::default(),
            astray: Arc::default(),
            index: Index::default(),
            holdings: Holdings::default(),
        }
    }

    /// From what was stored. Follow it with a step of [`Intent::Tick`]: it gives nodes a new generation when changed settings
    /// changed their desired state.
    pub fn load(cluster: Cluster, settings: &Settings) -> Result<Self, LoadError> {
        let vms = cluster.slices.values().map(|slice| slice.vms.len()).sum();
        let compiled = || {
            let desired = Desired::compile(&cluster, settings);
            let all: Vec<Name> = desired.nodes().map(|(name, _)| name.clone()).collect();
            let index = check(&cluster, &desired, &Desired::default(), &all, settings)?;
            Ok::<_, LoadError>((desired, index))
        };
        let (compiled, holdings) = parallel::both(vms, compiled, || Holdings::of(&cluster));
        let (desired, index) = compiled?;
        let astray = cluster.nodes.keys().filter(|name| is_astray(&cluster, &desired, name));
        let astray = Arc::new(astray.cloned().collect());
        Ok(Self {
            holdings,
            cluster,
            desired,
            astray,
            index,
        })
    }

    /// What a node should have, with its position also when that is nothing.
    pub fn node_desired(&self, name: &Name) -> Arc<NodeDesired> {
        let record = self.cluster.nodes.get(name);
        self.desired
            .node(name)
            .cloned()
            .unwrap_or_else(|| Arc::new(NodeDesired::nothing(record.map(|r| r.changed).unwrap_or_default())))
    }

    /// Does what is asked for, or says why not. `self` stays as it is.
    pub fn step(&self, intent: Intent, cx: &Context) -> Result<Step, Rejection> {
        let mut cluster = self.cluster.clone();
        let draft = dispatch(&mut cluster, &self.holdings, intent, cx)?;
        settle(self, cluster, draft, cx)
    }
}

/// `held` is who holds what before it.
fn dispatch(cluster: &mut Cluster, held: &Holdings, intent: Intent, cx: &Context) -> Result<Draft, Rejection> {
    use super::{apply, deploy, edit, life, node};
    match intent {
        Intent::Apply {
            slices,
            expected,
            deploy,
        } => apply::apply(cluster, held, &slices, &expected, deploy, cx),
        Intent::DeleteSlice { name, expected } => deploy::delete(cluster, &name, expected, cx),
        Intent::AddVm { slice, vm, expected } => edit::add_vm(cluster, held, &slice, vm, expected, cx),
        Intent::RemoveVm { slice, name, expected } => edit::remove_vm(cluster, held, &slice, &name, expected, cx),
        Intent::AddLink { slice, link, expected } => edit::add_link(cluster, held, &slice, link, expected, cx),
        Intent::RemoveLink { slice, name, expected } => edit::remove_link(cluster, held, &slice, &name, expected, cx),
        Intent::Deploy { name, expected } => deploy::deploy(cluster, &name, expected, cx),
        Intent::Undeploy { name, expected } => deploy::undeploy(cluster, &name, expected, cx),
        Intent::Rollback { name, number, expected } => deploy::rollback(cluster, held, &name, number, expected, cx),
        Intent::MoveVm {
            slice,
            name,
            worker,
            force,
            expected,
        } => life::move_vm(cluster, &slice, &name, &worker, force, expected, cx),
        Intent::CordonNode { name, cordoned } => life::cordon(cluster, &name, cordoned, cx),
        Intent::DrainNode { name, onto } => life::drain(cluster, &name, &onto, cx),
        Intent::DeclareNodeGone { name } => life::declare_gone(cluster, &name, cx),
        Intent::ConfirmRemovals { name, word } => life::confirm(cluster, &name, &word, cx),
        Intent::RemoveNode { name } => node::remove(cluster, &name, cx),
        Intent::NodeJoined { name, role } => node::joined(cluster, name, role, cx),
        Intent::NodeClean { name, term, generation } => Ok(node::clean(cluster, &name, term, generation, cx)),
        Intent::Tick => {
            probe(cluster, cx);
            Ok(node::tick(cluster, cx))
        }
    }
}

/// A database from before there were probes gets its secret, and keys that are old are changed.
fn probe(cluster: &mut Cluster, cx: &Context) {
    if cluster.meta.probe_secret.is_some() {
        cluster.meta.rotate(cx.now);
    } else if let Some(secret) = cx.fresh_secret {
        cluster.meta.probe_with(secret.clone(), cx.now);
    }
}
