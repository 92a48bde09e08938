//! A node, as far as it is durable.

use serde::{Deserialize, Serialize};
use trunkline_proto::wire;

use super::{Position, Timestamp};

/// Earlier versions of a node's desired state of which the digest is kept.
const PAST: usize = 8;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Runs VMs.
    Worker,
    /// Gives VLANs their gateway, DHCP and internet.
    Netnode,
}

impl From<NodeRole> for wire::NodeRole {
    fn from(role: NodeRole) -> Self {
        match role {
            NodeRole::Worker => Self::Worker,
            NodeRole::Netnode => Self::Netnode,
        }
    }
}

/// A node that joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// From its certificate.
    pub role: NodeRole,
    /// Its first session.
    pub first_seen: Timestamp,
    /// Where its desired state last changed.
    pub changed: Position,
    /// Digest of its desired state at that point, in hex: tells after a restart whether new settings changed it.
    pub digest: String,
    /// What it was given before that, oldest first: tells whether what a node holds is what it should hold where it says it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Given>,
    /// Where its desired state last changed by something that no operator asked for: other settings, another version of the
    /// controller.
    #[serde(default, skip_serializing_if = "Position::is_start")]
    pub unasked: Position,
    /// It takes no new VMs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
    /// When an operator declared it gone: nobody waits for it until it connects again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Timestamp>,
}

/// A desired state that a node was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Since when.
    pub changed: Position,
    /// In hex.
    pub digest: String,
}

impl NodeRecord {
    /// One that has just joined and should have nothing yet.
    pub fn new(role: NodeRole, first_seen: Timestamp, changed: Position, digest: String) -> Self {
        Self {
            role,
            first_seen,
            changed,
            digest,
            past: Vec::new(),
            unasked: Position::default(),
            cordoned: false,
            gone: None,
        }
    }

    /// Its desired state is another as of now.
    pub fn change(&mut self, position: Position, digest: String) {
        let before = Given {
            changed: std::mem::replace(&mut self.changed, position),
            digest: std::mem::replace(&mut self.digest, digest),
        };
        // Where a record begins says nothing of what the node held before.
        if !before.changed.is_start() {
            self.past.push(before);
        }
        let over = self.past.len().saturating_sub(PAST);
        self.past.drain(..over);
    }

    /// Digest of what it should hold when it is at `position`, in hex, as far back as that is known.
    pub fn given_at(&self, position: Position) -> Option<&str> {
        if self.changed.is_start() {
            return None;
        }
        if self.changed <= position {
            return Some(&self.digest);
        }
        let past = self.past.iter().rev().find(|given| given.changed <= position);
        past.map(|given| given.digest.as_str())
    }

    /// True when the controller may place new VMs there.
    pub fn takes_vms(&self) -> bool {
        self.role == NodeRole::Worker && !self.cordoned && self.gone.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(generation: u64) -> Position {
        Position { term: 1, generation }
    }

    #[test]
    fn what_a_node_was_given_is_known_for_a_while_back_and_not_before_its_record() {
        let mut record = NodeRecord::new(
            NodeRole::Worker,
            Timestamp::default(),
            Position::default(),
            "nothing".into(),
        );
        assert_eq!(record.given_at(at(7)), None);
        record.change(at(10), "ten".into());
        record.change(at(20), "twenty".into());
        assert_eq!(record.given_at(at(9)), None, "before it was ours to say");
        assert_eq!(record.given_at(at(10)), Some("ten"));
        assert_eq!(record.given_at(at(19)), Some("ten"));
        assert_eq!(record.given_at(at(99)), Some("twenty"));
        for generation in 21..60 {
            record.change(at(generation), "more".into());
        }
        assert_eq!((record.past.len(), record.given_at(at(20))), (PAST, None));
    }

    #[test]
    fn a_row_from_before_there_was_more_is_read() {
        let old = r#"{"role":"worker","first_seen":5,"changed":{"term":1,"generation":2},"digest":"00"}"#;
        let record: NodeRecord = serde_json::from_str(old).unwrap();
        assert!(record.takes_vms() && record.gone.is_none());
        assert_eq!(serde_json::to_string(&record).unwrap(), old);
    }
}
