//! The controller's database is damaged: it refuses to start, loudly, and the readable export brings everything back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use trunkline_integration::demo::Fleet;
use trunkline_integration::lab::layout::CONTROLLER;
use trunkline_integration::lab::{CONTROLLER_PROGRAM, Lab, Output, programs};
use trunkline_integration::wait::until;
use trunkline_proto::wire::Slice;

use crate::dataplane::{DataPlane, await_in_step};
use crate::metrics::value;
use crate::streams::Pings;
use crate::support::{LIMIT, api, guests, with_two_slices};

const STATE: &str = "/var/lib/trunkline-controller";

/// Every file below a folder and its content.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let below = files(&entry.path()).into_iter();
            found.extend(below.map(|(path, content)| (format!("{name}/{path}"), content)));
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

fn write(folder: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// The controller's program with its state elsewhere.
fn controller(lab: &Lab, state: &str, arguments: &[&str]) -> Output {
    let host = lab.host(CONTROLLER).unwrap();
    let config = fs::read_to_string(host.folder().join("trunkline-controller.toml")).unwrap();
    assert!(config.contains(STATE), "{config}");
    let path = host.folder().join("elsewhere.toml").display().to_string();
    fs::write(&path, config.replace(STATE, state)).unwrap();
    let program = programs::find(CONTROLLER_PROGRAM).unwrap().display().to_string();
    let argv = [&[program.as_str()], arguments, &["--config", &path]].concat();
    host.exec(&argv).unwrap()
}

/// The controller does not start on these files, says why, and leaves them as they are.
fn assert_refused(lab: &Lab, what: &str, state: &BTreeMap<String, Vec<u8>>, says: &str) {
    let folder = format!("/var/lib/refused-{}", what.replace(' ', "-"));
    let outside = lab.host(CONTROLLER).unwrap().path(&folder);
    write(&outside, state);
    // The second time as well: whatever the first one did to the files, it did not make them good.
    for _ in 0..2 {
        let output = controller(lab, &folder, &["run"]);
        assert_eq!(output.status, 1, "{what}: {}", output.stderr);
        for part in [says, &folder] {
            assert!(
                output.stderr.contains(part),
                "{what} is refused without {part:?}: {}",
                output.stderr
            );
        }
    }
    // The database's own program may tidy up in its folder before it is seen that something is missing; nothing else
    // is touched, and nothing new is begun.
    let (now, own) = (files(&outside), |name: &&String| !name.starts_with("db/"));
    assert!(
        now.keys().filter(own).eq(state.keys().filter(own)),
        "{what}: files came or went: {:?}",
        now.keys()
    );
    assert!(
        state.contains_key("db/db") || !now.contains_key("db/db"),
        "{what}: a database was begun"
    );
    for name in state.keys().filter(own) {
        assert_eq!(now[name], state[name], "{what}: {name} was changed");
    }
}

/// Overwrites a piece of `len` bytes at each of these places, in per cent of the file.
fn overwritten(state: &BTreeMap<String, Vec<u8>>, places: &[usize], len: usize) -> BTreeMap<String, Vec<u8>> {
    let mut state = state.clone();
    let log = state.get_mut("db/db").unwrap();
    // sled's file is longer than what it holds.
    let used = log.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for place in places {
        let at = used * place / 100;
        let end = (at + len).min(used);
        log[at..end].fill(0xa5);
    }
    state
}

/// What the operator asked for and what was allocated, without the store's own counts.
fn asked(slices: Vec<Slice>) -> Vec<Slice> {
    let without = |mut slice: Slice| {
        slice.revision = 0;
        if let Some(deployed) = &mut slice.deployed {
            deployed.term = 0;
            deployed.generation = 0;
        }
        slice
    };
    slices.into_iter().map(without).collect()
}

#[test]
fn what_is_not_a_whole_state_of_ours_is_refused_and_left_alone() {
    let lab = with_two_slices();
    lab.stop_daemon(CONTROLLER, CONTROLLER_PROGRAM).unwrap();
    let state = files(&lab.host(CONTROLLER).unwrap().path(STATE));
    assert!(
        state.contains_key("db/db") && state.contains_key("TRUNKLINE"),
        "{:?}",
        state.keys()
    );

    let foreign = BTreeMap::from([
        ("holiday.jpg".to_owned(), vec![0xff; 4096]),
        ("notes/todo.txt".to_owned(), b"water the plants".to_vec()),
    ]);
    assert_refused(&lab, "a foreign directory", &foreign, "not a Trunkline state directory");

    let mut empty = state.clone();
    empty.insert("db/db".to_owned(), Vec::new());
    assert_refused(&lab, "an empty log", &empty, "restore");
    let gone = state
        .clone()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("db/"))
        .collect();
    assert_refused(&lab, "a missing database", &gone, "restore");
    let unmarked = state
        .clone()
        .into_iter()
        .filter(|(name, _)| name != "TRUNKLINE")
        .collect();
    assert_refused(&lab, "a database without its marker", &unmarked, "TRUNKLINE");
    let mut other = state.clone();
    other.insert("TRUNKLINE".to_owned(), b"\0\0\0\0".to_vec());
    assert_refused(&lab, "an unreadable marker", &other, "restore");
    let places: Vec<usize> = (5..100).step_by(10).collect();
    assert_refused(
        &lab,
        "a log overwritten all over",
        &overwritten(&state, &places, 48),
        "restore",
    );
    assert_refused(
        &lab,
        "a log without its beginning",
        &overwritten(&state, &[0], 1024),
        "restore",
    );
    assert_refused(
        &lab,
        "a log without its end",
        &overwritten(&state, &[60], usize::MAX / 2),
        "restore",
    );

    // The test would prove nothing if the same files were refused undamaged.
    let whole = lab.host(CONTROLLER).unwrap().path("/var/lib/whole");
    write(&whole, &state);
    let exported = controller(&lab, "/var/lib/whole", &["export", "/var/lib/whole.jsonl"]);
    assert!(exported.ok(), "{}", exported.stderr);
}

