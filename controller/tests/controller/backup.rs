//! The way back after the database is lost.

use std::{error::Error as _, fs};

use crate::common::{
    Controller, apply, eventually,
    node::{Disk, Node},
    pair, vm,
};
use trunkline_controller::{
    backup::{self, BackupError},
    daemon::DaemonError,
    model::Timestamp,
    store::StoreError,
};
use trunkline_proto::{
    client::{ApiError, new_request_id},
    daemon::DurationText,
    wire,
};

fn now() -> Timestamp {
    Timestamp::from_millis(0)
}

#[tokio::test]
async fn after_damage_the_controller_refuses_and_a_restore_brings_everything_back_under_a_new_term() {
    let mut controller = Controller::start().await;
    let mut w1 = Node::up(&controller, Disk::worker("w1")).await;
    let operator = controller.operator().await;
    let solo = |vms: usize| wire::SliceSpec {
        name: "solo".into(),
        vms: (0..vms).map(|n| vm(&format!("vm{n}"), "w1", 0)).collect(),
        ..wire::SliceSpec::default()
    };
    operator
        .slices()
        .apply_slices(apply(vec![solo(2)], true))
        .await
        .unwrap();
    w1.take().await;
    let (disk_then, held_then) = (w1.disk.clone(), w1.disk.held.clone());
    drop((w1, operator));
    controller.down().await;
    let file = controller.dir.path().join("export.jsonl");
    backup::export(controller.state_dir(), &file, now()).unwrap();

    // Life goes on after the export, and the node hears of it.
    controller.up().await.unwrap();
    let operator = controller.operator().await;
    let before = operator
        .slices()
        .list_slices(wire::ListSlicesRequest::default())
        .await
        .unwrap()
        .into_inner();
    operator
        .slices()
        .apply_slices(apply(vec![solo(5)], true))
        .await
        .unwrap();
    let w1 = Node::up(&controller, disk_then).await;
    let ahead = w1.disk.clone();
    assert!(ahead.held.len() > held_then.len());
    drop((w1, operator));
    controller.down().await;

    // A disk goes bad where the slice is.
    let log = controller.state_dir().join("db/db");
    let mut bytes = fs::read(&log).unwrap();
    let places: Vec<usize> = (0..bytes.len() - 4)
        .filter(|at| &bytes[*at..at + 4] == b"solo")
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + 4].fill(0xa5);
    }
    fs::write(&log, bytes).unwrap();
    let refused = controller.up().await.unwrap_err();
    assert!(
        matches!(refused, DaemonError::Store(StoreError::Refused { .. })),
        "{refused}"
    );
    assert!(refused.source().unwrap().to_string().contains("restore"), "{refused:?}");
    let in_the_way = backup::restore(&file, controller.state_dir(), None).unwrap_err();
    assert!(
        matches!(in_the_way, BackupError::Store(StoreError::Refused { .. })),
        "{in_the_way}"
    );

    fs::rename(controller.state_dir(), controller.dir.path().join("damaged")).unwrap();
    let restored = backup::restore(&file, controller.state_dir(), None).unwrap();
    assert_eq!((restored.term, restored.slices), (2, 1));
    controller.up().await.unwrap();
    let operator = controller.operator().await;
    let after = operator
        .slices()
        .list_slices(wire::ListSlicesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(after.slices, before.slices);
    let events = operator
        .events()
        .list_events(wire::ListEventsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .events;
    assert!(
        events.iter().any(|event| event.r#type == "slice.deployed"),
        "the journal came back too"
    );

    // The node, which was given more, is told what holds now, and takes it because the term is newer.
    let mut w1 = Node::connect(&controller, ahead).await.unwrap();
    let update = w1.take().await;
    assert_eq!(update.term, 2);
    assert_eq!(w1.disk.held, held_then);
    w1.expect_nothing().await;

    // What may have been given away since the export is nobody's until the node has cleaned up.
    let new = || wire::SliceSpec {
        name: "new".into(),
        vms: vec![vm("a", "w1", 1)],
        ..wire::SliceSpec::default()
    };
    let take = || async {
        let taken = operator.slices().apply_slices(apply(vec![new()], true)).await;
        taken.map(drop).map_err(|status| ApiError::from(status).violations)
    };
    let why = take().await.unwrap_err();
    assert!(
        why[0].description.contains("after the restore") && why[0].description.contains("w1"),
        "{why:?}"
    );
    w1.report_ready().await;
    eventually("a new slice is taken", take, Result::is_ok).await.unwrap();
}

#[tokio::test]
async fn a_running_controller_exports_soon_after_a_change_and_that_can_be_restored() {
    let controller = Controller::start_with(|config| {
        // What is written below is written for the change, not for the hour.
        config.state.export_every = DurationText(std::time::Duration::from_secs(3600));
    })
    .await;
    for name in ["w1", "w2"] {
        drop(Node::up(&controller, Disk::worker(name)).await);
    }
    let operator = controller.operator().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    let file = controller.state_dir().join("export.jsonl");
    let written = || async { fs::read_to_string(&file).unwrap_or_default() };
    eventually("the slice is in the export", written, |text| {
        text.contains("\"frozen/shop/")
    })
    .await;
    let elsewhere = controller.dir.path().join("elsewhere");
    let restored = backup::restore(&file, &elsewhere, Some(7)).unwrap();
    assert_eq!((restored.term, restored.slices), (7, 1));
    assert_eq!(restored.deployed, [("shop".to_owned(), 1)]);
    assert!(headers(&file).last().unwrap().contains(&restored.at), "{}", restored.at);

    // What comes later is added: a slice that is new, and one that is gone.
    operator
        .slices()
        .apply_slices(apply(vec![pair("other")], true))
        .await
        .unwrap();
    let gone = wire::DeleteSliceRequest {
        request_id: new_request_id(),
        name: "shop".into(),
        expected_revision: 0,
    };
    operator.slices().delete_slice(gone).await.unwrap();
    eventually("both are in the export", written, |text| {
        text.contains("\"frozen/other/") && text.contains("{\"key\":\"slice/shop\",\"gone\":true}")
    })
    .await;
    assert!(headers(&file).len() > 1);
    let target = controller.dir.path().join("later");
    let restored = backup::restore(&file, &target, None).unwrap();
    assert_eq!(restored.deployed, [("other".to_owned(), 1)]);

    // The machine went down while the last part was written.
    let text = fs::read_to_string(&file).unwrap();
    let copy = controller.dir.path().join("cut.jsonl");
    fs::write(&copy, &text[..text.len() - 20]).unwrap();
    let before = backup::restore(&copy, &controller.dir.path().join("before"), None).unwrap();
    assert!(before.revision < restored.revision, "{before:?}");
    // Damage is no cut.
    fs::write(&copy, text.replace("frozen/other", "frozen/others")).unwrap();
    let error = backup::restore(&copy, &controller.dir.path().join("damaged"), None).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[tokio::test]
async fn an_export_that_is_not_whole_is_refused() {
    let mut controller = Controller::start().await;
    let operator = controller.operator().await;
    let empty = wire::SliceSpec {
        name: "shop".into(),
        ..wire::SliceSpec::default()
    };
    operator.slices().apply_slices(apply(vec![empty], false)).await.unwrap();
    drop(operator);
    controller.down().await;
    let file = controller.dir.path().join("export.jsonl");
    backup::export(controller.state_dir(), &file, now()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let cut: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    for (bad, says) in [
        (String::new(), "empty"),
        ("hello\nworld\n".into(), "header"),
        (cut, "cut short"),
        (text.replace("shop", "shoq"), "checksum"),
        (
            text.replace("\"trunkline_export\":1", "\"trunkline_export\":9"),
            "another version",
        ),
    ] {
        fs::write(&file, bad).unwrap();
        let target = controller.dir.path().join("target");
        let error = backup::restore(&file, &target, None).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(!target.exists(), "nothing is made of it");
    }
    fs::write(&file, text).unwrap();
    let error = backup::restore(&file, &controller.dir.path().join("target"), Some(1))
        .unwrap_err()
        .to_string();
    assert!(error.contains("raise the term"), "{error}");
}

fn headers(file: &std::path::Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let headers = text.lines().filter(|line| line.contains("\"trunkline_export\""));
    headers.map(str::to_owned).collect()
}
