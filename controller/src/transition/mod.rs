//! One intent after another: what is known, and what was asked for, give what is known next.
//!
//! ```text
//!   State --step(intent, context)--> Step { state, batch, changes, events, outcome, touched }
//!              |
//!              +-- transition   drafts, revisions, allocations, nodes      (intent, allocate)
//!              +-- compile      only the slices and nodes that it touched
//!              +-- departures   what a node stops using is kept until it is gone
//!              +-- check        the whole, before anything is stored
//! ```
//!
//! An intent that asks for what is already so gives back the same cluster, with the same revision and an empty batch.

mod apply;
mod depart;
mod deploy;
mod draft;
mod edit;
mod life;
mod node;
mod rejection;
mod rollback;
mod settle;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trunkline_proto::{Name, VlanId, wire};

pub(crate) use rejection::Mistakes;
pub use rejection::{Conflict, Rejection, Violation};
pub use state::{LoadError, State, Step};

use crate::{
    allocate::Holdings,
    leftovers::HeldBack,
    model::{Cluster, NodeRole, Position, ProbeSecret, Timestamp},
    settings::Settings,
};

/// What a step may know besides the state.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The caller's clock.
    pub now: Timestamp,
    /// Who asks: `operator/alice`, `worker/w1`, `controller`.
    pub actor: &'a str,
    /// The controller's settings.
    pub settings: &'a Settings,
    /// Nodes with a session: placement prefers them, and a connected one cannot be removed.
    pub connected: &'a BTreeSet<Name>,
    /// What connected nodes hold back at this moment.
    pub held: &'a BTreeMap<Name, Arc<HeldBack>>,
    /// W3C trace context of the request; may be empty.
    pub traceparent: &'a str,
    /// Drawn by the caller for a cluster that has none.
    pub fresh_secret: Option<&'a ProbeSecret>,
    /// Who holds what before the step; left out by the caller.
    pub(crate) holdings: Option<&'a Holdings>,
}

impl Context<'_> {
    /// Who holds what of a cluster, the one before the step: nothing is allocated twice in one.
    fn holdings(&self, cluster: &Cluster) -> Holdings {
        self.holdings.cloned().unwrap_or_else(|| Holdings::of(cluster))
    }
}

/// What is asked for. Texts come as they were sent; mistakes are found here, all at once.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    /// Make the drafts exactly this.
    Apply {
        /// Slices not named are left alone.
        slices: Vec<wire::SliceSpec>,
        /// By name of slice; 0 is not checked.
        expected: BTreeMap<String, u64>,
        /// Deploy each of them as well.
        deploy: bool,
    },
    /// Delete a slice and whatever of it is on hosts.
    DeleteSlice {
        /// Its name.
        name: String,
        /// 0: not checked.
        expected: u64,
    },
    /// Add one VM to a draft.
    AddVm {
        /// The slice.
        slice: String,
        /// The VM.
        vm: Option<wire::VmSpec>,
        /// 0: not checked.
        expected: u64,
    },
    /// Take a VM out of a draft.
    RemoveVm {
        /// The slice.
        slice: String,
        /// The VM.
        name: String,
        /// 0: not checked.
        expected: u64,
    },
    /// Move a VM of a draft to another worker.
    MoveVm {
        /// The slice.
        slice: String,
        /// The VM.
        name: String,
        /// Where to.
        worker: String,
        /// 0: not checked.
        expected: u64,
    },
    /// Add one link to a draft.
    AddLink {
        /// The slice.
        slice: String,
        /// The link.
        link: Option<wire::LinkSpec>,
        /// 0: not checked.
        expected: u64,
    },
    /// Take a link out of a draft.
    RemoveLink {
        /// The slice.
        slice: String,
        /// The link.
        name: String,
        /// 0: not checked.
        expected: u64,
    },
    /// Freeze the draft and make it desired state.
    Deploy {
        /// The slice.
        name: String,
        /// 0: not checked.
        expected: u64,
    },
    /// Take a slice off every host; the draft stays.
    Undeploy {
        /// The slice.
        name: String,
        /// 0: not checked.
        expected: u64,
    },
    /// Deploy an earlier revision again, as a new number. The draft stays as it is.
    Rollback {
        /// The slice.
        name: String,
        /// Which revision.
        number: u32,
        /// 0: not checked.
        expected: u64,
    },
    /// Forget a node: it is gone for good.
    RemoveNode {
        /// The node.
        name: String,
    },
    /// Close a worker to new VMs, or open it again.
    CordonNode {
        /// The worker.
        name: String,
        /// False: it takes VMs again.
        cordoned: bool,
    },
    /// Move every VM away from a worker, and close it.
    DrainNode {
        /// The worker.
        name: String,
        /// Worker that takes them all; empty: each is placed anew.
        onto: String,
    },
    /// A node is dead and cut off: nobody waits for it until it connects again.
    DeclareNodeGone {
        /// The node.
        name: String,
    },
    /// Removals that a node holds back are meant. This changes nothing here; the caller tells the node.
    ConfirmRemovals {
        /// The node.
        name: String,
        /// The desired state that they belong to.
        at: Position,
    },
    /// A node's session began.
    NodeJoined {
        /// From its certificate.
        name: Name,
        /// From its certificate.
        role: NodeRole,
    },
    /// A node read back that nothing is left of what it should no longer have.
    NodeClean {
        /// The node.
        name: Name,
        /// Of its `clean_term`.
        term: u64,
        /// Of its `clean_generation`.
        generation: u64,
    },
    /// Time has passed (see [`Cluster::next_due`](crate::model::Cluster::next_due)); also the first step after a start.
    Tick,
}

