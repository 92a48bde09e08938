//! `vm ...`.

use std::{collections::BTreeMap, net::Ipv4Addr};

use trunkline_proto::{InterfaceName, Mac, client::new_request_id, wire};

use super::{done, netdev, slice};
use crate::{
    args::{Expect, InSlice, Launcher, OneSlice, VmCommand, Wait},
    console::Format,
    failure::Failure,
    resolve,
    session::{Session, call},
    view::slice::{VmView, say_differing, vms_table},
};

pub(super) async fn run(session: &Session, command: &VmCommand) -> Result<(), Failure> {
    match command {
        VmCommand::List { within } => list(session, within).await,
        VmCommand::Add {
            vm,
            within,
            worker,
            internet,
            data_interfaces,
            mac,
            address,
            expect,
        } => {
            let (slice, name) = resolve::slice_for_new("VM", vm, within.slice.as_deref())?;
            let spec = wire::VmSpec {
                name: name.to_owned(),
                worker: worker.clone().unwrap_or_default(),
                internet_enabled: *internet,
                data_interfaces_count: *data_interfaces,
                interfaces: interfaces(mac, address),
            };
            let request = wire::AddVmRequest {
                request_id: new_request_id(),
                slice: slice.to_owned(),
                vm: Some(spec),
                expected_revision: expect.expect_revision,
            };
            let added = call!(session, slices.add_vm(request))?;
            let vm = VmView::from(&added.vm.unwrap_or_default());
            let table = || {
                format!(
                    "{slice}/{name} is in the draft\n{}",
                    vms_table(&session.console, std::iter::once(&vm))
                )
            };
            session.console.show(&vm, table)
        }
        VmCommand::Remove { vm, within, expect } => {
            let (of, name) = resolve::split(vm, within.slice.as_deref())?;
            let slices = session.slices(of).await?;
            let (slice, _) = resolve::vm(&slices, name)?;
            let request = wire::RemoveVmRequest {
                request_id: new_request_id(),
                slice: slice.name.clone(),
                name: name.to_owned(),
                expected_revision: expect.expect_revision,
            };
            let removed = call!(session, slices.remove_vm(request))?;
            done(
                session,
                removed.revision,
                &format!("{}/{name} is removed from the draft", slice.name),
            )
        }
        VmCommand::Move {
            vm,
            within,
            to,
            deploy,
            force,
            expect,
            wait,
        } => {
            if wait.wait && !deploy {
                return Err(Failure::Usage {
                    what: "a move alone changes the draft, and no host: there is nothing to wait for".to_owned(),
                    instead: "add --deploy, or leave --wait out".to_owned(),
                });
            }
            let (of, name) = resolve::split(vm, within.slice.as_deref())?;
            let slices = session.slices(of).await?;
            let (slice, old) = resolve::vm(&slices, name)?;
            let request = wire::MoveVmRequest {
                request_id: new_request_id(),
                slice: slice.name.clone(),
                name: name.to_owned(),
                worker: to.clone(),
                force: *force,
                expected_revision: expect.expect_revision,
            };
            let moved = call!(session, slices.move_vm(request))?;
            let way = format!("{}/{name} moves from {} to {to}", slice.name, old.worker);
            if *deploy {
                deploy_move(session, slice, moved.revision, &way, *wait).await
            } else {
                let next = format!(
                    "{way}, in the draft; to carry it out: trunkctl slice deploy {}",
                    slice.name
                );
                done(session, moved.revision, &next)
            }
        }
        VmCommand::Netdev { vm, within, only } => {
            let (of, name) = resolve::split(vm, within.slice.as_deref())?;
            netdev(session, of, name, *only).await
        }
    }
}

/// Deploys the draft as the move left it, and nothing that somebody adds meanwhile.
async fn deploy_move(
    session: &Session,
    slice: &wire::Slice,
    revision: u64,
    way: &str,
    wait: Wait,
) -> Result<(), Failure> {
    if slice.draft_differs {
        session.console.note(format!(
            "note: the draft of {} had other changes, too; they are deployed with it",
            slice.name
        ));
    }
    let one = OneSlice {
        slice: slice.name.clone(),
        expect: Expect {
            expect_revision: revision,
        },
        wait,
    };
    slice::deploy(session, &one, way).await
}

/// What is deployed is what a launcher can open; the draft only when nothing of the VM is.
async fn netdev(session: &Session, of: Option<&str>, name: &str, only: Option<Launcher>) -> Result<(), Failure> {
    let mut slices = session.slices(of).await?;
    let mut deployed = Vec::new();
    for slice in &mut slices {
        // Where the two are alike, one call has told both.
        if slice.deployed.is_some() && slice.draft_differs {
            let now = session.deployed_slice(&slice.name).await?;
            // A VM that is in the draft only is told as such; one that is in both is the deployed one.
            slice.vms.retain(|vm| now.vms.iter().all(|known| known.name != vm.name));
            deployed.push(now);
        } else if slice.deployed.is_some() {
            let mut now = slice.clone();
            now.vms = std::mem::take(&mut slice.vms);
            deployed.push(now);
        }
    }
    let drafts = slices.len();
    slices.append(&mut deployed);
    let (slice, vm) = resolve::vm(&slices, name)?;
    let is_deployed = slices[drafts..].iter().any(|one| std::ptr::eq(one, slice));
    let datapath = datapath(session, &vm.worker).await?;
    let view = netdev::NetdevView::new(slice, vm, is_deployed, datapath);
    if !is_deployed {
        session.console.note(format!(
            "warning: {0}/{name} is not deployed yet: these TAPs are on no host before `trunkctl slice deploy {0}`",
            slice.name
        ));
    }
    match (only, session.console.format) {
        (Some(launcher), Format::Table) => session.console.print(&netdev::only(&view, launcher)),
        _ => session.console.show(&view, || netdev::text(&view)),
    }
}

async fn list(session: &Session, within: &InSlice) -> Result<(), Failure> {
    let slices = session.slices(within.slice.as_deref()).await?;
    let views: Vec<_> = slices.iter().flat_map(|slice| &slice.vms).map(VmView::from).collect();
    session
        .console
        .show(&views, || vms_table(&session.console, views.iter()))?;
    say_differing(&session.console, &slices);
    Ok(())
}

/// What is given of each interface, by interface.
fn interfaces(macs: &[(InterfaceName, Mac)], addresses: &[(InterfaceName, Ipv4Addr)]) -> Vec<wire::InterfaceSpec> {
    let mut all: BTreeMap<InterfaceName, wire::InterfaceSpec> = BTreeMap::new();
    for (interface, mac) in macs {
        all.entry(*interface).or_default().mac = mac.to_string();
    }
    for (interface, address) in addresses {
        all.entry(*interface).or_default().address = address.to_string();
    }
    let named = |(name, spec): (InterfaceName, wire::InterfaceSpec)| wire::InterfaceSpec {
        name: name.to_string(),
        ..spec
    };
    all.into_iter().map(named).collect()
}

/// The datapath of a worker's switch; empty when it was never connected, or when there is no worker yet.
async fn datapath(session: &Session, worker: &str) -> Result<String, Failure> {
    if worker.is_empty() {
        return Ok(String::new());
    }
    let node = session.nodes().await?.into_iter().find(|node| node.name == worker);
    Ok(node
        .and_then(|node| node.facts)
        .map(|facts| facts.datapath)
        .unwrap_or_default())
}
