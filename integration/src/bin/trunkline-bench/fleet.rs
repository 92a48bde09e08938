//! A controller by itself and a simulated fleet around it, over loopback: processes of their own, as they would be.
//!
//! The controller's state is on the disk that temporary files are on, its configuration is the default one. Certificates come from the
//! real authority; they and the nodes' inboxes are in memory.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use trunkline_certs::Role;
use trunkline_certs::authority::{Authority, Leaf};
use trunkline_integration::LabError;
use trunkline_integration::api::Api;
use trunkline_integration::lab::{CONTROLLER_PROGRAM, programs};
use trunkline_integration::wait::until;
use trunkline_proto::client::{ApiError, new_request_id};
use trunkline_proto::wire::{ApplySlicesRequest, ApplySlicesResponse, LinkSpec, SliceSpec, VmSpec};

use crate::floor::bare::{handshakes, streams};
use crate::part::{Asked, Process};
use crate::simulator::{self, Question, nanos};

/// Where nothing is written to a disk.
const MEMORY: &str = "/dev/shm";
const READY: Duration = Duration::from_secs(60);
/// Guests of one link: each of them is on a node of its own.
const RACK: usize = 10;

/// Certificates of everybody.
pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// A new authority, and bundles of a controller, an operator and so many nodes.
    pub(crate) fn new(nodes: usize) -> Result<Self, LabError> {
        let folder = tempfile::tempdir_in(MEMORY).map_err(LabError::io("cannot make a folder in memory"))?;
        let failed = |error| simulator::failed(folder.path(), &error);
        let authority = Authority::create(&folder.path().join("authority"), "bench.test").map_err(failed)?;
        let leaf = |role, name: &str| Leaf {
            role,
            name: name.to_owned(),
            dns: Vec::new(),
            ips: match role {
                Role::Controller => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
                _ => Vec::new(),
            },
            days: 2,
        };
        let issue = |role, name: &str| {
            authority
                .issue(&leaf(role, name), &folder.path().join(name))
                .map_err(failed)
        };
        issue(Role::Controller, "controller")?;
        issue(Role::Operator, "operator")?;
        for index in 0..nodes {
            issue(Role::Worker, &simulator::name(index))?;
        }
        Ok(Self { folder })
    }

    /// Folder of the bundles.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The controller's.
    pub(crate) fn controller(&self) -> PathBuf {
        self.path().join("controller")
    }
}

/// A controller of its own.
pub(crate) struct Controller {
    process: Option<Process>,
    folder: TempDir,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Controller {
    /// Starts one without any state.
    pub(crate) fn start(certificates: &Certificates) -> Result<Self, LabError> {
        let folder = tempfile::tempdir().map_err(LabError::io("cannot make a folder"))?;
        let mut controller = Self {
            process: None,
            address: free_address()?,
            metrics: free_address()?,
            folder,
        };
        let config = format!(
            "listen = \"{}\"\nbundle = \"{}\"\n\n[state]\ndir = \"{}\"\n\n[telemetry]\n\n[metrics]\nlisten = \"{}\"\n",
            controller.address,
            certificates.controller().display(),
            controller.folder.path().join("state").display(),
            controller.metrics,
        );
        std::fs::write(controller.config(), config).map_err(LabError::io("cannot write a configuration"))?;
        controller.run()?;
        controller.await_ready()?;
        Ok(controller)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("controller.toml")
    }

    /// Starts the program; when it began.
    pub(crate) fn run(&mut self) -> Result<u64, LabError> {
        let program = programs::find(CONTROLLER_PROGRAM)?;
        let arguments = [
            "run".to_owned(),
            "--config".to_owned(),
            self.config().display().to_string(),
        ];
        let at = nanos();
        self.process = Some(Process::start(&program, &arguments, &self.folder.path().join("log"))?);
        Ok(at)
    }

    /// Ends it as if its machine had died.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Waits until somebody answers.
    pub(crate) fn await_ready(&mut self) -> Result<(), LabError> {
        let (address, metrics) = (self.address, self.metrics);
        let answers = || TcpStream::connect(address).and_then(|_| TcpStream::connect(metrics));
        until("the controller to listen", READY, || {
            answers().map(drop).map_err(|error| error.to_string())
        })?;
        self.process.as_mut().map_or(Ok(()), Process::must_live)
    }

    /// `https://127.0.0.1:12345`.
    pub(crate) fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// An operator's connection.
    pub(crate) fn api(&self, certificates: &Certificates) -> Result<Api, LabError> {
        Api::connect(&self.endpoint(), &certificates.path().join("operator"))
    }

    /// Of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::id)
    }