/// One difference, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened to it.
    pub action: Action,
    /// The slice.
    pub slice: Name,
    /// `slice`, `vm web`, `link web-eth1--db-eth1`.
    pub what: String,
    /// What differs, in words; may be empty.
    pub detail: String,
}

/// What happened to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Created,
    /// It differs.
    Updated,
    /// It is gone.
    Removed,
    /// It became desired state.
    Deployed,
}

impl From<Action> for wire::change::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Created => Self::Created,
            Action::Updated => Self::Updated,
            Action::Removed => Self::Removed,
            Action::Deployed => Self::Deployed,
        }
    }
}

impl From<&Change> for wire::Change {
    fn from(change: &Change) -> Self {
        let Change {
            action,
            slice,
            what,
            detail,
        } = change;
        Self {
            action: wire::change::Action::from(*action).into(),
            slice: slice.to_string(),
            what: what.clone(),
            detail: detail.clone(),
        }
    }
}

/// An entry for the journal; the caller adds the sequence and the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// One of [`journal::KINDS`](crate::journal::KINDS).
    pub kind: &'static str,
    /// Who caused it.
    pub actor: String,
    /// Where it applies.
    pub slice: Option<Name>,
    /// Where it applies.
    pub node: Option<Name>,
    /// Where it applies.
    pub vlan: Option<VlanId>,
    /// Revision of the commit.
    pub revision: u64,
    /// One sentence for a person.
    pub message: String,
}

/// What an answer needs besides the new state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Slices that the intent named, in its order. A deleted one is no longer in the state.
    pub slices: Vec<Name>,
    /// VM that was added.
    pub vm: Option<Name>,
    /// Link that was added.
    pub link: Option<Name>,
    /// Deployment that is now desired state.
    pub number: Option<u32>,
    /// VLANs and addresses that a rollback had to change, and workers that it brought back, in words.
    pub renumbered: Vec<String>,
    /// VMs that a drain moved.
    pub moved: Vec<Moved>,
    /// Removals that were confirmed.
    pub confirmed: u32,
}

/// A VM that goes from one worker to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its slice.
    pub slice: Name,
    /// Its name.
    pub vm: Name,
    /// Where it was.
    pub from: Name,
    /// Where it goes.
    pub to: Name,
}

/// An event of `cx.actor`; the revision is set when the commit's is known.
fn event(kind: &'static str, cx: &Context, slice: Option<&Name>, message: String) -> NewEvent {
    NewEvent {
        kind,
        actor: cx.actor.to_owned(),
        slice: slice.cloned(),
        node: None,
        vlan: None,
        revision: 0,
        message,
    }
}
