//! A VLAN's gateway on the network node.

use super::{OpenError, field, mtu_from};
use crate::{Cidr, Mac, PortName, VlanId, wire};

/// An internal switch port `gw_vlan{v}` with the gateway's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The VLAN.
    pub vlan: VlanId,
    /// The gateway's address and its subnet's prefix length.
    pub address: Cidr,
    /// MAC of the port.
    pub mac: Mac,
    /// Bytes of payload.
    pub mtu: u16,
}

impl Gateway {
    /// Name of the port and of the resource.
    pub fn port(&self) -> PortName {
        PortName::gateway(self.vlan)
    }
}

impl TryFrom<wire::GatewaySpec> for Gateway {
    type Error = OpenError;

    fn try_from(spec: wire::GatewaySpec) -> Result<Self, OpenError> {
        let wire::GatewaySpec {
            vlan,
            address,
            mac,
            mtu,
        } = spec;
        Ok(Self {
            vlan: vlan.try_into().map_err(field("vlan"))?,
            address: address.parse().map_err(field("address"))?,
            mac: mac.parse().map_err(field("mac"))?,
            mtu: mtu_from(mtu)?,
        })
    }
}

impl From<&Gateway> for wire::GatewaySpec {
    fn from(gateway: &Gateway) -> Self {
        let Gateway {
            vlan,
            address,
            mac,
            mtu,
        } = gateway;
        Self {
            vlan: (*vlan).into(),
            address: address.to_string(),
            mac: mac.to_string(),
            mtu: u32::from(*mtu),
        }
    }
}
