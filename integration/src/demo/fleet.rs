//! The fleet in an operator's hands: nodes that connect, slices that are applied, guests that are started.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use trunkline_proto::wire::Slice;

use crate::LabError;
use crate::api::Api;
use crate::guest::{Guest, Kind, Spec};
use crate::lab::{Lab, programs};
use crate::wait::until;

const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// A lab and the operator's connection to it.
pub struct Fleet<'a> {
    lab: &'a Lab,
    api: Api,
}

impl<'a> Fleet<'a> {
    /// Connects as the operator.
    pub fn connect(lab: &'a Lab) -> Result<Self, LabError> {
        let api = Api::connect(&lab.controller_endpoint(), &lab.bundle("operator"))?;
        Ok(Self { lab, api })
    }

    /// The connection.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Waits until every node has a session with the controller.
    pub fn await_nodes(&self) -> Result<(), LabError> {
        let wanted = self.lab.layout().nodes();
        until("every node's session with the controller", CONNECT_LIMIT, || {
            let nodes = self.api.nodes().map_err(|error| error.chain())?;
            let connected = |name: &String| nodes.iter().any(|node| node.connected && &node.name == name);
            let missing: Vec<&String> = wanted.iter().filter(|name| !connected(name)).collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("missing: {missing:?}"))
            }
        })
    }

    /// Applies a topology, deploys it and waits until it is ready, as an operator would: with `trunkctl`.
    pub fn apply(&self, topology: &str, file: &str) -> Result<(), LabError> {
        let path = self.lab.folder().join(file);
        std::fs::write(&path, topology).map_err(LabError::io(format!("cannot write {}", path.display())))?;
        self.trunkctl(&["apply", "-f", &path.display().to_string(), "--deploy", "--wait"])
    }

    /// Runs `trunkctl` with our standard error for its output. It runs on the controller's host, so that it ends with
    /// the lab, whatever happens to us.
    pub fn trunkctl(&self, arguments: &[&str]) -> Result<(), LabError> {
        let mut command = Command::new(programs::find("trunkctl")?);
        command
            .args(arguments)
            .process_group(0)
            .stdin(std::process::Stdio::null())
            .stdout(std::io::stderr());
        command.env("TRUNKLINE_CONTROLLER", "https://127.0.0.1:7443");
        command.env("TRUNKLINE_BUNDLE", self.lab.bundle("operator"));
        let host = self.lab.host(crate::lab::layout::CONTROLLER)?;
        let text = format!("trunkctl {}", arguments.join(" "));
        let status = host.spawn_command(command, &text)?.wait();
        if status.success() {
            Ok(())
        } else {
            Err(LabError::Other(format!("{text} ended with {status}")))
        }
    }
}

/// Starts a guest for every VM, all at once; those named in `machines` as real machines.
pub fn start_guests(lab: &Lab, slices: &[Slice], machines: &[&str]) -> Result<BTreeMap<String, Guest>, LabError> {
    let specs = slices.iter().flat_map(|slice| &slice.vms).map(Spec::of);
    std::thread::scope(|scope| {
        let start = |spec: Spec| {
            let kind = if machines.contains(&spec.name.as_str()) {
                Kind::Machine
            } else {
                Kind::Namespace
            };
            scope.spawn(move || {
                let name = spec.name.clone();
                let spec = match kind {
                    Kind::Machine => spec.with_netdev(&lab.controller_endpoint(), &lab.bundle("operator"))?,
                    Kind::Namespace => spec,
                };
                Guest::start(lab.host(&spec.worker)?, spec, kind).map(|guest| (name, guest))
            })
        };
        let starting: Vec<_> = specs.map(start).collect();
        starting.into_iter().map(crate::demo::joined).collect()
    })
}
