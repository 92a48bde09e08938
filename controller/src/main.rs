//! The program `trunkline-controller`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use trunkline_controller::{backup, config::Config, core::now, daemon::Daemon};
use trunkline_proto::daemon::{Lifecycle, Metrics, exit, telemetry};

const PROGRAM: &str = "trunkline-controller";

/// The Trunkline controller: declared slices in, desired state per node out, status back.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Debug, Args)]
struct ConfigArg {
    /// Configuration file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/trunkline/controller.toml"
    )]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller (the default).
    Run,
    /// Check the configuration file and say what is wrong with it.
    CheckConfig,
    /// Write the state to a readable file. The controller must not be running; a running one writes an export by itself.
    Export {
        /// File to write.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make a new state directory of an export, and raise the term.
    Restore {
        /// File to read.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Term of the restored cluster; one more than the export's when left out.
        #[arg(long)]
        term: Option<u64>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(&cli.config.config) {
        Ok(config) => config,
        Err(error) => return exit::wrong_config(PROGRAM, &error),
    };
    match run(cli, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::failed(PROGRAM, error.as_ref()),
    }
}

fn run(cli: Cli, config: Config) -> anyhow::Result<()> {
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => serve(&config),
        Command::CheckConfig => {
            println!("{}: right", cli.config.config.display());
            Ok(())
        }
        Command::Export { file } => export(&config, &file),
        Command::Restore { file, term } => restore(&config, &file, term),
    }
}

fn export(config: &Config, file: &Path) -> anyhow::Result<()> {
    backup::export(&config.state.dir, file, now())?;
    println!("exported {} to {}", config.state.dir.display(), file.display());
    Ok(())
}

fn restore(config: &Config, file: &Path, term: Option<u64>) -> anyhow::Result<()> {
    let restored = backup::restore(file, &config.state.dir, term)?;
    println!(
        "restored cluster {} with {} slice(s) as of revision {}, written at {}, into {}; its term is now {}",
        restored.cluster_id,
        restored.slices,
        restored.revision,
        restored.at,
        config.state.dir.display(),
        restored.term
    );
    let deployed: Vec<String> = restored
        .deployed
        .iter()
        .map(|(slice, number)| format!("{slice} (revision {number})"))
        .collect();
    match deployed.as_slice() {
        [] => println!("deployed in it: nothing"),
        all => println!("deployed in it: {}", all.join(", ")),
    }
    eprintln!(
        "warning: what was deployed after {} is not in it: hosts still have it, and remove it as soon as this controller starts; \
         if something is missing in the list above, look for a newer export first",
        restored.at
    );
    Ok(())
}

fn serve(config: &Config) -> anyhow::Result<()> {
    // Fails only when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let telemetry = telemetry::init(PROGRAM, "", &config.telemetry)?;
        let metrics = Arc::new(Metrics::new(PROGRAM, env!("CARGO_PKG_VERSION")));
        let life = Lifecycle::start().context("no signal handlers")?;
        let ended = match Daemon::start(config, metrics, &life).await {
            Ok(daemon) => {
                let address = daemon.local_addr();
                tracing::info!(%address, "ready");
                life.ready();
                life.status(&format!("serving on {address}"));
                daemon.run().await
            }
            Err(error) => {
                life.stop();
                Err(error)
            }
        };
        telemetry.shutdown().await;
        ended.map_err(anyhow::Error::from)
    })
}
