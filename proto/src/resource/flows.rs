//! Who may send what on one VLAN of a worker.

use std::{collections::BTreeSet, num::NonZeroU32};

use super::{OpenError, field};
use crate::{Invalid, Mac, VlanId, wire};

/// The rules of a VLAN's guests. What flows a port has is a function of this and of its [`Port`](super::Port) alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flows {
    /// The VLAN.
    pub vlan: VlanId,
    /// MAC of its gateway.
    pub gateway_mac: Mac,
    /// MAC of its DHCP server, if it has one.
    pub dhcp_mac: Option<Mac>,
    /// Every guest on the VLAN, on any worker: a unicast to any other MAC counts as unknown. Empty on VLAN 400.
    pub guests: BTreeSet<Mac>,
    /// Source MAC, ARP sender and IPv4 source must be the guest's own; no DHCP answers and no router advertisements from it.
    pub port_security: bool,
    /// Guests exchange frames with the gateway and the DHCP server only, wherever they are.
    pub protected: bool,
    /// Broadcast and multicast frames a second that one guest port may send. `None`: no limit.
    pub broadcast_limit: Option<NonZeroU32>,
    /// Frames a second to unknown addresses that one guest port may send. `None`: no limit.
    pub unknown_unicast_limit: Option<NonZeroU32>,
}

impl Flows {
    /// Name of the resource.
    pub fn name(&self) -> String {
        Self::name_of(self.vlan)
    }

    /// Name of a VLAN's resource: `flows_vlan{v}`.
    pub fn name_of(vlan: VlanId) -> String {
        format!("flows_vlan{vlan}")
    }

    /// VLAN 400 is shared by tenants: nobody may ask for less there.
    fn check(&self) -> Result<(), OpenError> {
        let refuse = |name| {
            let problem = Invalid::new("false", "what guests of VLAN 400 live under", "send true");
            Err(field(name)(problem))
        };
        match self {
            _ if self.vlan != VlanId::INTERNET => Ok(()),
            Self {
                port_security: false, ..
            } => refuse("port_security"),
            Self { protected: false, .. } => refuse("protected"),
            _ => Ok(()),
        }
    }
}

impl TryFrom<wire::FlowsSpec> for Flows {
    type Error = OpenError;

    fn try_from(spec: wire::FlowsSpec) -> Result<Self, OpenError> {
        let wire::FlowsSpec {
            vlan,
            gateway_mac,
            dhcp_mac,
            guests,
            port_security,
            protected,
            broadcast_limit,
            unknown_unicast_limit,
        } = spec;
        let dhcp_mac = (!dhcp_mac.is_empty()).then(|| dhcp_mac.parse());
        let flows = Self {
            vlan: vlan.try_into().map_err(field("vlan"))?,
            gateway_mac: gateway_mac.parse().map_err(field("gateway_mac"))?,
            dhcp_mac: dhcp_mac.transpose().map_err(field("dhcp_mac"))?,
            guests: guests
                .iter()
                .map(|mac| mac.parse())
                .collect::<Result<_, _>>()
                .map_err(field("guests"))?,
            port_security,
            protected,
            broadcast_limit: NonZeroU32::new(broadcast_limit),
            unknown_unicast_limit: NonZeroU32::new(unknown_unicast_limit),
        };
        flows.check()?;
        Ok(flows)
    }
}

impl From<&Flows> for wire::FlowsSpec {
    fn from(flows: &Flows) -> Self {
        let Flows {
            vlan,
            gateway_mac,
            dhcp_mac,
            guests,
            port_security,
            protected,
            broadcast_limit,
            unknown_unicast_limit,
        } = flows;
        Self {
            vlan: (*vlan).into(),
            gateway_mac: gateway_mac.to_string(),
            dhcp_mac: dhcp_mac.map(|mac| mac.to_string()).unwrap_or_default(),
            guests: guests.iter().map(Mac::to_string).collect(),
            port_security: *port_security,
            protected: *protected,
            broadcast_limit: broadcast_limit.map_or(0, NonZeroU32::get),
            unknown_unicast_limit: unknown_unicast_limit.map_or(0, NonZeroU32::get),
        }
    }
}
