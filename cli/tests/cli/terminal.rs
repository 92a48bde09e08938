//! What is different on a terminal.

use std::{fs::File, io::Read, process::Stdio};

use nix::pty::{Winsize, openpty};

use crate::{
    fake::Fake,
    fixtures::{cluster, shop_status, status},
    run::program,
};

/// Runs it with standard output and standard error on a terminal of 100 columns: exit code, and all that was shown.
async fn on_terminal(fake: &Fake, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let size = Winsize {
        ws_row: 40,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = program(arguments);
    command
        .env("TERM", "xterm")
        .env("TRUNKLINE_CONTROLLER", format!("https://{}", fake.address))
        .env("TRUNKLINE_BUNDLE", fake.directory.path().join("alice"))
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::from(terminal.slave.try_clone().unwrap()))
        .stderr(Stdio::from(terminal.slave));
    let mut child = command.spawn().unwrap();
    // It holds the other side of the terminal too, and reading ends only when nobody does.
    drop(command);
    let reader = tokio::task::spawn_blocking(move || {
        let mut shown = Vec::new();
        // Linux ends a terminal that nobody writes to any more with EIO.
        let _ = File::from(terminal.master).read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    });
    let limit = std::time::Duration::from_secs(60);
    let ended = tokio::time::timeout(limit, child.wait()).await;
    let code = ended.expect("it ends within a minute").unwrap().code().unwrap();
    (code, reader.await.unwrap())
}

#[tokio::test]
async fn a_wait_shows_a_bar() {
    let fake = Fake::start(cluster()).await;
    let told = vec![status(5, vec![shop_status(false)])];
    let ready = vec![status(5, vec![shop_status(true)])];
    fake.script().watches = vec![told, ready].into();
    let (code, shown) = on_terminal(&fake, &["slice", "deploy", "shop", "--wait"], &[]).await;
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains("shop") && shown.contains("[========================]"),
        "{shown:?}"
    );
    assert!(shown.contains("6/6"), "{shown:?}");
}

#[tokio::test]
async fn a_watch_draws_the_whole_again() {
    let fake = Fake::start(cluster()).await;
    fake.script().watches = vec![vec![
        status(43, vec![shop_status(false)]),
        status(44, vec![shop_status(true)]),
    ]]
    .into();
    fake.script().end_watches = true;
    let (code, shown) = on_terminal(&fake, &["status", "--watch"], &[]).await;
    assert_eq!(code, 5, "{shown}");
    assert_eq!(shown.matches("\x1b[H\x1b[2J").count(), 2, "{shown:?}");
}

#[tokio::test]
async fn a_terminal_gets_colours() {
    let fake = Fake::start(cluster()).await;
    let (code, shown) = on_terminal(&fake, &["status"], &[]).await;
    assert_eq!(code, 0);
    assert!(shown.contains("\x1b[") && shown.contains("ready"), "{shown:?}");
    let (_, plain) = on_terminal(&fake, &["status", "--color", "never"], &[]).await;
    assert!(!plain.contains('\x1b'), "{plain:?}");
    let (_, plain) = on_terminal(&fake, &["status"], &[("NO_COLOR", "1")]).await;
    assert!(!plain.contains('\x1b'), "{plain:?}");
}
