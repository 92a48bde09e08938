//! `node ...`.

use jiff::Timestamp;
use trunkline_proto::{client::new_request_id, wire};

use super::done;
use crate::{
    args::NodeCommand,
    failure::Failure,
    session::{Session, call},
    view::{
        node::{NodeDetailView, NodeView, ProbesView, RefusalView, node_text, nodes_table},
        status::ResourceView,
    },
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
            };
            session
                .console
                .show(&view, || node_text(&session.console, &view, Timestamp::now()))
        }
        NodeCommand::Remove { node } => {
            let request = wire::RemoveNodeRequest {
                request_id: new_request_id(),
                name: node.clone(),
            };
            let removed = call!(session, fleet.remove_node(request))?;
            done(session, removed.revision, &format!("{node} is forgotten"))
        }
    }
}
