//! Resources: what a node is told to make true, as both sides think of it.
//!
//! ```text
//!   controller: Spec --Envelope::seal--> Envelope (key, bytes, hash) --wire::Resource--> node: Envelope --open--> Spec
//! ```
//!
//! A node keeps envelopes as they came, also of kinds that it does not know, so that both sides' digests agree. To add a kind:
//! a message in `resource.proto`, a file here, an arm in [`Spec`].

mod dhcp;
mod flows;
mod gateway;
mod nat;
mod observation;
mod port;
mod probe;
mod trunk;

use std::{fmt, str::FromStr};

use bytes::Bytes;
use prost::Message;

pub use dhcp::{Dhcp, Reservation};
pub use flows::Flows;
pub use gateway::Gateway;
pub use nat::Nat;
pub use observation::{Facts, Observation, State};
pub use port::{Port, PortOwner};
pub use probe::{Probe, ProbeKey};
pub use trunk::Trunk;

use crate::{Hash, Invalid, wire};

/// Smallest and largest payload of a frame that Trunkline configures, in bytes. 1280 is IPv6's minimum (RFC 8200, section 5).
pub const MTU_RANGE: std::ops::RangeInclusive<u16> = 1280..=9216;

/// What sort of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A TAP and its switch port on a worker.
    Port,
    /// The uplink's VLAN list.
    Trunk,
    /// A VLAN's gateway.
    Gateway,
    /// A VLAN's DHCP server.
    Dhcp,
    /// Internet for one VLAN.
    Nat,
    /// Who may send what on one VLAN of a worker.
    Flows,
    /// Proof on the wire that one VLAN joins this node to others.
    Probe,
    /// A kind that this program does not know, by its number on the wire.
    Other(i32),
}

impl Kind {
    /// Number on the wire.
    pub fn number(self) -> i32 {
        match self {
            Self::Port => wire::Kind::Port.into(),
            Self::Trunk => wire::Kind::Trunk.into(),
            Self::Gateway => wire::Kind::Gateway.into(),
            Self::Dhcp => wire::Kind::Dhcp.into(),
            Self::Nat => wire::Kind::Nat.into(),
            Self::Flows => wire::Kind::Flows.into(),
            Self::Probe => wire::Kind::Probe.into(),
            Self::Other(number) => number,
        }
    }

    /// From the number on the wire.
    pub fn from_number(number: i32) -> Self {
        match wire::Kind::try_from(number) {
            Ok(wire::Kind::Port) => Self::Port,
            Ok(wire::Kind::Trunk) => Self::Trunk,
            Ok(wire::Kind::Gateway) => Self::Gateway,
            Ok(wire::Kind::Dhcp) => Self::Dhcp,
            Ok(wire::Kind::Nat) => Self::Nat,
            Ok(wire::Kind::Flows) => Self::Flows,
            Ok(wire::Kind::Probe) => Self::Probe,
            Ok(wire::Kind::Unspecified) | Err(_) => Self::Other(number),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port => f.write_str("port"),
            Self::Trunk => f.write_str("trunk"),
            Self::Gateway => f.write_str("gateway"),
            Self::Dhcp => f.write_str("dhcp"),
            Self::Nat => f.write_str("nat"),
            Self::Flows => f.write_str("flows"),
            Self::Probe => f.write_str("probe"),
            Self::Other(number) => write!(f, "kind {number}"),
        }
    }
}

/// Name of a resource, unique among a node's of one kind: 1 to 63 printable ASCII characters without space and `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(String);

impl ResourceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ResourceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new(
                text,
                "a resource's name",
                "send 1 to 63 printable characters without space and /",
            ))
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one resource of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name within the kind.
    pub name: ResourceName,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl TryFrom<wire::ResourceKey> for Key {
    type Error = Invalid;

    fn try_from(key: wire::ResourceKey) -> Result<Self, Invalid> {
        Ok(Self {
            kind: Kind::from_number(key.kind),
            name: key.name.parse()?,
        })
    }
}

impl From<&Key> for wire::ResourceKey {
    fn from(key: &Key) -> Self {
        Self {
            kind: key.kind.number(),
            name: key.name.to_string(),
        }
    }
}

/// A resource that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// A TAP and its switch port.
    Port(Port),
    /// The uplink's VLAN list.
    Trunk(Trunk),
    /// A VLAN's gateway.
    Gateway(Gateway),
    /// A VLAN's DHCP server.
    Dhcp(Dhcp),
    /// Internet for one VLAN.
    Nat(Nat),
    /// Who may send what on one VLAN of a worker.
    Flows(Flows),
    /// Proof on the wire that one VLAN joins this node to others.
    Probe(Probe),
}

impl Spec {
    /// Kind and name follow from what it is.
    pub fn key(&self) -> Key {
        let (kind, name) = match self {
            Self::Port(port) => (Kind::Port, port.tap.to_string()),
            Self::Trunk(_) => (Kind::Trunk, Trunk::NAME.to_owned()),
            Self::Gateway(gateway) => (Kind::Gateway, gateway.port().to_string()),
            Self::Dhcp(dhcp) => (Kind::Dhcp, dhcp.port().to_string()),
            Self::Nat(nat) => (Kind::Nat, nat.name()),
            Self::Flows(flows) => (Kind::Flows, flows.name()),
            Self::Probe(probe) => (Kind::Probe, probe.name()),
        };
        // Every name above is a valid port name or shorter, so it is a valid resource name.
        Key {
            kind,
            name: ResourceName(name),
        }
    }

