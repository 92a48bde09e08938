//! How daemons begin and end: at once when asked, and not at all with a wrong file.

use std::time::{Duration, Instant};

use trunkline_integration::lab::layout::{CONTROLLER, NETNODE};
use trunkline_integration::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, NETNODE_PROGRAM, programs};
use trunkline_proto::wire::{FollowEventsRequest, WatchSlicesRequest, WatchStatusRequest};

use crate::support::{api, with_two_slices};

/// Less than an operator's patience, more than a busy machine needs.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn every_daemon_ends_at_once_on_sigterm_with_its_streams_open() {
    let lab = with_two_slices();
    let (api, other) = (api(&lab), api(&lab));
    let client = other.client();
    let streams = async {
        let status = client
            .watch()
            .watch_status(WatchStatusRequest::default())
            .await
            .unwrap();
        let slices = client
            .watch()
            .watch_slices(WatchSlicesRequest::default())
            .await
            .unwrap();
        let events = client
            .events()
            .follow_events(FollowEventsRequest::default())
            .await
            .unwrap();
        (status.into_inner(), slices.into_inner(), events.into_inner())
    };
    let (mut status, mut slices, mut events) = other.block_on(streams);
    assert!(other.block_on(status.message()).unwrap().is_some());
    assert!(!api.slices().unwrap().is_empty());

    // The nodes first, while they have sessions; the controller with sessions and watches.
    for (host, program) in [
        (NETNODE, NETNODE_PROGRAM),
        ("w1", AGENT_PROGRAM),
        (CONTROLLER, CONTROLLER_PROGRAM),
    ] {
        let began = Instant::now();
        lab.stop_daemon(host, program).unwrap();
        assert!(began.elapsed() < SOON, "{program} took {:?}", began.elapsed());
    }
    // Every stream was told of it, whatever was still under way on it.
    let drained = async {
        while let Ok(Some(_)) = status.message().await {}
        while let Ok(Some(_)) = slices.message().await {}
        while let Ok(Some(_)) = events.message().await {}
    };
    other
        .block_on(async { tokio::time::timeout(SOON, drained).await })
        .unwrap();

    // A node whose controller is away ends as well.
    let began = Instant::now();
    lab.stop_daemon("w2", AGENT_PROGRAM).unwrap();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn a_wrong_key_in_a_configuration_is_refused_by_name() {
    let lab = with_two_slices();
    for (host, program, wrong) in [
        (CONTROLLER, CONTROLLER_PROGRAM, "state.folder"),
        ("w1", AGENT_PROGRAM, "switch.up_link"),
        (NETNODE, NETNODE_PROGRAM, "switch.up_link"),
    ] {
        lab.stop_daemon(host, program).unwrap();
        let at = lab.host(host).unwrap();
        let right = std::fs::read_to_string(at.folder().join(format!("{program}.toml"))).unwrap();
        let (section, key) = wrong.split_once('.').unwrap();
        let header = format!("[{section}]\n");
        assert!(right.contains(&header), "{right}");
        let path = at.folder().join("wrong.toml").display().to_string();
        std::fs::write(&path, right.replace(&header, &format!("{header}{key} = \"x\"\n"))).unwrap();
        let path_of_program = programs::find(program).unwrap().display().to_string();
        let output = at.exec(&[path_of_program.as_str(), "run", "--config", &path]).unwrap();
        assert_ne!(output.status, 0, "{program} started with a wrong key");
        assert!(
            output.stderr.contains(key),
            "{program} does not name {key}: {}",
            output.stderr
        );
        assert!(
            output.stderr.contains("wrong.toml"),
            "{program} does not name the file: {}",
            output.stderr
        );
    }
}
