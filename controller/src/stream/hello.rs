//! A node's first message: is it who its certificate says, and does what it holds come from us?

use tonic::{Code, Status};
use trunkline_certs::{Identity, Role};
use trunkline_proto::{Digest, Name, wire};

use crate::{
    api::errors,
    model::{Cluster, NodeRole, Position},
};

/// Longest instance id, version, host name and so on that is taken.
const TEXT_BYTES: usize = 256;

/// Most kinds that a node may list.
const KINDS: usize = 64;

/// A Hello that is right.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Greeting {
    pub(super) node: Name,
    pub(super) role: NodeRole,
    /// True when the node never held anything of this cluster.
    pub(super) fresh: bool,
    pub(super) position: Position,
    pub(super) digest: Digest,
    pub(super) instance: String,
    pub(super) facts: wire::NodeFacts,
    pub(super) traceparent: String,
}

/// Why a session is turned down: for the metrics, and for the node's log.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: &'static str,
    pub(super) status: Status,
}

impl Refused {
    pub(super) fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            status: errors::with_reason(code, reason, message),
        }
    }
}

/// Parses a Hello and holds it against the certificate.
pub(super) fn parse(hello: wire::Hello, identity: &Identity) -> Result<Greeting, Refused> {
    let bad = |message: String| Refused::new(Code::InvalidArgument, "HELLO_INVALID", message);
    let node: Name = hello.node.parse().map_err(|e| bad(format!("hello.node: {e}")))?;
    let role = match hello.role() {
        wire::NodeRole::Worker => NodeRole::Worker,
        wire::NodeRole::Netnode => NodeRole::Netnode,
        wire::NodeRole::Unspecified => return Err(bad("hello.role: say NODE_ROLE_WORKER or NODE_ROLE_NETNODE".into())),
    };
    let certified = match identity.role() {
        Role::Worker => Some(NodeRole::Worker),
        Role::Netnode => Some(NodeRole::Netnode),
        Role::Controller | Role::Operator | Role::Viewer => None,
    };
    if identity.name() != node.as_str() || certified != Some(role) {
        let message = format!(
            "the node says it is {} {node}, its certificate says {identity}: use the name of the certificate, or issue another one",
            if role == NodeRole::Worker { "worker" } else { "netnode" }
        );
        return Err(Refused::new(Code::PermissionDenied, "IDENTITY_MISMATCH", message));
    }
    if hello.instance_id.is_empty() || hello.instance_id.len() > TEXT_BYTES {
        return Err(bad(format!("hello.instance_id: send 1 to {TEXT_BYTES} bytes")));
    }
    let digest = match hello.digest.as_slice() {
        [] => Digest::default(),
        bytes => Digest::try_from(bytes).map_err(|e| bad(format!("hello.digest: {e}")))?,
    };
    let facts = hello.facts.unwrap_or_default();
    check_facts(&facts).map_err(bad)?;
    Ok(Greeting {
        node,
        role,
        fresh: hello.cluster_id.is_empty(),
        position: Position {
            term: hello.term,
            generation: hello.generation,
        },
        digest,
        instance: hello.instance_id,
        facts,
        traceparent: hello.traceparent,
    })
}

fn check_facts(facts: &wire::NodeFacts) -> Result<(), String> {
    let wire::NodeFacts {
        version,
        hostname,
        datapath,
        ovs_version,
        uplink,
        kinds,
    } = facts;
    for (field, text) in [
        ("version", version),
        ("hostname", hostname),
        ("datapath", datapath),
        ("ovs_version", ovs_version),
        ("uplink", uplink),
    ] {
        if text.len() > TEXT_BYTES {
            return Err(format!("hello.facts.{field}: send at most {TEXT_BYTES} bytes"));
        }
    }
    if kinds.len() > KINDS {
        return Err(format!("hello.facts.kinds: send at most {KINDS}"));
    }
    Ok(())
}

/// Holds what the node has against this cluster.
pub(super) fn check_origin(cluster_id: &str, position: Position, cluster: &Cluster) -> Result<(), Refused> {
    let ours = &cluster.meta.cluster_id;
    if !cluster_id.is_empty() && cluster_id != ours {
        let message = format!(
            "the node holds state of cluster {cluster_id}, this is cluster {ours}: connect it to its own controller, or, if it is to \
             belong here now, stop it, remove its state directory and start it again"
        );
        return Err(Refused::new(Code::FailedPrecondition, "OTHER_CLUSTER", message));
    }
    let at = cluster.position();
    if !cluster_id.is_empty() && position > at {
        let message = format!(
            "the node is at term {} generation {}, this controller at term {} generation {}: its state is older than what the node was \
             given. Bring the newest export back with `trunkline-controller restore --term {}`",
            position.term,
            position.generation,
            at.term,
            at.generation,
            position.term.saturating_add(1)
        );
        return Err(Refused::new(Code::FailedPrecondition, "NODE_AHEAD", message));
    }
    Ok(())
}
