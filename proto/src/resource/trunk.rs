//! The uplink's VLAN list.

use std::collections::BTreeSet;

use super::{OpenError, field};
use crate::{VlanId, wire};

/// Exactly the VLANs that a node's uplink carries. Empty means none; how that is written down is the switch driver's business.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trunk {
    /// The VLANs.
    pub vlans: BTreeSet<VlanId>,
}

impl Trunk {
    /// Name of the resource: a node has one.
    pub const NAME: &str = "uplink";
}

impl TryFrom<wire::TrunkSpec> for Trunk {
    type Error = OpenError;

    fn try_from(spec: wire::TrunkSpec) -> Result<Self, OpenError> {
        let vlans = spec
            .vlans
            .into_iter()
            .map(VlanId::try_from)
            .collect::<Result<_, _>>()
            .map_err(field("vlans"))?;
        Ok(Self { vlans })
    }
}

impl From<&Trunk> for wire::TrunkSpec {
    fn from(trunk: &Trunk) -> Self {
        Self {
            vlans: trunk.vlans.iter().copied().map(u32::from).collect(),
        }
    }
}
