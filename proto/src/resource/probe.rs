//! Proof on the wire that one VLAN joins this node to others.

use std::{collections::BTreeSet, fmt};

use super::{OpenError, field, mtu_from};
use crate::{Invalid, Name, VlanId, wire};

/// Whom a node probes on one VLAN, and with which keys. A direction is told of by the node at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The VLAN.
    pub vlan: VlanId,
    /// Bytes of payload that must pass.
    pub mtu: u16,
    /// Nodes that are probed; the MAC of each one's probe port is [`Mac::of_probe`](crate::Mac::of_probe).
    pub peers: BTreeSet<Name>,
    /// The one in use first: sign with it, take any. Never empty.
    pub keys: Vec<ProbeKey>,
}

/// A secret that frames are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct ProbeKey {
    /// Goes into each frame.
    pub id: u32,
    /// Never shown.
    pub secret: [u8; 32],
}

impl fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Probe {
    /// Payload of a small frame.
    pub const SMALL: u16 = 116;

    /// What is known of the size that passes: nothing beyond small frames while their sender, which hears nothing of the other end,
    /// cannot look for it. `largest`: bytes that came. `heard`: what the sender gets of the other end.
    #[must_use]
    pub fn passes_at(largest: u32, heard: u32) -> String {
        let known = heard > 0 || largest > Self::SMALL.into();
        format!("passes at {largest}{}", if known { "" } else { " or more" })
    }

    /// Most keys that a node is given: one that goes, one that is used, one that comes.
    const KEYS: usize = 3;

    /// Name of the resource.
    pub fn name(&self) -> String {
        Self::name_of(self.vlan)
    }

    /// Name of a VLAN's resource: `probe_vlan{v}`.
    pub fn name_of(vlan: VlanId) -> String {
        format!("probe_vlan{vlan}")
    }
}

impl TryFrom<wire::ProbeSpec> for Probe {
    type Error = OpenError;

    fn try_from(spec: wire::ProbeSpec) -> Result<Self, OpenError> {
        let wire::ProbeSpec { vlan, mtu, peers, keys } = spec;
        if keys.is_empty() || keys.len() > Self::KEYS {
            let problem = Invalid::new(keys.len().to_string(), "the number of keys", "send 1 to 3");
            return Err(field("keys")(problem));
        }
        Ok(Self {
            vlan: vlan.try_into().map_err(field("vlan"))?,
            mtu: mtu_from(mtu)?,
            peers: peers
                .iter()
                .map(|peer| peer.parse())
                .collect::<Result<_, _>>()
                .map_err(field("peers"))?,
            keys: keys.into_iter().map(key).collect::<Result<_, _>>()?,
        })
    }
}

fn key(key: wire::ProbeKey) -> Result<ProbeKey, OpenError> {
    let wire::ProbeKey { id, secret } = key;
    let secret = <[u8; 32]>::try_from(&secret[..])
        .map_err(|_| Invalid::new(format!("{} bytes", secret.len()), "a probe's secret", "send 32 bytes"))
        .map_err(field("keys.secret"))?;
    Ok(ProbeKey { id, secret })
}

impl From<&Probe> for wire::ProbeSpec {
    fn from(probe: &Probe) -> Self {
        let Probe { vlan, mtu, peers, keys } = probe;
        Self {
            vlan: (*vlan).into(),
            mtu: (*mtu).into(),
            peers: peers.iter().map(Name::to_string).collect(),
            keys: keys
                .iter()
                .map(|ProbeKey { id, secret }| wire::ProbeKey {
                    id: *id,
                    secret: secret.to_vec(),
                })
                .collect(),
        }
    }
}
