//! Changes behind a node's back, among many ports: from the change to repaired, beside the bare operation that repairs it. The floor
//! works on the same bridge while the node's daemon is stopped by a signal.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trunkline_integration::LabError;
use trunkline_integration::lab::layout::{FABRIC, NETNODE};
use trunkline_integration::lab::{AGENT_PROGRAM, NETNODE_PROGRAM};
use trunkline_proto::wire::Slice;

use crate::figure::{Bench, Figure, Goal, Row};
use crate::floor::repair::{
    Address, Case, Edited, FlowsDeleted, Forwarding, Namespace, Node, PortChanged, PortRemoved, Rules, Server,
    TapDeleted, TapDown, Wiped,
};
use crate::held::{Fleet, Size};
use crate::series::interleave;

pub(crate) const FIGURE: Figure = Figure {
    name: "drift",
    what: "each change behind a node's back among 800 ports: from the change to repaired",
    floor: "the raw operation that repairs it, on the same bridge",
    run,
};

const WORKER: &str = "w1";
/// Milliseconds.
const MORE: f64 = 50.0;
const LIMIT: Duration = Duration::from_secs(60);
/// How long a node is left alone before each change: one that is changed without end spaces its passes out.
const REST: Duration = Duration::from_millis(1500);

/// Throws the one of this number.
type Throw = fn(&mut Node, &Things, usize) -> Result<Box<dyn Case>, LabError>;

/// What is changed.
struct Drift {
    name: &'static str,
    host: &'static str,
    /// Rare ones take long.
    repetitions: usize,
    case: Throw,
}

/// Of which the next is taken each time.
struct Things {
    taps: Vec<String>,
    gateways: Vec<(String, std::net::Ipv4Addr)>,
    servers: Vec<u16>,
}

impl Things {
    fn of(slice: &Slice) -> Self {
        let of_worker = slice.vms.iter().filter(|vm| vm.worker == WORKER);
        let linked = of_worker
            .flat_map(|vm| &vm.interfaces)
            .filter(|interface| interface.vlan != 0);
        let gateway =
            |link: &trunkline_proto::wire::Link| Some((format!("gw_vlan{}", link.vlan), link.gateway.parse().ok()?));
        let servers = slice.links.iter().filter(|link| link.dhcp);
        Self {
            taps: linked.map(|interface| interface.tap.clone()).collect(),
            gateways: slice.links.iter().filter_map(gateway).collect(),
            servers: servers.filter_map(|link| u16::try_from(link.vlan).ok()).collect(),
        }
    }

    fn tap(&self, pick: usize) -> String {
        self.taps[pick * 7 % self.taps.len()].clone()
    }

    fn server(&self, pick: usize) -> u16 {
        self.servers[pick % self.servers.len()]
    }
}

const OFTEN: usize = 9;

