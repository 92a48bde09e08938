//! What goes wrong.

use trunkline_proto::daemon::failpoint;

use super::Dice;
use crate::campaign::drift::{Drift, OF_NETNODE, OF_WORKERS};
use crate::campaign::steps::{Step, Target};
use crate::lab::layout::{CONTROLLER, NETNODE};
use crate::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, Fault, NETNODE_PROGRAM, OVSDB, PartedFrom, VSWITCHD};

/// Kills and other faults come so long after the change that they are to hit.
const LATEST_MS: u64 = 300;
/// Longest time that most faults stand.
const LONGEST_MS: u64 = 2500;
/// A named point is waited for this long: some are reached only when a look is due.
const POINT_MS: std::ops::RangeInclusive<u64> = 2000..=6000;

/// The lab's certificates are good for a month.
const MOST_DAYS: i8 = 25;

/// One way of going wrong.
type Throw = fn(&mut Dice) -> Step;

/// What is thrown, each as often as the others but for what is named more than once.
const FAULTS: [Throw; 19] = [
    Dice::kill_one,
    Dice::kill_one,
    Dice::kill_two,
    Dice::fail_point,
    Dice::fail_point,
    Dice::fail_point,
    Dice::fail_point,
    Dice::partition,
    Dice::cut,
    Dice::full,
    Dice::deaf,
    Dice::slow,
    Dice::freeze,
    Dice::clock,
    Dice::clock,
    Dice::wipe,
    Dice::reboot,
    Dice::drift,
    Dice::drift,
];

impl Dice {
    pub(super) fn fault(&mut self) -> Step {
        let throw = FAULTS[self.rng.usize(..FAULTS.len())];
        throw(self)
    }

    fn moment(&mut self) -> u64 {
        self.rng.u64(0..=LATEST_MS)
    }

    fn while_ms(&mut self) -> u64 {
        self.rng.u64(0..=LONGEST_MS)
    }

    /// Mostly short; now and then longer than sessions and requests wait.
    fn short_or_long_ms(&mut self) -> u64 {
        if self.rng.u8(..5) == 0 {
            self.rng.u64(12_000..=18_000)
        } else {
            self.while_ms()
        }
    }

    fn node(&mut self) -> String {
        if self.rng.u8(..3) == 0 {
            NETNODE.to_owned()
        } else {
            self.worker()
        }
    }

    fn any(&mut self) -> String {
        if self.rng.u8(..3) == 0 {
            CONTROLLER.to_owned()
        } else {
            self.node()
        }
    }

    fn target(&mut self) -> Target {
        let of = |host: String, program: &str| Target {
            host,
            program: program.to_owned(),
        };
        let node = self.node();
        match self.rng.u8(..8) {
            0..=1 => of(CONTROLLER.to_owned(), CONTROLLER_PROGRAM),
            2 => of(self.worker(), AGENT_PROGRAM),
            3 => of(NETNODE.to_owned(), NETNODE_PROGRAM),
            4 => of(NETNODE.to_owned(), crate::campaign::fault::DNSMASQ),
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
            for_ms: self.short_or_long_ms(),
        }
    }

    fn full(&mut self) -> Step {
        Step::Full {
            host: self.any(),
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

    fn fail_point(&mut self) -> Step {
        let host = self.any();
        let points = match host.as_str() {
            CONTROLLER => failpoint::OF_CONTROLLER.to_vec(),
            NETNODE => [failpoint::OF_NODES, failpoint::OF_NETNODES].concat(),
            _ => [failpoint::OF_NODES, failpoint::OF_WORKERS].concat(),
        };
        Step::FailPoint {
            point: points[self.rng.usize(..points.len())].to_owned(),
            host,
            after_ms: self.rng.u64(0..=20),
            for_ms: self.rng.u64(POINT_MS),
        }
    }

    fn slow(&mut self) -> Step {
        Step::Slow {
            host: self.node(),
            after_ms: self.moment(),
            for_ms: self.short_or_long_ms(),
        }
    }

    fn freeze(&mut self) -> Step {
        let mut target = self.target();
        while target.program == crate::campaign::fault::DNSMASQ {
            target = self.target();
        }
        Step::Freeze {
            target,
            after_ms: self.moment(),
            for_ms: self.short_or_long_ms(),
        }
    }

    fn clock(&mut self) -> Step {
        let host = self.any();
        let days = if host == NETNODE {
            // Never back: a lease that was given by a clock that is ahead lasts as much longer.
            self.netnode_days = (self.netnode_days + 1).min(MOST_DAYS);
            self.netnode_days
        } else if host == CONTROLLER {
            // Never behind: nobody's certificate is valid yet then, so nobody could ask for anything until it is right.
            [1, 1, 0][self.rng.usize(..3)]
        } else {
            [1, 1, 0, -1][self.rng.usize(..4)]
        };
        Step::Clock {
            host,
            days,
            after_ms: self.moment(),
        }
    }

    fn wipe(&mut self) -> Step {
        Step::Wipe {
            host: self.node(),
            after_ms: self.moment(),
        }
    }

    fn reboot(&mut self) -> Step {
        Step::Reboot {
            host: self.node(),
            after_ms: self.moment(),
            down_ms: self.while_ms(),
        }
    }

    pub(super) fn drift(&mut self) -> Step {
        let (host, what, pick) = self.by_hand();
        Step::Drift {
            host,
            what,
            pick,
            after_ms: self.moment(),
        }
    }

    pub(super) fn by_hand(&mut self) -> (String, Drift, usize) {
        let (host, table) = if self.rng.bool() {
            (NETNODE.to_owned(), OF_NETNODE.as_slice())
        } else {
            (self.worker(), OF_WORKERS.as_slice())
        };
        let what = table[self.rng.usize(..table.len())];
        (host, what, self.rng.usize(..1000))
    }
}
