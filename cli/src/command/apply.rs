//! `apply`.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use trunkline_proto::{
    client::{ApiError, new_request_id},
    wire,
};

use crate::{
    args::{Apply, Global},
    console::Console,
    failure::Failure,
    session::{Session, call},
    topology::{MAX_BYTES, Topology, Wrong},
    view::change::{ApplyView, apply_text},
    wait::{Goal, Until, wait},
};

/// Longest wait for what the controller has to say about a file that is wrong anyway.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Reads the file and tells every mistake in it; where only values are wrong, with what the controller finds, if it is there.
pub(super) async fn read(path: &Path, global: &Global, console: &Console) -> Result<Topology, Failure> {
    let (wrong, rest) = match load(path)? {
        Ok(topology) => return Ok(topology),
        Err(parts) => *parts,
    };
    let asked = match &rest {
        Some(rest) => tokio::time::timeout(ASK_LIMIT, ask(rest, global, console))
            .await
            .ok()
            .flatten(),
        None => None,
    };
    let wrong = match (&rest, &asked) {
        (Some(rest), Some(error)) => rest.more(wrong, violations(error)),
        _ => wrong,
    };
    Err(Failure::Topology(Box::new(wrong)))
}

/// What the controller finds wrong with the rest of a file. Nothing is changed, and whether it can be asked does not matter.
async fn ask(rest: &Topology, global: &Global, console: &Console) -> Option<ApiError> {
    let session = &Session::open(global, console).await.ok()?;
    let request = wire::ApplySlicesRequest {
        request_id: new_request_id(),
        slices: rest.slices.clone(),
        dry_run: true,
        ..wire::ApplySlicesRequest::default()
    };
    match call!(session, slices.apply_slices(request)) {
        Err(Failure::Api(error)) => Some(error),
        _ => None,
    }
}

fn violations(error: &ApiError) -> impl Iterator<Item = (&str, &str)> {
    error
        .violations
        .iter()
        .map(|v| (v.field.as_str(), v.description.as_str()))
}

/// The file, or its mistakes and what else there is in it.
type Loaded = Result<Topology, Box<(Wrong, Option<Topology>)>>;

fn load(path: &Path) -> Result<Loaded, Failure> {
    let standard_input = path == Path::new("-");
    let file = if standard_input {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let mut bytes = Vec::new();
    // One byte more than is taken tells a file that is too large, without reading all of it.
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let read = match standard_input {
        true => io::stdin().lock().take(most).read_to_end(&mut bytes),
        false => File::open(path).and_then(|f| f.take(most).read_to_end(&mut bytes)),
    };
    read.map_err(|source| Failure::File {
        file: file.clone(),
        source,
    })?;
    Ok(Topology::parse_further(&file, &bytes))
}

/// What the command line asks for makes sense.
pub(super) fn check(args: &Apply) -> Result<(), Failure> {
    if args.wait.wait && !args.deploy {
        return Err(Failure::Usage {
            what: "apply alone changes drafts, and no host: there is nothing to wait for".to_owned(),
            instead: "add --deploy, or leave --wait out".to_owned(),
        });
    }
    Ok(())
}

pub(super) async fn run(session: &Session, args: &Apply, topology: &Topology) -> Result<(), Failure> {
    let request = wire::ApplySlicesRequest {
        request_id: new_request_id(),
        slices: topology.slices.clone(),
        expected_revisions: args.expect_revision.iter().cloned().collect(),
        deploy: args.deploy,
        dry_run: args.dry_run,
    };
    let answer = call!(session, slices.apply_slices(request));
    let response = answer.map_err(|failure| in_file(failure, topology))?;
    let view = ApplyView::new(&response, args.dry_run, args.deploy && !args.dry_run);
    session
        .console
        .show(&view, || apply_text(session.console.paint, &view))?;
    if args.wait.wait {
        let goal = Goal {
            slices: topology.slices.iter().map(|s| s.name.clone()).collect(),
            until: Until::Ready,
            after: (response.term, response.generation),
            emptied: None,
        };
        wait(session, &goal, args.wait.timeout).await?;
        super::slice::say_waited(session, &goal)?;
    }
    Ok(())
}

/// What the controller finds wrong with the file is shown in the file.
fn in_file(failure: Failure, topology: &Topology) -> Failure {
    let Failure::Api(error) = failure else { return failure };
    match topology.wrong(violations(&error)) {
        Some(wrong) => Failure::Refused {
            wrong: Box::new(wrong),
            error,
        },
        None => Failure::Api(error),
    }
}
