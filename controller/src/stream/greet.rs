//! The beginning of a session.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use trunkline_proto::{
    Name,
    daemon::telemetry,
    wire::{NodeMessage, node_message::Message as FromNode},
};

use super::{
    Timing,
    hello::{self, Greeting, Refused},
};
use crate::{
    api::errors,
    core::{Core, NewSession, SessionId, SessionInfo, Story, Taken, now},
    listener::PeerInfo,
    model::Position,
    transition::{Intent, NewEvent},
};

/// Longest wait for the first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Confirmations that wait for the session; one is the rule.
const CONFIRMATIONS: usize = 4;

/// A node that was let in.
pub(super) struct Greeted {
    pub(super) greeting: Greeting,
    /// Its identity, `worker/w1`.
    pub(super) actor: String,
    pub(super) id: SessionId,
    /// Cancelled when a newer session takes over, and when the controller stops.
    pub(super) cancel: CancellationToken,
    /// Operators' words for removals that the node holds back.
    pub(super) confirmed: mpsc::Receiver<Position>,
}

/// Lets a node in: its Hello is right, it comes from this cluster, and no other process has its name.
pub(super) async fn greet(
    core: &Arc<Core>,
    timing: Timing,
    peer: &PeerInfo,
    inbound: &mut Streaming<NodeMessage>,
) -> Result<Greeted, Refused> {
    let late = || {
        Refused::new(
            Code::DeadlineExceeded,
            "HELLO_MISSING",
            "the first message did not come within 10 s",
        )
    };
    let broken = |message: &str| Refused::new(Code::InvalidArgument, "HELLO_INVALID", message);
    let first = timeout(HELLO_TIMEOUT, inbound.message()).await.map_err(|_| late())?;
    let first = first.map_err(|status| Refused {
        reason: "HELLO_INVALID",
        status,
    })?;
    let Some(FromNode::Hello(hello)) = first.and_then(|message| message.message) else {
        return Err(broken("the first message must be Hello"));
    };
    let cluster_id = hello.cluster_id.clone();
    let greeting = hello::parse(hello, &peer.identity)?;
    hello::check_origin(&cluster_id, greeting.position, &core.state().cluster)?;
    telemetry::set_parent(&tracing::Span::current(), &greeting.traceparent);
    let known = core.state().cluster.nodes.get(&greeting.node).map(|known| known.role);
    if known.is_some_and(|role| role != greeting.role) {
        // Sessions go by the node's name: it must not touch what is known of the other one.
        may_join(core, &greeting, peer).await?;
    }
    let cancel = core.stopping().child_token();
    let (confirm, confirmed) = mpsc::channel(CONFIRMATIONS);
    let session = NewSession {
        node: greeting.node.clone(),
        instance: greeting.instance.clone(),
        info: SessionInfo {
            facts: greeting.facts.clone(),
            certificate_expires: peer.certificate_expires,
        },
        position: greeting.position,
        digest: greeting.digest,
        patience: timing.patience(),
        cancel: cancel.clone(),
        confirm,
    };
    let begun = core.live().begin(session, now());
    let id = match begun {
        Ok(id) => id,
        Err(taken) => return Err(duplicate(core, &greeting.node, peer, taken).await),
    };
    join(core, &greeting, id, peer).await?;
    let actor = peer.identity.to_string();
    Ok(Greeted {
        greeting,
        actor,
        id,
        cancel,
        confirmed,
    })
}

/// Another process has the node's name. The first attempt for a while is told to everybody.
async fn duplicate(core: &Arc<Core>, node: &Name, peer: &PeerInfo, taken: Taken) -> Refused {
    let who = &peer.identity;
    if taken.news {
        let message = format!(
            "{who} is connected, and another process with its certificate was turned away, from {}: stop one of the two, or give it a \
             certificate of its own",
            peer.address
        );
        journal(core, "node.duplicate", who.to_string(), node, message);
    }
    let message = format!(
        "{who} is connected already, from another process: stop one of the two, or give this one a certificate of its own"
    );
    Refused::new(Code::AlreadyExists, "IDENTITY_IN_USE", message)
}

/// Makes the node known, or says why it cannot be.
async fn may_join(core: &Arc<Core>, greeting: &Greeting, peer: &PeerInfo) -> Result<(), Refused> {
    let intent = Intent::NodeJoined {
        name: greeting.node.clone(),
        role: greeting.role,
    };
    let joined = core.system(intent, &peer.identity.to_string()).await;
    joined.map_err(|error| Refused {
        reason: "JOIN_REJECTED",
        status: errors::of_core(error),
    })
}

/// A node that is known changes nothing by coming. When a fleet comes back, this is what each of its nodes costs.
async fn let_in(core: &Arc<Core>, greeting: &Greeting, id: SessionId, peer: &PeerInfo) -> Result<(), Refused> {
    let joins = || core.live().joins(&greeting.node, id, greeting.role, &core.state());
    if joins() {
        return Ok(());
    }
    may_join(core, greeting, peer).await?;
    if joins() {
        return Ok(());
    }
    let meanwhile = "the node was removed or declared gone while it came; connect again";
    Err(Refused {
        reason: "JOIN_REJECTED",
        status: Status::unavailable(meanwhile),
    })
}

async fn join(core: &Arc<Core>, greeting: &Greeting, id: SessionId, peer: &PeerInfo) -> Result<(), Refused> {
    let actor = peer.identity.to_string();
    if let Err(refused) = let_in(core, greeting, id, peer).await {
        core.live().end(&greeting.node, id);
        return Err(refused);
    }
    let state = core.state();
    let desired = state.node_desired(&greeting.node);
    core.live()
        .holds(&greeting.node, id, (greeting.position, greeting.digest), &[], &desired);
    let message = format!("{actor} connected from {}", peer.address);
    journal(core, "node.connected", actor, &greeting.node, message);
    tracing::info!(node = %greeting.node, generation = greeting.position.generation, "session began");
    Ok(())
}

/// A session began or ended: the journal, the gauge, and whoever watches the status.
pub(super) fn journal(core: &Core, kind: &'static str, actor: String, node: &Name, message: String) {
    let (connected, told) = {
        let mut live = core.live();
        (live.sessions(), live.admits(node, Story::Sessions))
    };
    core.metrics().of_sessions(connected);
    core.touch_status(node);
    if !told {
        return;
    }
    let event = NewEvent {
        kind,
        actor,
        slice: None,
        node: Some(node.clone()),
        vlan: None,
        revision: 0,
        message,
    };
    core.note(event);
}
