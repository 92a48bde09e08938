//! `explain`.

use trunkline_proto::wire;

use crate::{
    args::Explain,
    failure::Failure,
    session::{Session, call},
    view::explain::{ExplainView, explain_text},
};

pub(super) async fn run(session: &Session, args: &Explain) -> Result<(), Failure> {
    let request = wire::ExplainRequest {
        from: args.from.clone(),
        to: args.to.clone(),
    };
    let view = ExplainView::from(&call!(session, explain.explain(request))?);
    session.console.show(&view, || explain_text(&session.console, &view))?;
    if view.reaches == Some(true) {
        return Ok(());
    }
    Err(Failure::NotReady {
        what: view.verdict,
        missing: Vec::new(),
    })
}
