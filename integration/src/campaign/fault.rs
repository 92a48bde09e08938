//! How each fault is thrown and taken back: small functions, each beside the changes that it is to hit.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_stream::StreamExt;
use trunkline_proto::client::{Client, ClientConfig};
use trunkline_proto::wire::WatchSlicesRequest;

use super::drift;
use super::steps::{Step, Target};
use crate::LabError;
use crate::lab::layout::NETNODE;
use crate::lab::{Host, Lab};
use crate::wait::until;

/// A DHCP server: its network node starts it, so the lab does not.
pub(super) const DNSMASQ: &str = "dnsmasq";
/// Room for the state of a daemon: enough for what a campaign makes, and soon full.
const DISK: &str = "size=96m";
const START_LIMIT: Duration = Duration::from_secs(90);

/// Who starts what was killed, one at a time for each host.
#[derive(Default)]
pub(super) struct Reviver {
    hosts: Mutex<BTreeMap<String, std::sync::Arc<Mutex<()>>>>,
}

impl Reviver {
    /// Starts what does not run on a host, the switch first.
    pub(super) fn revive(&self, lab: &Lab, host: &str) -> Result<(), LabError> {
        let one = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            std::sync::Arc::clone(hosts.entry(host.to_owned()).or_default())
        };
        let _alone = one.lock().unwrap_or_else(PoisonError::into_inner);
        for program in lab.programs(host) {
            if !lab.runs(host, program) {
                lab.start_daemon(host, program)?;
            }
        }
        Ok(())
    }

    /// Until everything runs everywhere.
    pub(super) fn revive_all(&self, lab: &Lab) -> Result<(), LabError> {
        for host in lab.layout().hosts() {
            until(&format!("everything on {host} to run"), START_LIMIT, || {
                self.revive(lab, &host).map_err(|error| error.chain())
            })?;
        }
        Ok(())
    }
}

/// Gives each daemon's state a file system of its own, before the daemons run.
pub(super) fn own_disks(lab: &Lab) -> Result<(), LabError> {
    for host in lab.layout().hosts() {
        let Some(state) = state_of(lab, &host) else { continue };
        let host = lab.host(&host)?;
        host.must(&["mkdir", "-p", &state])?;
        host.must(&["mount", "-t", "tmpfs", "-o", DISK, "campaign", &state])?;
    }
    Ok(())
}

/// Where a host's daemon of ours keeps its state.
fn state_of(lab: &Lab, host: &str) -> Option<String> {
    let programs = lab.programs(host);
    let ours = programs.into_iter().find(|name| name.starts_with("trunkline-"))?;
    Some(format!("/var/lib/{ours}"))
}

/// Throws a fault and takes it back. A change of the API is none.
pub(super) fn throw(lab: &Lab, reviver: &Reviver, step: &Step) -> Result<(), LabError> {
    match step {
        Step::Kill {
            targets,
            after_ms,
            down_ms,
        } => {
            pause(*after_ms);
            for target in targets {
                kill(lab, target)?;
            }
            pause(*down_ms);
            // What does not start while another part is away is started in the quiet period.
            targets
                .iter()
                .for_each(|target| drop(reviver.revive(lab, &target.host)));
            Ok(())
        }
        Step::Network {
            fault,
            after_ms,
            for_ms,
        } => {
            pause(*after_ms);
            let id = lab.fault(fault.clone())?;
            pause(*for_ms);
            // Another of the same kind may have healed it.
            let _ = lab.heal(Some(id));
            Ok(())
        }
        Step::Full { host, after_ms, for_ms } => {
            pause(*after_ms);
            fill(lab, host)?;
            pause(*for_ms);
            empty(lab, host)?;
            let _ = reviver.revive(lab, host);
            Ok(())
        }
        Step::Deaf { after_ms, for_ms } => {
            pause(*after_ms);
            deaf(lab, Duration::from_millis(*for_ms));
            Ok(())
        }
        Step::Drift {
            host,
            what,
            pick,
            after_ms,
        } => {
            pause(*after_ms);
            drift::make(lab.host(host)?, *what, *pick)
        }
        _ => Ok(()),
    }
}

fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Kills as a crash would. Who is dead already stays so.
fn kill(lab: &Lab, target: &Target) -> Result<(), LabError> {
    if target.program == DNSMASQ {
        let host = lab.host(NETNODE)?;
        if let Some((pid, _)) = servers(host)?.first() {
            host.exec(&["kill", "-KILL", pid])?;
        }
        return Ok(());
    }
    let _ = lab.kill_daemon(&target.host, &target.program);
    Ok(())
}

/// The DHCP servers of the network node that are ours: process and configuration.
pub(super) fn servers(host: &Host) -> Result<Vec<(String, String)>, LabError> {
    let listed = host.must(&["ps", "-eo", "pid,args"])?;
    let ours = "--conf-file=/var/lib/trunkline-netnode/dhcp/";
    let mut found: Vec<(String, String)> = listed
        .lines()
        .filter(|line| line.contains("dnsmasq"))
        .filter_map(|line| {
            let pid = line.split_whitespace().next()?.to_owned();
            let vlan = line.split_once(ours)?.1.split('/').next()?.to_owned();
            Some((pid, vlan))
        })
        .collect();
    found.sort_by(|left, right| left.1.cmp(&right.1));
    Ok(found)
}

fn fill(lab: &Lab, host: &str) -> Result<(), LabError> {
    let Some(state) = state_of(lab, host) else {
        return Ok(());
    };
    // It ends with an error when nothing more fits, which is what is wanted.
    let file = format!("of={state}/fill");
    lab.host(host)?
        .exec(&["dd", "if=/dev/zero", &file, "bs=4k", "status=none"])
        .map(drop)
}

fn empty(lab: &Lab, host: &str) -> Result<(), LabError> {
    let Some(state) = state_of(lab, host) else {
        return Ok(());
    };
    lab.host(host)?.must(&["rm", "-f", &format!("{state}/fill")]).map(drop)
}

/// Heals whatever still stands.
pub(super) fn heal(lab: &Lab) -> Result<(), LabError> {
    lab.heal(None)?;
    lab.layout().hosts().iter().try_for_each(|host| empty(lab, host))
}

/// A client that asks to watch everything and reads nothing.
fn deaf(lab: &Lab, time: Duration) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        let config = ClientConfig::new(lab.controller_endpoint(), lab.bundle("viewer"));
        let Ok(client) = Client::lazy(config) else { return };
        let mut watch = client.watch();
        let asked = tokio::time::timeout(time, watch.watch_slices(WatchSlicesRequest::default())).await;
        let Ok(Ok(answer)) = asked else { return };
        let mut stream = answer.into_inner();
        // The first word, and then nothing.
        let _ = tokio::time::timeout(time, stream.next()).await;
        tokio::time::sleep(time).await;
    });
}
