//! `ExplainService`: why a guest reaches another, or does not.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trunkline_proto::wire::{self, explain_service_server::ExplainService};

use super::{call::Call, errors};
use crate::{
    core::Core,
    explain::{Unnamed, explain},
};

/// The service.
pub(super) struct Explains {
    pub(super) core: Arc<Core>,
}

#[tonic::async_trait]
impl ExplainService for Explains {
    async fn explain(&self, request: Request<wire::ExplainRequest>) -> Result<Response<wire::ExplainResponse>, Status> {
        let call = Call::new("Explain", &request)?;
        let core = self.core.clone();
        let wire::ExplainRequest { from, to } = request.into_inner();
        call.run(&self.core, async {
            // As the status does, off the runtime's threads: the status of a large slice takes a while.
            let work = move || explain(&core.state(), &core.views(), &from, &to);
            let explained = tokio::task::spawn_blocking(work).await;
            explained
                .map_err(|_| Status::internal("the way could not be explained"))?
                .map_err(refused)
        })
        .await
    }
}

fn refused(unnamed: Unnamed) -> Status {
    match unnamed.missing {
        Some((kind, name)) => errors::not_found_among(kind, name, unnamed.description),
        None => errors::field(unnamed.field, unnamed.description),
    }
}