#[test]
fn a_damaged_database_is_brought_back_from_the_export_without_touching_the_network() {
    let lab = with_two_slices();
    let guests = guests(&lab, &["green"]);
    let left = guests["green/left"].await_lease("eth1", LIMIT).unwrap().address;
    guests["green/right"].await_lease("eth1", LIMIT).unwrap();
    await_in_step(&lab);
    let (network, slices, before) = (
        DataPlane::of(&lab),
        api(&lab).slices().unwrap(),
        api(&lab).status().unwrap(),
    );
    let pings = Pings::start(&guests["green/right"], left);

    lab.stop_daemon(CONTROLLER, CONTROLLER_PROGRAM).unwrap();
    let exported = controller(&lab, STATE, &["export", "/var/lib/export.jsonl"]);
    assert!(exported.ok(), "{}", exported.stderr);
    let host = lab.host(CONTROLLER).unwrap();
    let log = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(host.path(&format!("{STATE}/db/db")))
        .unwrap();
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut &log, &mut content).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    for tenth in 0..10 {
        log.write_all_at(&[0xa5; 48], u64::try_from(used * tenth / 10).unwrap())
            .unwrap();
    }
    let refused = lab
        .start_daemon(CONTROLLER, CONTROLLER_PROGRAM)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("restore"), "{refused}");

    // Not into what is there: that may be all that is left.
    let into_it = controller(&lab, STATE, &["restore", "/var/lib/export.jsonl"]);
    assert!(!into_it.ok() && into_it.stderr.contains(STATE), "{}", into_it.stderr);
    host.must(&["mv", STATE, "/var/lib/damaged"]).unwrap();
    let restored = controller(&lab, STATE, &["restore", "/var/lib/export.jsonl"]);
    assert!(restored.ok(), "{}", restored.stderr);
    lab.start_daemon(CONTROLLER, CONTROLLER_PROGRAM).unwrap();
    Fleet::connect(&lab).unwrap().await_nodes().unwrap();
    await_in_step(&lab);

    let after = api(&lab).status().unwrap();
    assert!(after.term > before.term, "{} after {}", after.term, before.term);
    assert_eq!(asked(api(&lab).slices().unwrap()), asked(slices));
    assert_eq!(
        value(&lab, CONTROLLER, "trunkline_update_resources_total"),
        0.0,
        "the nodes only adopt the term"
    );
    assert_eq!(DataPlane::of(&lab), network);
    pings.assert_lossless();

    // What the export does not know of is not given out before every node is clean under the new term, and a while longer.
    let later = "slices:\n  - name: later\n    vms:\n      - { name: a, worker: w1, data_interfaces_count: 1 }\n      - { name: b, worker: w2, data_interfaces_count: 1 }\n    links: [[a.eth1, b.eth1]]\n";
    until("a new slice to be taken after the restore", LIMIT * 2, || {
        let fleet = Fleet::connect(&lab).map_err(|error| error.chain())?;
        fleet.apply(later, "topology.yaml").map_err(|error| error.chain())
    })
    .unwrap();
    await_in_step(&lab);
    pings.assert_lossless();
}
