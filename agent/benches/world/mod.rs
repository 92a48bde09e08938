//! A worker of any size, with everything as it should be: what the planners are given when there is nothing to do.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use trunkline_agent::flows::{Guest, Network, Segment, StormLimits, Uplink};
use trunkline_agent::netlink::Link;
use trunkline_agent::switch::{
    self, BridgeSpec, BridgeStep, Datapath, Device, FailMode, Mark, Observed, ObservedBridge, ObservedInterface,
    ObservedPort, PortColumns, SwitchState, UplinkSpec,
};
use trunkline_agent::{openflow, tap};
use trunkline_proto::resource::{Port, PortOwner};
use trunkline_proto::{InterfaceName, LinkSubnet, Mac, PortName, VlanId, VmId};
use uuid::Uuid;

const UPLINK: &str = "trunk0";
const BRIDGE: &str = "br-int";
const MTU: u16 = 1500;
/// Ports of a VM, and of a link on this worker.
const EACH: u32 = 4;

/// A worker with its ports.
pub(crate) struct World {
    ports: Vec<Port>,
    switch: SwitchState,
    observed: Observed,
    network: Network,
    flows: openflow::FlowSet,
}

impl World {
    /// With that many ports, which are all there.
    #[must_use]
    pub(crate) fn new(count: u32) -> Self {
        let ports: Vec<Port> = (0..count).map(port).collect();
        let vlans: BTreeSet<VlanId> = ports.iter().filter_map(|port| port.vlan).collect();
        let switch = SwitchState {
            mark: Mark::new("w1"),
            bridge: BridgeSpec {
                name: BRIDGE.to_owned(),
                datapath: Datapath::Netdev,
                adopt: false,
                fail_mode: FailMode::Secure,
            },
            uplink: Some(UplinkSpec {
                name: UPLINK.to_owned(),
                vlans: vlans.clone(),
            }),
            ports: ports.iter().map(|port| (port.tap.to_string(), port.into())).collect(),
        };
        let network = network(&ports, vlans);
        Self {
            observed: realised(&ports, &switch),
            flows: trunkline_agent::flows::compile(&network),
            ports,
            switch,
            network,
        }
    }

    /// Plans TAPs and switch ports. True: there is nothing to do.
    #[must_use]
    pub(crate) fn plan_ports(&self) -> bool {
        let taps = self.ports.iter().map(tap::Tap::from);
        let taps = tap::plan(taps, self.observed.devices.values().map(|device| &device.link));
        let ports = switch::plan(&self.switch, &self.observed);
        taps.is_empty() && ports.is_ok_and(|plan| plan.is_empty())
    }

    /// Compiles the flows and compares them with those that are there. True: there is nothing to do.
    #[must_use]
    pub(crate) fn plan_flows(&self) -> bool {
        let wanted = trunkline_agent::flows::compile(&self.network);
        openflow::plan(&wanted, &self.flows).is_empty()
    }
}

fn vlan(number: u32) -> VlanId {
    VlanId::try_from(500 + number % 3500).expect("a VLAN")
}

fn port(number: u32) -> Port {
    let vm = VmId::try_from(VmId::MIN + number / EACH).expect("an id");
    let index = u8::try_from(number % EACH).expect("an index") + 1;
    let interface = InterfaceName::new(index).expect("an interface");
    let vlan = vlan(number / EACH);
    Port {
        tap: PortName::tap(vm, interface).expect("a name"),
        vlan: Some(vlan),
        mac: Mac::of_interface(vm, index),
        addresses: LinkSubnet::derived(vlan)
            .guest_addresses()
            .skip(usize::from(index))
            .take(1)
            .collect(),
        mtu: MTU,
        owner: PortOwner {
            slice: "shop".to_owned(),
            vm: format!("vm-{vm}"),
            interface: interface.to_string(),
        },
    }
}

/// What the switch's own plan makes of an empty host.
fn realised(ports: &[Port], switch: &SwitchState) -> Observed {
    let mut host = Observed::default();
    let names = ports.iter().map(|port| port.tap.as_str()).chain([UPLINK, BRIDGE]);
    host.devices = names
        .zip(1..)
        .map(|(name, index)| (name.to_owned(), device(name, index)))
        .collect();
    let plan = switch::plan(switch, &host).expect("a bridge can be had");
    let BridgeStep::Create {
        name,
        datapath,
        fail_mode,
        external_ids,
        local,
    } = plan.bridge
    else {
        unreachable!("there is no bridge yet")
    };
    let id = Uuid::from_u128(1);
    let bridge = (id, name.clone());
    let made = ObservedBridge {
        id,
        datapath,
        fail_mode,
        external_ids,
    };
    host.bridges = BTreeMap::from([(name.clone(), made)]);
    let all = plan
        .add
        .into_iter()
        .map(|addition| (addition.name, addition.columns))
        .chain([(name, *local)]);
    let rows = all.zip(2..).map(|((name, columns), row)| {
        let index = host.devices.get(&name).map(|device| i64::from(device.link.index));
        let port = observed(&name, columns, row, index, bridge.clone());
        (name, port)
    });
    host.ports = rows.collect();
    host
}

fn observed(name: &str, columns: PortColumns, row: u128, ifindex: Option<i64>, bridge: (Uuid, String)) -> ObservedPort {
    let interface = ObservedInterface {
        id: Uuid::from_u128(1 << 64 | row),
        name: name.to_owned(),
        ofport: columns.interface.ofport_request.or(i64::try_from(row).ok()),
        ifindex,
        mtu: Some(i64::from(MTU)),
        ..ObservedInterface::default()
    };
    ObservedPort {
        id: Uuid::from_u128(row),
        bridge: Some(bridge),
        columns,
        interfaces: vec![interface],
    }
}

fn device(name: &str, index: u32) -> Device {
    let tap = name.starts_with("tap_");
    Device {
        link: Link {
            index,
            name: name.to_owned(),
            kind: tap.then(|| "tun".to_owned()),
            up: name != BRIDGE,
            carrier: true,
            mtu: u32::from(MTU),
            alias: tap.then(|| tap::ALIAS.to_owned()),
            ..Link::default()
        },
        shielded: true,
        ..Device::default()
    }
}

fn network(ports: &[Port], vlans: BTreeSet<VlanId>) -> Network {
    let mut segments: BTreeMap<VlanId, Segment> = BTreeMap::new();
    for port in ports {
        segments
            .entry(port.vlan.expect("a VLAN"))
            .or_default()
            .known
            .insert(port.mac);
    }
    let guests = ports.iter().zip(2..).map(|(port, number)| {
        let guest = Guest {
            vlan: port.vlan,
            mac: port.mac,
            addresses: port.addresses.iter().copied().collect(),
            limits: StormLimits::default(),
        };
        (number, guest)
    });
    Network {
        uplink: Some(Uplink { port: 1, vlans }),
        probe: None,
        guests: guests.collect(),
        segments,
    }
}
