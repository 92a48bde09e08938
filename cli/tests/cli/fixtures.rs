//! A small cluster: two slices, two workers, a network node.

use prost_types::Timestamp;
use trunkline_proto::wire::{self, NodeRole, State, observation::Facts};

use crate::fake::Script;

/// 2026-11-21 12:00:00 UTC, and some seconds.
pub(crate) fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 1_795_262_400 + seconds,
        nanos: 0,
    })
}

fn interface(vm: u32, index: u32, vlan: u32, host: u32, link: &str) -> wire::Interface {
    let (subnet, address) = match vlan {
        0 => (String::new(), String::new()),
        400 => ("10.60.7.1".to_owned(), format!("10.60.7.{host}")),
        _ => (format!("10.64.{vlan}.1"), format!("10.64.{vlan}.{host}")),
    };
    wire::Interface {
        name: format!("eth{index}"),
        tap: format!("tap_{vm}_eth{index}"),
        mac: format!("52:54:00:03:{:02x}:{index:02x}", vm & 0xff),
        vlan,
        prefix_len: if vlan == 0 { 0 } else { 24 },
        gateway: subnet,
        address,
        link: link.to_owned(),
        mtu: 1500,
    }
}

fn vm(slice: &str, name: &str, vm_id: u32, worker: &str, interfaces: Vec<wire::Interface>) -> wire::Vm {
    wire::Vm {
        slice: slice.to_owned(),
        name: name.to_owned(),
        vm_id,
        worker: worker.to_owned(),
        placed: worker == "w2",
        internet_enabled: interfaces[0].vlan == 400,
        interfaces,
    }
}

fn shop() -> wire::Slice {
    let link = "web-eth1--db-eth1";
    let spec_vm = |name: &str, internet_enabled, worker: &str| wire::VmSpec {
        name: name.to_owned(),
        worker: worker.to_owned(),
        internet_enabled,
        data_interfaces_count: 1,
        interfaces: vec![],
    };
    let ends = vec!["web.eth1".to_owned(), "db.eth1".to_owned()];
    wire::Slice {
        name: "shop".to_owned(),
        owner: "alice".to_owned(),
        revision: 12,
        vlan_pool: Some(wire::VlanPool {
            ranges: vec![wire::VlanRange { first: 110, last: 129 }],
            size: 20,
            used: 1,
        }),
        vms: vec![
            vm(
                "shop",
                "web",
                1002,
                "w1",
                vec![interface(1002, 0, 400, 10, ""), interface(1002, 1, 110, 10, link)],
            ),
            vm(
                "shop",
                "db",
                1003,
                "w2",
                vec![interface(1003, 0, 0, 0, ""), interface(1003, 1, 110, 11, link)],
            ),
        ],
        links: vec![wire::Link {
            slice: "shop".to_owned(),
            name: link.to_owned(),
            vlan: 110,
            subnet: "10.64.110.0/24".to_owned(),
            gateway: "10.64.110.1".to_owned(),
            dhcp: true,
            ends: ends.clone(),
            mtu: 1500,
            port_security: true,
            protected: false,
        }],
        deployed: Some(deployment(3)),
        draft_differs: false,
        created: at(0),
        spec: Some(wire::SliceSpec {
            name: "shop".to_owned(),
            vms: vec![spec_vm("web", true, "w1"), spec_vm("db", false, "")],
            links: vec![wire::LinkSpec {
                ends,
                port_security: true,
                ..wire::LinkSpec::default()
            }],
            vlan_pool_size: 0,
        }),
    }
}

fn lab() -> wire::Slice {
    wire::Slice {
        name: "lab".to_owned(),
        owner: "bob".to_owned(),
        revision: 7,
        vlan_pool: Some(wire::VlanPool {
            ranges: vec![wire::VlanRange { first: 130, last: 149 }],
            size: 20,
            used: 0,
        }),
        vms: vec![vm("lab", "web", 1004, "w1", vec![interface(1004, 0, 0, 0, "")])],
        created: at(60),
        draft_differs: true,
        spec: Some(wire::SliceSpec {
            name: "lab".to_owned(),
            ..wire::SliceSpec::default()
        }),
        ..wire::Slice::default()
    }
}

pub(crate) fn deployment(number: u32) -> wire::Deployment {
    wire::Deployment {
        number,
        term: 1,
        generation: 40 + u64::from(number),
        at: at(i64::from(number) * 100),
        by: "operator/alice".to_owned(),
    }
}

