//! The fleet that is broken, and how it is looked at and laid hands on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use trunkline_integration::guest::{Guest, Kind, Spec};
use trunkline_integration::lab::layout::{INTERNET_ADDRESS, NETNODE};
use trunkline_integration::lab::{AGENT_PROGRAM, Fault, Lab, NETNODE_PROGRAM, Options, Output};
use trunkline_integration::wait::until;
use trunkline_proto::wire::{Interface, Slice};

use crate::support::{LIMIT, api, apply, fleet, must_trunkctl, trunkctl};

/// Two slices over two workers; `idle` never gets a guest.
const TOPOLOGY: &str = "
slices:
  - name: shop
    vms:
      - { name: web, worker: w1, internet_enabled: true, data_interfaces_count: 2 }
      - { name: db, worker: w2, internet_enabled: true, data_interfaces_count: 1 }
      - { name: idle, worker: w2, data_interfaces_count: 1 }
    links:
      - { name: plain, ends: [web.eth1, db.eth1] }
      - { name: spare, ends: [web.eth2, idle.eth1] }
  - name: lab
    vms:
      - { name: a, worker: w1, data_interfaces_count: 1 }
      - { name: b, worker: w2, data_interfaces_count: 1 }
    links:
      - { name: secured, port_security: true, ends: [a.eth1, b.eth1] }
";

/// Between two guests of the first slice.
pub(crate) const GUESTS: [&str; 2] = ["shop/web.eth1", "shop/db.eth1"];
/// Between two guests of the other one.
pub(crate) const OTHERS: [&str; 2] = ["lab/a.eth1", "lab/b.eth1"];
/// From a guest of the first slice to the internet.
pub(crate) const INTERNET: [&str; 2] = ["shop/web.eth0", "internet"];
/// All that works while nothing is broken.
const WAYS: [[&str; 2]; 4] = [GUESTS, INTERNET, ["shop/db.eth0", "internet"], OTHERS];

/// What `trunkctl explain -o json` prints.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Explained {
    pub(crate) reaches: Option<bool>,
    pub(crate) verdict: String,
    first_broken: Option<usize>,
    hops: Vec<Hop>,
}

/// One step of it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Hop {
    pub(crate) kind: String,
    pub(crate) node: Option<String>,
    pub(crate) state: String,
    pub(crate) seen: String,
    pub(crate) mend: Option<String>,
}

impl Explained {
    /// The first step that is broken; where none is, the first of which nothing is known that says what to do about it.
    pub(crate) fn named(&self) -> Option<&Hop> {
        let unknown = || self.hops.iter().filter(|hop| hop.state == "unknown");
        let first = || unknown().find(|hop| hop.mend.is_some()).or_else(|| unknown().next());
        self.first_broken.map(|index| &self.hops[index]).or_else(first)
    }
}

/// A line of the journal.
#[derive(Debug, Clone, Deserialize)]
struct Event {
    sequence: u64,
    #[serde(rename = "type")]
    kind: String,
    message: String,
}

/// The fleet.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    guests: BTreeMap<String, Guest>,
    specs: BTreeMap<String, Spec>,
    nics: BTreeMap<String, Interface>,
}

impl Scene {
    /// A controller that misses a node after three seconds, two slices, and a guest for every VM but one.
    pub(crate) fn start() -> Self {
        let mut options = Options::default();
        options.tuning.nodes.push("heartbeat = \"1s\"".to_owned());
        let lab = fleet(&options);
        apply(&lab, TOPOLOGY);
        let slices: Vec<Slice> = api(&lab).slices().unwrap();
        let vms = || slices.iter().flat_map(|slice| &slice.vms);
        let specs = vms().map(Spec::of).map(|spec| (spec.name.clone(), spec)).collect();
        let nics = vms().flat_map(|vm| {
            let name = |nic: &Interface| format!("{}/{}.{}", vm.slice, vm.name, nic.name);
            vm.interfaces.iter().map(move |nic| (name(nic), nic.clone()))
        });
        let mut scene = Self {
            nics: nics.collect(),
            lab,
            guests: BTreeMap::new(),
            specs,
        };
        for name in ["shop/web", "shop/db", "lab/a", "lab/b"] {
            scene.start_guest(name);
        }
        scene.await_fine("the start").unwrap();
        scene
    }

    /// `slice/vm.interface`.
    pub(crate) fn nic(&self, name: &str) -> &Interface {
        &self.nics[name]
    }

    pub(crate) fn tap(&self, name: &str) -> String {
        self.nic(name).tap.clone()
    }

    pub(crate) fn vlan(&self, name: &str) -> u16 {
        self.nic(name).vlan.try_into().unwrap()
    }

    /// The VLAN of the first slice's link.
    pub(crate) fn plain(&self) -> u16 {
        self.vlan(GUESTS[0])
    }

    /// A text with the names of this fleet in it.
    pub(crate) fn words(&self, text: &str) -> String {
        let (nic, plain) = (self.nic(GUESTS[0]), self.plain().to_string());
        text.replace("{vlan}", &plain)
            .replace("{tap}", &nic.tap)
            .replace("{gateway}", &nic.gateway)
            .replace("{mac}", &self.nic(GUESTS[1]).mac)
    }

    pub(crate) fn start_guest(&mut self, name: &str) {
        let spec = self.specs[name].clone();
        let worker = self.lab.host(&spec.worker).unwrap();
        let linked = |nic: &&str| self.nics[&format!("{name}.{nic}")].vlan != 0;
        let nics: Vec<String> = spec.nics.iter().map(|nic| nic.name.clone()).collect();
        spec.nics.iter().for_each(|nic| self.await_tap(worker.name(), &nic.tap));
        let guest = Guest::start(worker, spec, Kind::Namespace).unwrap();
        for nic in nics.iter().map(String::as_str).filter(linked) {
            guest.await_lease(nic, LIMIT).unwrap();
        }
        self.guests.insert(name.to_owned(), guest);
    }

