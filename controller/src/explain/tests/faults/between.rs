//! What goes wrong between nodes.

use super::*;

/// Nothing of the VLAN comes from or to a node.
fn shut(fleet: &mut Fleet, node: &str, others: [&str; 2]) {
    for other in others {
        cut(fleet, node, other, 100, 0);
        cut(fleet, other, node, 100, 0);
    }
}

pub(super) fn rows() -> Vec<Case> {
    vec![
        case(
            "the trunk lacks the VLAN",
            GUESTS,
            |f| narrow(f, "w1", &["w2", "n1"], 100),
            (Kind::Trunk, "w1"),
            "ens4 carries 400, and not 100",
            "w1 puts that right by itself",
        ),
        case(
            "the peer's trunk lacks the VLAN",
            GUESTS,
            |f| narrow(f, "w2", &["w1", "n1"], 100),
            (Kind::Trunk, "w2"),
            "ens4 carries nothing, and not 100",
            "w2 puts that right by itself",
        ),
        case(
            "the network node's trunk lacks VLAN 400",
            INTERNET,
            |f| narrow(f, "n1", &["w1"], 400),
            (Kind::Trunk, "n1"),
            "ens4 carries 100, and not 400",
            "n1 puts that right by itself",
        ),
        case(
            "the uplink's cable is out",
            GUESTS,
            |f| {
                f.says(
                    "w1",
                    "uplink",
                    Health::Failed,
                    "the uplink ens4 is down or has no carrier; check its cable or peer",
                );
                let Some(Facts::Trunk(facts)) = &mut f.observed("w1", "uplink").facts else {
                    panic!()
                };
                facts.up = false;
            },
            (Kind::Trunk, "w1"),
            "no carrier",
            "cable of ens4 on w1",
        ),
        case(
            "the trunk is refused",
            GUESTS,
            |f| refuse(f, "w1", "uplink"),
            (Kind::Trunk, "w1"),
            "w1 refused trunk uplink",
            "upgrade the daemon of w1",
        ),
        case(
            "the VLAN passes one way only",
            GUESTS,
            |f| cut(f, "w1", "w2", 100, 0),
            (Kind::Probe, "w2"),
            "vlan 100 does not pass w1 -> w2",
            "w2 -> w1 passes, so it is one way only",
        ),
        case(
            "the VLAN passes the other way only",
            GUESTS,
            |f| cut(f, "w2", "w1", 100, 0),
            (Kind::Probe, "w1"),
            "vlan 100 does not pass w2 -> w1",
            "w1 -> w2 passes, so it is one way only",
        ),
        case(
            "the VLAN passes neither way",
            GUESTS,
            |f| {
                cut(f, "w1", "w2", 100, 0);
                cut(f, "w2", "w1", 100, 0);
            },
            (Kind::Probe, "w2"),
            "vlan 100 does not pass w1 -> w2",
            "carry vlan 100 tagged on the ports of both w1 and w2",
        ),
        case(
            "the MTU is 1400 in the middle",
            GUESTS,
            |f| {
                cut(f, "w1", "w2", 100, 1400);
                cut(f, "w2", "w1", 100, 1400);
            },
            (Kind::Probe, "w2"),
            "vlan 100 does not pass w1 -> w2 at 1500 bytes (passes at 1400)",
            "take frames of 1518 bytes, or give the link an `mtu` of 1400",
        ),
        case(
            "the peer refuses to probe",
            GUESTS,
            |f| refuse(f, "w2", "probe_vlan100"),
            (Kind::Probe, "w2"),
            "w2 refused probe probe_vlan100",
            "upgrade the daemon of w2",
        ),
        case(
            "the probe cannot be sent",
            INTERNET,
            |f| {
                f.says(
                    "n1",
                    "probe_vlan400",
                    Health::Failed,
                    "there is no port tlprobe0 on br-int",
                )
            },
            (Kind::Probe, "n1"),
            "there is no port tlprobe0 on br-int",
            "n1 puts that right by itself",
        ),
        case(
            "VLAN 400 does not pass",
            INTERNET,
            |f| {
                cut(f, "w1", "n1", 400, 0);
                cut(f, "n1", "w1", 400, 0);
            },
            (Kind::Probe, "n1"),
            "vlan 400 does not pass w1 -> n1",
            "carry vlan 400 tagged on the ports of both w1 and n1",
        ),
        case(
            "the VLAN is shut at a worker's port",
            GUESTS,
            |f| shut(f, "w1", ["w2", "n1"]),
            (Kind::Probe, "w2"),
            "vlan 100 does not pass w1 -> w2",
            "carry vlan 100 tagged on the port of w1: it passes between the other nodes",
        ),
        case(
            "the VLAN is shut at the peer's port",
            GUESTS,
            |f| shut(f, "w2", ["w1", "n1"]),
            (Kind::Probe, "w2"),
            "vlan 100 does not pass w1 -> w2",
            "carry vlan 100 tagged on the port of w2: it passes between the other nodes",
        ),
        case(
            "the VLAN is shut at the network node's port",
            GUESTS,
            |f| shut(f, "n1", ["w1", "w2"]),
            (Kind::Probe, "n1"),
            "vlan 100 does not pass w1 -> n1",
            "carry vlan 100 tagged on the port of n1: it passes between the other nodes",
        ),
        case(
            "a worker cannot send probes",
            GUESTS,
            |f| {
                let reason = "a device tlprobe0 is there and was not made by Trunkline; remove or rename it";
                f.says("w1", "probe_vlan100", Health::Failed, reason);
                cut(f, "w1", "w2", 100, 0);
                cut(f, "w1", "n1", 100, 0);
            },
            (Kind::Probe, "w1"),
            "a device tlprobe0 is there",
            "do on w1 what is said there",
        ),
        case(
            "the uplink is not there",
            GUESTS,
            |f| {
                f.says(
                    "w1",
                    "uplink",
                    Health::Failed,
                    "the uplink ens4 is not there; name another interface or create it",
                );
                let Some(Facts::Trunk(facts)) = &mut f.observed("w1", "uplink").facts else {
                    panic!()
                };
                facts.up = false;
            },
            (Kind::Trunk, "w1"),
            "the uplink ens4 is not there",
            "create ens4 on w1, or name the right uplink",
        ),
    ]
}
