//! A cluster of any size, deployed.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use trunkline_controller::check::check;
use trunkline_controller::compile::Desired;
use trunkline_controller::model::{NodeRole, ProbeSecret, Timestamp};
use trunkline_controller::settings::Settings;
use trunkline_controller::transition::{Context, Intent, State};
use trunkline_proto::{Name, wire};

/// Of a slice: VMs, each with `eth0` and as many data interfaces, and links of as many ends.
const VMS: u32 = 20;
const DATA: u32 = 4;
const LINKS: u32 = 20;
/// Most workers; each slice is on some of them.
const WORKERS: u32 = 20;

/// A cluster.
pub(crate) struct World {
    settings: Settings,
    state: State,
    /// Where the VM that moves is.
    name: String,
}

impl World {
    /// With at least that many ports, in slices of 100.
    #[must_use]
    pub(crate) fn new(ports: u32) -> Self {
        let mut world = Self {
            settings: Settings::default(),
            state: State::new("bench"),
            name: "slice-0".to_owned(),
        };
        world.make(Intent::Tick);
        world.join("n1", NodeRole::Netnode);
        for worker in 0..WORKERS {
            world.join(&format!("w{worker}"), NodeRole::Worker);
        }
        for slice in 0..ports.div_ceil(VMS * (DATA + 1)) {
            world.make(Intent::Apply {
                slices: vec![slice_of(slice)],
                expected: BTreeMap::new(),
                deploy: true,
            });
        }
        world
    }

    fn join(&mut self, name: &str, role: NodeRole) {
        let name = name.parse().expect("a name");
        self.make(Intent::NodeJoined { name, role });
    }

    fn make(&mut self, intent: Intent) {
        self.state = self.next(intent);
    }

    fn next(&self, intent: Intent) -> State {
        let connected: BTreeSet<Name> = self.state.cluster.nodes.keys().cloned().collect();
        let secret = ProbeSecret::new([7; 32]);
        let context = Context {
            now: Timestamp::from_millis(1_700_000_000_000),
            actor: "operator/bench",
            settings: &self.settings,
            connected: &connected,
            held: &BTreeMap::new(),
            traceparent: "",
            fresh_secret: Some(&secret),
        };
        self.state.step(intent, &context).expect("it may be done").state
    }

    /// Compiles all of it from nothing. How many nodes have something.
    #[must_use]
    pub(crate) fn compile(&self) -> usize {
        Desired::compile(&self.state.cluster, &self.settings).nodes().count()
    }

    /// Checks all of it, as a start does. True: it is consistent.
    #[must_use]
    pub(crate) fn check(&self) -> bool {
        let (cluster, desired) = (&self.state.cluster, &self.state.desired);
        let all: Vec<Name> = desired.nodes().map(|(name, _)| name.clone()).collect();
        check(cluster, desired, &Desired::default(), &all, &self.settings).is_ok()
    }

    /// One VM of one draft goes to another worker: a change that touches no node. The revision after it.
    #[must_use]
    pub(crate) fn small(&self) -> u64 {
        let intent = Intent::MoveVm {
            slice: self.name.clone(),
            name: "vm-0".to_owned(),
            worker: "w1".to_owned(),
            expected: 0,
            // Nobody is connected here.
            force: true,
        };
        self.next(intent).cluster.meta.revision
    }

    /// One slice of the many is taken off its nodes. The generation after it.
    #[must_use]
    pub(crate) fn undeploy(&self) -> u64 {
        let intent = Intent::Undeploy {
            name: self.name.clone(),
            expected: 0,
        };
        self.next(intent).cluster.meta.generation
    }
}

fn slice_of(number: u32) -> wire::SliceSpec {
    let vms = (0..VMS).map(|vm| wire::VmSpec {
        name: format!("vm-{vm}"),
        // The slices spread over the workers, each on four of them.
        worker: format!("w{}", (number * 4 + vm % 4) % WORKERS),
        data_interfaces_count: DATA,
        ..wire::VmSpec::default()
    });
    let links = (0..LINKS).map(|link| wire::LinkSpec {
        ends: (0..DATA)
            .map(|end| format!("vm-{}.eth{}", (link + end) % VMS, end + 1))
            .collect(),
        ..wire::LinkSpec::default()
    });
    wire::SliceSpec {
        name: format!("slice-{number}"),
        vms: vms.collect(),
        links: links.collect(),
        vlan_pool_size: LINKS,
    }
}
