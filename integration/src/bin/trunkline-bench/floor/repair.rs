//! What goes wrong behind a node's back, when it is right again, and the one operation that mends it.

mod host;
mod switch;

use std::sync::Arc;

use trunkline_integration::LabError;
use trunkline_integration::lab::Host;

use super::database::Database;
use super::netlink::Netlink;
use super::openflow::OpenFlow;
use super::{DATABASE, MANAGEMENT};

pub(crate) use host::{Address, Edited, Forwarding, Namespace, Rules, Server, TapDeleted, TapDown};
pub(crate) use switch::{FlowsDeleted, PortChanged, PortRemoved, Wiped};

/// One thing that goes wrong.
pub(crate) trait Case {
    /// Changes it, as a stranger would.
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError>;
    /// Whether it is as it was. Must be cheap: it is asked again and again.
    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError>;
    /// Mends it by the least work, and returns when it was done.
    fn mend(&mut self, node: &mut Node) -> Result<(), LabError>;
}

/// A host with a switch, and connections to all that it has.
pub(crate) struct Node {
    pub(crate) host: Arc<Host>,
    /// The end of its cable at `fabric`, where guests' frames come from.
    pub(crate) fabric: Arc<Host>,
    pub(crate) cable: String,
    pub(crate) database: Database,
    pub(crate) bridge: OpenFlow,
    pub(crate) kernel: Netlink,
    pub(crate) netfilter: Netlink,
}

impl Node {
    /// Connects.
    pub(crate) fn connect(host: Arc<Host>, fabric: Arc<Host>) -> Result<Self, LabError> {
        Ok(Self {
            cable: format!("t-{}", host.name()),
            database: Database::connect(&host.path(DATABASE))?,
            bridge: OpenFlow::connect(&host.path(MANAGEMENT))?,
            kernel: host.run(Netlink::route)??,
            netfilter: host.run(Netlink::netfilter)??,
            host,
            fabric,
        })
    }
}
