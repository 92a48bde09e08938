//! Our own fleet in the lab, in an operator's hands: two workers and a network node.
//!
//! It holds nothing, or many ports: each worker as many, joined by links, and a port on the network node for each link.

use std::sync::Arc;
use std::time::Duration;

use trunkline_integration::LabError;
use trunkline_integration::api::Api;
use trunkline_integration::lab::{AGENT_PROGRAM, Host, Lab, NETNODE_PROGRAM, OVSDB, Options, VSWITCHD};
use trunkline_integration::wait::until;
use trunkline_proto::wire::{LinkSpec, Node, SliceSpec, VmSpec};

use crate::operator;
use crate::settle::settle;

/// A VM has at most so many interfaces of links, and one of its own.
const INTERFACES: u32 = 15;
const LIMIT: Duration = Duration::from_secs(300);

/// The fleet and the operator's connection to it.
pub(crate) struct Fleet {
    pub(crate) api: Api,
    // Ends last.
    pub(crate) lab: Lab,
}

/// How much it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Of each worker: one of the VM's own and the rest in links.
    pub(crate) vms: u32,
    /// Links with a DHCP server.
    pub(crate) dhcp: u32,
}

impl Size {
    /// Ports of each worker.
    pub(crate) fn ports(self) -> u32 {
        self.vms * (INTERFACES + 1)
    }

    /// Links, each between the workers.
    pub(crate) fn links(self) -> u32 {
        self.vms * INTERFACES
    }
}

impl Fleet {
    /// Starts one that holds nothing, and returns when every node has its session.
    pub(crate) fn empty() -> Result<Self, LabError> {
        let lab = Lab::start(&Options::default())?;
        let api = Api::connect(&lab.controller_endpoint(), &lab.bundle("operator"))?;
        let fleet = Self { api, lab };
        fleet.await_nodes("sessions", |node| node.connected)?;
        Ok(fleet)
    }

    /// Starts one and returns when all that it holds is ready, and everybody has come to rest.
    pub(crate) fn start(size: Size) -> Result<Self, LabError> {
        let fleet = Self::empty()?;
        operator::apply(&fleet.api, vec![slice(size)], true)?;
        fleet.await_nodes("ready resources", |node| {
            node.status
                .as_ref()
                .is_some_and(|s| s.resources > 0 && s.resources_ready == s.resources)
        })?;
        fleet.settle()?;
        Ok(fleet)
    }

    /// A host.
    pub(crate) fn host(&self, name: &str) -> Result<Arc<Host>, LabError> {
        self.lab.host(name).cloned()
    }

    /// Waits until this is true of every node.
    fn await_nodes(&self, what: &str, is_so: impl Fn(&Node) -> bool) -> Result<(), LabError> {
        let wanted = self.lab.layout().nodes().len();
        until(&format!("{what} of every node"), LIMIT, || {
            let nodes = self.api.nodes().map_err(|error| error.chain())?;
            if nodes.iter().filter(|node| is_so(node)).count() == wanted {
                return Ok(());
            }
            let seen = |node: &Node| format!("{} {}: {:?}", node.name, node.connected, node.status);
            Err(nodes.iter().map(seen).collect::<Vec<_>>().join("; "))
        })
    }

    /// Waits until no node is busy.
    pub(crate) fn settle(&self) -> Result<(), LabError> {
        let programs = [AGENT_PROGRAM, NETNODE_PROGRAM, OVSDB, VSWITCHD];
        let nodes = self.lab.layout().nodes();
        let pids = nodes
            .iter()
            .flat_map(|node| programs.iter().filter_map(|program| self.lab.daemon_pid(node, program)));
        settle(&pids.collect::<Vec<_>>())
    }
}

/// Each interface of the first worker's VMs joined to the same of the second's.
fn slice(size: Size) -> SliceSpec {
    let vm = |worker: u32, number: u32| VmSpec {
        name: format!("w{worker}v{number}"),
        worker: format!("w{worker}"),
        data_interfaces_count: INTERFACES,
        // So that the network node forwards at all.
        internet_enabled: number == 0,
        ..VmSpec::default()
    };
    let vms = (1..=2).flat_map(|worker| (0..size.vms).map(move |number| vm(worker, number)));
    let links = (0..size.links()).map(|link| {
        let (number, interface) = (link / INTERFACES, link % INTERFACES + 1);
        LinkSpec {
            name: format!("l{link}"),
            ends: (1..=2)
                .map(|worker| format!("w{worker}v{number}.eth{interface}"))
                .collect(),
            dhcp_off: link >= size.dhcp,
            ..LinkSpec::default()
        }
    });
    SliceSpec {
        name: "held".to_owned(),
        vms: vms.collect(),
        links: links.collect(),
        vlan_pool_size: size.links(),
    }
}
