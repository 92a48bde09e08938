//! An agent that starts with everything in place: from its start until it says that it is ready, which it does after its first pass,
//! and the controller says that it is in step and knows the state of all that it holds. What it writes meanwhile is counted from outside.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use trunkline_integration::LabError;
use trunkline_integration::lab::layout::{CONTROLLER_ADDRESS, CONTROLLER_PORT};
use trunkline_integration::lab::{AGENT_PROGRAM, Host, Running, programs};
use trunkline_integration::wait::until;
use trunkline_proto::client::ApiError;
use trunkline_proto::wire::{GetNodeRequest, Kind, State};

use crate::figure::{Bench, Figure, Goal, Row};
use crate::floor::database::Database;
use crate::floor::netlink::Netlink;
use crate::floor::openflow::OpenFlow;
use crate::floor::sync::Places;
use crate::floor::{DATABASE, MANAGEMENT};
use crate::held::{Fleet, Size};
use crate::part::{Asked, Part};
use crate::series::{Series, interleave};

pub(crate) const FIGURE: Figure = Figure {
    name: "resync",
    what: "an agent starts holding 800 ports, nothing to do: exec to in step; and what it writes",
    floor: "exec, one mTLS handshake, one OVSDB dump, one link dump, one flow dump",
    run,
};

const NODE: &str = "w1";
const NOTIFY: &str = "/run/notify-bench";
const LIMIT: Duration = Duration::from_secs(60);

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let size = Size {
        vms: bench.size(50, 2),
        dhcp: 0,
    };
    bench.say(&format!("a fleet of {} ports a worker", size.ports()));
    let fleet = Fleet::start(size)?;
    let host = fleet.host(NODE)?;
    let places = || Places {
        bundle: fleet.lab.bundle(NODE),
        controller: SocketAddr::from((CONTROLLER_ADDRESS, CONTROLLER_PORT)),
    };
    let mut agent = None;
    let (mut said, mut writes) = (Series::default(), Series::default());
    fleet.lab.kill_daemon(NODE, AGENT_PROGRAM)?;
    let ours = || {
        drop(agent.take());
        await_gone(&fleet)?;
        fleet.settle()?;
        let mut witness = Witness::new(&host)?;
        let start = Instant::now();
        agent = Some(start_agent(&host)?);
        said.push(start.elapsed().as_secs_f64() * 1e3);
        await_in_step(&fleet, size.ports())?;
        let took = start.elapsed();
        check(&fleet)?;
        writes.push(f64::from(u32::try_from(witness.writes()?).unwrap_or(u32::MAX)));
        fleet.settle()?;
        Ok(took.as_secs_f64() * 1e3)
    };
    let floor = || {
        fleet.settle()?;
        let start = Instant::now();
        Asked::start_on(&host, &Part::Sync(places()))?.hear::<[usize; 3]>()?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let (ours, floor) = interleave(bench.size(9, 2), ours, floor)?;
    Ok(vec![
        Row::of("resync", "ms", &ours, &floor, Goal::AtMostTimes(1.5)),
        Row::of("resync/first-pass", "ms", &said, &floor, Goal::None),
        Row::alone("resync/writes", "operations", &writes, Goal::AtMost(0.0)),
    ])
}

/// Starts the agent as systemd would, and returns when it says that it is ready.
fn start_agent(host: &Arc<Host>) -> Result<Running, LabError> {
    let socket = host.run(|| {
        let _ = std::fs::remove_file(NOTIFY);
        UnixDatagram::bind(NOTIFY)
    })?;
    let socket = socket.map_err(LabError::io("cannot listen for the agent"))?;
    socket
        .set_read_timeout(Some(LIMIT))
        .map_err(LabError::io("cannot listen for the agent"))?;
    let config = host
        .folder()
        .join(format!("{AGENT_PROGRAM}.toml"))
        .display()
        .to_string();
    let argv = [
        programs::find(AGENT_PROGRAM)?.display().to_string(),
        "run".to_owned(),
        "--config".to_owned(),
        config,
    ];
    let agent = host.spawn_with(AGENT_PROGRAM, &argv, &[("NOTIFY_SOCKET", NOTIFY.to_owned())])?;
    let mut message = [0; 1024];
    loop {
        let length = socket
            .recv(&mut message)
            .map_err(LabError::io("the agent does not become ready"))?;
        let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
        if text.lines().any(|line| line == "READY=1") {
            return Ok(agent);
        }
    }
}

