//! What a worker's resources ask of the switch and of the kernel. Pure.

use std::{collections::BTreeMap, time::Duration};

use trunkline_proto::resource::Spec;

use crate::{
    config::{DatapathChoice, SwitchSection},
    node::{Desired, HostFacts},
    ovsdb,
    switch::{BridgeSpec, Datapath, FailMode, Mark, SwitchPort, SwitchState, UplinkSpec},
    tap::Tap,
};

/// How long the first pass is put off for a database or a bridge that does not answer.
pub(super) const KNOWN_WAIT: Duration = Duration::from_millis(500);

/// The fixed part: the bridge and what marks our things on it.
#[derive(Debug, Clone)]
pub struct Base {
    /// Our mark.
    pub mark: Mark,
    /// The bridge.
    pub bridge: BridgeSpec,
    /// Name of the uplink, if there is one.
    pub uplink: Option<String>,
}

impl Base {
    /// From the configuration of a node.
    pub fn new(node: &str, switch: &SwitchSection, fail_mode: FailMode) -> Self {
        let SwitchSection {
            socket: _,
            bridge,
            uplink,
            adopt,
            datapath,
        } = switch;
        Self {
            mark: Mark::new(node),
            bridge: BridgeSpec {
                name: bridge.clone(),
                datapath: match datapath {
                    DatapathChoice::Auto => Datapath::detect(),
                    DatapathChoice::System => Datapath::System,
                    DatapathChoice::Netdev => Datapath::Netdev,
                },
                adopt: *adopt,
                fail_mode,
            },
            uplink: uplink.clone(),
        }
    }

    /// Waits until that can be known: with the database, which a pass needs as well. One that is away does not keep the node waiting.
    pub async fn known(&self, ovs: &ovsdb::Client) {
        // Told later, then.
        let _ = ovs.ready(KNOWN_WAIT).await;
    }

    /// What a node with this bridge is built on, as far as it is known.
    pub fn facts(&self, ovs: &ovsdb::Client) -> HostFacts {
        let snapshot = ovs.snapshot();
        let bridge = snapshot.as_ref().and_then(|s| s.bridge(&self.bridge.name));
        let datapath = match bridge.map(|(_, bridge)| &*bridge.datapath_type) {
            // The database's default is written as nothing.
            Some("") => "system",
            Some(kind) => kind,
            None => self.bridge.datapath.as_str(),
        };
        HostFacts {
            datapath: datapath.to_owned(),
            // ovs-vswitchd itself does not write it; its start script does.
            ovs_version: snapshot.as_ref().map_or_else(String::new, |s| {
                s.root.ovs_version.clone().unwrap_or_else(|| "unknown".to_owned())
            }),
            uplink: self.uplink.clone().unwrap_or_default(),
        }
    }

    /// Refuses what could never be realised beside them.
    pub fn validate(&self, spec: &Spec) -> Result<(), String> {
        let Spec::Port(port) = spec else { return Ok(()) };
        let name = port.tap.as_str();
        if name == self.bridge.name {
            return Err(format!("{name} is the name of this node's bridge"));
        }
        if self.uplink.as_deref() == Some(name) {
            return Err(format!("{name} is the name of this node's uplink"));
        }
        Ok(())
    }

    /// The switch with nothing on it but the uplink, which carries nothing.
    pub fn empty(&self) -> SwitchState {
        let uplink = self.uplink.clone().map(|name| UplinkSpec {
            name,
            vlans: Default::default(),
        });
        SwitchState {
            mark: self.mark.clone(),
            bridge: self.bridge.clone(),
            uplink,
            ports: BTreeMap::new(),
        }
    }
}

/// The whole switch as it is to be.
pub(super) fn switch(base: &Base, desired: &Desired) -> SwitchState {
    let mut state = base.empty();
    for (_, _, port) in desired.ports() {
        state.ports.insert(port.tap.to_string(), port.into());
    }
    if let (Some(uplink), Some((_, _, trunk))) = (&mut state.uplink, desired.trunks().next()) {
        uplink.vlans.clone_from(&trunk.vlans);
    }
    state
}

/// Every TAP as it is to be.
pub(super) fn taps(desired: &Desired) -> impl Iterator<Item = Tap<&str>> {
    desired.ports().map(|(_, _, port)| port.into())
}

/// A port without its device must not be in the switch: the name could be somebody else's.
pub(super) fn without(mut state: SwitchState, missing: &BTreeMap<String, String>) -> SwitchState {
    state
        .ports
        .retain(|name, _: &mut SwitchPort| !missing.contains_key(name));
    state
}
