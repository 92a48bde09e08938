//! On a worker: guests, TAPs, ports, flows, the uplink; and strangers in their places.

use nix::sys::signal::Signal;
use trunkline_integration::attacks::{Burst, inject};
use trunkline_integration::guest::open_tap;
use trunkline_integration::lab::VSWITCHD;
use trunkline_integration::lab::layout::NETNODE;

use crate::scene::{GUESTS, INTERNET, Scene};
use crate::table::{Heal, Row, nothing};

/// To a guest that was never started.
const IDLE: [&str; 2] = ["shop/web.eth2", "shop/idle.eth1"];
const FLOOD: u32 = 6000;

pub(crate) fn rows() -> Vec<Row> {
    [of_guests(), repaired(), in_others_hands(), of_the_switch()].concat()
}

fn web_tap(scene: &Scene) -> String {
    scene.tap(GUESTS[0])
}

/// The guest's program holds a TAP that is no more: it has to be started again.
fn restart(name: &'static str) -> Heal {
    Box::new(move |scene| {
        scene.end_guest(name);
        scene.start_guest(name);
    })
}

fn not_started(scene: &mut Scene, name: &'static str) -> Heal {
    scene.end_guest(name);
    Box::new(move |scene| scene.start_guest(name))
}

/// A program holds the TAP and says nothing.
fn mute(scene: &mut Scene) -> Heal {
    let tap = scene.tap(IDLE[1]);
    let held = scene
        .lab
        .host("w2")
        .unwrap()
        .run(move || open_tap(&tap))
        .unwrap()
        .unwrap();
    Box::new(move |_| drop(held))
}

/// The DHCP client of a guest is told by its signals to give its lease back, and to ask again.
fn without_lease(scene: &mut Scene) -> Heal {
    let netns = scene.guest("shop/db").netns().unwrap().to_owned();
    let pids = scene.on("w2", &["ip", "netns", "pids", &netns]);
    let is_client = |pid: &&str| {
        scene
            .on("w2", &["cat", &format!("/proc/{pid}/cmdline")])
            .contains("udhcpc\0-f\0-i\0eth1")
    };
    let client = pids.split_whitespace().find(is_client).unwrap().to_owned();
    // It has to know where the server is: with its address it loses what waits for that.
    let server = scene.guest("shop/db").lease("eth1").unwrap().unwrap().server.unwrap();
    assert!(scene.guest("shop/db").ping(server).unwrap());
    scene.on("w2", &["kill", "-USR2", &client]);
    Box::new(move |scene| {
        scene.on("w2", &["kill", "-USR1", &client]);
    })
}

fn flood(scene: &mut Scene) -> Heal {
    let guest = scene.guest("lab/a");
    let netns = guest.netns().unwrap().to_owned();
    let mac: Vec<u8> = scene
        .nic("lab/a.eth1")
        .mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let frame = [&[0xff; 6], &mac[..], &[0x88, 0xb6], &[0; 46]].concat();
    let burst = Burst {
        count: FLOOD,
        ..Burst::one("eth1", frame)
    };
    let worker = scene.lab.host("w1").unwrap();
    worker
        .run_in_netns(&netns, move || inject::send(&[burst]))
        .unwrap()
        .unwrap();
    nothing()
}

fn of_guests() -> Vec<Row> {
    vec![
        Row::broken(
            "a guest is not running",
            GUESTS,
            |s| not_started(s, "shop/web"),
            ("guest", "w1"),
            "no program has opened the TAP",
            "`trunkctl vm netdev shop/web` prints how",
        )
        .of_one_slice(),
        Row::broken(
            "the peer's guest is not running",
            GUESTS,
            |s| not_started(s, "shop/db"),
            ("guest", "w2"),
            "no program has opened the TAP",
            "`trunkctl vm netdev shop/db` prints how",
        )
        .of_one_slice(),
        Row::broken(
            "a guest was never started",
            IDLE,
            |_| nothing(),
            ("guest", "w2"),
            "no program has opened the TAP",
            "`trunkctl vm netdev shop/idle` prints how",
        ),
        Row::broken(
            "a guest never says anything",
            IDLE,
            mute,
            ("guest", "w2"),
            "no program has sent anything",
            "in the guest bring eth1 up",
        ),
        Row::broken(
            "a guest has no lease",
            GUESTS,
            without_lease,
            ("lease", NETNODE),
            "dnsmasq runs and has no lease for {mac}",
            "in the guest shop/db ask for one: `udhcpc -i eth1`",
        ),
        Row::broken(
            "a guest floods its link",
            ["lab/a.eth1", "lab/b.eth1"],
            flood,
            ("flows", "w1"),
            "sends more than its limit allows",
            "stop the flood in the guest lab/a",
        ),
    ]
}

