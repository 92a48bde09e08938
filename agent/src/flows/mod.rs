//! Which flows make the isolation: from a node's ports and segments to a [`FlowSet`](crate::openflow::FlowSet), as a pure function.
//!
//! The bridge is `fail_mode=secure`: no flow, no frame. What is not allowed here is dropped by the last line of each table.
//!
//! ```text
//!   table 0  admission   by port: local device, isolated guest -> drop;  probe frames: uplink <-> probe's port
//!               |  guest               |  uplink, per VLAN
//!               v                      |
//!   table 1  any guest: tags,          |
//!            control frames,           |
//!            probe frames -> drop      |
//!               |         \            |
//!        secured|          |open       +--- open, secured VLAN -> NORMAL
//!               v          |           |
//!   table 2  port security |           | protected VLAN
//!        |            \    v           |
//!        |protected    '-> table 3  storm limits, then NORMAL
//!        v                             v
//!   table 4  protected, from a guest   table 5  protected, from the uplink     (no learning: every way out is written down)
//! ```
//!
//! - **Open and secured links** are forwarded by `NORMAL` within their VLAN. It learns per VLAN, so what a guest says of MACs is
//!   believed in its own VLAN only: one slice cannot poison another.
//! - **Protected segments** (VLAN 400 always) never reach `NORMAL`: a guest's frames go to the gateway's and the DHCP server's MAC, and
//!   to the port where those are; frames from the uplink go to a guest only from those two. Nothing is learned, so nothing can be
//!   poisoned and nothing is flooded.
//! - **The uplink's VLANs** are a list here too, beside the port's `trunks`: flows that name a port go past `trunks`.
//! - **A guest whose segment is not known** gets only drops.
//! - **Probe frames** (EtherType 0x88B5) go between the uplink and the probe's port, tagged, on the uplink's VLANs, and nowhere else.
//!
//! Gateways and DHCP servers stand on network nodes, whose bridge has no flows of ours and forwards by its ports' settings: no guest
//! stands there, and the gateways go on when the daemon does not.

mod compile;
#[cfg(test)]
mod model;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use trunkline_proto::{Mac, VlanId};

pub use compile::compile;
pub use status::{Bite, PortCounters, Standing, bites, port_counters, port_problem, shared, standings};

use crate::openflow::{Cookie, Meter};

/// Everything that the flows follow from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The port to the other nodes.
    pub uplink: Option<Uplink>,
    /// Port of the probe program, which sends and takes tagged frames. Its row must be a trunk that carries no VLAN, so that nothing
    /// is flooded to it: flows that name a port go past that list.
    pub probe: Option<u32>,
    /// Guests' ports by their OpenFlow number.
    pub guests: BTreeMap<u32, Guest>,
    /// What is known of each VLAN.
    pub segments: BTreeMap<VlanId, Segment>,
}

/// The port to the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// OpenFlow number.
    pub port: u32,
    /// The VLANs that it carries.
    pub vlans: BTreeSet<VlanId>,
}

/// A guest's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its VLAN; `None`: it reaches nothing.
    pub vlan: Option<VlanId>,
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// How much of what goes to all it may send.
    pub limits: StormLimits,
}

/// One VLAN: a link, or internet access.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// How its guests are kept apart. VLAN 400 is [`Policy::Protected`] whatever stands here.
    pub policy: Policy,
    /// Gateway and DHCP server, wherever they are.
    pub services: BTreeSet<ServiceAddress>,
    /// The MACs of all its ends, on every node: a frame to another one is "unknown unicast".
    pub known: BTreeSet<Mac>,
}

/// Where a service is found within its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceAddress {
    /// Its MAC.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
    /// True for the DHCP server: only it may answer DHCP.
    pub dhcp: bool,
}

/// How the guests of a segment are kept apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// The VLAN only: whoever is on the link may send as whoever. Labs run routers there.
    #[default]
    Open,
    /// Port security: source MAC, ARP sender and IPv4 source are the guest's own; no DHCP replies, no router advertisements.
    Secured,
    /// Port security, and a guest exchanges frames with the gateway and the DHCP server only.
    Protected,
}

/// Frames a second that a guest may send to many; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StormLimits {
    /// Broadcast and multicast.
    pub group: u32,
    /// Unicast to a MAC that no end of the segment has.
    pub unknown: u32,
}

impl Default for StormLimits {
    /// A busy /24 has some tens of broadcasts a second. Unknown unicast is also what a lab's nested machines send, whose MACs
    /// nobody has told us, so it gets more.
    fn default() -> Self {
        Self {
            group: 1000,
            unknown: 10_000,
        }
    }
}

/// Which of a port's two limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Storm {
    /// Broadcast and multicast.
    Group,
    /// Unknown unicast.
    Unknown,
}

impl Storm {
    /// Number of the meter of a port.
    #[must_use]
    pub fn meter(self, port: u32) -> u32 {
        let kind = match self {
            Self::Group => 0,
            Self::Unknown => 1,
        };
        Meter::OURS | (port & 0xffff) << 1 | kind
    }
}

/// What a flow is for: the upper 8 bits of its cookie's purpose; the port, or for a segment's flow its VLAN, is in the lower 24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// The last line of a table: dropped because nothing allows it.
    Default = 1,
    /// A port's way into the tables.
    Admission = 2,
    /// A port that reaches nothing.
    Isolated = 3,
    /// A guest may not tag.
    Tagged = 4,
    /// Spanning tree, LLDP, pause and other control frames of a link.
    Control = 5,
    /// Frames of the probe.
    Probe = 6,
    /// What port security lets pass.
    Secured = 7,
    /// What port security stops: a sender that is not the guest.
    Forged = 8,
    /// What port security stops: playing DHCP server or router.
    Rogue = 9,
    /// Forwarded under a limit.
    Storm = 10,
    /// Forwarded within a VLAN.
    Forward = 11,
    /// Between a guest and the services of a protected segment.
    Protected = 12,
}

impl Purpose {
    /// The cookie of a flow for this, of a port or a VLAN.
    #[must_use]
    pub fn cookie(self, of: u32) -> Cookie {
        Cookie::ours(u32::from(self as u8) << 24 | of & 0x00ff_ffff)
    }
}
