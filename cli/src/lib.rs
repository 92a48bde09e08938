//! trunkctl, the operator's command line for Trunkline.
//!
//! ```text
//!   args --> command --> session (mTLS, one trace per run) --> controller
//!               |            |
//!               |            `--> wait: status as it comes, until it is so or the time is up
//!               `--> view: the stable shape of -o json|yaml, and the table made from it --> console
//!
//!   topology file --> topology: every mistake at once, with its place --> SliceSpec
//! ```
//!
//! Enter at [`main`]. What is read goes to standard output; progress, notes and errors to standard error. Exit codes are in the help
//! and, with the gRPC codes they stand for, in the module `failure`. One runtime, one thread, no task is left behind: a command is one
//! future. [`topology`] can be used alone, by whoever writes or checks topology files.

mod args;
mod command;
mod console;
mod failure;
mod resolve;
mod session;
mod table;
pub mod topology;
mod view;
mod wait;

use std::{env, process::ExitCode};

use clap::Parser;
use tracing::Instrument;
use trunkline_proto::daemon::telemetry::{self, Telemetry, TelemetryConfig};

use crate::{args::Cli, console::Console, failure::Failure};

/// Where traces go by OTLP, when it is set.
const OTLP: &str = "TRUNKLINE_OTLP";

/// Reads the command line and does what it says.
pub async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help on a closed pipe is nobody's loss.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2).into();
        }
    };
    let console = Console::new(cli.global.output, cli.global.color);
    match traced(cli, &console).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            console.note(failure.render(&console).trim_end());
            failure.exit_code().into()
        }
    }
}

/// Runs the command as the root span of its trace.
async fn traced(cli: Cli, console: &Console) -> Result<(), Failure> {
    let telemetry = start_telemetry()?;
    let name = cli.command.name();
    let span = tracing::info_span!("trunkctl", otel.name = format!("trunkctl {name}"), command = name);
    let result = command::run(cli, console).instrument(span).await;
    if let Some(telemetry) = telemetry {
        telemetry.shutdown().await;
    }
    result
}

fn start_telemetry() -> Result<Option<Telemetry>, Failure> {
    let Some(endpoint) = env::var(OTLP).ok().filter(|endpoint| !endpoint.is_empty()) else {
        return Ok(None);
    };
    let config = TelemetryConfig {
        log_filter: "warn".to_owned(),
        otlp_endpoint: Some(endpoint),
        ..TelemetryConfig::default()
    };
    Ok(Some(telemetry::init(
        "trunkctl",
        &std::process::id().to_string(),
        &config,
    )?))
}
