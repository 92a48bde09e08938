//! What goes wrong behind a node's back, when it is right again, and the one operation that mends it.

mod host;
mod switch;

use std::path::PathBuf;
use std::sync::Arc;

use trunkline_integration::LabError;
use trunkline_integration::lab::Host;

use super::bridge::Bridge;
use super::database::Database;
use super::kernel::Kernel;

pub(crate) use host::{Address, Edited, Forwarding, Namespace, Rules, Server, TapDeleted, TapDown};
pub(crate) use switch::{Flows, PortChanged, PortRemoved, Trunk, Wiped};

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
    pub(crate) bridge: Bridge,
    pub(crate) kernel: Kernel,
    pub(crate) netfilter: Kernel,
}

impl Node {
    /// Connects.
    pub(crate) fn connect(host: Arc<Host>, fabric: Arc<Host>) -> Result<Self, LabError> {
        Ok(Self {
            cable: format!("t-{}", host.name()),
            database: Database::connect(&host.path("/run/openvswitch/db.sock"))?,
            bridge: Bridge::connect(&management(&host))?,
            kernel: host.run(Kernel::route)??,
            netfilter: host.run(Kernel::netfilter)??,
            host,
            fabric,
        })
    }

    /// Index of a device that must be there.
    fn index(&mut self, name: &str) -> Result<u32, LabError> {
        let device = self.kernel.device(name)?;
        device
            .map(|device| device.index)
            .ok_or_else(|| LabError::Other(format!("there is no device {name}")))
    }
}

fn management(host: &Host) -> PathBuf {
    host.path("/run/openvswitch/br-int.mgmt")
}
