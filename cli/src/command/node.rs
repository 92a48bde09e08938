//! `node ...`.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use trunkline_proto::{client::new_request_id, wire};

use super::done;
use crate::{
    args::{NodeCommand, Wait},
    console::Format,
    failure::Failure,
    session::{Session, call},
    view::{
        change::{DrainView, drain_text},
        node::{
            HeldView, NodeDetailView, NodeView, OrphanView, ProbesView, RefusalView, node_text, nodes_table,
            orphans_table,
        },
        status::ResourceView,
    },
    wait::{Emptied, Goal, Until, wait},
};

pub(super) async fn run(session: &Session, command: &NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::List => {
            let nodes = session.nodes().await?;
            let views: Vec<_> = nodes.iter().map(NodeView::from).collect();
            session
                .console
                .show(&views, || nodes_table(&session.console, &views, Timestamp::now()))
        }
        NodeCommand::Show { node } => {
            let detail = call!(session, fleet.get_node(wire::GetNodeRequest { name: node.clone() }))?;
            let holds: Vec<ResourceView> = detail.resources.iter().map(ResourceView::from).collect();
            let view = NodeDetailView {
                node: NodeView::from(&detail.node.unwrap_or_default()),
                probes: ProbesView::of(&holds),
                holds,
                refused: detail.refused.iter().map(RefusalView::from).collect(),
                orphans: detail.orphans.iter().map(OrphanView::from).collect(),
                held_removals: detail.held_removals.as_ref().map(HeldView::from),
            };
            session
                .console
                .show(&view, || node_text(&session.console, &view, Timestamp::now()))
        }
        NodeCommand::Cordon { node } => cordon(session, node, true).await,
        NodeCommand::Uncordon { node } => cordon(session, node, false).await,
        NodeCommand::Drain { node, onto, wait } => {
            drain(session, node, onto.as_deref().unwrap_or_default(), *wait).await
        }
        NodeCommand::Replace { old, new, wait } => drain(session, old, new, *wait).await,
        NodeCommand::Gone { node, yes } => gone(session, node, *yes).await,
        NodeCommand::Confirm { node } => confirm(session, node).await,
        NodeCommand::Orphans { node } => {
            let detail = call!(session, fleet.get_node(wire::GetNodeRequest { name: node.clone() }))?;
            let views: Vec<_> = detail.orphans.iter().map(OrphanView::from).collect();
            session.console.show(&views, || orphans_table(&session.console, &views))
        }
        NodeCommand::Forget { node } => {
            let request = wire::RemoveNodeRequest {
                request_id: new_request_id(),
                name: node.clone(),
            };
            let removed = call!(session, fleet.remove_node(request))?;
            done(session, removed.revision, &format!("{node} is forgotten"))
        }
    }
}

async fn cordon(session: &Session, node: &str, cordoned: bool) -> Result<(), Failure> {
    let request = wire::CordonNodeRequest {
        request_id: new_request_id(),
        name: node.to_owned(),
        cordoned,
    };
    let changed = call!(session, fleet.cordon_node(request))?;
    let sentence = if cordoned {
        format!("{node} takes no new VMs; those that it has stay")
    } else {
        format!("{node} takes new VMs")
    };
    done(session, changed.revision, &sentence)
}

async fn drain(session: &Session, node: &str, onto: &str, wait: Wait) -> Result<(), Failure> {
    let request = wire::DrainNodeRequest {
        request_id: new_request_id(),
        name: node.to_owned(),
        onto: onto.to_owned(),
    };
    let drained = call!(session, fleet.drain_node(request))?;
    let view = DrainView::from(&drained);
    session
        .console
        .show(&view, || drain_text(&session.console, node, &view))?;
    if wait.wait {
        emptied(session, node, &drained, wait.timeout).await?;
    }
    Ok(())
}

/// Waits until the node holds nothing any more and the VMs that it had are where they are to be.
async fn emptied(
    session: &Session,
    node: &str,
    drained: &wire::DrainNodeResponse,
    timeout: Duration,
) -> Result<(), Failure> {
    let detail = call!(session, fleet.get_node(wire::GetNodeRequest { name: node.to_owned() }))?;
    let slices: BTreeSet<String> = drained.moved.iter().map(|moved| moved.slice.clone()).collect();
    let goal = Goal {
        slices: slices.into_iter().collect(),
        until: Until::Ready,
        after: (drained.term, drained.generation),
        emptied: Some(Emptied {
            node: node.to_owned(),
            gone: detail.node.is_some_and(|node| node.gone_since.is_some()),
        }),
    };
    wait(session, &goal, timeout).await?;
    match session.console.format {
        Format::Table => session.console.print(&format!(
            "{node} is empty, and every slice that was moved is {}\n",
            goal.wish()
        )),
        Format::Json | Format::Yaml => Ok(()),
    }
}

async fn gone(session: &Session, node: &str, yes: bool) -> Result<(), Failure> {
    if !yes {
        return Err(Failure::Usage {
            what: format!(
                "this vouches that {node} is dead and cut off: what it held is given to others, and if it still forwards frames, two \
                 tenants are joined"
            ),
            instead: "make sure that it is off or unplugged, then add --yes".to_owned(),
        });
    }
    let request = wire::DeclareNodeGoneRequest {
        request_id: new_request_id(),
        name: node.to_owned(),
    };
    let declared = call!(session, fleet.declare_node_gone(request))?;
    done(
        session,
        declared.revision,
        &format!("nobody waits for {node} until it connects again; to move its VMs away: trunkctl node drain {node}"),
    )
}

/// What is confirmed is what the node holds back now, which is named, and nothing that comes after.
async fn confirm(session: &Session, node: &str) -> Result<(), Failure> {
    let detail = call!(session, fleet.get_node(wire::GetNodeRequest { name: node.to_owned() }))?;
    let held = detail.held_removals.unwrap_or_default();
    let meant = HeldView::from(&held);
    let request = wire::ConfirmRemovalsRequest {
        request_id: new_request_id(),
        name: node.to_owned(),
        term: held.term,
        generation: held.generation,
        leftovers: held.leftovers,
    };
    let wire::ConfirmRemovalsResponse { confirmed } = call!(session, fleet.confirm_removals(request))?;
    let view = serde_json::json!({ "confirmed": confirmed });
    session.console.show(&view, || {
        format!(
            "{node} carries out {confirmed} removals that it held back: {}\n",
            meant.named()
        )
    })
}
