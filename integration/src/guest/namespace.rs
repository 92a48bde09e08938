//! A namespace guest: a network namespace of the worker, a frame pump, and a DHCP client for each interface.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Spec, lease};
use crate::LabError;
use crate::lab::{Host, Output, Running, programs};
use crate::wait::until;

const START_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Namespace {
    worker: Arc<Host>,
    netns: String,
    leases: PathBuf,
    path: String,
    // The DHCP clients and the pump.
    running: Vec<Running>,
}

impl Namespace {
    pub(super) fn start(worker: &Arc<Host>, spec: &Spec) -> Result<Self, LabError> {
        let netns = format!("guest-{}", spec.vm_id);
        let folder = worker.folder().join("guests").join(&netns);
        let mut guest = Self {
            worker: Arc::clone(worker),
            leases: folder.join("leases"),
            path: super::tools_path()?,
            running: Vec::new(),
            netns,
        };
        super::write(&folder.join("lease"), lease::SCRIPT, 0o755)?;
        // Of an earlier guest of the same VM, which would be taken for this one's.
        let _ = std::fs::remove_dir_all(&guest.leases);
        std::fs::create_dir_all(&guest.leases).map_err(LabError::io("cannot make the folder of leases"))?;
        worker.must(&["ip", "netns", "add", &guest.netns])?;
        guest.start_pump(spec)?;
        guest.bring_up(spec)?;
        let script = folder.join("lease").display().to_string();
        for nic in &spec.nics {
            let argv = [
                "udhcpc", "-f", "-i", &nic.name, "-s", &script, "-t", "3", "-T", "1", "-A", "2",
            ];
            let environment = [("LEASES", guest.leases.display().to_string())];
            let log = format!("{}-{}", guest.netns, nic.name);
            let client = worker.spawn_with(&log, &guest.inside(&argv), &environment)?;
            guest.running.push(client);
        }
        Ok(guest)
    }

    pub(super) fn netns(&self) -> &str {
        &self.netns
    }

    fn start_pump(&mut self, spec: &Spec) -> Result<(), LabError> {
        let program = programs::find("trunkline-lab")?.display().to_string();
        let mut argv = vec![program, "pump".to_owned(), self.netns.clone()];
        argv.extend(spec.nics.iter().map(|nic| format!("{}={}", nic.tap, nic.name)));
        let log = format!("{}-pump", self.netns);
        // That an earlier one was ready says nothing of this one.
        let _ = std::fs::remove_file(self.worker.folder().join("log").join(format!("{log}.log")));
        let mut pump = self.worker.spawn(&log, &argv)?;
        let log = pump.log().to_owned();
        until(&format!("the frame pump of {}", spec.name), START_LIMIT, || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if pump.ended().is_none() && said.contains("ready") {
                Ok(())
            } else {
                Err(said)
            }
        })?;
        self.running.push(pump);
        Ok(())
    }

    fn bring_up(&self, spec: &Spec) -> Result<(), LabError> {
        let ip = |argv: &[&str]| {
            let mut all = vec!["ip", "-n", &self.netns];
            all.extend(argv);
            self.worker.must(&all)
        };
        ip(&["link", "set", "lo", "up"])?;
        for nic in &spec.nics {
            ip(&[
                "link",
                "set",
                &nic.name,
                "address",
                &nic.mac,
                "mtu",
                &nic.mtu.to_string(),
            ])?;
            ip(&["link", "set", &nic.name, "up"])?;
        }
        Ok(())
    }

    pub(super) fn exec(&self, argv: &[&str], limit: Duration) -> Result<Output, LabError> {
        self.worker.exec_for(&self.inside(argv), limit)
    }

    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, LabError> {
        self.worker.run_in_netns(&self.netns, job)
    }

    pub(super) fn lease_text(&self, interface: &str) -> String {
        std::fs::read_to_string(self.leases.join(interface)).unwrap_or_default()
    }

    /// The same tools as in a real machine come first.
    fn inside<'a>(&'a self, argv: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["ip", "netns", "exec", &self.netns, "env", &self.path];
        all.extend(argv);
        all
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.running.clear();
        // Servers that a proof left behind hold the namespace; the host may be gone already.
        let pids = self
            .worker
            .exec(&["ip", "netns", "pids", &self.netns])
            .map(|output| output.stdout)
            .unwrap_or_default();
        for pid in pids.split_whitespace() {
            let _ = self.worker.exec(&["kill", "-KILL", pid]);
        }
        let _ = self.worker.exec(&["ip", "netns", "del", &self.netns]);
    }
}
