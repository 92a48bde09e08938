//! Two fleets of two workers and a network node: one with our daemons and an operator's client, one with bare switches for
//! floors. Both have the same slice on them before anything is measured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tonic::Streaming;
use trunkline_integration::LabError;
use trunkline_proto::wire::{LinkSpec, SliceSpec, SliceStatus, State, VmSpec, WatchStatusRequest, WatchStatusResponse};

use crate::floor::held::Held;
use crate::floor::site::{Floor, Sites};
use crate::held::Fleet;
use crate::operator::{self, refused};

/// Most data interfaces of a VM.
const INTERFACES: u32 = 16;
/// Nothing here takes that long.
const LIMIT: Duration = Duration::from_secs(240);
/// What is on both fleets from the start.
const BASE: &str = "base";

/// Both fleets.
pub(crate) struct Stage {
    /// The fleet with our daemons.
    pub(crate) fleet: Fleet,
    /// The other fleet.
    pub(crate) floor: Floor,
    base: BTreeMap<String, Held>,
}

/// A slice whose status is watched.
pub(crate) struct Watched<'a> {
    fleet: &'a Fleet,
    stream: Streaming<WatchStatusResponse>,
    name: String,
}

/// How long a deploy took, in milliseconds from its call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deployed {
    /// Until every resource but the probes was reported ready.
    pub(crate) ready: f64,
    /// Until frames at full MTU had passed between all nodes, both ways.
    pub(crate) proven: f64,
}

/// A slice of links without DHCP, each between a VM on the first worker and one on the second.
fn slice(name: &str, links: u32) -> SliceSpec {
    let vm = |side: &str, worker: &str, at: u32| VmSpec {
        name: format!("{side}{at}"),
        worker: worker.to_owned(),
        data_interfaces_count: INTERFACES.min(links - at * INTERFACES),
        ..VmSpec::default()
    };
    let pairs = (0..links.div_ceil(INTERFACES)).flat_map(|at| [vm("left", "w1", at), vm("right", "w2", at)]);
    let link = |at: u32| {
        let end = |side: &str| format!("{side}{}.eth{}", at / INTERFACES, at % INTERFACES + 1);
        LinkSpec {
            name: format!("link{at}"),
            ends: vec![end("left"), end("right")],
            dhcp_off: true,
            ..LinkSpec::default()
        }
    };
    SliceSpec {
        name: name.to_owned(),
        vms: pairs.collect(),
        links: (0..links).map(link).collect(),
        vlan_pool_size: links,
    }
}

impl Stage {
    /// Starts both fleets, with a slice of so many links on each.
    pub(crate) fn start(links: u32) -> Result<Self, LabError> {
        let mut stage = Self {
            fleet: Fleet::empty()?,
            floor: Floor::start()?,
            base: BTreeMap::new(),
        };
        stage.draft(BASE, links)?;
        stage.watch(BASE)?.deploy(true)?;
        let base = stage.more()?;
        stage.floor.add(&base)?;
        stage.base = stage.held()?;
        Ok(stage)
    }

    /// Makes the draft of a slice of so many links.
    pub(crate) fn draft(&self, name: &str, links: u32) -> Result<(), LabError> {
        operator::apply(&self.fleet.api, vec![slice(name, links)], false).map(drop)
    }

    /// Begins to watch a slice.
    pub(crate) fn watch(&self, name: &str) -> Result<Watched<'_>, LabError> {
        Watched::of(&self.fleet, name)
    }

    /// What our hosts have now more than at the start: what a floor has to do.
    pub(crate) fn more(&self) -> Result<Sites, LabError> {
        Ok(since(&self.held()?, &self.base))
    }

    fn held(&self) -> Result<BTreeMap<String, Held>, LabError> {
        let read = |node: String| Ok((node.clone(), Held::read(self.fleet.lab.host(&node)?)?));
        self.fleet.lab.layout().nodes().into_iter().map(read).collect()
    }
}

fn since(now: &BTreeMap<String, Held>, before: &BTreeMap<String, Held>) -> Sites {
    let nothing = Held::default();
    let more = |(node, held): (&String, &Held)| (node.clone(), held.since(before.get(node).unwrap_or(&nothing)));
    now.iter().map(more).collect()
}

impl<'a> Watched<'a> {
    /// Begins to watch a slice.
    pub(crate) fn of(fleet: &'a Fleet, name: &str) -> Result<Self, LabError> {
        let request = WatchStatusRequest {
            slices: vec![name.to_owned()],
            brief: true,
        };
        let api = &fleet.api;
        let stream = api
            .block_on(api.client().watch().watch_status(request))
            .map_err(refused)?;
        Ok(Self {
            fleet,
            stream: stream.into_inner(),
            name: name.to_owned(),
        })
    }

    /// Deploys, and waits until every resource is ready; when asked for, also until frames have passed.
    pub(crate) fn deploy(&mut self, prove: bool) -> Result<Deployed, LabError> {
        let began = Instant::now();
        operator::deploy(&self.fleet.api, &self.name)?;
        let elapsed = || began.elapsed().as_secs_f64() * 1e3;
        let status = self.until("every resource ready", is_ready)?;
        let ready = elapsed();
        let mut proven = f64::NAN;
        if prove {
            // One message may say both: then no other comes.
            if !is_proven(&status) {
                self.until("every VLAN proved", is_proven)?;
            }
            proven = elapsed();
        }
        Ok(Deployed { ready, proven })
    }

    /// Undeploys, and waits until every node has read back that it is gone; answers how many milliseconds that took.
    pub(crate) fn undeploy(&mut self) -> Result<f64, LabError> {
        let began = Instant::now();
        operator::undeploy(&self.fleet.api, &self.name)?;
        self.until("removed", |status| !status.removing && status.deployed_number == 0)?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }

    /// The first status that comes and is good.
    fn until(&mut self, what: &str, good: impl Fn(&SliceStatus) -> bool) -> Result<SliceStatus, LabError> {
        let (stream, name) = (&mut self.stream, &self.name);
        let mut seen = String::new();
        let whole = async {
            loop {
                let message = stream.message().await.map_err(refused)?;
                let message = message.ok_or_else(|| LabError::Other("the watch ended".to_owned()))?;
                let slices = message.status.unwrap_or_default().slices;
                let Some(status) = slices.into_iter().find(|slice| slice.name == *name) else {
                    continue;
                };
                if good(&status) {
                    return Ok(status);
                }
                seen = format!("{}: {}", status.state().as_str_name(), status.reason);
            }
        };
        let api = &self.fleet.api;
        match api.block_on(async { tokio::time::timeout(LIMIT, whole).await }) {
            Ok(done) => done,
            Err(_) => Err(LabError::Timeout {
                what: format!("{name}: {what}"),
                after: LIMIT,
                seen,
            }),
        }
    }
}

/// All of it but what is proved on the wire.
fn is_ready(status: &SliceStatus) -> bool {
    let (all, ready) = (
        status.resources - status.probes,
        status.resources_ready - status.probes_ready,
    );
    status.deployed_number != 0 && all > 0 && ready == all
}

fn is_proven(status: &SliceStatus) -> bool {
    status.deployed_number != 0 && status.state() == State::Ready
}
