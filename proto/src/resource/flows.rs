//! Who may send what on one VLAN of a worker.

use std::{collections::BTreeSet, net::Ipv4Addr, num::NonZeroU32};

use super::{OpenError, field, port::ipv4};
use crate::{Invalid, Mac, VlanId, wire};

/// The rules of a VLAN's guests. What flows a port has is a function of this and of its [`Port`](super::Port) alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flows {
    /// The VLAN.
    pub vlan: VlanId,
    /// MAC of its gateway.
    pub gateway_mac: Mac,
    /// Address of its gateway.
    pub gateway_address: Ipv4Addr,
    /// MAC and address of its DHCP server, if it has one.
    pub dhcp: Option<(Mac, Ipv4Addr)>,
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
            gateway_address,
            dhcp_address,
        } = spec;
        let dhcp = match (&*dhcp_mac, &*dhcp_address) {
            ("", "") => None,
            (mac, address) => Some((
                mac.parse().map_err(field("dhcp_mac"))?,
                ipv4(address).map_err(field("dhcp_address"))?,
            )),
        };
        let flows = Self {
            vlan: vlan.try_into().map_err(field("vlan"))?,
            gateway_mac: gateway_mac.parse().map_err(field("gateway_mac"))?,
            gateway_address: ipv4(&gateway_address).map_err(field("gateway_address"))?,
            dhcp,
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
            gateway_address,
            dhcp,
            guests,
            port_security,
            protected,
            broadcast_limit,
            unknown_unicast_limit,
        } = flows;
        Self {
            vlan: (*vlan).into(),
            gateway_mac: gateway_mac.to_string(),
            dhcp_mac: dhcp.map(|(mac, _)| mac.to_string()).unwrap_or_default(),
            guests: guests.iter().map(Mac::to_string).collect(),
            port_security: *port_security,
            protected: *protected,
            broadcast_limit: broadcast_limit.map_or(0, NonZeroU32::get),
            unknown_unicast_limit: unknown_unicast_limit.map_or(0, NonZeroU32::get),
            gateway_address: gateway_address.to_string(),
            dhcp_address: dhcp.map(|(_, address)| address.to_string()).unwrap_or_default(),
        }
    }
}
