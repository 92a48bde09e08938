//! Status, computed on demand from the state and the nodes' reports.

use std::sync::Arc;

use tonic::Status;
use trunkline_proto::{Name, wire};

use super::errors;
use crate::{
    converge::{self, Detail},
    core::Core,
    transition::State,
};

/// Most slices that one call may name.
const NAMES: usize = 1000;

/// What a request asks for.
pub(super) fn detail(brief: bool) -> Detail {
    if brief { Detail::Brief } else { Detail::Whole }
}

/// The names of a request.
pub(super) fn parse_names(names: &[String]) -> Result<Vec<Name>, Status> {
    if names.len() > NAMES {
        return Err(errors::field(
            "slices",
            format!("name at most {NAMES}, or none for all"),
        ));
    }
    let parse = |(index, name): (usize, &String)| {
        name.parse()
            .map_err(|error: trunkline_proto::Invalid| errors::field(&format!("slices[{index}]"), error.to_string()))
    };
    names.iter().enumerate().map(parse).collect()
}

/// Each of them exists, or is still on its way out.
pub(super) fn require(state: &State, names: &[Name]) -> Result<(), Status> {
    let leaving = converge::slices_with_status(state);
    match names
        .iter()
        .find(|name| !state.cluster.slices.contains_key(*name) && !leaving.contains(name))
    {
        Some(name) => Err(errors::not_found("slice", name.as_str())),
        None => Ok(()),
    }
}

/// Status of these slices, or of all that have one, and of the nodes. Computed off the runtime's threads: a large fleet takes a while.
pub(super) async fn compute(
    core: &Arc<Core>,
    names: Vec<Name>,
    detail: Detail,
) -> Result<wire::GetStatusResponse, Status> {
    let core = core.clone();
    let work = move || {
        let (state, views) = (core.state(), core.views());
        let names = if names.is_empty() {
            converge::slices_with_status(&state)
        } else {
            names
        };
        let meta = &state.cluster.meta;
        wire::GetStatusResponse {
            slices: names
                .iter()
                .map(|name| converge::slice_status_in(&state, &views, name, detail))
                .collect(),
            nodes: state
                .cluster
                .nodes
                .keys()
                .map(|name| converge::node_status(&state, &views, name))
                .collect(),
            revision: meta.revision,
            term: meta.term,
            generation: meta.generation,
        }
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Status::internal("the status could not be computed"))
}