    pub(crate) fn await_tap(&self, worker: &str, tap: &str) {
        let path = self.lab.host(worker).unwrap().path(&format!("/sys/class/net/{tap}"));
        let there = || {
            if path.exists() {
                Ok(())
            } else {
                Err("it is not there".to_owned())
            }
        };
        until(&format!("the TAP {tap} on {worker}"), LIMIT, there).unwrap();
    }

    pub(crate) fn end_guest(&mut self, name: &str) {
        self.guests.remove(name).unwrap();
    }

    pub(crate) fn guest(&self, name: &str) -> &Guest {
        &self.guests[name]
    }

    /// A command on a host, which must succeed; what it printed.
    pub(crate) fn on(&self, host: &str, argv: &[&str]) -> String {
        self.lab.host(host).unwrap().must(argv).unwrap()
    }

    /// The database of a host's switch, which must not be waited for.
    pub(crate) fn vsctl(&self, host: &str, argv: &[&str]) -> String {
        self.on(host, &[&["ovs-vsctl", "--timeout=10", "--no-wait"], argv].concat())
    }

    pub(crate) fn ofctl(&self, host: &str, argv: &[&str]) -> String {
        self.on(
            host,
            &[&["ovs-ofctl", "--timeout=10", "-O", "OpenFlow15"], argv].concat(),
        )
    }

    pub(crate) fn shell(&self, host: &str, line: &str) -> String {
        self.on(host, &["sh", "-c", line])
    }

    /// Changes something while the node's daemon is stopped, so that it finds all of it at once.
    pub(crate) fn unseen(&self, host: &str, change: impl FnOnce(&Self)) {
        self.signal(host, daemon_of(host), Signal::SIGSTOP);
        change(self);
        self.signal(host, daemon_of(host), Signal::SIGCONT);
    }

    pub(crate) fn signal(&self, host: &str, program: &str, signal: Signal) {
        let pid = self.lab.daemon_pid(host, program).unwrap();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    /// Process of a VLAN's DHCP server, as the network node counts.
    pub(crate) fn dnsmasq(&self, vlan: u16) -> String {
        let text = self.on(NETNODE, &["ps", "-eo", "pid,args"]);
        let named = format!("/dhcp/vlan{vlan}/dnsmasq.conf");
        let line = text
            .lines()
            .find(|line| line.contains(&named) && line.contains("dnsmasq"));
        line.unwrap().split_whitespace().next().unwrap().to_owned()
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.lab.fault(fault).unwrap();
    }

    pub(crate) fn trunkctl(&self, arguments: &[&str]) -> Output {
        trunkctl(&self.lab, arguments)
    }

    pub(crate) fn must_trunkctl(&self, arguments: &[&str]) -> String {
        must_trunkctl(&self.lab, arguments)
    }

    /// What an operator is told; an error: what `trunkctl` says when it cannot tell.
    pub(crate) fn explain(&self, [from, to]: [&str; 2]) -> Result<Explained, String> {
        let output = self.trunkctl(&["explain", from, to, "-o", "json"]);
        serde_json::from_str(&output.stdout).map_err(|_| output.stderr)
    }

    /// The same as a picture.
    pub(crate) fn picture(&self, [from, to]: [&str; 2]) -> String {
        let output = self.trunkctl(&["explain", from, to]);
        output.stdout + &output.stderr
    }

    /// Waits until everything is explained as right.
    pub(crate) fn await_fine(&self, after: &str) -> Result<(), String> {
        let fine = || {
            for way in WAYS {
                let explained = self.explain(way)?;
                if explained.reaches != Some(true) {
                    return Err(format!("{}: {:?}", explained.verdict, explained.named()));
                }
            }
            Ok(())
        };
        until(&format!("all to be right after {after}"), LIMIT, fine).map_err(|error| error.to_string())
    }

    /// Number of the newest event.
    pub(crate) fn newest_event(&self) -> u64 {
        let events = self.events();
        events.iter().map(|event| event.sequence).max().unwrap_or_default()
    }

    /// Repairs that the journal tells of since then.
    pub(crate) fn repairs(&self, since: u64) -> Vec<String> {
        let new = |event: &Event| event.sequence > since && event.kind == "drift.repaired";
        self.events()
            .into_iter()
            .filter(new)
            .map(|event| event.message)
            .collect()
    }

    fn events(&self) -> Vec<Event> {
        let text = self.must_trunkctl(&["events", "--since", "10m", "-o", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    /// Whether frames pass just now, as guests see it; none where there is nobody to ask.
    pub(crate) fn frames_pass(&self, [from, to]: [&str; 2]) -> Option<bool> {
        let guest = self.guests.get(from.split_once('.')?.0)?;
        let address: Ipv4Addr = match to.split_once('.') {
            None => INTERNET_ADDRESS,
            Some((vm, _)) => {
                self.guests.get(vm)?;
                self.nic(to).address.parse().ok()?
            }
        };
        let ping = guest
            .exec(&["ping", "-c", "1", "-W", "1", &address.to_string()])
            .unwrap();
        Some(ping.ok())
    }
}

/// The daemon of a node.
pub(crate) fn daemon_of(host: &str) -> &'static str {
    if host == NETNODE {
        NETNODE_PROGRAM
    } else {
        AGENT_PROGRAM
    }
}
