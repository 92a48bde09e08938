//! Daemons of ours die while a slice is being deployed or taken away: what was answered is done, what was not can be
//! asked for again, and the slice beside it loses nothing.

use std::time::{Duration, Instant};

use trunkline_integration::api::Api;
use trunkline_integration::lab::layout::{CONTROLLER, NETNODE};
use trunkline_integration::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, Lab, NETNODE_PROGRAM, Options};
use trunkline_integration::wait::until;

use crate::dataplane::await_in_step;
use crate::looks::file;
use crate::picture::{self, await_same};
use crate::support::{LIMIT, apply, fleet, trunkctl};
use crate::traffic::{Guests, NOW_AND_THEN, TOPOLOGY, Traffic, report};

const BESIDE: &str = "
slices:
  - name: beside
    vms:
      - { name: left, worker: w1, internet_enabled: true, data_interfaces_count: 3 }
      - { name: right, worker: w2, internet_enabled: true, data_interfaces_count: 3 }
    links:
      - [left.eth1, right.eth1]
      - [left.eth2, right.eth2]
      - { name: secured, port_security: true, ends: [left.eth3, right.eth3] }
";

/// Asks until it is answered: a controller that died may have done it already.
fn insist(lab: &Lab, arguments: &[&str], done: impl Fn() -> bool) {
    until(&format!("trunkctl {arguments:?}"), LIMIT, || {
        let output = trunkctl(lab, arguments);
        if output.ok() || done() {
            return Ok(());
        }
        Err(output.stderr)
    })
    .unwrap();
}

/// True when nobody has anything of it any more. A controller that is away says nothing.
fn gone(lab: &Lab) -> bool {
    let status = Api::connect(&lab.controller_endpoint(), &lab.bundle("operator")).and_then(|api| api.status());
    status.is_ok_and(|status| status.slices.iter().all(|slice| slice.name != "beside"))
}

#[test]
fn a_death_in_the_middle_of_a_change_is_made_good_and_costs_no_other_slice_a_frame() {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    let guests = Guests::start(&lab);
    let traffic = Traffic::start(&guests, NOW_AND_THEN);
    await_in_step(&lab);
    let before = picture::of_all(&lab);
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    let calm = traffic.since(start);
    let topology = file(&lab, BESIDE);
    let (controller, agent, netnode) = (
        (CONTROLLER, CONTROLLER_PROGRAM),
        ("w1", AGENT_PROGRAM),
        (NETNODE, NETNODE_PROGRAM),
    );
    let moments: [(u64, &[(&str, &str)]); 4] = [
        (30, &[agent]),
        (80, &[controller]),
        (140, &[netnode, controller]),
        (220, &[agent, netnode]),
    ];
    let mut lost = 0;
    for (moment, daemons) in moments {
        for deploy in [true, false] {
            let start = Instant::now();
            std::thread::scope(|scope| {
                let change = scope.spawn(|| {
                    if deploy {
                        insist(&lab, &["apply", "-f", &topology, "--deploy"], || false);
                    } else {
                        insist(&lab, &["slice", "delete", "beside"], || gone(&lab));
                    }
                });
                std::thread::sleep(Duration::from_millis(moment));
                daemons
                    .iter()
                    .for_each(|(host, program)| lab.kill_daemon(host, program).unwrap());
                daemons
                    .iter()
                    .for_each(|(host, program)| lab.start_daemon(host, program).unwrap());
                change.join().unwrap();
            });
            if !deploy {
                until("the slice to be gone", LIMIT, || {
                    if gone(&lab) { Ok(()) } else { Err(String::new()) }
                })
                .unwrap();
            }
            await_in_step(&lab);
            let names: Vec<&str> = daemons.iter().map(|(_, program)| *program).collect();
            let what = format!(
                "{moment} ms into a {}: {}",
                if deploy { "deploy" } else { "delete" },
                names.join(" and ")
            );
            if !deploy {
                await_same(&lab, &before, &what);
            }
            let now = traffic.since(start);
            report(&what, &calm, &now);
            lost += now.iter().map(|(_, account)| account.lost).sum::<usize>();
        }
    }
    assert_eq!(lost, 0, "frames of the slice beside it");
}
