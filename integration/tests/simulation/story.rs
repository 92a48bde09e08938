//! One seed's story: things are asked for and things break; then everything heals, and what must be true is looked up.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use trunkline_controller::{
    backup, converge,
    core::Core,
    leftovers::Word,
    model::{Cluster, Position, rows},
    simulation::set_clock,
    store::Rows,
    transition::{Intent, State},
};
use trunkline_proto::{
    Name,
    resource::{Key, Spec},
    wire,
};
use turmoil::{Builder, Sim};

use super::{
    chance,
    disk::{Disk, Fault},
    machines::{BOUNDS, CONTROLLER, TIMING, clock, controller, node},
    world::{Call, Figures, Shared},
};

const NODES: [&str; 4] = ["w1", "w2", "w3", "n1"];
const SLICES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Time that passes in one step.
const TICK: Duration = Duration::from_millis(10);
/// How long things break.
const BREAKING: Duration = Duration::from_secs(10);
/// How long everything may take to be right again: the longest pauses between attempts of sessions and passes, twice.
const HEALING: Duration = Duration::from_secs(90);
/// A session is over this long after its node's last word, a word that was long on its way included.
const PATIENCE: Duration = TIMING.heartbeat.saturating_mul(8);
/// Most tasks on one machine: a few for each session and connection, some of which are about to end.
const TASKS: usize = 60;

/// How a story ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) wrong: Vec<String>,
    pub(crate) log: Vec<String>,
    pub(crate) digest: u64,
    pub(crate) figures: Figures,
}

impl Ended {
    pub(crate) fn broken(why: String) -> Self {
        Self {
            wrong: vec![why],
            log: Vec::new(),
            digest: 0,
            figures: Figures::default(),
        }
    }
}

/// An export, and what operators had been told when it was written.
struct Export {
    cluster: Cluster,
    journal: Rows,
}

struct Story<'a> {
    sim: Sim<'a>,
    shared: Shared,
    disk: Disk,
    dir: &'a Path,
    random: fastrand::Rng,
    export: Option<Export>,
    term: u64,
    calls: u32,
    /// Machines that were killed, and when each is started again.
    down: BTreeMap<&'static str, Duration>,
    looked: Duration,
}

/// Tells the story of a seed; the nodes keep their inboxes in `dir`.
pub(crate) fn tell(seed: u64, dir: &Path) -> Ended {
    chance::follows(seed);
    set_clock(clock);
    let shared = Shared::new(seed, &NODES);
    let disk = Disk::new(Core::new_cluster("c0ffee"));
    let mut sim = Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(4096)
        .build();
    {
        let (shared, disk) = (shared.clone(), disk.clone());
        sim.host(CONTROLLER, move || controller(shared.clone(), disk.clone()));
    }
    for name in NODES {
        let (shared, dir) = (shared.clone(), dir.join(name));
        std::fs::create_dir(&dir).unwrap();
        sim.host(name, move || node(shared.clone(), name.parse().unwrap(), dir.clone()));
    }
    let mut story = Story {
        sim,
        shared: shared.clone(),
        disk,
        dir,
        random: fastrand::Rng::with_seed(seed),
        export: None,
        term: 1,
        calls: 0,
        down: BTreeMap::new(),
        looked: Duration::ZERO,
    };
    if let Err(why) = story.whole() {
        shared.lock().blame(why);
    }
    let elapsed = story.sim.elapsed();
    drop(story);
    let mut world = shared.lock();
    world.figures.virtual_seconds = elapsed.as_secs();
    Ended {
        wrong: std::mem::take(&mut world.wrong),
        log: world.log().to_vec(),
        digest: world.digest(),
        figures: world.figures,
    }
}

/// Where a sync costs nothing, if there is such a place.
pub(crate) fn memory() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

