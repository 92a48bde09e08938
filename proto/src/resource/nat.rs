//! Internet for one VLAN on the network node.

use super::{OpenError, field};
use crate::{LinkSubnet, PortName, VlanId, wire};

/// Forwarding from the VLAN's gateway port to the node's uplink, and masquerade of the subnet's addresses there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// The VLAN.
    pub vlan: VlanId,
    /// Source addresses that are masqueraded; nothing else is.
    pub subnet: LinkSubnet,
    /// Port that they come from.
    pub gateway_port: PortName,
}

impl Nat {
    /// Name of the resource.
    pub fn name(&self) -> String {
        format!("nat_vlan{}", self.vlan)
    }
}

impl TryFrom<wire::NatSpec> for Nat {
    type Error = OpenError;

    fn try_from(spec: wire::NatSpec) -> Result<Self, OpenError> {
        let wire::NatSpec {
            vlan,
            subnet,
            gateway_port,
        } = spec;
        Ok(Self {
            vlan: vlan.try_into().map_err(field("vlan"))?,
            subnet: subnet.parse().map_err(field("subnet"))?,
            gateway_port: gateway_port.parse().map_err(field("gateway_port"))?,
        })
    }
}

impl From<&Nat> for wire::NatSpec {
    fn from(nat: &Nat) -> Self {
        let Nat {
            vlan,
            subnet,
            gateway_port,
        } = nat;
        Self {
            vlan: (*vlan).into(),
            subnet: subnet.to_string(),
            gateway_port: gateway_port.to_string(),
        }
    }
}
