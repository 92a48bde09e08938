//! `slice ...`.

use trunkline_proto::{client::new_request_id, wire};

use crate::{
    args::{OneSlice, SliceCommand},
    console::Format,
    failure::Failure,
    session::{Session, call},
    view::{
        change::DoneView,
        slice::{DeploymentView, Shown, SliceSummary, SliceView, revisions_table, slice_text, slices_table},
    },
    wait::{Goal, Until, wait},
};

pub(super) async fn run(session: &Session, command: &SliceCommand) -> Result<(), Failure> {
    match command {
        SliceCommand::List => list(session).await,
        SliceCommand::Show { slice, deployed } => show(session, slice, *deployed).await,
        SliceCommand::Deploy(one) => deploy(session, one, &one.slice).await,
        SliceCommand::Undeploy(one) => undeploy(session, one).await,
        SliceCommand::Delete(one) => delete(session, one).await,
        SliceCommand::Rollback { to, one } => rollback(session, *to, one).await,
        SliceCommand::Revisions { slice } => revisions(session, slice).await,
    }
}

async fn show(session: &Session, slice: &str, deployed: bool) -> Result<(), Failure> {
    let found = match deployed {
        true => session.deployed_slice(slice).await?,
        false => session.slice(slice).await?,
    };
    let view = SliceView {
        shown: if deployed { Shown::Deployed } else { Shown::Draft },
        ..SliceView::from(&found)
    };
    session.console.show(&view, || slice_text(&session.console, &view))
}

async fn list(session: &Session) -> Result<(), Failure> {
    let slices = session.slices(None).await?;
    let views: Vec<_> = slices.iter().map(SliceSummary::from).collect();
    session.console.show(&views, || slices_table(&session.console, &views))
}

/// `what` says in the answer what is deployed.
pub(super) async fn deploy(session: &Session, one: &OneSlice, what: &str) -> Result<(), Failure> {
    let request = wire::DeploySliceRequest {
        request_id: new_request_id(),
        name: one.slice.clone(),
        expected_revision: one.expect.expect_revision,
    };
    let wire::DeploySliceResponse {
        revision,
        number,
        term,
        generation,
    } = call!(session, slices.deploy_slice(request))?;
    let at = (term, generation);
    let view = DoneView {
        number: Some(number),
        ..DoneView::on_hosts(revision, at)
    };
    let sentence = if what == one.slice {
        format!("{what} is deployed as #{number}\n")
    } else {
        format!("{what}: deployed as #{number}\n")
    };
    session.console.show(&view, || sentence)?;
    until(session, one, Until::Ready, at).await
}

async fn undeploy(session: &Session, one: &OneSlice) -> Result<(), Failure> {
    let request = wire::UndeploySliceRequest {
        request_id: new_request_id(),
        name: one.slice.clone(),
        expected_revision: one.expect.expect_revision,
    };
    let wire::UndeploySliceResponse {
        revision,
        term,
        generation,
    } = call!(session, slices.undeploy_slice(request))?;
    let at = (term, generation);
    let view = DoneView::on_hosts(revision, at);
    session.console.show(&view, || {
        format!("{} is to be taken off every host; its draft stays\n", one.slice)
    })?;
    until(session, one, Until::Gone, at).await
}

async fn delete(session: &Session, one: &OneSlice) -> Result<(), Failure> {
    let request = wire::DeleteSliceRequest {
        request_id: new_request_id(),
        name: one.slice.clone(),
        expected_revision: one.expect.expect_revision,
    };
    let wire::DeleteSliceResponse {
        revision,
        term,
        generation,
    } = call!(session, slices.delete_slice(request))?;
    let at = (term, generation);
    let view = DoneView::on_hosts(revision, at);
    session.console.show(&view, || {
        format!("{} is deleted; what hosts have of it is being removed\n", one.slice)
    })?;
    until(session, one, Until::Gone, at).await
}

async fn rollback(session: &Session, to: u32, one: &OneSlice) -> Result<(), Failure> {
    let request = wire::RollbackSliceRequest {
        request_id: new_request_id(),
        name: one.slice.clone(),
        number: to,
        expected_revision: one.expect.expect_revision,
    };
    let response = call!(session, slices.rollback_slice(request))?;
    let wire::RollbackSliceResponse {
        revision,
        number,
        term,
        generation,
        renumbered,
    } = response;
    let at = (term, generation);
    let view = DoneView {
        number: Some(number),
        renumbered,
        ..DoneView::on_hosts(revision, at)
    };
    session.console.show(&view, || {
        let new: String = view.renumbered.iter().map(|what| format!("  {what}\n")).collect();
        format!("{} is deployed as #{number}, as it was in #{to}\n{new}", one.slice)
    })?;
    until(session, one, Until::Ready, at).await
}

async fn revisions(session: &Session, slice: &str) -> Result<(), Failure> {
    let mut views = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = wire::ListRevisionsRequest {
            name: slice.to_owned(),
            page_size: 0,
            page_token: page_token.clone(),
        };
        let page = call!(session, slices.list_revisions(request))?;
        views.extend(page.revisions.iter().map(DeploymentView::from));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    session
        .console
        .show(&views, || revisions_table(&session.console, &views))
}

/// Waits when asked to.
async fn until(session: &Session, one: &OneSlice, until: Until, after: (u64, u64)) -> Result<(), Failure> {
    if !one.wait.wait {
        return Ok(());
    }
    let goal = Goal {
        slices: vec![one.slice.clone()],
        until,
        after,
        emptied: None,
    };
    wait(session, &goal, one.wait.timeout).await?;
    say_waited(session, &goal)
}

/// The last word of a wait, for people; for programs it is the exit code.
pub(super) fn say_waited(session: &Session, goal: &Goal) -> Result<(), Failure> {
    let (names, be) = match &goal.slices[..] {
        [] => ("all slices".to_owned(), "are"),
        [one] => (one.clone(), "is"),
        several => (several.join(", "), "are"),
    };
    match session.console.format {
        Format::Table => session.console.print(&format!("{names} {be} {}\n", goal.wish())),
        Format::Json | Format::Yaml => Ok(()),
    }
}