fn await_gone(fleet: &Fleet) -> Result<(), LabError> {
    until("the end of the agent's session", LIMIT, || {
        let nodes = fleet.api.nodes().map_err(|error| error.chain())?;
        let gone = nodes.iter().any(|node| node.name == NODE && !node.connected);
        if gone {
            Ok(())
        } else {
            Err("it is connected".to_owned())
        }
    })
}

/// Until the controller says so, and knows of as many ready resources at least as there are ports, trunk and flows of links.
fn await_in_step(fleet: &Fleet, ports: u32) -> Result<(), LabError> {
    let deadline = Instant::now() + LIMIT;
    let resources = ports + ports / 16 * 15 + 1;
    loop {
        let nodes = fleet.api.nodes()?;
        let status = nodes
            .iter()
            .find(|node| node.name == NODE)
            .and_then(|node| node.status.as_ref());
        if status.is_some_and(|status| status.in_step && status.resources_ready >= resources) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(LabError::Timeout {
                what: "the agent in step".to_owned(),
                after: LIMIT,
                seen: format!("{status:?}"),
            });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// All but probes is ready: those begin anew with the agent.
fn check(fleet: &Fleet) -> Result<(), LabError> {
    let request = GetNodeRequest { name: NODE.to_owned() };
    let call = fleet.api.block_on(fleet.api.client().fleet().get_node(request));
    let node = call
        .map_err(|status| LabError::Other(format!("{}", ApiError::from(status))))?
        .into_inner();
    let wrong = node.resources.iter().find(|resource| {
        let probe = resource.key.as_ref().is_some_and(|key| key.kind() == Kind::Probe);
        !probe && resource.state() != State::Ready
    });
    match wrong {
        Some(resource) => Err(LabError::Other(format!(
            "the agent was taken for in step, and is not: {resource:?}"
        ))),
        None => Ok(()),
    }
}

/// Counts what changes on a host: rows of the database that are a configuration's, flows, devices, addresses, settings, nftables, and
/// the agent's file of what it is to do.
struct Witness {
    database: Database,
    bridge: OpenFlow,
    route: Netlink,
    netfilter: Netlink,
    inbox: std::path::PathBuf,
    written: Option<SystemTime>,
}

impl Witness {
    fn new(host: &Arc<Host>) -> Result<Self, LabError> {
        let mut database = Database::connect(&host.path(DATABASE))?;
        database.monitor(&json!({
            "Open_vSwitch": [{"columns": ["bridges", "next_cfg", "other_config", "external_ids"]}],
            "Bridge": [{"columns": ["name", "ports", "datapath_type", "fail_mode", "other_config", "external_ids", "flow_tables"]}],
            "Port": [{"columns": ["name", "interfaces", "vlan_mode", "tag", "trunks", "protected", "other_config", "external_ids"]}],
            "Interface": [{"columns": ["name", "type", "mac", "mtu_request", "ofport_request", "options", "external_ids"]}],
        }))?;
        let mut bridge = OpenFlow::connect(&host.path(MANAGEMENT))?;
        bridge.monitor()?;
        let inbox = host.path("/var/lib/trunkline-agent/inbox");
        Ok(Self {
            database,
            bridge,
            route: host.run(Netlink::notices_of_route)??,
            netfilter: host.run(Netlink::notices_of_netfilter)??,
            written: written(&inbox),
            inbox,
        })
    }

    fn writes(&mut self) -> Result<usize, LabError> {
        let rows = self.database.changed_rows()?;
        let flows = self.bridge.changes()?;
        let (route, netfilter) = (self.route.heard()?, self.netfilter.heard()?);
        let files = usize::from(written(&self.inbox) != self.written);
        let all = rows + flows + route + netfilter + files;
        if all > 0 {
            trunkline_integration::program::console::tell(&format!(
                "written: {rows} rows, {flows} flows, {route} devices or addresses, {netfilter} of nftables, {files} files"
            ));
        }
        Ok(all)
    }
}

fn written(path: &std::path::Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}
