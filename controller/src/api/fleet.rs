//! `FleetService`: the nodes.

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};
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
    leftovers::Word,
    model::{Position, Timestamp},
    settings::Settings,
    transition::{Intent, Moved, State, Step},
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
            let view = views.get(&name);
            let refused = view
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
                orphans: view
                    .into_iter()
                    .flat_map(|view| &view.orphans)
                    .map(Into::into)
                    .collect(),
                held_removals: view.and_then(|view| view.held.as_deref()).map(Into::into),
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

    async fn cordon_node(&self, request: Request<wire::CordonNodeRequest>) -> Answer<wire::CordonNodeResponse> {
        let intent = |r: wire::CordonNodeRequest| Intent::CordonNode {
            name: r.name,
            cordoned: r.cordoned,
        };
        let answer = |step: &Step, _: &Settings| wire::CordonNodeResponse {
            revision: step.state.cluster.meta.revision,
        };
        mutate(&self.core, "CordonNode", request, |r| &r.request_id, intent, answer).await
    }

    async fn drain_node(&self, request: Request<wire::DrainNodeRequest>) -> Answer<wire::DrainNodeResponse> {
        let intent = |r: wire::DrainNodeRequest| Intent::DrainNode {
            name: r.name,
            onto: r.onto,
        };
        let moved = |moved: &Moved| wire::MovedVm {
            slice: moved.slice.to_string(),
            vm: moved.vm.to_string(),
            from: moved.from.to_string(),
            to: moved.to.to_string(),
        };
        let answer = move |step: &Step, _: &Settings| {
            let meta = &step.state.cluster.meta;
            wire::DrainNodeResponse {
                revision: meta.revision,
                moved: step.outcome.moved.iter().map(moved).collect(),
                term: meta.term,
                generation: meta.generation,
            }
        };
        mutate(&self.core, "DrainNode", request, |r| &r.request_id, intent, answer).await
    }

    async fn declare_node_gone(
        &self,
        request: Request<wire::DeclareNodeGoneRequest>,
    ) -> Answer<wire::DeclareNodeGoneResponse> {
        let intent = |r: wire::DeclareNodeGoneRequest| Intent::DeclareNodeGone { name: r.name };
        let answer = |step: &Step, _: &Settings| wire::DeclareNodeGoneResponse {
            revision: step.state.cluster.meta.revision,
        };
        mutate(
            &self.core,
            "DeclareNodeGone",
            request,
            |r| &r.request_id,
            intent,
            answer,
        )
        .await
    }

    async fn confirm_removals(
        &self,
        request: Request<wire::ConfirmRemovalsRequest>,
    ) -> Answer<wire::ConfirmRemovalsResponse> {
        let wire::ConfirmRemovalsRequest {
            name,
            term,
            generation,
            leftovers,
            ..
        } = request.get_ref().clone();
        let at = Position { term, generation };
        let word = Word { at, leftovers };
        let meant = word.clone();
        let intent = move |r: wire::ConfirmRemovalsRequest| Intent::ConfirmRemovals {
            name: r.name,
            word: meant,
        };
        let answer = |step: &Step, _: &Settings| wire::ConfirmRemovalsResponse {
            confirmed: step.outcome.confirmed,
        };
        let done = mutate(
            &self.core,
            "ConfirmRemovals",
            request,
            |r| &r.request_id,
            intent,
            answer,
        )
        .await?;
        // It is recorded; now the node hears it. A call that is sent again tells it again, which does no harm: the node takes it only
        // for that very state.
        let told = name
            .parse()
            .is_ok_and(|name: Name| self.core.live().confirm(&name, word));
        if !told {
            return Err(errors::with_reason(
                Code::Unavailable,
                "SESSION_LOST",
                format!("node {name} has just lost its connection; confirm again when it is back"),
            ));
        }
        Ok(done)
    }
}

impl Fleet {
    fn node(&self, state: &State, views: &Views, name: &Name) -> wire::Node {
        let view = views.get(name);
        let info = self.core.live().info(name).cloned();
        let record = state.cluster.nodes.get(name);
        let role = record.map_or(wire::NodeRole::Unspecified, |record| record.role.into());
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
            cordoned: record.is_some_and(|record| record.cordoned),
            gone_since: record.and_then(|record| record.gone).map(Into::into),
        }
    }
}
