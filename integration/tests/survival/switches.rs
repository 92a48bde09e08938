//! What carries the guests' frames dies under the daemons of ours: dnsmasq, and both processes of Open vSwitch.

use std::time::{Duration, Instant};

use trunkline_integration::lab::layout::{CONTROLLER, NETNODE};
use trunkline_integration::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, NETNODE_PROGRAM, OVSDB, Options, VSWITCHD};

use crate::dataplane::await_in_step;
use crate::looks::{dhcp_servers, on};
use crate::picture::{self, await_same};
use crate::support::{apply, fleet};
use crate::traffic::{EVERY_MS, Guests, TOPOLOGY, Traffic, report};

const CALM: Duration = Duration::from_secs(1);

#[test]
fn what_dies_under_our_daemons_is_right_again_without_a_hand() {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    let guests = Guests::start(&lab);
    let traffic = Traffic::start(&guests, EVERY_MS);
    await_in_step(&lab);
    let start = Instant::now();
    std::thread::sleep(CALM);
    let calm = traffic.since(start);
    let (before, held, had) = (picture::of_all(&lab), guests.holders(&lab), guests.leases());
    let right_again = |what: &str, start: Instant| {
        await_same(&lab, &before, what);
        await_in_step(&lab);
        traffic.await_all();
        let whole = start.elapsed().as_secs_f64();
        let traffic = traffic.since(start);
        report(what, &calm, &traffic);
        println!("{what}: all right again after {whole:.1} s");
        assert_eq!(guests.leases(), had, "{what}");
        assert_eq!(guests.holders(&lab), held, "{what}");
        traffic
    };

    // Its leases are in its file, and the next one answers whoever asks. The second time nobody is there to start it.
    for (name, with_netnode) in [("shop/web.eth0", false), ("shop/db.eth1", true)] {
        let nic = guests.nic(name);
        let died = dhcp_servers(&lab)[&nic.vlan].clone();
        let start = Instant::now();
        if with_netnode {
            lab.kill_daemon(NETNODE, NETNODE_PROGRAM).unwrap();
        }
        on(&lab, NETNODE, &["kill", "-KILL", &died]);
        if with_netnode {
            lab.start_daemon(NETNODE, NETNODE_PROGRAM).unwrap();
        }
        assert_eq!(guests.discover(name), nic.address);
        let what = format!("dnsmasq of VLAN {}, its daemon too: {with_netnode}", nic.vlan);
        println!("{what}: answered after {:.1} s", start.elapsed().as_secs_f64());
        let lost: usize = right_again(&what, start).iter().map(|(_, account)| account.lost).sum();
        assert_eq!(lost, 0, "{what}");
        assert_ne!(dhcp_servers(&lab)[&nic.vlan], died);
    }

    let all: &[&[(&str, &str)]] = &[
        &[("w1", VSWITCHD)],
        &[("w1", OVSDB)],
        &[("w1", OVSDB), ("w1", VSWITCHD)],
        &[("w1", VSWITCHD), ("w1", AGENT_PROGRAM)],
        &[(NETNODE, VSWITCHD)],
        &[(NETNODE, OVSDB)],
        &[(NETNODE, OVSDB), (NETNODE, VSWITCHD)],
        &[(NETNODE, VSWITCHD), (NETNODE, NETNODE_PROGRAM)],
        &[
            ("w1", VSWITCHD),
            ("w2", OVSDB),
            (NETNODE, VSWITCHD),
            (CONTROLLER, CONTROLLER_PROGRAM),
        ],
    ];
    for dying in all {
        let names: Vec<String> = dying
            .iter()
            .map(|(node, program)| format!("{program} on {node}"))
            .collect();
        let start = Instant::now();
        dying
            .iter()
            .for_each(|(node, program)| lab.kill_daemon(node, program).unwrap());
        dying
            .iter()
            .for_each(|(node, program)| lab.start_daemon(node, program).unwrap());
        right_again(&names.join(", "), start);
    }

    // A database that is lost: the switch starts with an empty one.
    for node in ["w2", NETNODE] {
        let start = Instant::now();
        [VSWITCHD, OVSDB]
            .iter()
            .for_each(|program| lab.kill_daemon(node, program).unwrap());
        on(&lab, node, &["rm", "/var/lib/openvswitch/conf.db"]);
        [OVSDB, VSWITCHD]
            .iter()
            .for_each(|program| lab.start_daemon(node, program).unwrap());
        right_again(&format!("the switch's database on {node}"), start);
    }
    // A guest that starts now is served as the first ones were.
    for name in ["shop/web.eth0", "shop/db.eth1"] {
        assert_eq!(guests.discover(name), guests.nic(name).address);
    }
}
