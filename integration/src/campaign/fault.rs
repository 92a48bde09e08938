//! How each fault is thrown and taken back: small functions, each beside the changes that it is to hit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio_stream::StreamExt;
use trunkline_proto::client::{Client, ClientConfig};
use trunkline_proto::wire::WatchSlicesRequest;

use super::steps::{Step, Target};
use super::{drift, power};
use crate::LabError;
use crate::lab::daemons::fail_point;
use crate::lab::layout::NETNODE;
use crate::lab::{Host, Lab};
use crate::wait::until;

/// A DHCP server: its network node starts it, so the lab does not.
pub(super) const DNSMASQ: &str = "dnsmasq";
/// Room for the state of a daemon: enough for what a campaign makes, and soon full.
const DISK: &str = "size=96m";
const START_LIMIT: Duration = Duration::from_secs(120);
const DAY: i64 = 24 * 60 * 60;

/// Who starts what was killed, one at a time for each host; and what has to be remembered of the hosts.
#[derive(Default)]
pub(super) struct Reviver {
    hosts: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Hosts that lost what strangers had in memory or in the switch.
    emptied: Mutex<BTreeSet<String>>,
    /// Hosts whose clock is a day behind: before their certificates begin.
    behind: Mutex<BTreeSet<String>>,
    /// Deaths at named points.
    deaths: Mutex<BTreeMap<String, usize>>,
}

impl Reviver {
    /// Does something with a host while nobody starts anything there.
    pub(super) fn alone<T>(&self, host: &str, work: impl FnOnce() -> T) -> T {
        let one = Arc::clone(lock(&self.hosts).entry(host.to_owned()).or_default());
        let _alone = lock(&one);
        work()
    }

    /// Starts what does not run on a host, the switch first.
    pub(super) fn revive(&self, lab: &Lab, host: &str) -> Result<(), LabError> {
        self.alone(host, || start(lab, host))
    }

    /// Hosts where strangers have to move in again.
    pub(super) fn take_emptied(&self) -> BTreeSet<String> {
        std::mem::take(&mut lock(&self.emptied))
    }

    /// How often a program died at each named point.
    pub(super) fn deaths(&self) -> BTreeMap<String, usize> {
        lock(&self.deaths).clone()
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(lab: &Lab, host: &str) -> Result<(), LabError> {
    for program in lab.programs(host) {
        if !lab.runs(host, program) {
            lab.start_daemon(host, program)?;
        }
    }
    Ok(())
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
    Some(format!("/var/lib/{}", ours(lab, host)?))
}

/// A host's daemon of ours.
fn ours(lab: &Lab, host: &str) -> Option<&'static str> {
    lab.programs(host)
        .into_iter()
        .find(|name| name.starts_with("trunkline-"))
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
        Step::FailPoint {
            host,
            point,
            after_ms,
            for_ms,
        } => {
            pause(*after_ms);
            fail(lab, reviver, host, point, Duration::from_millis(*for_ms))
        }
        Step::Freeze {
            target,
            after_ms,
            for_ms,
        } => {
            pause(*after_ms);
            lab.signal_daemon(&target.host, &target.program, Signal::SIGSTOP)?;
            pause(*for_ms);
            lab.signal_daemon(&target.host, &target.program, Signal::SIGCONT)
        }
        Step::Slow { host, after_ms, for_ms } => {
            pause(*after_ms);
            slow(lab, host, Duration::from_millis(*for_ms))
        }
        Step::Clock { host, days, after_ms } => {
            pause(*after_ms);
            if *days < 0 {
                lock(&reviver.behind).insert(host.clone());
            }
            lab.host(host)?.set_clock(i64::from(*days) * DAY)
        }
        Step::Wipe { host, after_ms } => {
            pause(*after_ms);
            lock(&reviver.emptied).insert(host.clone());
            reviver.alone(host, || power::wipe(lab, host))?;
            let _ = reviver.revive(lab, host);
            Ok(())
        }
        Step::Reboot {
            host,
            after_ms,
            down_ms,
        } => {
            pause(*after_ms);
            lock(&reviver.emptied).insert(host.clone());
            reviver.alone(host, || {
                power::off(lab, host)?;
                pause(*down_ms);
                Ok::<(), LabError>(())
            })?;
            let _ = reviver.revive(lab, host);
            Ok(())
        }
        Step::Drift {
            host,
            what,
            pick,
            after_ms,
        } => {
            pause(*after_ms);
            drift::make(lab.host(host)?, *what, *pick).map(drop)
        }
        _ => Ok(()),
    }
}

/// Arms a named point, waits until a program died there, and starts it again.
fn fail(lab: &Lab, reviver: &Reviver, host: &str, point: &str, time: Duration) -> Result<(), LabError> {
    let file = fail_point(lab.host(host)?);
    let Some(program) = ours(lab, host) else { return Ok(()) };
    std::fs::write(&file, point).map_err(LabError::io(format!("cannot write {}", file.display())))?;
    let died = until("a death at a named point", time, || {
        if !file.exists() && !lab.runs(host, program) {
            Ok(())
        } else {
            Err("it lives".to_owned())
        }
    });
    let _ = std::fs::remove_file(&file);
    if died.is_ok() {
        *lock(&reviver.deaths).entry(point.to_owned()).or_default() += 1;
        // What does not start while another part is away is started in the quiet period.
        let _ = reviver.revive(lab, host);
    }
    Ok(())
}

/// A node's daemon stands still for nine tenths of the time, so that it reads and writes slowly.
fn slow(lab: &Lab, host: &str, time: Duration) -> Result<(), LabError> {
    let Some(program) = ours(lab, host) else { return Ok(()) };
    let end = Instant::now() + time;
    while Instant::now() < end {
        lab.signal_daemon(host, program, Signal::SIGSTOP)?;
        pause(90);
        lab.signal_daemon(host, program, Signal::SIGCONT)?;
        pause(10);
    }
    Ok(())
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
    kill_all(lab, &target.host, &[&target.program]);
    Ok(())
}

/// Kills programs of a host, those that run.
pub(super) fn kill_all(lab: &Lab, host: &str, programs: &[&str]) {
    for program in programs {
        let _ = lab.kill_daemon(host, program);
    }
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

/// Heals whatever still stands. A clock that is ahead may stay so; one that is behind may not, since no certificate is valid then.
pub(super) fn heal(lab: &Lab, reviver: &Reviver) -> Result<(), LabError> {
    lab.heal(None)?;
    for host in std::mem::take(&mut *lock(&reviver.behind)) {
        lab.host(&host)?.set_clock(0)?;
    }
    for host in lab.layout().hosts() {
        empty(lab, &host)?;
        let _ = std::fs::remove_file(fail_point(lab.host(&host)?));
        for program in lab.programs(&host) {
            lab.signal_daemon(&host, program, Signal::SIGCONT)?;
        }
    }
    Ok(())
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
