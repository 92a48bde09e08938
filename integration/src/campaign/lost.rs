//! What only an operator with both hands on the fleet does: vouches for a dead worker, puts an export away, and brings it back when the
//! controller's state is lost.

use std::time::Duration;

use serde_json::Value;

use super::act::Operator;
use super::fault::{Reviver, kill_all};
use super::ledger::Ledger;
use crate::LabError;
use crate::lab::layout::CONTROLLER;
use crate::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, Lab, programs};
use crate::wait::until;

const STATE: &str = "/var/lib/trunkline-controller";
/// Until a controller, which may have died just now on a full disk, has written its export.
const EXPORT_LIMIT: Duration = Duration::from_secs(60);
/// Until the controller misses a worker whose connection it may not have seen end.
const MISSED_LIMIT: Duration = Duration::from_secs(60);
const RESTORE_LIMIT: Duration = Duration::from_secs(60);

/// An export that was put away, and the book of that moment.
pub(super) struct PutAway {
    text: Vec<u8>,
    book: Ledger,
}

/// Kills a worker's agent and declares the worker gone. Nobody starts it meanwhile.
pub(super) fn gone(
    lab: &Lab,
    reviver: &Reviver,
    operator: &mut Operator,
    worker: &str,
    twice: bool,
) -> Result<String, String> {
    reviver.alone(worker, || {
        kill_all(lab, worker, &[AGENT_PROGRAM]);
        let missed = until("the worker to be missed", MISSED_LIMIT, || {
            let nodes = operator.api.nodes().map_err(|error| error.chain())?;
            let is_missed = |node: &trunkline_proto::wire::Node| node.name == worker && !node.connected;
            if nodes.iter().any(is_missed) {
                Ok(())
            } else {
                Err("it counts as connected".to_owned())
            }
        });
        missed.map_err(|error| error.chain())?;
        operator.declare_gone(worker, twice)
    })
}

/// Copies the export when it holds all that was answered.
pub(super) fn put_away(lab: &Lab, operator: &Operator) -> Result<PutAway, String> {
    let path = lab
        .host(CONTROLLER)
        .map_err(words)?
        .path(&format!("{STATE}/export.jsonl"));
    let text = until("the export to hold every answer", EXPORT_LIMIT, || {
        let status = operator.api.status().map_err(words)?;
        let text = std::fs::read(&path).map_err(|error| error.to_string())?;
        let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let header: Value = serde_json::from_slice(first).map_err(|error| error.to_string())?;
        let written = header["revision"].as_u64().unwrap_or_default();
        let is_newer = header["term"].as_u64() == Some(status.term) && written >= status.revision;
        if is_newer {
            Ok(text)
        } else {
            Err(format!(
                "it is of revision {written}, and {} was reached",
                status.revision
            ))
        }
    });
    let book = operator.ledger.clone();
    text.map(|text| PutAway { text, book }).map_err(words)
}

/// Loses the controller's state and makes a new one of the export, with a term that nobody has seen yet.
pub(super) fn restore(
    lab: &Lab,
    reviver: &Reviver,
    operator: &mut Operator,
    put_away: &PutAway,
) -> Result<String, String> {
    let host = lab.host(CONTROLLER).map_err(words)?;
    let file = host.folder().join("put-away.jsonl");
    std::fs::write(&file, &put_away.text).map_err(|error| error.to_string())?;
    let config = host.folder().join(format!("{CONTROLLER_PROGRAM}.toml"));
    let program = programs::find(CONTROLLER_PROGRAM).map_err(words)?;
    let term = (operator.ledger.term() + 1).to_string();
    let argv = [
        program.display().to_string(),
        "--config".to_owned(),
        config.display().to_string(),
        "restore".to_owned(),
        file.display().to_string(),
        "--term".to_owned(),
        term.clone(),
    ];
    reviver.alone(CONTROLLER, || {
        kill_all(lab, CONTROLLER, &[CONTROLLER_PROGRAM]);
        // The disk may be full just now.
        until("the export to be restored", RESTORE_LIMIT, || {
            host.must(&["find", STATE, "-mindepth", "1", "-delete"])
                .map_err(words)?;
            host.must(&argv).map_err(words)
        })
        .map_err(words)?;
        // Where it does not start just now, the quiet period starts it.
        let _ = lab.start_daemon(CONTROLLER, CONTROLLER_PROGRAM);
        Ok::<(), String>(())
    })?;
    operator.ledger.restore(put_away.book.clone());
    Ok(format!("restored under term {term}"))
}

fn words(error: LabError) -> String {
    error.chain()
}
