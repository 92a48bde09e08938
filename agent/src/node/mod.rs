//! The node runtime: what every kind of node does alike, and what a kind of node has to bring.
//!
//! ```text
//!   controller ==> session ==> inbox (disk) --Held--> reconcile --Desired--> Host::pass --> OVS, kernel, daemons
//!       ^             |                                   |                      ^
//!       |             '-- takes what is due -- Board <----'                      |
//!       '------------- Ack, Report, Heartbeat --'            wake: OVSDB, netlink, the host's own triggers, timers
//! ```
//!
//! Two tasks: the *session* owns the connection and the inbox, the *reconcile loop* owns the host. They share a watch on what is
//! held and the [`Board`] of what was seen. Both end on one cancellation token and are joined.

mod run;
mod wake;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trunkline_certs::Role;
use trunkline_proto::{
    Hash, Name,
    daemon::Metrics,
    resource::{Dhcp, Facts, Flows, Gateway, Key, Kind, Nat, Observation, Port, Probe, Spec, State, Trunk},
};

pub(crate) use run::load;
pub use run::{NodeError, run, serve};
pub use wake::Wake;

pub use crate::reconcile::Doing;
use crate::{
    config::NodeConfig,
    netlink,
    orphans::{Orphan, Thing},
    ovsdb,
    report::Board,
};

/// An error of any kind, for a host that cannot be built.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Refuses, in words, what could never be realised on this node.
pub type Validate = Arc<dyn Fn(&Spec) -> Result<(), String> + Send + Sync>;

/// What one kind of node knows how to do.
pub trait Host: Send + 'static {
    /// What it is built on. Read again after every pass; a value that is not known yet is empty.
    fn facts(&self) -> HostFacts;

    /// Returns when the facts can be known, or when it is not worth waiting for them. Asked for once, before the first pass: the
    /// session says them in its first word, and need not wait for a whole pass.
    fn known(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Makes the whole true and says what was read back of each resource. One failed item never stops its siblings. It is
    /// never cut in the middle.
    fn pass(&mut self, desired: &Desired) -> impl Future<Output = Pass> + Send;

    /// Reads counters again (leases, NAT): cheap, changes nothing. Asked for every ten seconds.
    fn counters(&mut self, desired: &Desired) -> impl Future<Output = Vec<Observation>> + Send {
        let _ = desired;
        async { Vec::new() }
    }

    /// An operator has said that these leftovers, which were held back, are to go.
    fn let_go(&mut self, leftovers: BTreeSet<Thing>) {
        let _ = leftovers;
    }
}

/// What a node is built on, as it tells the controller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// `system` or `netdev`.
    pub datapath: String,
    /// Version of Open vSwitch.
    pub ovs_version: String,
    /// Interface that joins the node to the others; empty when it has none.
    pub uplink: String,
}

/// Everything that is to be true on this node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Desired {
    /// With `generation`: which desired state this is.
    pub term: u64,
    /// Rises with every change within a term.
    pub generation: u64,
    /// The resources.
    pub items: BTreeMap<Key, Item>,
    /// What was removed and may still be there, of another life of this program, too.
    pub leaving: BTreeSet<Key>,
}

/// One resource that is to be true.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What it is.
    pub spec: Spec,
    /// Which version; goes into its observation.
    pub hash: Hash,
    /// Trace of the change that set it; may be empty.
    pub traceparent: String,
}

/// What one pass found once it had done its work.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pass {
    /// One for each desired resource.
    pub observations: Vec<Observation>,
    /// True when everything that carries our mark and is not desired was read back as gone.
    pub clean: bool,
    /// Look again at the latest after this. What is not ready is looked at again anyway.
    pub retry_after: Option<Duration>,
    /// What was found other than it should be, and what was done about it. Which of it is news is for the runtime to say.
    pub repairs: Vec<Repair>,
    /// Leftovers that are still there.
    pub orphans: Vec<Orphan>,
}

/// Something about a resource that was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// Which resource.
    pub key: Key,
    /// What was wrong, in words that also say how it is now: `switch port had tag 120, not 110`.
    pub what: String,
}

impl Repair {
    /// One for each thing that was wrong.
    pub fn all<'a>(key: &'a Key, what: impl IntoIterator<Item = String> + 'a) -> impl Iterator<Item = Self> + 'a {
        what.into_iter().map(|what| Self { key: key.clone(), what })
    }
}

impl Item {
    /// What was seen of this resource. A reason that is too long is cut.
    pub fn observation(&self, key: &Key, state: State, reason: impl Into<String>, facts: Option<Facts>) -> Observation {
        Observation {
            key: key.clone(),
            hash: self.hash,
            state,
            reason: crate::cut(reason.into(), Observation::MAX_REASON),
            facts,
        }
    }
}

/// Iterators over the resources of one kind: key, item and what is inside.
macro_rules! of_kind {
    ($($name:ident: $type:ident, $what:literal;)+) => {$(
        #[doc = $what]
        pub fn $name(&self) -> impl Iterator<Item = (&Key, &Item, &$type)> {
            self.items.iter().filter_map(|(key, item)| match &item.spec {
                Spec::$type(spec) => Some((key, item, spec)),
                _ => None,
            })
        }
    )+};
}

impl Desired {
    of_kind! {
        ports: Port, "TAPs and their switch ports.";
        trunks: Trunk, "The uplink's VLAN list: one or none.";
        gateways: Gateway, "Gateways.";
        dhcps: Dhcp, "DHCP servers.";
        nats: Nat, "VLANs with internet.";
        flows: Flows, "Who may send what, by VLAN.";
        probes: Probe, "What is proved on the wire, by VLAN.";
    }

    /// Every resource in one state, for a reason that they share.
    pub fn all(&self, state: State, reason: &str) -> Vec<Observation> {
        let one = |(key, item): (&Key, &Item)| item.observation(key, state, reason, None);
        self.items.iter().map(one).collect()
    }
}

/// Which program runs.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// `trunkline-agent`.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Role that its certificate must have: worker or network node.
    pub role: Role,
    /// Kinds of resource that it realises.
    pub kinds: &'static [Kind],
}

/// What the runtime gives a host to build itself with.
#[derive(Clone)]
#[non_exhaustive]
pub struct NodeContext {
    /// Name of this node.
    pub node: Name,
    /// The configuration.
    pub config: Arc<NodeConfig>,
    /// Open vSwitch's database. Its changes wake the reconcile loop already.
    pub ovs: ovsdb::Client,
    /// The kernel's links in the host's own namespace. Their changes wake the reconcile loop already.
    pub netlink: netlink::Handle,
    /// Wakes the reconcile loop.
    pub wake: Wake,
    /// What a pass is at: said by the host, step by step.
    pub doing: Doing,
    /// What was seen, for whoever sees something between two passes.
    pub board: Arc<Board>,
    /// The metrics of this program, to add to.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the program is to end.
    pub cancel: CancellationToken,
    /// Tasks that are joined at the end.
    pub tasks: TaskTracker,
}
