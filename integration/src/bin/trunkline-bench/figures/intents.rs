//! How many small mutations a second are acknowledged durably over mutual TLS: a VM of a draft goes to another worker and back.
//! Each caller has a connection and a slice of its own.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::runtime::Runtime;
use trunkline_certs::Role;
use trunkline_integration::LabError;
use trunkline_proto::client::{Client, new_request_id};
use trunkline_proto::wire::{ApplySlicesRequest, MoveVmRequest, SliceSpec, VmSpec};

use crate::controller::{Certificates, Controller, other};
use crate::figure::{Bench, Figure, Goal, Row};
use crate::floor::acknowledge::Order;
use crate::floor::trees;
use crate::node::{Held, Node};
use crate::part::{Asked, Part};
use crate::series::interleave;

pub(crate) const FIGURE: Figure = Figure {
    name: "intents",
    what: "small mutations acknowledged durably over mTLS, by 1 caller and by 64",
    floor: "a bare tonic handler that appends the same bytes and fdatasyncs, for 64 in groups",
    run,
};

const MANY: usize = 64;
/// The rows that one such mutation writes.
const ROWS: [&str; 5] = ["meta", "slice/", "vm/", "event/", "request/"];
const WORKERS: [&str; 2] = ["w1", "w2"];

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let certificates = Certificates::new()?;
    let mut controller = Controller::new(&certificates, "[nodes]\nheartbeat = \"2s\"\n")?;
    let runtime = runtime()?;
    // Clients are made outside of a task.
    let _within = runtime.enter();
    let bytes = prepare(&mut controller, &runtime)?;
    controller.start()?;
    let ours = Callers::new(&controller, &controller.endpoint())?;
    let folder = tempfile::tempdir().map_err(LabError::io("cannot make a folder"))?;
    // Answers and journal entries are kept up to a number: beyond it each commit deletes as well.
    runtime.block_on(ours.rate(MANY, bench.size(Duration::from_secs(8), Duration::from_millis(100))))?;
    let mut rows = Vec::new();
    for (callers, goal) in [(1, 0.6), (MANY, 0.8)] {
        let mut bare = Asked::start(&Part::Acknowledge(Order {
            bundle: certificates.of_controller()?,
            file: folder.path().join(callers.to_string()),
            bytes,
            together: callers > 1,
        }))?;
        let floor = Callers::new(&controller, &bare.hear::<String>()?)?;
        let time = bench.size(Duration::from_secs(2), Duration::from_millis(100));
        let of = |side: &Callers| runtime.block_on(side.rate(callers, time));
        let (ours, floor) = interleave(bench.size(7, 1), || of(&ours), || of(&floor))?;
        let goal = Goal::AtLeastTimes(goal);
        rows.push(Row::of(format!("intents/{callers}"), "1/s", &ours, &floor, goal));
    }
    Ok(rows)
}

/// As a daemon's: a thread for each core.
pub(super) fn runtime() -> Result<Runtime, LabError> {
    Runtime::new().map_err(LabError::io("cannot start a runtime"))
}

/// Two workers and a slice for each caller. Returns how many bytes a mutation writes.
fn prepare(controller: &mut Controller, runtime: &Runtime) -> Result<usize, LabError> {
    controller.start()?;
    runtime.block_on(async {
        for worker in WORKERS {
            Node::connect(controller, Held::nothing(Role::Worker, worker)).await?;
        }
        let request = ApplySlicesRequest {
            request_id: new_request_id(),
            slices: (0..MANY).map(slice).collect(),
            ..ApplySlicesRequest::default()
        };
        controller
            .operator()?
            .slices()
            .apply_slices(request)
            .await
            .map_err(other)
    })?;
    runtime.block_on(Callers::new(controller, &controller.endpoint())?.rate(1, Duration::from_millis(20)))?;
    controller.stop()?;
    trees::bytes_of_a_mutation(&controller.database(), &ROWS)
}

fn slice(number: usize) -> SliceSpec {
    let vm = VmSpec {
        name: "vm".to_owned(),
        worker: WORKERS[0].to_owned(),
        data_interfaces_count: 1,
        ..VmSpec::default()
    };
    SliceSpec {
        name: name(number),
        vms: vec![vm],
        ..SliceSpec::default()
    }
}

fn name(caller: usize) -> String {
    format!("slice-{caller:02}")
}

/// Connections of all callers.
struct Callers(Vec<Client>);

impl Callers {
    fn new(controller: &Controller, endpoint: &str) -> Result<Self, LabError> {
        let client = |_| controller.client(Role::Operator, "operator", endpoint);
        (0..MANY).map(client).collect::<Result<_, _>>().map(Self)
    }

    /// Mutations a second of that many callers, each as fast as it is answered.
    async fn rate(&self, callers: usize, time: Duration) -> Result<f64, LabError> {
        let clients: Vec<&Client> = self.0.iter().take(callers).collect();
        // Each connects, and what follows is not its first call.
        try_join_all(
            clients
                .iter()
                .enumerate()
                .map(|(caller, client)| call(client, caller, 0)),
        )
        .await?;
        let begin = Instant::now();
        let calls = clients.into_iter().enumerate().map(|(caller, client)| {
            let client = client.clone();
            let task = tokio::spawn(async move { calls(&client, caller, begin + time).await });
            async move { task.await.map_err(other)? }
        });
        let done: u32 = try_join_all(calls).await?.into_iter().sum();
        Ok(f64::from(done) / begin.elapsed().as_secs_f64())
    }
}

async fn calls(client: &Client, caller: usize, until: Instant) -> Result<u32, LabError> {
    let mut done = 0;
    while Instant::now() < until {
        done += 1;
        call(client, caller, done).await?;
    }
    Ok(done)
}

async fn call(client: &Client, caller: usize, turn: u32) -> Result<(), LabError> {
    let request = MoveVmRequest {
        request_id: new_request_id(),
        slice: name(caller),
        name: "vm".to_owned(),
        worker: WORKERS[usize::from(turn % 2 == 1)].to_owned(),
        expected_revision: 0,
        // Nobody needs to be connected for it.
        force: true,
    };
    client.slices().move_vm(request).await.map(drop).map_err(other)
}
