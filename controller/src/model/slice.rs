//! A slice: its draft, its pool, its revisions.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use serde::{Deserialize, Serialize};
use trunkline_proto::{Endpoint, InterfaceName, LinkSubnet, Mac, Name, PortName, VlanId, VmId};

use super::Timestamp;

/// A tenant's VMs and links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Unique in the cluster.
    pub name: Name,
    /// Revision that created it: tells it from another slice of the same name, earlier or later.
    pub uid: u64,
    /// Common name of who created it.
    pub owner: String,
    /// When it was created.
    pub created: Timestamp,
    /// Revision of its last change.
    pub revision: u64,
    /// VLANs that are its own.
    pub pool: Pool,
    /// The draft's VMs.
    pub vms: BTreeMap<Name, Arc<Vm>>,
    /// The draft's links.
    pub links: BTreeMap<Name, Arc<Link>>,
    /// Number of the revision that is desired state.
    pub deployed: Option<u32>,
    /// Number of the next revision.
    pub next_number: u32,
    /// The last few revisions.
    pub revisions: BTreeMap<u32, Arc<Frozen>>,
}

impl Slice {
    /// The revision that is desired state.
    pub fn deployed(&self) -> Option<&Arc<Frozen>> {
        self.revisions.get(&self.deployed?)
    }

    /// True when the draft is not what is deployed.
    pub fn draft_differs(&self) -> bool {
        match self.deployed() {
            Some(frozen) => frozen.vms != self.vms || frozen.links != self.links,
            None => !self.vms.is_empty() || !self.links.is_empty(),
        }
    }
}

/// The VLANs kept for a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pool {
    /// Ascending and disjoint.
    pub ranges: Vec<VlanRange>,
    /// Size that was asked for; 0 when it was left to the controller.
    pub asked: u32,
}

impl Pool {
    /// How many VLANs it holds.
    pub fn size(&self) -> u32 {
        self.ranges.iter().map(VlanRange::len).sum()
    }

    /// True when the VLAN is one of them.
    pub fn contains(&self, vlan: VlanId) -> bool {
        self.ranges.iter().any(|r| (r.first..=r.last).contains(&vlan))
    }

    /// Every VLAN of it, ascending.
    pub fn vlans(&self) -> impl Iterator<Item = VlanId> {
        self.ranges.iter().flat_map(VlanRange::vlans)
    }
}

/// VLANs from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VlanRange {
    /// Lowest.
    pub first: VlanId,
    /// Highest, not below `first`.
    pub last: VlanId,
}

impl VlanRange {
    /// Every VLAN of it, ascending.
    pub fn vlans(&self) -> impl Iterator<Item = VlanId> + use<> {
        let last = self.last;
        std::iter::successors(Some(self.first), |v| v.next()).take_while(move |v| *v <= last)
    }

    fn len(&self) -> u32 {
        u32::from(self.last) + 1 - u32::from(self.first)
    }
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Unique in the slice.
    pub name: Name,
    /// Unique in the cluster, for ever.
    pub id: VmId,
    /// Where it runs.
    pub worker: Name,
    /// The controller chose the worker.
    pub placed: bool,
    /// `eth0` is on VLAN 400.
    pub internet: bool,
    /// `eth0`, then the data interfaces in order.
    pub interfaces: Vec<Interface>,
}

impl Vm {
    /// How many interfaces besides `eth0`.
    pub fn data_interfaces(&self) -> u32 {
        u32::try_from(self.interfaces.len().saturating_sub(1)).unwrap_or(0)
    }
}

/// An interface of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eth0`, `eth1`, ...
    pub name: InterfaceName,
    /// Its TAP on the worker.
    pub tap: PortName,
    /// Of the guest.
    pub mac: Mac,
    /// The operator gave the MAC.
    pub mac_given: bool,
    /// Address that the operator gave; it counts once the interface has a subnet.
    pub address_given: Option<Ipv4Addr>,
    /// Address it has, while it has a subnet.
    pub address: Option<Ipv4Addr>,
    /// Link it is an end of.
    pub link: Option<Name>,
    /// Recorded when the link takes its VLAN; 400 for an `eth0` with internet.
    pub vlan: Option<VlanId>,
}

/// Two or more interfaces on one VLAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Unique in the slice.
    pub name: Name,
    /// In the order that they were given.
    pub ends: Vec<Endpoint>,
    /// Its VLAN.
    pub vlan: VlanId,
    /// The operator gave the VLAN.
    pub vlan_given: bool,
    /// Its subnet.
    pub subnet: LinkSubnet,
    /// The operator gave the subnet.
    pub subnet_given: bool,
    /// It has a DHCP server.
    pub dhcp: bool,
    /// Bytes of payload.
    pub mtu: u16,
    /// The operator gave the MTU.
    pub mtu_given: bool,
    /// Guests send with their own addresses only. Rows from before it could be asked for do not have it.
    #[serde(default)]
    pub port_security: bool,
    /// Its ends reach the gateway and the DHCP server, and not each other. Rows from before do not have it.
    #[serde(default)]
    pub protected: bool,
}

/// A deployed state of a slice, for ever as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// The slice's own count, from 1.
    pub number: u32,
    /// Where it became desired state.
    pub position: super::Position,
    /// When.
    pub at: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// As deployed.
    pub vms: BTreeMap<Name, Arc<Vm>>,
    /// As deployed.
    pub links: BTreeMap<Name, Arc<Link>>,
}
