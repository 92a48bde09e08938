//! `FleetService`: the nodes.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trunkline_proto::{
    Invalid, Name,
    wire::{self, fleet_service_server::FleetService},
};

use super::{
    call::{Call, mutate},
    errors, page,
};
use crate::{
    converge::{self, Views},
    core::Core,
    model::Timestamp,
    settings::Settings,
    transition::{Intent, State, Step},
};

/// The service.
pub(super) struct Fleet {
    pub(super) core: Arc<Core>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl FleetService for Fleet {
    async fn list_nodes(&self, request: Request<wire::ListNodesRequest>) -> Answer<wire::ListNodesResponse> {
        let call = Call::new("ListNodes", &request)?;
        call.run(&self.core, async {
            let wire::ListNodesRequest { page_size, page_token } = request.into_inner();
            let (most, after) = (page::size(page_size)?, page::from_token(&page_token)?);
            let (state, views) = (self.core.state(), self.core.views());
            let rest = state
                .cluster
                .nodes
                .keys()
                .filter(|name| after.as_deref().is_none_or(|after| name.as_str() > after));
            let nodes = rest.map(|name| self.node(&state, &views, name));
            let (nodes, next_page_token) = page::cut(nodes, most, |node| node.name.clone());
            Ok(wire::ListNodesResponse { nodes, next_page_token })
        })
        .await
    }

    async fn get_node(&self, request: Request<wire::GetNodeRequest>) -> Answer<wire::GetNodeResponse> {
        let call = Call::new("GetNode", &request)?;
        call.run(&self.core, async {
            let text = &request.get_ref().name;
            let name: Name = text
                .parse()
                .map_err(|error: Invalid| errors::field("name", error.to_string()))?;
            let (state, views) = (self.core.state(), self.core.views());
            if !state.cluster.nodes.contains_key(&name) {
                return Err(errors::not_found("node", text));
            }
            let refused = views
                .get(&name)
                .into_iter()
                .flat_map(|view| &view.refused)
                .map(|(key, refusal)| wire::Refusal {
                    key: Some(key.into()),
                    hash: refusal.hash.to_vec(),
                    reason: refusal.reason.clone(),
                });
            Ok(wire::GetNodeResponse {
                node: Some(self.node(&state, &views, &name)),
                resources: converge::node_resources(&state, &views, &name),
                refused: refused.collect(),
                orphans: Vec::new(),
                held_removals: None,
            })
        })
        .await
    }

    async fn remove_node(&self, request: Request<wire::RemoveNodeRequest>) -> Answer<wire::RemoveNodeResponse> {
        let intent = |r: wire::RemoveNodeRequest| Intent::RemoveNode { name: r.name };
        let answer = |step: &Step, _: &Settings| wire::RemoveNodeResponse {
            revision: step.state.cluster.meta.revision,
        };
        mutate(&self.core, "RemoveNode", request, |r| &r.request_id, intent, answer).await
    }

    async fn cordon_node(&self, _: Request<wire::CordonNodeRequest>) -> Answer<wire::CordonNodeResponse> {
        Err(Status::unimplemented("not in this version"))
    }

    async fn drain_node(&self, _: Request<wire::DrainNodeRequest>) -> Answer<wire::DrainNodeResponse> {
        Err(Status::unimplemented("not in this version"))
    }

    async fn declare_node_gone(
        &self,
        _: Request<wire::DeclareNodeGoneRequest>,
    ) -> Answer<wire::DeclareNodeGoneResponse> {
        Err(Status::unimplemented("not in this version"))
    }

    async fn confirm_removals(
        &self,
        _: Request<wire::ConfirmRemovalsRequest>,
    ) -> Answer<wire::ConfirmRemovalsResponse> {
        Err(Status::unimplemented("not in this version"))
    }
}

impl Fleet {
    fn node(&self, state: &State, views: &Views, name: &Name) -> wire::Node {
        let view = views.get(name);
        let info = self.core.live().info(name).cloned();
        let role = state
            .cluster
            .nodes
            .get(name)
            .map_or(wire::NodeRole::Unspecified, |record| record.role.into());
        wire::Node {
            name: name.to_string(),
            role: role.into(),
            connected: view.is_some_and(|view| view.connected),
            last_seen: view.and_then(|view| view.last_seen).map(Into::into),
            certificate_expires: info
                .as_ref()
                .map(|info| Timestamp::from(info.certificate_expires).into()),
            facts: info.map(|info| info.facts),
            status: Some(converge::node_status(state, views, name)),
            vms: state.cluster.vms_on(name),
            cordoned: false,
            gone_since: None,
        }
    }
}
