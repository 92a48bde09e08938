//! The dice: which slices, which faults, when. Everything follows from the seed, and nothing from what happens.

use super::drift::{OF_NETNODE, OF_WORKERS};
use super::steps::{Step, Target, Wish, WishedLink, WishedVm};
use crate::lab::layout::{CONTROLLER, NETNODE};
use crate::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, Fault, NETNODE_PROGRAM, OVSDB, PartedFrom, VSWITCHD};

/// Kills and other faults come so long after the change that they are to hit.
const LATEST_MS: u64 = 300;
/// Longest time that a fault stands.
const LONGEST_MS: u64 = 2500;
const SLICES: [&str; 4] = ["amber", "birch", "cedar", "dune"];
const VMS: [&str; 4] = ["one", "two", "three", "four"];
/// Interfaces beside `eth0` of every VM, so that a link may end at any.
const DATA: u32 = 3;

/// Makes rounds of steps.
pub(super) struct Dice {
    rng: fastrand::Rng,
    workers: u8,
}

/// One way of going wrong.
type Throw = fn(&mut Dice) -> Step;

/// What is thrown, each as often as the others but for what is named twice.
const FAULTS: [Throw; 9] = [
    Dice::kill_one,
    Dice::kill_one,
    Dice::kill_two,
    Dice::partition,
    Dice::cut,
    Dice::full,
    Dice::deaf,
    Dice::drift,
    Dice::drift,
];

impl Dice {
    /// Those of a seed.
    pub(super) fn new(seed: u64, workers: u8) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            workers,
        }
    }

    /// A few changes with faults between them, and a quiet period.
    pub(super) fn round(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..self.rng.usize(2..=4) {
            for _ in 0..self.rng.usize(0..=2) {
                let throw = FAULTS[self.rng.usize(..FAULTS.len())];
                steps.push(throw(self));
            }
            steps.push(self.change());
        }
        // By hand on something that stands, too.
        if self.rng.bool() {
            steps.push(self.drift());
        }
        steps.push(Step::Quiet);
        steps
    }

    fn change(&mut self) -> Step {
        let slice = self.slice();
        // Now and then a client does not hear its answer and asks again.
        let twice = self.rng.u8(..4) == 0;
        match self.rng.u8(..20) {
            0..=11 => Step::Apply {
                slice: self.wish(slice),
                deploy: self.rng.u8(..5) > 0,
                twice,
            },
            12..=13 => Step::Deploy { slice, twice },
            14..=15 => Step::Rollback {
                slice,
                number: self.rng.u32(1..=4),
                twice,
            },
            16..=17 => Step::Undeploy { slice, twice },
            _ => Step::Delete { slice, twice },
        }
    }

    fn slice(&mut self) -> String {
        SLICES[self.rng.usize(..SLICES.len())].to_owned()
    }

    /// A VM of a name is on the same worker for ever: moving is a request of its own.
    fn wish(&mut self, name: String) -> Wish {
        let mut vms: Vec<WishedVm> = Vec::new();
        for (number, vm) in VMS.iter().enumerate().take(self.rng.usize(2..=VMS.len())) {
            let worker = (number + name.len()) % usize::from(self.workers) + 1;
            vms.push(WishedVm {
                name: (*vm).to_owned(),
                worker: format!("w{worker}"),
                internet: self.rng.u8(..3) == 0,
                data: DATA,
            });
        }
        let mut links = Vec::new();
        // Each link takes an interface number of its own, so none is taken twice.
        for number in 1..=DATA {
            let count = self.rng.usize(0..=vms.len());
            if count < 2 {
                continue;
            }
            let mut ends: Vec<String> = vms.iter().map(|vm| format!("{}.eth{number}", vm.name)).collect();
            self.rng.shuffle(&mut ends);
            ends.truncate(count);
            ends.sort();
            links.push(WishedLink {
                name: format!("net{number}"),
                mtu: [1500, 1500, 1400, 9000][self.rng.usize(..4)],
                dhcp: self.rng.u8(..4) > 0,
                secured: self.rng.u8(..3) == 0,
                // Of two guests it would be no link at all, and is refused.
                protected: count > 2 && self.rng.u8(..3) == 0,
                ends,
            });
        }
        vms.sort();
        Wish { name, vms, links }
    }

    fn moment(&mut self) -> u64 {
        self.rng.u64(0..=LATEST_MS)
    }

    fn while_ms(&mut self) -> u64 {
        self.rng.u64(0..=LONGEST_MS)
    }

    fn worker(&mut self) -> String {
        format!("w{}", self.rng.u8(1..=self.workers))
    }

    fn target(&mut self) -> Target {
        let of = |host: String, program: &str| Target {
            host,
            program: program.to_owned(),
        };
        let node = if self.rng.u8(..3) == 0 {
            NETNODE.to_owned()
        } else {
            self.worker()
        };
        match self.rng.u8(..8) {
            0..=1 => of(CONTROLLER.to_owned(), CONTROLLER_PROGRAM),
            2 => of(self.worker(), AGENT_PROGRAM),
            3 => of(NETNODE.to_owned(), NETNODE_PROGRAM),
            4 => of(NETNODE.to_owned(), super::fault::DNSMASQ),
            5..=6 => of(node, VSWITCHD),
            _ => of(node, OVSDB),
        }
    }

    fn kill(&mut self, targets: Vec<Target>) -> Step {
        Step::Kill {
            targets,
            after_ms: self.moment(),
            down_ms: if self.rng.bool() { 0 } else { self.while_ms() },
        }
    }

    fn kill_one(&mut self) -> Step {
        let targets = vec![self.target()];
        self.kill(targets)
    }

    fn kill_two(&mut self) -> Step {
        let mut targets = vec![self.target(), self.target()];
        targets.dedup();
        self.kill(targets)
    }

    fn partition(&mut self) -> Step {
        let host = if self.rng.bool() {
            NETNODE.to_owned()
        } else {
            self.worker()
        };
        let from = if self.rng.bool() {
            PartedFrom::Controller
        } else {
            PartedFrom::All
        };
        self.network(|one_way| Fault::Partition { host, from, one_way })
    }

    fn cut(&mut self) -> Step {
        let from = self.worker();
        self.network(|back| {
            let (from, to) = (from, NETNODE.to_owned());
            let (from, to) = if back { (to, from) } else { (from, to) };
            Fault::OneWay { from, to, vlan: None }
        })
    }

    fn network(&mut self, fault: impl FnOnce(bool) -> Fault) -> Step {
        Step::Network {
            fault: fault(self.rng.bool()),
            after_ms: self.moment(),
            for_ms: self.while_ms(),
        }
    }

    fn full(&mut self) -> Step {
        let host = match self.rng.u8(..3) {
            0 => CONTROLLER.to_owned(),
            1 => NETNODE.to_owned(),
            _ => self.worker(),
        };
        Step::Full {
            host,
            after_ms: self.moment(),
            for_ms: self.while_ms(),
        }
    }

    fn deaf(&mut self) -> Step {
        Step::Deaf {
            after_ms: self.moment(),
            for_ms: self.while_ms(),
        }
    }

    fn drift(&mut self) -> Step {
        let (host, table) = if self.rng.bool() {
            (NETNODE.to_owned(), OF_NETNODE.as_slice())
        } else {
            (self.worker(), OF_WORKERS.as_slice())
        };
        Step::Drift {
            host,
            what: table[self.rng.usize(..table.len())],
            pick: self.rng.usize(..1000),
            after_ms: self.moment(),
        }
    }
}
