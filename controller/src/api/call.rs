//! What every handler does alike: who calls, under which trace, the request id, the count.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span, info_span};
use trunkline_proto::daemon::telemetry;

use super::errors;
use crate::{
    authz,
    core::{Core, Mutation},
    requests::{Fingerprint, MAX_ID, RequestKey},
    settings::Settings,
    transition::{Intent, Step},
};

/// A call that is let in.
pub(super) struct Call {
    method: &'static str,
    /// `operator/alice`.
    pub(super) actor: String,
    span: Span,
}

impl Call {
    pub(super) fn new<T>(method: &'static str, request: &Request<T>) -> Result<Self, Status> {
        let actor = authz::identity(request)?.to_string();
        let span = info_span!(parent: None, "call", method, actor);
        telemetry::set_parent(&span, telemetry::extract(request.metadata()));
        Ok(Self { method, actor, span })
    }

    /// Runs the handler's work under the call's trace and counts how it ended.
    pub(super) async fn run<T>(
        self,
        core: &Core,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let done = work.instrument(self.span).await;
        core.metrics()
            .call(self.method, done.as_ref().err().map_or(tonic::Code::Ok, Status::code));
        done.map(Response::new)
    }
}

/// A mutation: intent in, answer out, stored together.
pub(super) async fn mutate<Q, A>(
    core: &Arc<Core>,
    method: &'static str,
    request: Request<Q>,
    id: impl FnOnce(&Q) -> &str,
    intent: impl FnOnce(Q) -> Intent,
    answer: impl FnOnce(&Step, &Settings) -> A + Send + 'static,
) -> Result<Response<A>, Status>
where
    Q: Message,
    A: Message + Default,
{
    let call = Call::new(method, &request)?;
    let actor = call.actor.clone();
    let request = request.into_inner();
    let id = id(&request).to_owned();
    let fingerprint = Fingerprint::of(method, &request);
    let intent = intent(request);
    call.run(core, async {
        check_id(&id)?;
        let mutation = Mutation {
            intent,
            actor: actor.clone(),
            request: Some((RequestKey { actor, id }, fingerprint)),
            answer: Box::new(move |step, settings| answer(step, settings).encode_to_vec()),
        };
        let bytes = core.mutate(mutation).await.map_err(errors::of_core)?;
        A::decode(bytes.as_slice()).map_err(|_| Status::internal("a stored answer cannot be read"))
    })
    .await
}

fn check_id(id: &str) -> Result<(), Status> {
    if (1..=MAX_ID).contains(&id.chars().count()) {
        Ok(())
    } else {
        Err(errors::field(
            "request_id",
            format!("send 1 to {MAX_ID} characters, a UUID for choice: it makes a retry safe"),
        ))
    }
}
