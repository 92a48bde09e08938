//! The network node's daemon.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use trunkline_agent::node;
use trunkline_netnode::config::NetnodeConfig;
use trunkline_netnode::host::{self, NetworkNode};
use trunkline_proto::daemon::exit;

/// Makes this host the Trunkline network node: gateways, DHCP and NAT.
#[derive(Parser)]
#[command(name = "trunkline-netnode", version)]
struct Arguments {
    /// Configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/trunkline/netnode.toml",
        global = true
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM (what happens without a command, too). Gateways, DHCP and NAT go on when it ends.
    Run,
    /// Say whether the configuration can be used, and end.
    CheckConfig,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { config: path, command } = Arguments::parse();
    let config = match NetnodeConfig::load(&path) {
        Ok(config) => config,
        Err(error) => return exit::wrong_config(host::PROGRAM.service, &error),
    };
    let (node, nat, dhcp) = config.split();
    match command.unwrap_or(Command::Run) {
        Command::Run => {
            let build = move |cx: &node::NodeContext| NetworkNode::build(cx, nat, dhcp);
            if let Err(error) = node::run(host::PROGRAM, node, host::validate(), build).await {
                return exit::failed(host::PROGRAM.service, &error);
            }
        }
        Command::CheckConfig => println!("{}: ok, node {}", path.display(), node.node.name),
    }
    ExitCode::SUCCESS
}
