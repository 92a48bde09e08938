//! How long a controller with a full database takes from exec to its first answer, and that no node is told anything then.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::future::try_join_all;
use tokio::runtime::Runtime;
use trunkline_certs::Role;
use trunkline_integration::LabError;
use trunkline_proto::client::new_request_id;
use trunkline_proto::wire::{ApplySlicesRequest, GetSliceRequest, LinkSpec, SliceSpec, VmSpec};

use super::intents::runtime;
use crate::controller::{Certificates, Controller, other};
use crate::figure::{Bench, Figure, Goal, Row};
use crate::node::{Held, Node};
use crate::part::Part;
use crate::series::{Series, interleave};
use crate::simulator::nanos;

pub(crate) const FIGURE: Figure = Figure {
    name: "cold",
    what: "a controller with 4,000 VLANs and 100,000 ports starts: exec to the first answer",
    floor: "a process that reads and decodes the same sled trees",
    run,
};

/// Every VLAN but 1 and 400 is for links.
const NETWORK: &str = "[nodes]\nheartbeat = \"2s\"\n[network]\nvlan_first = 2\n";
/// Data interfaces of a VM; with `eth0` it has one port more.
const DATA: usize = 4;
/// Ends of a link.
const ENDS: usize = 20;
/// Links of a slice, and its VMs.
const LINKS: usize = 100;
const VMS: usize = LINKS * ENDS / DATA;
/// Workers that a slice is on, and each of its links.
const SPREAD: usize = 4;

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let (slices, workers) = bench.size((40, 50), (1, 4));
    let mut controller = Controller::new(&Certificates::new()?, NETWORK)?;
    let runtime = runtime()?;
    controller.start()?;
    let held = fill(&controller, &runtime, slices, workers)?;
    controller.kill();
    let trees = Part::Trees(controller.database());
    let (links, ports) = (slices * LINKS, slices * VMS * (DATA + 1));
    bench.say(&format!("  {links} VLANs and {ports} ports are stored"));
    let mut operations = Series::default();
    let ours = || {
        let began = controller.exec()?;
        runtime.block_on(first_answer(&controller))?;
        let time = nanos().saturating_sub(began);
        operations.push(runtime.block_on(told(&controller, &held))?);
        // What was answered is durable, and the next start is the same.
        controller.kill();
        Ok(time as f64 / 1e9)
    };
    let floor = || {
        let began = Instant::now();
        trees.start()?.finish()?;
        Ok(began.elapsed().as_secs_f64())
    };
    let (ours, floor) = interleave(bench.size(7, 1), ours, floor)?;
    let name = format!("cold/{ports}");
    let time = Row::of(name.clone(), "s", &ours, &floor, Goal::AtMostTimes(2.0));
    Ok(vec![
        time.within(format!("{name}/seconds"), Goal::AtMost(1.0)),
        time,
        Row::alone(
            format!("{name}/operations"),
            "operations",
            &operations,
            Goal::AtMost(0.0),
        ),
    ])
}

/// Deploys all of it, with every node taking its part. Returns what the nodes hold.
fn fill(controller: &Controller, runtime: &Runtime, slices: usize, workers: usize) -> Result<Vec<Held>, LabError> {
    runtime.block_on(async {
        let mut new = vec![Held::nothing(Role::Netnode, "n1")];
        new.extend((0..workers).map(|number| Held::nothing(Role::Worker, &worker(number))));
        let nodes = try_join_all(new.into_iter().map(|held| Node::connect(controller, held))).await?;
        let (end, _) = tokio::sync::watch::channel(());
        let live = |mut node: Node| {
            let mut ended = end.subscribe();
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        // A part that is lost with it comes again with the next session.
                        _ = ended.changed() => return Ok::<_, LabError>(node.held),
                        served = node.serve() => drop(served?),
                    }
                }
            })
        };
        let nodes: Vec<_> = nodes.into_iter().map(live).collect();
        let operator = controller.operator()?;
        for number in 0..slices {
            let request = ApplySlicesRequest {
                request_id: new_request_id(),
                slices: vec![slice(number, workers)],
                deploy: true,
                ..ApplySlicesRequest::default()
            };
            operator.slices().apply_slices(request).await.map_err(other)?;
        }
        drop(end);
        let held = try_join_all(nodes).await.map_err(other)?;
        settle(controller, held.into_iter().collect::<Result<_, _>>()?).await
    })
}

fn worker(number: usize) -> String {
    format!("w{}", number + 1)
}

fn slice(number: usize, workers: usize) -> SliceSpec {
    let vm = |vm: usize| format!("vm-{vm}");
    let mut ends: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for end in 0..LINKS * ENDS {
        // The interfaces of a VM are on different links.
        let name = format!("{}.eth{}", vm(end / DATA), end % DATA + 1);
        ends.entry(end % LINKS).or_default().push(name);
    }
    SliceSpec {
        name: format!("slice-{number}"),
        vms: (0..VMS)
            .map(|i| VmSpec {
                name: vm(i),
                worker: worker((number * SPREAD + i / (LINKS / DATA) % SPREAD) % workers),
                data_interfaces_count: u32::try_from(DATA).unwrap_or_default(),
                ..VmSpec::default()
            })
            .collect(),
        links: ends
            .into_iter()
            .map(|(link, ends)| LinkSpec {
                name: format!("link-{link}"),
                ends,
                ..LinkSpec::default()
            })
            .collect(),
        vlan_pool_size: u32::try_from(LINKS).unwrap_or_default(),
    }
}

/// What the nodes hold once all is in step.
async fn settle(controller: &Controller, mut held: Vec<Held>) -> Result<Vec<Held>, LabError> {
    loop {
        let (next, operations) = connected(controller, &held).await?;
        if operations == 0 {
            return Ok(next);
        }
        held = next;
    }
}

/// How much the nodes are told when they come back.
async fn told(controller: &Controller, held: &[Held]) -> Result<f64, LabError> {
    let (_, operations) = connected(controller, held).await?;
    Ok(f64::from(u32::try_from(operations).unwrap_or(u32::MAX)))
}

/// A session of each node, until the controller has nothing to tell it.
async fn connected(controller: &Controller, held: &[Held]) -> Result<(Vec<Held>, u64), LabError> {
    let session = |held: &Held| {
        let held = held.clone();
        async move {
            let mut node = Node::connect(controller, held).await?;
            node.settle().await?;
            Ok::<_, LabError>((node.held, node.operations))
        }
    };
    let all = try_join_all(held.iter().map(session)).await?;
    let operations = all.iter().map(|(_, operations)| operations).sum();
    Ok((all.into_iter().map(|(held, _)| held).collect(), operations))
}

/// Asks until somebody answers.
async fn first_answer(controller: &Controller) -> Result<(), LabError> {
    let request = || GetSliceRequest {
        name: "slice-0".to_owned(),
        ..GetSliceRequest::default()
    };
    let operator = controller.operator()?;
    let begin = Instant::now();
    loop {
        match operator.slices().get_slice(request()).await {
            Ok(_) => return Ok(()),
            Err(status) if begin.elapsed().as_secs() > 60 => return Err(other(status)),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    }
}
