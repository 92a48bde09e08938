//! The store as an operator meets it: killed, damaged, foreign, half-made.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use trunkline_controller::store::{Batch, Rows, SledStore, Store, StoreError};

const CHILD_DIR: &str = "TRUNKLINE_TEST_STORE_CHILD";

fn rows(of: &[(&str, &str)]) -> Rows {
    of.iter()
        .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
        .collect()
}

fn put(key: &str, value: &str) -> Batch {
    Batch {
        puts: vec![(key.into(), value.into())],
        deletes: Vec::new(),
    }
}

fn refusal(path: &Path) -> String {
    match SledStore::open(path) {
        Err(error @ StoreError::Refused { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(None) => panic!("treated as empty"),
        Ok(Some(_)) => panic!("opened"),
    }
}

#[test]
fn a_commit_is_whole_counted_and_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::create(dir.path(), "c1", rows(&[("a", "1"), ("b", "2")])).unwrap();
    let at = store.load().unwrap().revision;
    let watch = store.watch();
    let batch = Batch {
        puts: vec![("c".into(), b"3".to_vec())],
        deletes: vec!["a".into(), "never".into()],
    };
    assert_eq!(store.commit(at, &batch).unwrap(), at + 1);
    assert_eq!(*watch.borrow(), at + 1);
    drop(store);
    let store = SledStore::open(dir.path()).unwrap().unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(
        (loaded.revision, loaded.rows),
        (at + 1, rows(&[("b", "2"), ("c", "3")]))
    );
    assert_eq!(store.cluster_id(), "c1");
}

#[test]
fn a_commit_on_an_old_revision_is_a_conflict_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::create(dir.path(), "c1", Rows::new()).unwrap();
    let at = store.load().unwrap().revision;
    store.commit(at, &put("a", "1")).unwrap();
    let error = store.commit(at, &put("a", "2")).unwrap_err();
    assert!(matches!(error, StoreError::Conflict { expected, actual } if expected == at && actual == at + 1));
    assert_eq!(store.load().unwrap().rows, rows(&[("a", "1")]));
}

#[test]
fn only_nothing_counts_as_empty() {
    let dir = tempfile::tempdir().unwrap();
    assert!(SledStore::open(&dir.path().join("missing")).unwrap().is_none());
    assert!(SledStore::open(dir.path()).unwrap().is_none());
    fs::write(dir.path().join("letter.txt"), "hello").unwrap();
    assert!(refusal(dir.path()).contains("not a Trunkline state directory"));
    assert!(SledStore::create(dir.path(), "c1", Rows::new()).is_err());
    assert_eq!(fs::read_to_string(dir.path().join("letter.txt")).unwrap(), "hello");
}

#[test]
fn a_directory_that_was_never_finished_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(SledStore::create(dir.path(), "c1", rows(&[("a", "1")])).unwrap());
    fs::remove_file(dir.path().join("TRUNKLINE")).unwrap();
    assert!(refusal(dir.path()).contains("cut short"));
}

#[test]
fn another_products_or_formats_marker_is_refused() {
    for (from, to, says) in [
        ("trunkline-controller", "somebody-else", "belongs to"),
        ("\"format\":1", "\"format\":99", "format is 99"),
        ("{", "", "cannot be read"),
        ("c1", "c2", "two clusters"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        drop(SledStore::create(dir.path(), "c1", rows(&[("a", "1")])).unwrap());
        let marker = dir.path().join("TRUNKLINE");
        let text = fs::read_to_string(&marker).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&marker, text.replace(from, to)).unwrap();
        let error = refusal(dir.path());
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_database_that_is_missing_empty_or_older_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::create(dir.path(), "c1", rows(&[("a", "1")])).unwrap();
    drop(store);
    let old = tempfile::tempdir().unwrap();
    copy(&dir.path().join("db"), &old.path().join("db"));

    let store = SledStore::open(dir.path()).unwrap().unwrap();
    let at = store.load().unwrap().revision;
    store.commit(at, &put("a", "2")).unwrap();
    drop(store);
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    assert!(refusal(dir.path()).contains("restore"));
    fs::create_dir(dir.path().join("db")).unwrap();
    fs::write(dir.path().join("db/db"), "").unwrap();
    assert!(refusal(dir.path()).contains("empty"));
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    copy(&old.path().join("db"), &dir.path().join("db"));
    assert!(refusal(dir.path()).contains("had reached"));
}

#[test]
fn a_damaged_log_is_never_opened_as_something_less() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::create(dir.path(), "c1", Rows::new()).unwrap();
    for n in 0..200 {
        let at = store.load().unwrap().revision;
        store
            .commit(at, &put(&format!("row/{n:04}"), &format!("value-{n:04}").repeat(20)))
            .unwrap();
    }
    let whole = store.load().unwrap();
    drop(store);
    let length = fs::metadata(dir.path().join("db/db")).unwrap().len();
    // sled prints its own view of a damage; what counts is ours.
    for part in 1..16 {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        let log = copied.path().join("db/db");
        let mut bytes = fs::read(&log).unwrap();
        let at = usize::try_from(length * part / 16).unwrap();
        let end = (at + 64).min(bytes.len());
        bytes[at..end].fill(0xa5);
        fs::write(&log, bytes).unwrap();
        match SledStore::open(copied.path()) {
            // The damage fell on bytes that hold nothing any more.
            Ok(Some(store)) => assert_eq!(store.load().unwrap().rows, whole.rows, "damage at {part}/16"),
            Ok(None) => panic!("treated as empty"),
            Err(error) => assert!(matches!(error, StoreError::Refused { .. }), "{error}"),
        }
    }
    let cut = dir.path().join("db/db");
    let file = fs::OpenOptions::new().write(true).open(&cut).unwrap();
    file.set_len(length / 3).unwrap();
    assert!(refusal(dir.path()).contains("damaged"));
}

#[test]
fn a_directory_that_is_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _store = SledStore::create(dir.path(), "c1", Rows::new()).unwrap();
    assert!(refusal(dir.path()).contains("another process"));
}

/// Not a test of its own: the process that [`nothing_acknowledged_is_lost_by_kill_9`] kills.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let store = match SledStore::open(Path::new(&dir)).unwrap() {
        Some(store) => store,
        None => SledStore::create(Path::new(&dir), "c1", Rows::new()).unwrap(),
    };
    let mut at = store.load().unwrap().revision;
    loop {
        at = store
            .commit(at, &put(&format!("row/{:04}", at % 500), &format!("written at {at}")))
            .unwrap();
        println!("acknowledged {at}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut least = 0;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::child_that_commits_until_it_is_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut seen = 0;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if let Some(at) = line.strip_prefix("acknowledged ") {
                least = at.parse().unwrap();
                seen += 1;
                if seen == 40 + round * 7 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(seen > 0, "the child committed nothing in round {round}");
        let store = SledStore::open(dir.path()).unwrap().expect("a cluster is there");
        let loaded = store.load().unwrap();
        assert!(
            loaded.revision >= least,
            "revision {} but {least} was acknowledged",
            loaded.revision
        );
        let written = least - 1;
        let row = &loaded.rows[&format!("row/{:04}", written % 500)];
        assert!(String::from_utf8_lossy(row).starts_with("written at"));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