    /// A counter or gauge without labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64, LabError> {
        let exchange = || {
            let mut stream = TcpStream::connect(self.metrics)?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        };
        let text = exchange().map_err(LabError::io("cannot read metrics"))?;
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        found.ok_or_else(|| LabError::Other(format!("there is no metric {name}")))
    }
}

/// Simulated nodes in a process of their own.
pub(crate) struct Simulator {
    part: Asked,
    _state: TempDir,
}

impl Simulator {
    /// Starts so many nodes and waits until each is welcome.
    pub(crate) fn start(certificates: &Certificates, endpoint: &str, nodes: usize) -> Result<Self, LabError> {
        let state = tempfile::tempdir_in(MEMORY).map_err(LabError::io("cannot make a folder in memory"))?;
        let text = |path: &Path| path.display().to_string();
        let arguments = [
            "--endpoint".to_owned(),
            endpoint.to_owned(),
            "--bundles".to_owned(),
            text(certificates.path()),
            "--state".to_owned(),
            text(state.path()),
            "--nodes".to_owned(),
            nodes.to_string(),
        ];
        let part = Asked::start("simulate", &arguments, &state.path().join("log"))?;
        let mut simulator = Self { part, _state: state };
        simulator.ask::<simulator::Reached>(&Question::Connected(nodes))?;
        Ok(simulator)
    }

    /// Asks.
    pub(crate) fn ask<A: DeserializeOwned>(&mut self, question: &Question) -> Result<A, LabError> {
        self.part.ask(question)
    }

    /// When so many nodes had this generation.
    pub(crate) fn received(&mut self, generation: u64, nodes: usize) -> Result<u64, LabError> {
        let reached: simulator::Reached = self.ask(&Question::Received { generation, nodes })?;
        Ok(reached.at)
    }
}

/// Folder of what a part writes to its standard error.
fn log_folder() -> Result<TempDir, LabError> {
    tempfile::tempdir().map_err(LabError::io("cannot make a folder"))
}

/// A server of bare streams.
pub(crate) struct BareStreams {
    part: Asked,
    port: u16,
    _log: TempDir,
}

impl BareStreams {
    /// Starts one.
    pub(crate) fn start(certificates: &Certificates) -> Result<Self, LabError> {
        let log = log_folder()?;
        let arguments = ["--bundle".to_owned(), certificates.controller().display().to_string()];
        let mut part = Asked::start("bare-streams", &arguments, &log.path().join("log"))?;
        let port = part.ask(&streams::Question::Port)?;
        Ok(Self { part, port, _log: log })
    }

    /// Asks.
    pub(crate) fn ask<A: DeserializeOwned>(&mut self, question: &streams::Question) -> Result<A, LabError> {
        self.part.ask(question)
    }

    /// `https://127.0.0.1:12345`.
    pub(crate) fn endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Of its process.
    pub(crate) fn id(&self) -> u32 {
        self.part.id()
    }
}

/// A server of bare handshakes.
pub(crate) struct BareHandshakes {
    part: Asked,
    _log: TempDir,
}

impl BareHandshakes {
    /// Starts one; when it began.
    pub(crate) fn start(certificates: &Certificates, address: SocketAddr) -> Result<(Self, u64), LabError> {
        let log = log_folder()?;
        let bundle = certificates.controller().display().to_string();
        let arguments = [
            "--bundle".to_owned(),
            bundle,
            "--address".to_owned(),
            address.to_string(),
        ];
        let began = nanos();
        let part = Asked::start("bare-handshakes", &arguments, &log.path().join("log"))?;
        Ok((Self { part, _log: log }, began))
    }

    /// When the last of so many handshakes was done.
    pub(crate) fn done(&mut self, count: usize) -> Result<u64, LabError> {
        let reached: simulator::Reached = self.part.ask(&handshakes::Question::Done(count))?;
        Ok(reached.at)
    }

    /// Of its process.
    pub(crate) fn id(&self) -> u32 {
        self.part.id()
    }
}

/// Callers of bare handshakes.
pub(crate) struct BareCallers {
    part: Asked,
    _log: TempDir,
}

impl BareCallers {
    /// Starts so many; they wait.
    pub(crate) fn start(certificates: &Certificates, address: SocketAddr, nodes: usize) -> Result<Self, LabError> {
        let log = log_folder()?;
        let arguments = [
            "--address".to_owned(),
            address.to_string(),
            "--bundles".to_owned(),
            certificates.path().display().to_string(),
            "--nodes".to_owned(),
            nodes.to_string(),
        ];
        let mut part = Asked::start("bare-callers", &arguments, &log.path().join("log"))?;
        // They have read their certificates once they answer.
        part.ask::<simulator::Reached>(&handshakes::Question::Done(0))?;
        Ok(Self { part, _log: log })
    }