impl Story<'_> {
    fn whole(&mut self) -> Result<(), String> {
        while self.sim.elapsed() < BREAKING {
            self.event();
            let until = self.sim.elapsed() + Duration::from_millis(self.random.u64(5..200));
            while self.sim.elapsed() < until {
                self.step()?;
            }
        }
        self.heal();
        self.until("everything to be as deployed", Self::settled)?;
        self.bounded();
        // The end of everything: what is freed is free.
        for name in SLICES {
            self.call(
                Intent::DeleteSlice {
                    name: name.into(),
                    expected: 0,
                },
                &[name],
            );
        }
        self.until("everything to be gone", |story| {
            story.settled()?;
            let world = story.shared.lock();
            let left = world
                .hosts
                .iter()
                .find(|(_, host)| host.real.values().any(|real| matches!(real.spec, Spec::Port(_))));
            left.map_or(Ok(()), |(node, _)| Err(format!("{node} still has ports")))
        })
    }

    /// Time passes; what must always be true is looked at now and then.
    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| format!("a machine failed: {error}"))?;
        if self.sim.elapsed() >= self.looked + Duration::from_millis(100) {
            self.looked = self.sim.elapsed();
            self.look();
            self.revive();
        }
        if self.shared.lock().wrong.is_empty() {
            Ok(())
        } else {
            Err("see above".into())
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> Result<(), String>) -> Result<(), String> {
        let end = self.sim.elapsed() + HEALING;
        loop {
            self.step()?;
            if self.sim.elapsed() != self.looked {
                continue;
            }
            self.confirm();
            match done(self) {
                Ok(()) => return Ok(()),
                Err(why) if self.sim.elapsed() >= end => {
                    return Err(format!("{HEALING:?} were not enough for {what}: {why}"));
                }
                Err(_) => {}
            }
        }
    }

    /// An operator's word for what nodes hold back: after a restore, and for state directories that were lost, nobody asked for it.
    fn confirm(&self) {
        let mut world = self.shared.lock();
        let Some(core) = world.core.clone() else { return };
        let waiting = world.hosts.iter().filter_map(|(node, host)| {
            let held = host.held.as_ref()?.borrow().clone();
            (held.waiting().len() > 0).then_some((node.clone(), held.position))
        });
        for (node, at) in waiting.collect::<Vec<_>>() {
            let at = Position {
                term: at.term,
                generation: at.generation,
            };
            let word = Word {
                at,
                leftovers: String::new(),
            };
            if core.live().confirm(&node, word) {
                world.say(
                    self.sim.elapsed(),
                    format_args!("removals on {node} are confirmed at {at:?}"),
                );
            }
        }
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        self.shared.lock().say(self.sim.elapsed(), what);
    }

    fn any_node(&mut self) -> &'static str {
        NODES[self.random.usize(..NODES.len())]
    }

    /// One thing is asked for, or breaks, or is mended.
    fn event(&mut self) {
        let node = self.any_node();
        match self.random.u32(0..100) {
            0..38 => self.ask(),
            38..44 => self.cut(node),
            44..56 => self.mend(node),
            56..60 => {
                self.say(format_args!("hold {node}"));
                self.sim.hold(node, CONTROLLER);
                self.shared.lock().figures.holds += 1;
            }
            60..68 => {
                self.say(format_args!("release {node}"));
                self.sim.release(node, CONTROLLER);
            }
            68..72 => {
                let slow = Duration::from_millis([10, 20, 200, 700][self.random.usize(..4)]);
                self.say(format_args!("up to {slow:?} to {node}"));
                self.sim.set_link_max_message_latency(node, CONTROLLER, slow);
            }
            72..81 => self.kill(node),
            81..85 => self.kill_controller(),
            85..89 => {
                let fault = [Fault::Before, Fault::After][self.random.usize(..2)];
                self.say(format_args!("the next commit fails: {fault:?}"));
                self.disk.fail_next(Some(fault));
                self.shared.lock().figures.failed_commits += 1;
            }
            89..91 => self.write_export(),
            91..92 => self.restore(),
            92..93 => self.scrap(node),
            _ => {
                let trouble = [0, 0, 200, 600][self.random.usize(..4)];
                self.say(format_args!("trouble {trouble} on {node}"));
                self.shared.lock().host(&node.parse().unwrap()).trouble = trouble;
            }
        }
    }

    fn cut(&mut self, node: &str) {
        self.shared.lock().figures.partitions += 1;
        match self.random.u32(0..4) {
            0 => {
                self.say(format_args!("cut {node} -> controller"));
                self.sim.partition_oneway(node, CONTROLLER);
            }
            1 => {
                self.say(format_args!("cut controller -> {node}"));
                self.sim.partition_oneway(CONTROLLER, node);
            }
            _ => {
                self.say(format_args!("cut {node}"));
                self.sim.partition(node, CONTROLLER);
            }
        }
    }

    fn mend(&mut self, node: &str) {
        self.say(format_args!("mend {node}"));
        self.sim.release(node, CONTROLLER);
        self.sim.repair(node, CONTROLLER);
    }

    fn kill(&mut self, node: &'static str) {
        let (reboot, wipe) = (self.random.u32(0..4) == 0, self.random.u32(0..8) == 0);
        self.end(node, reboot, wipe);
        let pause = [0, self.random.u64(0..3000)][self.random.usize(..2)];
        self.start_in(node, pause);
    }

    /// A node's program ends; with it everything on the host, or its state directory.
    fn end(&mut self, node: &'static str, reboot: bool, wipe: bool) {
        let now = self.sim.elapsed();
        self.say(format_args!("kill {node}, reboot {reboot}, new disk {wipe}"));
        self.sim.crash(node);
        let name = node.parse().unwrap();
        let mut world = self.shared.lock();
        world.figures.kills += 1;
        world.figures.reboots += u64::from(reboot);
        world.figures.wipes += u64::from(wipe);
        let host = world.host(&name);
        (host.held, host.wake) = (None, None);
        if reboot {
            host.real.clear();
            host.lost = Some(now);
        }
        if wipe {
            host.at = Position::default();
            host.lost = Some(now);
            let _ = std::fs::remove_file(self.dir.join(node).join("inbox"));
        }
    }

    /// The host is gone for good, an operator says so, and another one of its name takes its place.
    fn scrap(&mut self, node: &'static str) {
        self.end(node, true, true);
        self.call(Intent::RemoveNode { name: node.into() }, &[]);
        self.start_in(node, 4000);
    }

    fn start_in(&mut self, machine: &'static str, millis: u64) {
        self.down
            .insert(machine, self.sim.elapsed() + Duration::from_millis(millis));
        self.revive();
    }

    fn kill_controller(&mut self) {
        self.say(format_args!("kill controller"));
        self.sim.crash(CONTROLLER);
        let mut world = self.shared.lock();
        world.figures.controller_kills += 1;
        world.core = None;
        drop(world);
        let pause = [0, self.random.u64(0..2000)][self.random.usize(..2)];
        self.start_in(CONTROLLER, pause);
    }

    /// Starts what is due, and a controller that ended by itself, as systemd does.
    fn revive(&mut self) {
        if !self.down.contains_key(CONTROLLER) && !self.sim.is_host_running(CONTROLLER) {
            self.shared.lock().core = None;
            self.sim.bounce(CONTROLLER);
        }
        let now = self.sim.elapsed();
        let due: Vec<_> = self
            .down
            .extract_if(.., |_, at| *at <= now)
            .map(|(machine, _)| machine)
            .collect();
        for machine in due {
            self.sim.bounce(machine);
        }
    }

    fn write_export(&mut self) {
        let (journal, cluster) = split(self.disk.rows());
        self.say(format_args!("export at {:?}", cluster.position()));
        // That it can be written as a file, too.
        backup::render(&self.disk.rows(), clock().into()).unwrap();
        self.export = Some(Export { cluster, journal });
    }

    /// The database is lost; an export takes its place.
    fn restore(&mut self) {
        let Some(Export { cluster, journal }) = &self.export else {
            return;
        };
        self.term += 1;
        let cluster = cluster.clone().restored(self.term);
        let mut rows: Rows = rows::all(&cluster).into_iter().collect();
        rows.extend(journal.clone());
        self.sim.crash(CONTROLLER);
        self.say(format_args!("restore: {:?}", cluster.position()));
        self.disk.replace(rows);
        let mut world = self.shared.lock();
        world.figures.restores += 1;
        world.core = None;
        world.calls.clear();
        world.restored(&cluster);
        drop(world);
        self.start_in(CONTROLLER, 0);
    }

    fn heal(&mut self) {
        self.say(format_args!("everything is mended"));
        self.disk.fail_next(None);
        for node in NODES {
            self.mend(node);
            self.sim
                .set_link_max_message_latency(node, CONTROLLER, Duration::from_millis(20));
            self.shared.lock().host(&node.parse().unwrap()).trouble = 0;
        }
        self.down.values_mut().for_each(|at| *at = Duration::ZERO);
    }

    fn call(&mut self, intent: Intent, slices: &[&str]) {
        self.calls += 1;
        let call = Call {
            id: format!("call-{}", self.calls),
            intent,
            slices: slices.iter().map(|slice| slice.parse().unwrap()).collect(),
        };
        self.say(format_args!("{}: {:?}", call.id, call.intent));
        self.shared.lock().calls.push_back(call);
    }

    fn ask(&mut self) {
        let waiting = self.shared.lock().calls.len();
        if waiting > 3 {
            return;
        }
        let choice = self.random.u32(0..20);
        let there = |name: &&&str| {
            self.shared
                .lock()
                .known
                .get(&name.parse().unwrap())
                .is_some_and(Option::is_some)
        };
        let there: Vec<&str> = SLICES.iter().filter(there).copied().collect();
        // What is not there can only be made; but asking for more costs nothing.
        let among = if choice < 12 || there.is_empty() {
            &SLICES[..]
        } else {
            &there[..]
        };
        let slice = among[self.random.usize(..among.len())];
        let name = slice.to_owned();
        let intent = match choice {
            0..12 => Intent::Apply {
                slices: vec![self.topology(slice)],
                expected: BTreeMap::new(),
                deploy: self.random.u32(0..4) > 0,
            },
            12 => Intent::Deploy { name, expected: 0 },
            13..15 => Intent::Undeploy { name, expected: 0 },
            15 => Intent::Rollback {
                name,
                number: self.random.u32(1..4),
                expected: 0,
            },
            _ => Intent::DeleteSlice { name, expected: 0 },
        };
        self.call(intent, &[slice]);
    }

    fn topology(&mut self, slice: &str) -> wire::SliceSpec {
        let count = self.random.u32(1..5);
        let vms: Vec<_> = (0..count)
            .map(|number| wire::VmSpec {
                name: format!("vm{number}"),
                worker: ["w1", "w2", "w3", ""][self.random.usize(..4)].into(),
                data_interfaces_count: self.random.u32(1..3),
                internet_enabled: self.random.u32(0..4) == 0,
                ..wire::VmSpec::default()
            })
            .collect();
        let pairs = (1..vms.len()).filter(|_| self.random.u32(0..3) > 0).collect::<Vec<_>>();
        let mut used = BTreeMap::new();
        let mut links = Vec::new();
        for pair in pairs {
            let mut end = |at: usize| {
                let next = used.entry(at).or_insert(0);
                *next += 1;
                (*next <= vms[at].data_interfaces_count).then(|| format!("{}.eth{next}", vms[at].name))
            };
            if let (Some(one), Some(other)) = (end(pair - 1), end(pair)) {
                links.push(wire::LinkSpec {
                    ends: vec![one, other],
                    ..wire::LinkSpec::default()
                });
            }
        }
        wire::SliceSpec {
            name: slice.into(),
            vms,
            links,
            vlan_pool_size: 0,
        }
    }

    /// What must be true at any moment.
    fn look(&self) {
        let mut world = self.shared.lock();
        let Some(core) = world.core.clone() else { return };
        let (state, views, now) = (core.state(), core.views(), self.sim.elapsed());
        let fresh = |lost: Option<Duration>| lost.is_some_and(|lost| now < lost + PATIENCE);
        let mut wrong = Vec::new();
        for (node, view) in views.iter() {
            let Some(host) = world.hosts.get(node) else { continue };
            let Some(held) = host.held.as_ref().map(|held| held.borrow().position) else {
                continue;
            };
            let acked = view.acked;
            if view.connected && !fresh(host.lost) && (held.term, held.generation) < (acked.term, acked.generation) {
                wrong.push(format!("{node} acknowledged {acked:?} and holds {held}"));
            }
        }
        for name in converge::slices_with_status(&state) {
            let status = converge::slice_status(&state, &views, &name);
            if status.state() != wire::State::Ready {
                continue;
            }
            world.figures.ready_looks += 1;
            for (node, key) in not_real(&state, &name, &world.hosts, fresh) {
                wrong.push(format!(
                    "slice {name} is said to be ready, and {node} has no such {key}"
                ));
            }
        }
        wrong.into_iter().for_each(|wrong| world.blame(wrong));
    }

    /// Everything is as deployed, everywhere, and known to be.
    fn settled(&self) -> Result<(), String> {
        let mut world = self.shared.lock();
        let Some(core) = world.core.clone() else {
            return Err("no controller".into());
        };
        if !world.calls.is_empty() {
            return Err(format!("{} calls wait", world.calls.len()));
        }
        let (state, views) = (core.state(), core.views());
        world.nothing_lost(&state.cluster);
        for (node, host) in &world.hosts {
            let desired = state.node_desired(node);
            let held = host
                .held
                .as_ref()
                .ok_or_else(|| format!("{node} does not run"))?
                .borrow()
                .clone();
            if !views.get(node).is_some_and(|view| view.connected) {
                return Err(format!("{node} is not connected"));
            }
            if held.digest() != desired.digest {
                return Err(format!("{node} holds {} and not what it should", held.position));
            }
            let real = host.real.iter().map(|(key, real)| (key, real.hash));
            if !real.eq(desired.resources.iter().map(|(key, envelope)| (key, envelope.hash))) {
                return Err(format!("{node} holds what it should and has not made it true"));
            }
        }
        if let Some(((_, slice), departure)) = state.cluster.departures.first_key_value() {
            return Err(format!("slice {slice} still departs: {departure:?}"));
        }
        if let Some(hold) = &state.cluster.meta.hold {
            return Err(hold.reason());
        }
        for name in converge::slices_with_status(&state) {
            let status = converge::slice_status(&state, &views, &name);
            if status.deployed_number > 0 && status.state() != wire::State::Ready {
                return Err(format!("slice {name} is {:?}: {}", status.state(), status.reason));
            }
        }
        Ok(())
    }

    /// What is kept in memory did not grow with what happened.
    fn bounded(&self) {
        let mut world = self.shared.lock();
        let Some(core) = world.core.clone() else { return };
        let mut wrong = Vec::new();
        let events = core.journal().all().len();
        if events > BOUNDS.events.entries {
            wrong.push(format!("the journal holds {events} entries"));
        }
        let requests = self
            .disk
            .rows()
            .keys()
            .filter(|key| key.starts_with("request/"))
            .count();
        if requests > BOUNDS.requests {
            wrong.push(format!("{requests} answers are kept"));
        }
        let sessions = core.live().connected().len();
        if sessions != NODES.len() {
            wrong.push(format!("{sessions} sessions of {} nodes", NODES.len()));
        }
        let tasks = world.hosts.iter().map(|(name, host)| (name.to_string(), host.tasks));
        for (machine, tasks) in tasks.chain([(CONTROLLER.to_owned(), world.controller_tasks)]) {
            if tasks > TASKS {
                wrong.push(format!("{tasks} tasks on {machine}"));
            }
        }
        wrong.into_iter().for_each(|wrong| world.blame(wrong));
    }
}

