//! `trunkctl`. Everything is in the library.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    trunkctl::main().await
}
