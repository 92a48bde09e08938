//! The whole way: a topology file, `trunkctl`, real switches and servers, guests.
#![allow(clippy::unwrap_used)]

mod support;

use trunkline_integration::demo::{MACHINES, prove, start_guests, table};

use support::{api, await_clean, must_trunkctl, with_two_slices};
use trunkline_integration::demo::TOPOLOGY;

#[test]
fn two_slices_are_proven_from_inside_their_guests_and_undone_without_a_trace() {
    let lab = with_two_slices();
    let slices = api(&lab).slices().unwrap();
    let guests = start_guests(&lab, &slices, &MACHINES).unwrap();
    let rows = prove(&lab, &slices, &guests).unwrap();
    assert!(rows.iter().all(|row| row.ok), "\n{}", table(&rows));
    drop(guests);

    // The same file again is no change.
    let before = api(&lab).status().unwrap();
    let path = lab.folder().join("again.yaml");
    std::fs::write(&path, TOPOLOGY).unwrap();
    let said = must_trunkctl(
        &lab,
        &["apply", "-f", &path.display().to_string(), "--deploy", "--wait"],
    );
    assert!(said.to_lowercase().contains("nothing"), "{said}");
    let after = api(&lab).status().unwrap();
    assert_eq!((after.revision, after.generation), (before.revision, before.generation));

    let forwarding = || {
        lab.host("nn")
            .unwrap()
            .must(&["cat", "/proc/sys/net/ipv4/ip_forward"])
            .unwrap()
    };
    assert_eq!(forwarding(), "1\n");
    must_trunkctl(&lab, &["slice", "undeploy", "blue", "--wait"]);
    must_trunkctl(&lab, &["slice", "undeploy", "green", "--wait"]);
    await_clean(&lab);
    assert_eq!(forwarding(), "0\n", "it was us who had switched it on");
}