fn node(name: &str, role: NodeRole, connected: bool) -> wire::Node {
    let facts = wire::NodeFacts {
        version: "0.1.0".to_owned(),
        hostname: format!("{name}.example.org"),
        datapath: if name == "w2" { "system" } else { "netdev" }.to_owned(),
        ovs_version: "3.1.0".to_owned(),
        uplink: "eth0".to_owned(),
        kinds: vec![],
    };
    wire::Node {
        name: name.to_owned(),
        role: role.into(),
        connected,
        last_seen: connected.then(|| at(500)).flatten(),
        facts: connected.then_some(facts),
        status: Some(node_status(name, connected)),
        vms: u32::from(role == NodeRole::Worker),
        certificate_expires: at(86_400 * 90),
        cordoned: false,
        gone_since: None,
    }
}

fn node_status(name: &str, connected: bool) -> wire::NodeStatus {
    wire::NodeStatus {
        name: name.to_owned(),
        connected,
        generation: 43,
        in_step: connected,
        resources: 3,
        clean: connected,
        resources_ready: if connected { 3 } else { 0 },
    }
}

fn resource(
    node: &str,
    kind: wire::Kind,
    name: &str,
    state: State,
    reason: &str,
    facts: Facts,
) -> wire::ResourceStatus {
    let key = wire::ResourceKey {
        kind: kind.into(),
        name: name.to_owned(),
    };
    wire::ResourceStatus {
        node: node.to_owned(),
        key: Some(key.clone()),
        state: state.into(),
        reason: reason.to_owned(),
        observation: Some(wire::Observation {
            key: Some(key),
            hash: vec![1; 16],
            state: state.into(),
            reason: reason.to_owned(),
            facts: Some(facts),
        }),
    }
}

fn port(tag: i32, ofport: i32) -> Facts {
    Facts::Port(wire::PortFacts {
        exists: true,
        up: true,
        ofport,
        tag,
        carrier: true,
        received: 12,
    })
}

/// The direction from a peer: the largest size that comes, and how much of the full one does not.
fn probe_path(peer: &str, largest: u32, loss_permille: u32) -> wire::ProbePath {
    wire::ProbePath {
        peer: peer.to_owned(),
        largest,
        loss_permille,
        round_trip_us: if largest == 0 { 0 } else { 345 },
        last_seen_ms: 1_795_262_400_000 + 499_250,
        largest_heard: 1500,
    }
}

fn path(from: &str, to: &str, largest: u32) -> wire::PathStatus {
    let mut path = wire::PathStatus {
        from: from.to_owned(),
        to: to.to_owned(),
        state: State::Ready.into(),
        reason: String::new(),
        seen: Some(probe_path(from, largest, if largest == 1500 { 0 } else { 1000 })),
        period_ms: 1000,
    };
    if largest != 1500 {
        path.set_state(State::Degraded);
        path.reason = format!("vlan 110 does not pass {from} -> {to}");
        if largest > 0 {
            path.reason += &format!(" at 1500 bytes (passes at {largest})");
        }
    }
    path
}

/// The slice shop, with directions on the wire that do not pass, and a node that is away.
pub(crate) fn shop_unproved() -> wire::SliceStatus {
    let mut shop = shop_status(true);
    let link = &mut shop.links[0];
    let away = wire::PathStatus {
        from: "w3".to_owned(),
        to: "w1".to_owned(),
        state: State::Unknown.into(),
        reason: "w3 has not connected since the controller started".to_owned(),
        seen: None,
        period_ms: 0,
    };
    link.paths = vec![
        path("n1", "w1", 1500),
        path("w1", "n1", 1400),
        path("w1", "w2", 0),
        path("w2", "w1", 1500),
        away,
    ];
    link.set_state(State::Degraded);
    link.reason = "vlan 110 does not pass w1 -> w2, and 1 direction more".to_owned();
    shop.reason = format!("link web-eth1--db-eth1: {}", link.reason);
    shop.set_state(State::Degraded);
    shop
}