/// The switch hears of the old device's end and of the new one at the same time.
fn deleted_unseen(scene: &mut Scene) -> Heal {
    let tap = web_tap(scene);
    scene.signal("w1", VSWITCHD, Signal::SIGSTOP);
    scene.on("w1", &["ip", "link", "delete", &tap]);
    scene.await_tap("w1", &tap);
    scene.signal("w1", VSWITCHD, Signal::SIGCONT);
    restart("shop/web")
}

/// What the worker puts right at once.
fn repaired() -> Vec<Row> {
    vec![
        Row::repaired(
            "a TAP is deleted",
            GUESTS,
            |s| {
                s.on("w1", &["ip", "link", "delete", &web_tap(s)]);
                restart("shop/web")
            },
            "w1 put right port {tap}: the TAP was gone",
        ),
        Row::repaired(
            "a TAP is deleted while ovs-vswitchd hangs",
            GUESTS,
            deleted_unseen,
            "w1 put right port {tap}: the TAP was gone",
        ),
        Row::repaired(
            "a TAP is set down",
            GUESTS,
            |s| {
                s.on("w1", &["ip", "link", "set", &web_tap(s), "down"]);
                nothing()
            },
            "w1 put right port {tap}: the TAP was down",
        ),
        Row::repaired(
            "a TAP gets another MTU",
            GUESTS,
            |s| {
                s.on("w1", &["ip", "link", "set", &web_tap(s), "mtu", "1280"]);
                nothing()
            },
            "the TAP had an MTU of 1280, not 1500",
        ),
        Row::repaired(
            "a port leaves the switch",
            GUESTS,
            |s| {
                s.vsctl("w1", &["del-port", "br-int", &web_tap(s)]);
                nothing()
            },
            "w1 put right port {tap}: the switch port was gone",
        ),
        Row::repaired(
            "a port gets another tag",
            GUESTS,
            |s| {
                s.vsctl("w1", &["set", "port", &web_tap(s), "tag=3999"]);
                nothing()
            },
            "w1 put right port {tap}: switch port had tag 3999, not {vlan}",
        ),
        Row::repaired(
            "the trunk's list is emptied",
            GUESTS,
            |s| {
                s.vsctl("w1", &["clear", "port", "trunk0", "trunks"]);
                nothing()
            },
            "w1 put right trunk uplink: uplink's VLAN list was empty, which means every VLAN",
        ),
        Row::repaired(
            "the trunk's list is narrowed",
            GUESTS,
            |s| {
                s.vsctl("w1", &["remove", "port", "trunk0", "trunks", &s.plain().to_string()]);
                nothing()
            },
            "w1 put right trunk uplink: uplink's VLAN list lacked {vlan}",
        ),
        Row::repaired(
            "the uplink is set down",
            GUESTS,
            |s| {
                s.on("w1", &["ip", "link", "set", "trunk0", "down"]);
                nothing()
            },
            "w1 put right trunk uplink: the uplink trunk0 was down",
        ),
        Row::repaired(
            "the flows are flushed",
            GUESTS,
            |s| {
                s.ofctl("w1", &["del-flows", "br-int"]);
                nothing()
            },
            "w1 put right flows flows_vlan{vlan}:",
        ),
        Row::repaired(
            "the bridge forwards what no flow names",
            GUESTS,
            |s| {
                s.vsctl("w1", &["del-fail-mode", "br-int"]);
                nothing()
            },
            "the bridge br-int had fail_mode=",
        ),
        Row::repaired(
            "the chain at the TAPs' ingress is deleted",
            GUESTS,
            |s| {
                s.on("w1", &["nft", "delete", "table", "netdev", "trunkline-agent"]);
                nothing()
            },
            "w1 put right port {tap}:",
        ),
    ]
}

/// A port that is no longer ours stays where it is, and is not touched.
fn unmarked(scene: &Scene, host: &'static str, table: &'static str, name: String) -> Heal {
    let key = ["external_ids", "trunkline"];
    let mark = scene.vsctl(host, &["get", table, &name, "external_ids:trunkline"]);
    let mark = format!("external_ids:trunkline={}", mark.trim());
    scene.vsctl(host, &[&["remove", table, &name], &key[..]].concat());
    Box::new(move |scene| drop(scene.vsctl(host, &["set", table, &name, &mark])))
}

/// A device of somebody else has the TAP's name.
fn stranger_for_tap(scene: &mut Scene) -> Heal {
    let tap = web_tap(scene);
    scene.unseen("w1", |s| {
        s.on("w1", &["ip", "link", "delete", &tap]);
        s.on("w1", &["ip", "link", "add", &tap, "type", "bridge"]);
    });
    Box::new(move |scene| {
        scene.on("w1", &["ip", "link", "delete", &tap]);
        restart("shop/web")(scene);
    })
}

