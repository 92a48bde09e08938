//! `start`, `stop` and `restart` of what runs on a host, for daemons that died, were killed, or are to be tried without.

use super::background::{folder, running};
use super::console::say_line;
use super::control::{Answer, Change, Request, ask};
use crate::LabError;
use crate::lab::{Lab, OVSDB, VSWITCHD};

/// Asks the lab in the background for it.
pub fn ask_for(host: &str, change: Change) -> Result<(), LabError> {
    let folder = folder()?;
    running(&folder)?;
    let host = host.to_owned();
    let request = Request::Daemons {
        host: host.clone(),
        change,
    };
    let Answer::Changed { programs } = ask(&folder, &request)? else {
        return Err(LabError::Other("the lab answered something else".to_owned()));
    };
    let done = match change {
        Change::Start => "started",
        Change::Stop => "stopped",
        Change::Restart => "started again",
    };
    if programs.is_empty() {
        let already = match change {
            Change::Stop => "Its daemon does not run",
            Change::Start | Change::Restart => "Everything that belongs there runs",
        };
        return say_line(&format!("{host}: nothing to do. {already}."));
    }
    say_line(&format!("{host}: {done} {}.", programs.join(" ")))
}

/// The supervisor's side. Answers with what was started or ended.
pub(super) fn change(lab: &Lab, host: &str, change: Change) -> Result<Vec<String>, LabError> {
    lab.host(host)?;
    let all = lab.programs(host);
    if all.is_empty() {
        return Err(LabError::Other(format!("nothing of ours belongs on {host}")));
    }
    let mut changed = Vec::new();
    let ours = all.iter().filter(|program| ![OVSDB, VSWITCHD].contains(program));
    if change != Change::Start {
        for program in ours.filter(|program| lab.runs(host, program)) {
            lab.stop_daemon(host, program)?;
            changed.push((*program).to_owned());
        }
    }
    if change == Change::Stop {
        return Ok(changed);
    }
    changed.clear();
    for program in all {
        if !lab.runs(host, program) {
            lab.start_daemon(host, program)?;
            changed.push(program.to_owned());
        }
    }
    Ok(changed)
}
