//! Daemons of ours die and are upgraded, alone and two at once.

use std::time::{Duration, Instant};

use trunkline_integration::demo::Fleet;
use trunkline_integration::lab::layout::{CONTROLLER, NETNODE};
use trunkline_integration::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, Lab, NETNODE_PROGRAM, Options};

use crate::dataplane::{DataPlane, await_in_step};
use crate::support::{apply, fleet};
use crate::traffic::{EVERY_MS, Guests, TOPOLOGY, Traffic, report};

const CALM: Duration = Duration::from_secs(2);

type Daemon = (&'static str, &'static str);

const THE_CONTROLLER: Daemon = (CONTROLLER, CONTROLLER_PROGRAM);
const AN_AGENT: Daemon = ("w1", AGENT_PROGRAM);
const ANOTHER_AGENT: Daemon = ("w2", AGENT_PROGRAM);
const THE_NETNODE: Daemon = (NETNODE, NETNODE_PROGRAM);

#[derive(Debug, Clone, Copy)]
enum End {
    /// SIGKILL.
    Killed,
    /// SIGTERM, and another start of the program: what an upgrade does.
    Upgraded,
}

/// All of them end before the first one starts again.
fn restart(lab: &Lab, daemons: &[Daemon], end: End) {
    for (host, program) in daemons {
        match end {
            End::Killed => lab.kill_daemon(host, program).unwrap(),
            End::Upgraded => lab.stop_daemon(host, program).unwrap(),
        }
    }
    for (host, program) in daemons {
        lab.start_daemon(host, program).unwrap();
    }
    Fleet::connect(lab).unwrap().await_nodes().unwrap();
    await_in_step(lab);
}

#[test]
fn no_frame_and_no_lease_is_lost_when_daemons_of_ours_die_or_are_upgraded() {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    let guests = Guests::start(&lab);
    let leases = (guests.leases(), guests.lease_files(&lab));
    await_in_step(&lab);
    let network = DataPlane::of(&lab);
    let traffic = Traffic::start(&guests, EVERY_MS);

    let start = Instant::now();
    std::thread::sleep(CALM);
    let calm = traffic.since(start);
    let mut lost = Vec::new();
    for (daemons, end) in [
        (&[THE_CONTROLLER][..], End::Killed),
        (&[AN_AGENT], End::Killed),
        (&[THE_NETNODE], End::Killed),
        (&[THE_CONTROLLER], End::Killed),
        (&[AN_AGENT], End::Killed),
        (&[THE_NETNODE], End::Killed),
        (&[AN_AGENT, THE_CONTROLLER], End::Killed),
        (&[THE_CONTROLLER, THE_NETNODE], End::Killed),
        (&[AN_AGENT, THE_NETNODE, ANOTHER_AGENT, THE_CONTROLLER], End::Killed),
        (&[THE_CONTROLLER], End::Upgraded),
        (&[AN_AGENT], End::Upgraded),
        (&[THE_NETNODE], End::Upgraded),
    ] {
        let names: Vec<&str> = daemons.iter().map(|(_, program)| *program).collect();
        let what = format!("{end:?}: {}", names.join(" and "));
        let start = Instant::now();
        restart(&lab, daemons, end);
        traffic.await_all();
        let now = traffic.since(start);
        report(&what, &calm, &now);
        let of_path = |(path, account): &(&str, _)| format!("{what}: {path}: {account:?}");
        lost.extend(now.iter().filter(|(_, account)| account.lost > 0).map(of_path));
        assert_eq!(DataPlane::of(&lab), network, "{what}");
        assert_eq!((guests.leases(), guests.lease_files(&lab)), leases, "{what}");
    }
    assert!(lost.is_empty(), "{lost:#?}");
}