fn stranger_for_probe(scene: &Scene, host: &'static str) -> Heal {
    scene.unseen(host, |s| {
        s.on(host, &["ovs-vsctl", "--timeout=10", "del-port", "br-int", "tlprobe0"]);
        s.on(host, &["ip", "link", "add", "tlprobe0", "type", "bridge"]);
    });
    Box::new(move |scene| drop(scene.on(host, &["ip", "link", "delete", "tlprobe0"])))
}

fn stranger_for_table(scene: &mut Scene) -> Heal {
    scene.unseen("w1", |s| {
        s.on("w1", &["nft", "delete", "table", "netdev", "trunkline-agent"]);
        s.on("w1", &["nft", "add", "table", "netdev", "trunkline-agent"]);
    });
    Box::new(|scene| drop(scene.on("w1", &["nft", "delete", "table", "netdev", "trunkline-agent"])))
}

fn in_others_hands() -> Vec<Row> {
    vec![
        Row::broken(
            "a stranger has the TAP's name",
            GUESTS,
            stranger_for_tap,
            ("tap", "w1"),
            "a device {tap} that was not made by Trunkline is there",
            "remove or rename {tap} on w1",
        )
        .of_one_slice(),
        Row::broken(
            "a stranger has the port's name",
            GUESTS,
            |s| unmarked(s, "w1", "port", web_tap(s)),
            ("tag", "w1"),
            "a port {tap} that was not made by Trunkline is on br-int",
            "do on w1 what is said there",
        )
        .of_one_slice(),
        Row::broken(
            "the bridge is a stranger's",
            GUESTS,
            |s| unmarked(s, "w1", "bridge", "br-int".to_owned()),
            ("tag", "w1"),
            "the bridge br-int is there and was not made by Trunkline",
            "do on w1 what is said there",
        ),
        Row::broken(
            "the uplink's port is a stranger's",
            GUESTS,
            |s| unmarked(s, "w1", "port", "trunk0".to_owned()),
            ("trunk", "w1"),
            "a port trunk0 that was not made by Trunkline is on br-int",
            "do on w1 what is said there",
        ),
        Row::broken(
            "a stranger has the probe's name",
            GUESTS,
            |s| stranger_for_probe(s, "w1"),
            ("probe", "w1"),
            "tlprobe0",
            "do on w1 what is said there",
        ),
        Row::broken(
            "a stranger has the name of the ingress's table",
            GUESTS,
            stranger_for_table,
            ("tap", "w1"),
            "the host itself hears",
            "remove or rename a table of that name",
        ),
        Row::broken(
            "a stranger's flow is on the bridge",
            GUESTS,
            |s| {
                s.ofctl("w1", &["add-flow", "br-int", "priority=7,in_port=65000,actions=drop"]);
                Box::new(|s| drop(s.ofctl("w1", &["--strict", "del-flows", "br-int", "priority=7,in_port=65000"])))
            },
            ("flows", "w1"),
            "flows of others on br-int",
            "remove them on w1",
        ),
    ]
}

/// The switch takes no new flows, and has lost what it had.
fn flows_refused(scene: &mut Scene) -> Heal {
    scene.unseen("w1", |s| {
        let limit = [
            "--id=@t",
            "create",
            "Flow_Table",
            "flow_limit=1",
            "overflow_policy=refuse",
        ];
        let set = ["--", "set", "bridge", "br-int", "flow_tables:0=@t"];
        s.vsctl("w1", &[&["--"], &limit[..], &set[..]].concat());
        s.ofctl("w1", &["del-flows", "br-int"]);
    });
    Box::new(|scene| drop(scene.vsctl("w1", &["clear", "bridge", "br-int", "flow_tables"])))
}

fn renamed(scene: &Scene, host: &'static str, device: &'static str) -> Heal {
    let other = format!("{device}x");
    scene.shell(
        host,
        &format!("ip link set {device} down && ip link set {device} name {other}"),
    );
    Box::new(move |scene| {
        scene.shell(
            host,
            &format!("ip link set {other} name {device} && ip link set {device} up"),
        );
    })
}

fn of_the_switch() -> Vec<Row> {
    vec![
        Row::broken(
            "the switch refuses flows",
            GUESTS,
            flows_refused,
            ("flows", "w1"),
            "ovs-vswitchd refused",
            "w1",
        ),
        Row::broken(
            "the uplink is not there",
            GUESTS,
            |s| renamed(s, "w1", "trunk0"),
            ("trunk", "w1"),
            "the uplink trunk0 is not there",
            "create trunk0 on w1, or name the right uplink in the configuration of w1",
        ),
        Row::broken(
            "the host uses the uplink itself",
            INTERNET,
            |s| {
                s.on("w1", &["ip", "address", "add", "192.0.2.77/24", "dev", "trunk0"]);
                Box::new(|s| drop(s.on("w1", &["ip", "address", "delete", "192.0.2.77/24", "dev", "trunk0"])))
            },
            ("trunk", "w1"),
            "the uplink trunk0 has the address 192.0.2.77/24; an uplink has none",
            "on w1 do what is said there",
        ),
    ]
}
