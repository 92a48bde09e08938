//! What goes wrong on a worker.

use super::*;

pub(super) fn rows() -> Vec<Case> {
    let itself = "w1 puts that right by itself";
    vec![
        case(
            "the TAP is gone",
            GUESTS,
            |f| {
                port(f, "the TAP tap_1000_eth1 does not exist", |p| {
                    *p = wire::PortFacts::default()
                })
            },
            (Kind::Tap, "w1"),
            "does not exist",
            itself,
        ),
        case(
            "the host's own stack hears the TAP",
            GUESTS,
            |f| {
                port(
                    f,
                    "the host itself hears what this guest sends to all: the program nft cannot be run",
                    |_| {},
                )
            },
            (Kind::Tap, "w1"),
            "the program nft",
            "install the package `nftables` on w1",
        ),
        case(
            "the TAP is down",
            GUESTS,
            |f| {
                port(f, "the TAP tap_1000_eth1 is down", |p| {
                    (p.up, p.carrier) = (false, false)
                })
            },
            (Kind::Tap, "w1"),
            "is down",
            itself,
        ),
        case(
            "the TAP is a stranger's",
            GUESTS,
            |f| {
                let reason = "a device tap_1000_eth1 that was not made by Trunkline is there; remove or rename it";
                port(f, reason, |_| ());
            },
            (Kind::Tap, "w1"),
            "a device tap_1000_eth1 that was not made by Trunkline is there",
            "remove or rename tap_1000_eth1 on w1",
        ),
        case(
            "the tag is wrong",
            GUESTS,
            |f| {
                let reason = "the switch port tap_1000_eth1 is access tag 120 instead of access tag 100";
                port(f, reason, |p| p.tag = 120);
            },
            (Kind::Tag, "w1"),
            "tag 120",
            itself,
        ),
        case(
            "the switch port is gone",
            GUESTS,
            |f| {
                port(f, "there is no switch port tap_1000_eth1 on br-int", |p| {
                    (p.tag, p.ofport) = (-1, 0)
                })
            },
            (Kind::Tag, "w1"),
            "no switch port",
            itself,
        ),
        case(
            "flows of the VLAN are missing",
            GUESTS,
            |f| {
                f.says("w1", "flows_vlan100", Health::Failed, "3 flows are missing");
                port(f, "a flow of this port is missing", |_| ());
            },
            (Kind::Flows, "w1"),
            "3 flows are missing",
            itself,
        ),
        case(
            "flows of the peer's port are missing",
            GUESTS,
            |f| port_of(f, "w2", "tap_1001_eth1", "a flow of this port is missing", |_| ()),
            (Kind::Flows, "w2"),
            "a flow of this port is missing",
            "w2 puts that right by itself",
        ),
        case(
            "somebody else's flows let pass what ours stop",
            GUESTS,
            |f| {
                let reason = "flows of others on br-int may let pass what ours stop: table=0 priority=9; remove them";
                f.says("w1", "flows_vlan100", Health::Degraded, reason);
            },
            (Kind::Flows, "w1"),
            "flows of others",
            "remove them on w1",
        ),
        case(
            "a storm of the guest bites",
            GUESTS,
            |f| storm(f, "tap_1000_eth1"),
            (Kind::Flows, "w1"),
            "12 frames dropped",
            "stop the flood in the guest shop/web",
        ),
        case(
            "the guest is not started",
            GUESTS,
            |f| port(f, "", |p| (p.carrier, p.received) = (false, 0)),
            (Kind::Guest, "w1"),
            "no program has opened the TAP",
            "`trunkctl vm netdev shop/web`",
        ),
        case(
            "the peer's guest is not started",
            GUESTS,
            |f| port_of(f, "w2", "tap_1001_eth1", "", |p| (p.carrier, p.received) = (false, 0)),
            (Kind::Guest, "w2"),
            "no program has opened the TAP",
            "`trunkctl vm netdev shop/db`",
        ),
        case(
            "the guest never sent",
            GUESTS,
            |f| {
                port(f, "", |p| p.received = 0);
                dhcp(f, 100, |d| (d.held, d.leases) = (Vec::new(), 0));
            },
            (Kind::Guest, "w1"),
            "no program has sent anything",
            "bring eth1 up",
        ),
        case(
            "the port is refused",
            GUESTS,
            |f| refuse(f, "w1", "tap_1000_eth1"),
            (Kind::Tap, "w1"),
            "w1 refused port tap_1000_eth1",
            "upgrade the daemon of w1",
        ),
        case(
            "the flows are refused",
            GUESTS,
            |f| refuse(f, "w2", "flows_vlan100"),
            (Kind::Flows, "w2"),
            "w2 refused flows flows_vlan100",
            "upgrade the daemon of w2",
        ),
        case(
            "the port is a stranger's",
            GUESTS,
            |f| {
                let reason = "a port tap_1000_eth1 that was not made by Trunkline is on br-int; remove it";
                port(f, reason, |_| ());
            },
            (Kind::Tag, "w1"),
            "was not made by Trunkline",
            "do on w1 what is said there",
        ),
        case(
            "the bridge is a stranger's",
            GUESTS,
            |f| {
                let reason = "the bridge br-int is there and was not made by Trunkline; give it to this node with `adopt = true`, or \
                              remove it";
                port(f, reason, |_| ());
                f.says("w1", "flows_vlan100", Health::Failed, reason);
            },
            (Kind::Tag, "w1"),
            "the bridge br-int is there",
            "do on w1 what is said there",
        ),
        case(
            "the switch refuses a flow",
            GUESTS,
            |f| {
                let reason = "ovs-vswitchd refused a flow: OFPFMFC_TABLE_FULL";
                f.says("w1", "flows_vlan100", Health::Failed, reason);
            },
            (Kind::Flows, "w1"),
            "OFPFMFC_TABLE_FULL",
            itself,
        ),
        case(
            "the switch has no meters",
            GUESTS,
            |f| {
                let reason = "broadcast limits cannot be set: OFPMMFC_OUT_OF_METERS";
                f.says("w1", "flows_vlan100", Health::Degraded, reason);
            },
            (Kind::Flows, "w1"),
            "broadcast limits cannot be set",
            itself,
        ),
    ]
}
