//! Guests of the lab in the background: `guest add`, `guest del`, `guest exec`.

use std::path::Path;
use std::process::ExitCode;

use super::background::{become_inside, folder, running};
use super::control::{Answer, GuestStatus, Request, ask};
use super::state::State;
use crate::LabError;
use crate::api::Api;
use crate::guest::{Kind, Spec};

/// Starts a guest for a VM that is deployed.
pub fn add(vm: &str, kind: Kind) -> Result<(), LabError> {
    let folder = folder()?;
    let state = running(&folder)?;
    let vm = Api::connect(&state.endpoint, &state.bundle)?.vm(vm)?;
    let spec = Spec::of(&vm);
    let (name, worker) = (spec.name.clone(), spec.worker.clone());
    ask(&folder, &Request::AddGuest { spec, kind })?;
    println!("{name} runs on {worker}. Try: ./integration/lab guest exec {name} ip addr");
    Ok(())
}

/// Ends a guest.
pub fn delete(vm: &str) -> Result<(), LabError> {
    let folder = folder()?;
    running(&folder)?;
    let name = find(&folder, vm)?.map_or_else(|| vm.to_owned(), |guest| guest.name);
    ask(&folder, &Request::DeleteGuest { name: name.clone() })?;
    println!("{name} is gone.");
    Ok(())
}

/// Runs a command in a guest, and ends as it ended.
pub fn exec(vm: &str, argv: Vec<String>) -> Result<ExitCode, LabError> {
    let folder = folder()?;
    let state = running(&folder)?;
    let guest = find(&folder, vm)?;
    if let Some(GuestStatus {
        worker,
        netns: Some(netns),
        ..
    }) = &guest
    {
        return Err(exec_in_namespace(&state, worker, netns, argv));
    }
    let name = guest.map_or_else(|| vm.to_owned(), |guest| guest.name);
    match ask(&folder, &Request::ExecGuest { name, argv })? {
        Answer::Output { status, stdout, stderr } => {
            print!("{stdout}");
            eprint!("{stderr}");
            Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
        }
        other => Err(LabError::Other(format!("the lab answered {other:?}"))),
    }
}

/// Directly, so that its output comes as it is written and its input is ours. Returns only when it failed.
fn exec_in_namespace(state: &State, worker: &str, netns: &str, argv: Vec<String>) -> LabError {
    let Some(pid) = state.hosts.get(worker) else {
        return LabError::Other(format!("{worker} is gone"));
    };
    let path = match crate::guest::tools_path() {
        Ok(path) => path,
        Err(error) => return error,
    };
    let inside = ["ip", "netns", "exec", netns, "env", &path].map(str::to_owned);
    become_inside(*pid, &inside.into_iter().chain(argv).collect::<Vec<_>>())
}

/// The running guest of a VM, named `slice/vm` or by a unique `vm`.
fn find(folder: &Path, vm: &str) -> Result<Option<GuestStatus>, LabError> {
    let Answer::Status(status) = ask(folder, &Request::Status)? else {
        return Ok(None);
    };
    let matches = |name: &str| name == vm || name.rsplit_once('/').is_some_and(|(_, short)| short == vm);
    let mut found: Vec<GuestStatus> = status.guests.into_iter().filter(|guest| matches(&guest.name)).collect();
    if found.len() > 1 {
        let names: Vec<&str> = found.iter().map(|guest| guest.name.as_str()).collect();
        return Err(LabError::Other(format!(
            "several guests are called {vm:?}: say one of {}",
            names.join(" ")
        )));
    }
    Ok(found.pop())
}