/// Resources of a slice that a node should have and has not.
fn not_real(
    state: &State,
    slice: &Name,
    hosts: &BTreeMap<Name, super::world::Host>,
    fresh: impl Fn(Option<Duration>) -> bool,
) -> Vec<(Name, Key)> {
    let Some(frozen) = state.cluster.slices.get(slice).and_then(|slice| slice.deployed()) else {
        return Vec::new();
    };
    let vlans: Vec<_> = frozen.links.values().map(|link| link.vlan).collect();
    let mut missing = Vec::new();
    for (node, host) in hosts.iter().filter(|(_, host)| !fresh(host.lost)) {
        for (key, envelope) in &state.node_desired(node).resources {
            let spec = envelope.open().unwrap();
            let part = match &spec {
                Spec::Port(port) => port.owner.slice == slice.as_str(),
                spec => spec.vlan().is_some_and(|vlan| vlans.contains(&vlan)),
            };
            if part && host.real.get(key).map(|real| real.hash) != Some(envelope.hash) {
                missing.push((node.clone(), key.clone()));
            }
        }
    }
    missing
}

fn split(rows: Rows) -> (Rows, Cluster) {
    let (mut journal, mut cluster) = (Rows::new(), Rows::new());
    for (key, value) in rows {
        if key.starts_with("event/") {
            journal.insert(key, value);
        } else if !key.starts_with("request/") {
            cluster.insert(key, value);
        }
    }
    (journal, rows::load(&cluster).unwrap())
}
