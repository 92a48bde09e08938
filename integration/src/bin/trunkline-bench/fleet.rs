//! A simulated fleet around a controller by itself: processes of their own, as they would be.

use std::rc::Rc;

use nix::sys::signal::{Signal, kill};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use trunkline_certs::Role;
use trunkline_integration::LabError;
use trunkline_integration::api::Api;
use trunkline_proto::wire::{LinkSpec, SliceSpec, VmSpec};

use crate::controller::{Certificates, Controller, memory};
use crate::operator;
use crate::part::{Asked, Part};
use crate::process::pid;
use crate::simulator::{self, Order, Question, Reached};

/// Guests of one link: each of them is on a node of its own.
const RACK: usize = 10;

/// Certificates of a fleet of so many nodes.
pub(crate) fn certificates(nodes: usize) -> Result<Rc<Certificates>, LabError> {
    let certificates = Certificates::new()?;
    certificates.of_controller()?;
    certificates.of_operator()?;
    for index in 0..nodes {
        certificates.bundle(Role::Worker, &simulator::name(index))?;
    }
    Ok(certificates)
}

/// Simulated nodes in a process of their own. Their inboxes are in memory.
pub(crate) struct Simulator {
    part: Asked,
    _state: TempDir,
}

impl Simulator {
    /// Starts so many nodes and waits until each is welcome.
    pub(crate) fn start(certificates: &Certificates, endpoint: &str, nodes: usize) -> Result<Self, LabError> {
        let state = memory()?;
        let part = Asked::start(&Part::Simulator(Order {
            endpoint: endpoint.to_owned(),
            bundles: certificates.path().to_owned(),
            state: state.path().to_owned(),
            nodes,
        }))?;
        let mut simulator = Self { part, _state: state };
        simulator.ask::<Reached>(&Question::Connected(nodes))?;
        Ok(simulator)
    }

    /// Asks.
    pub(crate) fn ask<A: DeserializeOwned>(&mut self, question: &Question) -> Result<A, LabError> {
        self.part.ask(question)
    }

    /// When so many nodes had this generation.
    pub(crate) fn received(&mut self, generation: u64, nodes: usize) -> Result<u64, LabError> {
        let reached: Reached = self.ask(&Question::Received { generation, nodes })?;
        Ok(reached.at)
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
    pub(crate) fn empty(certificates: &Rc<Certificates>, nodes: usize) -> Result<Self, LabError> {
        let mut controller = Controller::new(certificates, "")?;
        controller.start()?;
        let simulator = Simulator::start(certificates, &controller.endpoint(), nodes)?;
        let api = Api::connect(&controller.endpoint(), &certificates.of_operator()?)?;
        Ok(Self {
            simulator,
            api,
            controller,
            nodes,
        })
    }

    /// The same, and each node has a guest on a link with nine others.
    pub(crate) fn start(certificates: &Rc<Certificates>, nodes: usize) -> Result<Self, LabError> {
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
        self.simulator.ask::<Reached>(&Question::Connected(nodes))?;
        done
    }

    /// Deploys slices; their generation.
    pub(crate) fn deploy(&self, slices: Vec<SliceSpec>) -> Result<u64, LabError> {
        Ok(operator::apply(&self.api, slices, true)?.generation)
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