    /// The VLAN that it serves, if it serves just one.
    pub fn vlan(&self) -> Option<crate::VlanId> {
        match self {
            Self::Port(port) => port.vlan,
            Self::Trunk(_) => None,
            Self::Gateway(gateway) => Some(gateway.vlan),
            Self::Dhcp(dhcp) => Some(dhcp.vlan),
            Self::Nat(nat) => Some(nat.vlan),
            Self::Flows(flows) => Some(flows.vlan),
            Self::Probe(probe) => Some(probe.vlan),
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Port(port) => wire::PortSpec::from(port).encode_to_vec(),
            Self::Trunk(trunk) => wire::TrunkSpec::from(trunk).encode_to_vec(),
            Self::Gateway(gateway) => wire::GatewaySpec::from(gateway).encode_to_vec(),
            Self::Dhcp(dhcp) => wire::DhcpSpec::from(dhcp).encode_to_vec(),
            Self::Nat(nat) => wire::NatSpec::from(nat).encode_to_vec(),
            Self::Flows(flows) => wire::FlowsSpec::from(flows).encode_to_vec(),
            Self::Probe(probe) => wire::ProbeSpec::from(probe).encode_to_vec(),
        }
    }
}

/// Why an envelope cannot be opened. A node answers it as a refusal.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The node is older than the controller.
    #[error("{0} is not known to this version of the node's program; upgrade it")]
    UnknownKind(Kind),
    /// The bytes are no message of the kind.
    #[error("the spec cannot be decoded")]
    Encoding(#[from] prost::DecodeError),
    /// A field breaks a rule.
    #[error("{field}: {problem}")]
    Field {
        /// Name of the field in `resource.proto`.
        field: &'static str,
        /// What is wrong with it.
        problem: Invalid,
    },
    /// The spec describes another resource than the key names.
    #[error("the spec is that of {0}")]
    Misnamed(Key),
}

/// Puts the field's name to an error: `.map_err(field("mac"))`.
fn field(field: &'static str) -> impl FnOnce(Invalid) -> OpenError {
    move |problem| OpenError::Field { field, problem }
}

fn mtu_from(value: u32) -> Result<u16, OpenError> {
    u16::try_from(value)
        .ok()
        .filter(|mtu| MTU_RANGE.contains(mtu))
        .ok_or_else(|| Invalid::new(value.to_string(), "an MTU", "send 1280 to 9216"))
        .map_err(field("mtu"))
}

/// A resource as it travels and is kept: bytes and their hash. Cloning costs no copy of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Which resource.
    pub key: Key,
    /// Which version of it.
    pub hash: Hash,
    /// The encoded spec.
    pub spec: Bytes,
    /// W3C trace context of the change that last set it; may be empty.
    pub traceparent: String,
}

impl Envelope {
    /// Encodes a spec and sets its hash. Only the controller does this.
    pub fn seal(spec: &Spec, traceparent: &str) -> Self {
        let bytes = spec.encode();
        Self {
            key: spec.key(),
            hash: Hash::of(&bytes),
            spec: bytes.into(),
            traceparent: traceparent.to_owned(),
        }
    }

    /// Decodes and validates the spec.
    pub fn open(&self) -> Result<Spec, OpenError> {
        let bytes = self.spec.clone();
        let spec = match self.key.kind {
            Kind::Port => Spec::Port(Port::open(self.key.name.as_str(), wire::PortSpec::decode(bytes)?)?),
            Kind::Trunk => Spec::Trunk(wire::TrunkSpec::decode(bytes)?.try_into()?),
            Kind::Gateway => Spec::Gateway(wire::GatewaySpec::decode(bytes)?.try_into()?),
            Kind::Dhcp => Spec::Dhcp(wire::DhcpSpec::decode(bytes)?.try_into()?),
            Kind::Nat => Spec::Nat(wire::NatSpec::decode(bytes)?.try_into()?),
            Kind::Flows => Spec::Flows(wire::FlowsSpec::decode(bytes)?.try_into()?),
            Kind::Probe => Spec::Probe(wire::ProbeSpec::decode(bytes)?.try_into()?),
            other @ Kind::Other(_) => return Err(OpenError::UnknownKind(other)),
        };
        let key = spec.key();
        if key == self.key {
            Ok(spec)
        } else {
            Err(OpenError::Misnamed(key))
        }
    }
}

impl TryFrom<wire::Resource> for Envelope {
    type Error = Invalid;

    fn try_from(resource: wire::Resource) -> Result<Self, Invalid> {
        Ok(Self {
            key: Key {
                kind: Kind::from_number(resource.kind),
                name: resource.name.parse()?,
            },
            hash: Hash::try_from(&resource.hash[..])?,
            spec: resource.spec.into(),
            traceparent: resource.traceparent,
        })
    }
}

impl From<&Envelope> for wire::Resource {
    fn from(envelope: &Envelope) -> Self {
        Self {
            kind: envelope.key.kind.number(),
            name: envelope.key.name.to_string(),
            hash: envelope.hash.to_vec(),
            spec: envelope.spec.to_vec(),
            traceparent: envelope.traceparent.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
