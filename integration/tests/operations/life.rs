//! A worker's life with real agents: VMs move, a worker is emptied, and one that is off is waited for by nobody.

use trunkline_integration::lab::{AGENT_PROGRAM, Lab};
use trunkline_integration::wait::until;

use crate::looks::try_on;
use crate::support::{LIMIT, api, must_trunkctl, trunkctl, with_two_slices};

/// Worker and TAPs of a VM in what is deployed.
fn place(lab: &Lab, slice: &str, vm: &str) -> (String, Vec<String>) {
    let slices = api(lab).slices().unwrap();
    let slice = slices.iter().find(|one| one.name == slice).unwrap();
    let vm = slice.vms.iter().find(|one| one.name == vm).unwrap();
    (vm.worker.clone(), vm.interfaces.iter().map(|i| i.tap.clone()).collect())
}

fn has(lab: &Lab, worker: &str, tap: &str) -> bool {
    try_on(lab, worker, &["ip", "link", "show", "dev", tap]).ok()
}

/// Every TAP of the VM is on this worker and on no other.
fn await_taps(lab: &Lab, worker: &str, other: &str, taps: &[String]) {
    until("the TAPs to follow", LIMIT, || {
        let right = taps.iter().all(|tap| has(lab, worker, tap) && !has(lab, other, tap));
        if right {
            Ok(())
        } else {
            Err(format!("{taps:?} are not on {worker} alone"))
        }
    })
    .unwrap();
}

#[test]
fn a_moved_vms_taps_follow_it_and_a_worker_that_is_off_is_drained_and_forgotten() {
    let lab = with_two_slices();
    let (from, taps) = place(&lab, "blue", "app");
    let to = if from == "w1" { "w2" } else { "w1" };
    assert!(taps.iter().all(|tap| has(&lab, &from, tap)));
    must_trunkctl(&lab, &["vm", "move", "blue/app", "--to", to, "--deploy", "--wait"]);
    await_taps(&lab, to, &from, &taps);
    assert_eq!(
        place(&lab, "blue", "app"),
        (to.to_owned(), taps.clone()),
        "ids, and so names and MACs, stay"
    );

    // It goes off: its VMs get another place, and nobody waits for it.
    lab.stop_daemon(to, AGENT_PROGRAM).unwrap();
    until("it to be away", LIMIT, || {
        match api(&lab).nodes().unwrap().into_iter().find(|node| node.name == to) {
            Some(node) if !node.connected => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    assert_eq!(trunkctl(&lab, &["node", "forget", to]).status, 4, "VMs are there");
    must_trunkctl(&lab, &["node", "gone", to, "--yes"]);
    // It says nothing, and is not waited for: what it had is to be ready elsewhere.
    let drained = must_trunkctl(&lab, &["node", "drain", to, "--wait"]);
    assert!(drained.contains("blue/app"), "{drained}");
    assert!(taps.iter().all(|tap| has(&lab, &from, tap)));

    // It is back, cleans up, and is still closed.
    lab.start_daemon(to, AGENT_PROGRAM).unwrap();
    await_taps(&lab, &from, to, &taps);
    let shown = must_trunkctl(&lab, &["node", "show", to]);
    assert!(
        shown.contains("cordoned") && !shown.contains("declared gone"),
        "{shown}"
    );

    // All of it goes back there, and the wait ends when nothing is left of it here.
    must_trunkctl(&lab, &["node", "uncordon", to]);
    must_trunkctl(&lab, &["node", "replace", &from, to, "--wait"]);
    assert!(taps.iter().all(|tap| has(&lab, to, tap) && !has(&lab, &from, tap)));
    let events = must_trunkctl(&lab, &["events", "--node", to]);
    for kind in [
        "vm.moved",
        "node.gone",
        "node.cordoned",
        "node.drained",
        "node.returned",
    ] {
        assert!(events.contains(kind), "{kind} is not in\n{events}");
    }
}