/// Wiping is last: it leaves the most to be looked at again.
const ALL: &[Drift] = &[
    of_worker("tap-deleted", |_, things, pick| {
        Ok(Box::new(TapDeleted(things.tap(pick))))
    }),
    of_worker("tap-down", |_, things, pick| Ok(Box::new(TapDown(things.tap(pick))))),
    of_worker("port-removed", |node, things, pick| {
        Ok(Box::new(PortRemoved::new(node, &things.tap(pick))?))
    }),
    of_worker("port-retagged", |node, things, pick| {
        Ok(Box::new(PortChanged::retagged(node, &things.tap(pick))?))
    }),
    of_worker("trunk-emptied", |node, _, _| {
        Ok(Box::new(PortChanged::trunk_emptied(node)?))
    }),
    of_worker("trunk-narrowed", |node, _, _| {
        Ok(Box::new(PortChanged::trunk_narrowed(node)?))
    }),
    of_worker("flows-flushed", |node, _, _| Ok(Box::new(FlowsDeleted::new(node)?))),
    of_netnode("gateway-address", |_, things, pick| {
        let (device, address) = things.gateways[pick * 7 % things.gateways.len()].clone();
        Ok(Box::new(Address { device, address }))
    }),
    of_netnode("namespace-deleted", |node, things, pick| {
        Ok(Box::new(Namespace::new(node, things.server(pick))?))
    }),
    of_netnode("dnsmasq-killed", |node, things, pick| {
        Ok(Box::new(Server::new(node, things.server(pick))?))
    }),
    of_netnode("dnsmasq-reservations", |node, things, pick| {
        Ok(Box::new(Edited::reservations(node, things.server(pick))?))
    }),
    of_netnode("dnsmasq-configuration", |node, things, pick| {
        Ok(Box::new(Edited::configuration(node, things.server(pick))?))
    }),
    of_netnode("rules-flushed", |node, _, _| Ok(Box::new(Rules::new(node)?))),
    of_netnode("forwarding-off", |_, _, _| Ok(Box::new(Forwarding))),
    Drift {
        repetitions: 3,
        ..of_worker("database-wiped", |node, _, _| Ok(Box::new(Wiped::new(node)?)))
    },
];

const fn of_worker(name: &'static str, case: Throw) -> Drift {
    Drift {
        name,
        host: WORKER,
        repetitions: OFTEN,
        case,
    }
}

const fn of_netnode(name: &'static str, case: Throw) -> Drift {
    Drift {
        host: NETNODE,
        ..of_worker(name, case)
    }
}

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let size = Size {
        vms: bench.size(50, 2),
        dhcp: bench.size(50, 3),
    };
    bench.say(&format!("a fleet of {} ports a worker", size.ports()));
    let fleet = Fleet::start(size)?;
    let slice = fleet
        .api
        .slices()?
        .pop()
        .ok_or_else(|| LabError::Other("there is no slice".to_owned()))?;
    let things = Things::of(&slice);
    ALL.iter().map(|drift| measure(bench, &fleet, &things, drift)).collect()
}

fn measure(bench: &Bench, fleet: &Fleet, things: &Things, drift: &Drift) -> Result<Row, LabError> {
    let mut node = Node::connect(fleet.host(drift.host)?, fleet.host(FABRIC)?)?;
    let node = std::cell::RefCell::new(&mut node);
    let pick = std::cell::Cell::new(0);
    let next = || {
        pick.set(pick.get() + 1);
        std::thread::sleep(bench.size(REST, Duration::from_millis(100)));
        fleet.settle()?;
        (drift.case)(*node.borrow_mut(), things, pick.get())
    };
    let ours = || {
        let mut case = next()?;
        let node = &mut **node.borrow_mut();
        case.throw(node)?;
        let start = Instant::now();
        while !case.is_right(node)? {
            if start.elapsed() > LIMIT {
                return Err(LabError::Timeout {
                    what: format!("a repair of {}", drift.name),
                    after: LIMIT,
                    seen: "it is as it was changed".to_owned(),
                });
            }
            // So that who looks is not in the way.
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let program = if drift.host == NETNODE {
        NETNODE_PROGRAM
    } else {
        AGENT_PROGRAM
    };
    let daemon = fleet
        .lab
        .daemon_pid(drift.host, program)
        .ok_or_else(|| LabError::Other("no daemon runs".to_owned()))?;
    let floor = || {
        let mut case = next()?;
        let node = &mut **node.borrow_mut();
        let _stopped = Stopped::new(daemon)?;
        case.throw(node)?;
        let start = Instant::now();
        case.mend(node)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let (ours, floor) = interleave(bench.size(drift.repetitions, 1), ours, floor)?;
    bench.say(drift.name);
    Ok(Row::of(
        format!("drift/{}", drift.name),
        "ms",
        &ours,
        &floor,
        Goal::AtMostMore(MORE),
    ))
}

/// A process that stands still while this lives.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: u32) -> Result<Self, LabError> {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