/// The slice shop: all ready, or with a port on w1 that is not.
pub(crate) fn shop_status(good: bool) -> wire::SliceStatus {
    let state = if good { State::Ready } else { State::Failed };
    let reason = if good {
        ""
    } else {
        "tap_1002_eth1 has no ofport: the switch did not take it"
    };
    let resources = vec![
        resource(
            "w1",
            wire::Kind::Port,
            "tap_1002_eth1",
            state,
            reason,
            port(110, if good { 2 } else { -1 }),
        ),
        resource(
            "w1",
            wire::Kind::Trunk,
            "uplink",
            State::Ready,
            "",
            Facts::Trunk(wire::TrunkFacts {
                interface: "eth0".to_owned(),
                vlans: vec![110, 111, 400],
                up: true,
            }),
        ),
        resource(
            "w1",
            wire::Kind::Flows,
            "flows_vlan110",
            State::Ready,
            "",
            Facts::Flows(wire::FlowsFacts {
                flows: 14,
                storms: vec![],
            }),
        ),
        resource(
            "w1",
            wire::Kind::Probe,
            "probe_vlan110",
            State::Ready,
            "",
            Facts::Probe(wire::ProbeFacts {
                paths: vec![probe_path("n1", 1500, 0), probe_path("w2", 1500, 0)],
                period_ms: 1000,
            }),
        ),
        resource(
            "n1",
            wire::Kind::Dhcp,
            "dhcp_v110",
            State::Ready,
            "",
            Facts::Dhcp(wire::DhcpFacts {
                pid: 4711,
                leases: 2,
                current: true,
                held: Vec::new(),
            }),
        ),
    ];
    let link = wire::LinkStatus {
        name: "web-eth1--db-eth1".to_owned(),
        vlan: 110,
        state: state.into(),
        reason: if good { String::new() } else { format!("w1: {reason}") },
        resources,
        paths: vec![path("n1", "w1", 1500), path("w1", "n1", 1500)],
    };
    let eth0 = resource("w1", wire::Kind::Port, "tap_1002_eth0", State::Ready, "", port(400, 1));
    wire::SliceStatus {
        name: "shop".to_owned(),
        state: state.into(),
        reason: link.reason.clone(),
        deployed_number: 3,
        generation: 43,
        resources: 6,
        resources_ready: if good { 6 } else { 5 },
        probes: 2,
        probes_ready: 2,
        links: vec![link],
        vms: vec![wire::VmStatus {
            name: "web".to_owned(),
            worker: "w1".to_owned(),
            state: State::Ready.into(),
            reason: String::new(),
            resources: vec![eth0],
        }],
        removing: false,
    }
}

/// The cluster's status at a generation.
pub(crate) fn status(generation: u64, slices: Vec<wire::SliceStatus>) -> wire::GetStatusResponse {
    wire::GetStatusResponse {
        slices,
        nodes: vec![
            node_status("n1", true),
            node_status("w1", true),
            node_status("w2", false),
        ],
        revision: 12,
        term: 1,
        generation,
    }
}

fn event(sequence: u64, kind: &str, slice: &str, node: &str, message: &str) -> wire::Event {
    wire::Event {
        sequence,
        at: at(i64::try_from(sequence).unwrap()),
        r#type: kind.to_owned(),
        actor: if node.is_empty() {
            "operator/alice"
        } else {
            "controller"
        }
        .to_owned(),
        slice: slice.to_owned(),
        node: node.to_owned(),
        vlan: 0,
        revision: if node.is_empty() { sequence } else { 0 },
        message: message.to_owned(),
    }
}

/// All of it.
pub(crate) fn cluster() -> Script {
    let change = |action: wire::change::Action, what: &str, detail: &str| wire::Change {
        action: action.into(),
        slice: "shop".to_owned(),
        what: what.to_owned(),
        detail: detail.to_owned(),
    };
    use wire::change::Action;
    Script {
        slices: vec![shop(), lab()],
        nodes: vec![
            node("n1", NodeRole::Netnode, true),
            node("w1", NodeRole::Worker, true),
            node("w2", NodeRole::Worker, false),
        ],
        status: status(43, vec![shop_status(true)]),
        events: vec![
            event(1, "slice.applied", "shop", "", "shop: 2 VMs and 1 link"),
            event(2, "slice.deployed", "shop", "", "shop is deployed as #3"),
            event(3, "node.connected", "", "w1", "w1 is connected"),
            event(
                4,
                "resource.failed",
                "shop",
                "w1",
                "tap_1002_eth1: the switch did\nnot take it",
            ),
        ],
        revisions: vec![deployment(3), deployment(2)],
        apply: wire::ApplySlicesResponse {
            revision: 12,
            changes: vec![
                change(Action::Created, "slice", ""),
                change(Action::Created, "vm web", "on w1"),
                change(Action::Updated, "vm db", "internet_enabled: false -> true"),
                change(Action::Removed, "link old", ""),
                change(Action::Deployed, "slice", "#3"),
            ],
            slices: vec![shop()],
            term: 1,
            generation: 5,
        },
        ..Script::default()
    }
}
