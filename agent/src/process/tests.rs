#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;

#[tokio::test]
async fn a_programs_output_is_returned_and_its_input_fed() {
    let output = Run::new("cat").stdin("hello").run().await.unwrap();
    assert_eq!(output.stdout, b"hello");
}

#[tokio::test]
async fn a_failure_tells_the_status_and_what_was_written_to_stderr() {
    let error = Run::new("ls").args(["/nonexistent"]).run().await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("ls failed") && text.contains("/nonexistent"), "{text}");
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed() {
    let error = Run::new("sleep")
        .args(["600"])
        .timeout(Duration::from_millis(50))
        .run()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_that_names_it() {
    let error = Run::new("no-such-program").run().await.unwrap_err();
    assert!(error.to_string().contains("no-such-program"));
}

fn sleeper() -> Detached {
    Detached {
        argv: vec!["sleep".into(), "600".into()],
        namespace: None,
        log: None,
    }
}

#[tokio::test]
async fn a_detached_process_is_told_from_a_later_one_with_its_id() {
    let identity = spawn_detached(&sleeper()).await.unwrap();
    assert!(identity.alive());
    // Before exec the child still shows our own argv.
    assert!(
        wait_until(Duration::from_secs(5), || identity.cmdline() == ["sleep", "600"]).await,
        "{:?}",
        identity.cmdline()
    );
    let impostor = Identity {
        start_time: identity.start_time + 1,
        ..identity
    };
    assert!(!impostor.alive());
    assert!(!impostor.signal(Signal::SIGKILL).unwrap());
    assert!(identity.alive());
    stop(&identity, Duration::from_secs(5)).await.unwrap();
    assert!(!identity.alive());
    stop(&identity, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_detached_process_is_in_a_group_of_its_own() {
    let identity = spawn_detached(&sleeper()).await.unwrap();
    let group = nix::unistd::getpgid(Some(Pid::from_raw(identity.pid.try_into().unwrap()))).unwrap();
    stop(&identity, Duration::from_secs(5)).await.unwrap();
    assert_ne!(group, nix::unistd::getpgrp());
}

#[test]
fn the_start_time_is_found_behind_a_name_with_parentheses() {
    let mut stat = String::from("42 (a) b (c) S");
    for field in 4..=25 {
        stat.push_str(&format!(" {field}"));
    }
    assert_eq!(parse_stat(&stat), Some(('S', 22)));
}
