//! What carries the guests' frames dies under the daemons of ours: dnsmasq, and both processes of Open vSwitch.

use std::time::{Duration, Instant};

use trunkline_integration::lab::layout::NETNODE;
use trunkline_integration::lab::{AGENT_PROGRAM, NETNODE_PROGRAM, OVSDB, Options, VSWITCHD};
use trunkline_integration::wait::until;

use crate::dataplane::await_in_step;
use crate::looks::{dhcp_servers, on};
use crate::picture::{self, await_same};
use crate::support::{LIMIT, apply, fleet};
use crate::traffic::{Guests, TOPOLOGY, Traffic, report};

const CALM: Duration = Duration::from_secs(1);

#[test]
fn what_dies_under_our_daemons_is_right_again_without_a_hand() {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    let guests = Guests::start(&lab);
    let traffic = Traffic::start(&guests);
    await_in_step(&lab);
    let start = Instant::now();
    std::thread::sleep(CALM);
    let calm = traffic.since(start);
    let (before, held, had) = (picture::of_all(&lab), guests.holders(&lab), guests.leases());
    let right_again = |what: &str, start: Instant| {
        await_same(&lab, &before, what);
        await_in_step(&lab);
        traffic.await_all();
        report(what, &calm, &traffic.since(start));
        println!("{what:44} all right again after {:.1} s", start.elapsed().as_secs_f64());
        assert_eq!(guests.leases(), had, "{what}");
        assert_eq!(guests.holders(&lab), held, "{what}");
    };

    // Its leases are in its file, and the next one answers whoever asks.
    let servers = dhcp_servers(&lab);
    for name in ["shop/web.eth0", "shop/db.eth1"] {
        let nic = guests.nic(name);
        let start = Instant::now();
        on(&lab, NETNODE, &["kill", "-KILL", &servers[&nic.vlan]]);
        assert_eq!(guests.discover(name), nic.address);
        println!("DHCP of {name} answered after {:.1} s", start.elapsed().as_secs_f64());
        let new = || match dhcp_servers(&lab).get(&nic.vlan) {
            Some(pid) if *pid != servers[&nic.vlan] => Ok(()),
            other => Err(format!("{other:?}")),
        };
        until("another DHCP server", LIMIT, new).unwrap();
        right_again(&format!("dnsmasq of VLAN {}", nic.vlan), start);
    }

    for (node, daemon) in [("w1", AGENT_PROGRAM), (NETNODE, NETNODE_PROGRAM)] {
        for programs in [&[VSWITCHD][..], &[OVSDB], &[OVSDB, VSWITCHD], &[VSWITCHD, daemon]] {
            let what = format!("{} on {node}", programs.join(" and "));
            let start = Instant::now();
            programs
                .iter()
                .for_each(|program| lab.kill_daemon(node, program).unwrap());
            programs
                .iter()
                .for_each(|program| lab.start_daemon(node, program).unwrap());
            right_again(&what, start);
        }
    }
    // A guest that starts now is served as the first ones were.
    for name in ["shop/web.eth0", "shop/db.eth1"] {
        assert_eq!(guests.discover(name), guests.nic(name).address);
    }
}