    /// Lets all of them call.
    pub(crate) fn call(&mut self) -> Result<(), LabError> {
        self.part.ask(&handshakes::Question::Call)
    }
}

/// A fleet with a controller that an operator is connected to.
pub(crate) struct Fleet {
    pub(crate) simulator: Simulator,
    pub(crate) api: Api,
    pub(crate) controller: Controller,
    pub(crate) nodes: usize,
}

impl Fleet {
    /// A new controller and so many nodes, which hold nothing.
    pub(crate) fn empty(certificates: &Certificates, nodes: usize) -> Result<Self, LabError> {
        let controller = Controller::start(certificates)?;
        let simulator = Simulator::start(certificates, &controller.endpoint(), nodes)?;
        let api = controller.api(certificates)?;
        Ok(Self {
            simulator,
            api,
            controller,
            nodes,
        })
    }

    /// The same, and each node has a guest on a link with nine others.
    pub(crate) fn start(certificates: &Certificates, nodes: usize) -> Result<Self, LabError> {
        let mut fleet = Self::empty(certificates, nodes)?;
        let racks = racks(nodes, 1500);
        for some in racks.chunks(100) {
            fleet.deploy(some.to_vec())?;
        }
        // Every node has got its own, with whichever generation that came.
        fleet.simulator.received(1, nodes)?;
        Ok(fleet)
    }

    /// Stops every process of it for as long as `meanwhile` takes: it must be shorter than a missed heartbeat.
    pub(crate) fn without<T>(&mut self, meanwhile: impl FnOnce() -> Result<T, LabError>) -> Result<T, LabError> {
        let all = [self.controller.id(), self.simulator.part.id()];
        let tell = |signal| all.iter().try_for_each(|id| kill(pid(*id), signal));
        tell(Signal::SIGSTOP)?;
        let done = meanwhile();
        tell(Signal::SIGCONT)?;
        let nodes = self.nodes;
        self.simulator.ask::<simulator::Reached>(&Question::Connected(nodes))?;
        done
    }

    /// Deploys slices; their generation.
    pub(crate) fn deploy(&self, slices: Vec<SliceSpec>) -> Result<u64, LabError> {
        let request = ApplySlicesRequest {
            request_id: new_request_id(),
            slices,
            deploy: true,
            ..ApplySlicesRequest::default()
        };
        let applied = self.api.block_on(self.api.client().slices().apply_slices(request));
        let ApplySlicesResponse { generation, .. } = applied
            .map_err(|status| simulator::failed(Path::new("deploy"), &ApiError::from(status)))?
            .into_inner();
        Ok(generation)
    }
}

/// One slice for each ten nodes, one guest on each.
pub(crate) fn racks(nodes: usize, mtu: u32) -> Vec<SliceSpec> {
    let all: Vec<usize> = (0..nodes).collect();
    let rack = |(number, nodes): (usize, &[usize])| slice(format!("rack{number:04}"), nodes, mtu);
    all.chunks(RACK).enumerate().map(rack).collect()
}

/// A slice with one link, and a guest on each of these nodes.
pub(crate) fn slice(name: String, nodes: &[usize], mtu: u32) -> SliceSpec {
    let vm = |(number, node): (usize, &usize)| VmSpec {
        name: format!("v{number}"),
        worker: simulator::name(*node),
        data_interfaces_count: 1,
        ..VmSpec::default()
    };
    let link = LinkSpec {
        name: "l".to_owned(),
        ends: (0..nodes.len()).map(|number| format!("v{number}.eth1")).collect(),
        mtu,
        ..LinkSpec::default()
    };
    SliceSpec {
        name,
        vms: nodes.iter().enumerate().map(vm).collect(),
        links: if nodes.len() > 1 { vec![link] } else { Vec::new() },
        vlan_pool_size: 1,
    }
}

/// A port that nobody has at this moment.
pub(crate) fn free_address() -> Result<SocketAddr, LabError> {
    let bind = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    bind().map_err(LabError::io("cannot find a free port"))
}

/// Processor time that a process has used, in seconds.
pub(crate) fn cpu(id: u32) -> Result<f64, LabError> {
    let clock: ClockId = clock_getcpuclockid(pid(id))?;
    Ok(Duration::from(clock_gettime(clock)?).as_secs_f64())
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap_or(0))
}

/// Memory that a process has, in bytes.
pub(crate) fn resident(id: u32) -> Result<f64, LabError> {
    let path = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&path).map_err(LabError::io(format!("cannot read {path}")))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let kilobytes = kilobytes.ok_or_else(|| LabError::Other(format!("{path} says nothing of memory")))?;
    Ok(kilobytes * 1024.0)
}
