//! Guests of the lab in the background: `guest add`, `guest del`, `guest exec`.

use std::path::Path;
use std::process::ExitCode;

use super::background::{become_inside, folder, running, shell_line};
use super::console::{say, say_line, tell};
use super::control::{Answer, GuestStatus, Request, ask};
use super::state::State;
use crate::LabError;
use crate::api::Api;
use crate::guest::{Kind, Spec};
use trunkline_proto::wire::Vm;

/// Starts a guest for a VM that is deployed.
pub fn add(vm: &str, kind: Kind) -> Result<(), LabError> {
    let folder = folder()?;
    let state = running(&folder)?;
    let vm = Api::connect(&state.endpoint, &state.bundle)?.vm(vm)?;
    let mut spec = Spec::of(&vm);
    if kind == Kind::Machine {
        spec = spec.with_netdev(&state.endpoint, &state.bundle)?;
    }
    let (name, worker) = (spec.name.clone(), spec.worker.clone());
    ask(&folder, &Request::AddGuest { spec, kind })?;
    say_line(&format!(
        "{name} runs on {worker}. Try: ./integration/lab guest exec {name} ip addr"
    ))
}

/// Ends a guest.
pub fn delete(vm: &str) -> Result<(), LabError> {
    let folder = folder()?;
    running(&folder)?;
    let name = find(&folder, vm)?.map_or_else(|| vm.to_owned(), |guest| guest.name);
    ask(&folder, &Request::DeleteGuest { name: name.clone() })?;
    say_line(&format!("{name} is gone."))
}

/// Says which guests run.
pub fn list(json: bool) -> Result<(), LabError> {
    let folder = folder()?;
    let state = running(&folder)?;
    let Answer::Status(mut status) = ask(&folder, &Request::Status)? else {
        return Err(LabError::Other("the lab answered something else".to_owned()));
    };
    mark_stale(&state, &mut status.guests);
    if json {
        return say_line(&format!("{:#}", serde_json::json!(status.guests)));
    }
    if status.guests.is_empty() {
        return say_line("No guest runs. Start one with: ./integration/lab guest add VM");
    }
    say_line(&table(&status.guests).to_string())
}

/// Guests for a person.
pub(super) fn table(guests: &[GuestStatus]) -> comfy_table::Table {
    let mut table = super::table(&["GUEST", "HOST", "KIND", "ADDRESSES"]);
    for guest in guests {
        let addresses = guest
            .addresses
            .iter()
            .map(|(interface, address)| format!("{interface} {}", address.as_deref().unwrap_or("-")));
        let mut state = addresses.collect::<Vec<_>>().join(", ");
        if let Some(why) = &guest.stale {
            state += &format!(" ({why}: guest del {})", guest.name);
        }
        let kind = format!("{:?}", guest.kind).to_lowercase();
        table.add_row([&guest.name, &guest.worker, &kind, &state]);
    }
    table
}

/// Marks guests whose VM was removed, moved or made anew. While the controller is away nobody knows.
pub(super) fn mark_stale(state: &State, guests: &mut [GuestStatus]) {
    if guests.is_empty() {
        return;
    }
    let slices = Api::connect(&state.endpoint, &state.bundle).and_then(|api| api.slices());
    let Ok(slices) = slices else { return };
    let vms: Vec<Vm> = slices.into_iter().flat_map(|slice| slice.vms).collect();
    for guest in guests {
        guest.stale = stale(guest, &vms);
    }
}

fn stale(guest: &GuestStatus, vms: &[Vm]) -> Option<String> {
    let vm = vms.iter().find(|vm| format!("{}/{}", vm.slice, vm.name) == guest.name);
    match vm {
        None => Some("its VM was removed".to_owned()),
        Some(vm) if vm.worker != guest.worker => Some(format!("its VM moved to {}", vm.worker)),
        Some(vm) if vm.vm_id != guest.vm_id => Some("its VM was made anew".to_owned()),
        Some(_) => None,
    }
}

/// Runs a command in a guest, and ends as it ended.
pub fn exec(vm: &str, argv: Vec<String>) -> Result<ExitCode, LabError> {
    let folder = folder()?;
    let state = running(&folder)?;
    let guest = find(&folder, vm)?;
    let argv = shell_line(argv);
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
            say(&stdout)?;
            if !stderr.is_empty() {
                tell(stderr.trim_end_matches('\n'));
            }
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
