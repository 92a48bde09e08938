//! Runs the program.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt, process::Command};

use crate::fake::Fake;

/// What came of it.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// All of it, for a golden file.
    pub(crate) fn whole(&self) -> String {
        format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            self.code, self.stdout, self.stderr
        )
    }
}

/// The program, with nothing of ours in its environment.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trunkctl"));
    command.args(arguments).env_clear().kill_on_drop(true);
    command
}

/// `trunkctl ARGUMENTS` as alice.
pub(crate) async fn run(fake: &Fake, arguments: &[&str]) -> Ran {
    run_as(fake, "alice", arguments, "").await
}

/// `trunkctl ARGUMENTS` with a bundle and this on standard input.
pub(crate) async fn run_as(fake: &Fake, who: &str, arguments: &[&str], input: &str) -> Ran {
    let bundle = fake.directory.path().join(who);
    run_with(
        fake,
        arguments,
        input,
        &[("TRUNKLINE_BUNDLE", &bundle.display().to_string())],
    )
    .await
}

/// `trunkctl ARGUMENTS` as alice, with more in its environment.
pub(crate) async fn run_with(fake: &Fake, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
    let mut command = program(arguments);
    command
        .env("TRUNKLINE_CONTROLLER", format!("https://{}", fake.address))
        .env("TRUNKLINE_BUNDLE", fake.directory.path().join("alice"))
        .envs(environment.iter().copied());
    finish(command, input).await
}

/// `trunkctl ARGUMENTS` that knows no controller.
pub(crate) async fn run_alone(arguments: &[&str], input: &str) -> Ran {
    finish(program(arguments), input).await
}

async fn finish(mut command: Command, input: &str) -> Ran {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may end without reading all of it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let limit = std::time::Duration::from_secs(60);
    let output = tokio::time::timeout(limit, child.wait_with_output()).await;
    let output = output.expect("it ends within a minute").unwrap();
    Ran {
        code: output.status.code().expect("it is not killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
