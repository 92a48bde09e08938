//! Between the hosts: the switch there, and the cables.

use trunkline_integration::lab::layout::NETNODE;
use trunkline_integration::lab::{Fault, PartedFrom};

use crate::scene::{GUESTS, INTERNET, Scene};
use crate::table::{Heal, Row};

fn heal() -> Heal {
    Box::new(|scene| drop(scene.lab.heal(None).unwrap()))
}

fn drops(scene: &Scene, vlan: u16, host: &str) -> Heal {
    let host = host.to_owned();
    scene.fault(Fault::VlanDrop { vlan, host });
    heal()
}

fn one_way(scene: &Scene, from: &str, to: &str, vlan: Option<u16>) -> Heal {
    let (from, to) = (from.to_owned(), to.to_owned());
    scene.fault(Fault::OneWay { from, to, vlan });
    heal()
}

fn small(scene: &Scene, host: &str) -> Heal {
    let (host, size) = (host.to_owned(), 1400);
    scene.fault(Fault::Mtu { host, size });
    heal()
}

fn parted(scene: &Scene, host: &str, from: PartedFrom, one_way: bool) -> Heal {
    let host = host.to_owned();
    scene.fault(Fault::Partition { host, from, one_way });
    heal()
}

fn unplugged(scene: &Scene, node: &'static str) -> Heal {
    scene.lab.set_trunk(node, false).unwrap();
    Box::new(move |scene| scene.lab.set_trunk(node, true).unwrap())
}

pub(crate) fn rows() -> Vec<Row> {
    let rows = [probed(), silent()].concat();
    rows.into_iter().map(Row::on_the_wire).collect()
}

/// What the probe tells of.
fn probed() -> Vec<Row> {
    vec![
        Row::broken(
            "the switch drops a VLAN at a worker",
            GUESTS,
            |s| drops(s, s.plain(), "w1"),
            ("probe", "w2"),
            "vlan {vlan} does not pass w1 -> w2",
            "carry vlan {vlan} tagged on the port of w1",
        )
        .of_one_slice(),
        Row::broken(
            "the switch drops a VLAN at the peer",
            GUESTS,
            |s| drops(s, s.plain(), "w2"),
            ("probe", "w2"),
            "vlan {vlan} does not pass w1 -> w2",
            "carry vlan {vlan} tagged on the port of w2",
        )
        .of_one_slice(),
        Row::broken(
            "the switch drops a VLAN at the network node",
            GUESTS,
            |s| drops(s, s.plain(), NETNODE),
            ("probe", "nn"),
            "vlan {vlan} does not pass w1 -> nn",
            "carry vlan {vlan} tagged on the port of nn",
        )
        .of_one_slice(),
        Row::broken(
            "a VLAN passes one way only",
            GUESTS,
            |s| one_way(s, "w1", "w2", Some(s.plain())),
            ("probe", "w2"),
            "vlan {vlan} does not pass w1 -> w2",
            "w2 -> w1 passes, so it is one way only",
        )
        .of_one_slice(),
        Row::broken(
            "a VLAN passes the other way only",
            GUESTS,
            |s| one_way(s, "w2", "w1", Some(s.plain())),
            ("probe", "w1"),
            "vlan {vlan} does not pass w2 -> w1",
            "w1 -> w2 passes, so it is one way only",
        )
        .of_one_slice(),
        Row::broken(
            "nothing passes one way",
            GUESTS,
            |s| one_way(s, "w1", "w2", None),
            ("probe", "w2"),
            "vlan {vlan} does not pass w1 -> w2",
            "one way only",
        ),
        Row::broken(
            "an MTU of 1400 at a worker",
            GUESTS,
            |s| small(s, "w1"),
            ("probe", "w2"),
            "vlan {vlan} does not pass w1 -> w2 at 1500 bytes (passes at 1400)",
            "take frames of 1518 bytes, or give the link an `mtu` of 1400",
        ),
        Row::broken(
            "an MTU of 1400 at the network node",
            INTERNET,
            |s| small(s, NETNODE),
            ("probe", "nn"),
            "vlan 400 does not pass w1 -> nn at 1500 bytes (passes at 1400)",
            "take frames of 1518 bytes",
        ),
        Row::broken(
            "the switch drops VLAN 400 at a worker",
            INTERNET,
            |s| drops(s, 400, "w1"),
            ("probe", "nn"),
            "vlan 400 does not pass w1 -> nn",
            "carry vlan 400 tagged",
        )
        .of_one_slice(),
        Row::broken(
            "VLAN 400 does not come back",
            INTERNET,
            |s| one_way(s, NETNODE, "w1", Some(400)),
            ("probe", "w1"),
            "vlan 400 does not pass nn -> w1",
            "w1 -> nn passes, so it is one way only",
        )
        .of_one_slice(),
        Row::broken(
            "a worker's cable is out",
            GUESTS,
            |s| unplugged(s, "w1"),
            ("trunk", "w1"),
            "trunk0 is down or has no carrier",
            "look at the cable of trunk0 on w1",
        ),
        Row::broken(
            "the network node's cable is out",
            INTERNET,
            |s| unplugged(s, NETNODE),
            ("trunk", "nn"),
            "trunk0 is down or has no carrier",
            "look at the cable of trunk0 on nn",
        ),
    ]
}

/// Who cannot be heard is neither broken nor fine.
fn silent() -> Vec<Row> {
    vec![
        Row::unknown(
            "a worker is parted from all",
            GUESTS,
            |s| parted(s, "w1", PartedFrom::All, false),
            ("node", "w1"),
            "is not connected, last heard at",
            "start the daemon of w1, or mend its way to the controller",
        ),
        Row::unknown(
            "a worker is parted from the controller",
            GUESTS,
            |s| parted(s, "w1", PartedFrom::Controller, false),
            ("node", "w1"),
            "is not connected, last heard at",
            "mend its way to the controller",
        ),
        Row::unknown(
            "the controller does not hear the network node",
            INTERNET,
            |s| parted(s, NETNODE, PartedFrom::Controller, true),
            ("node", "nn"),
            "is not connected, last heard at",
            "mend its way to the controller",
        ),
    ]
}
