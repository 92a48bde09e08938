//! The network node's daemon.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};
use trunkline_agent::node;
use trunkline_netnode::config::NetnodeConfig;
use trunkline_netnode::host::{self, NetworkNode};

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
async fn main() -> anyhow::Result<()> {
    let Arguments { config: path, command } = Arguments::parse();
    let config = NetnodeConfig::load(&path).context("the configuration cannot be used")?;
    let (node, nat, dhcp) = config.split();
    match command.unwrap_or(Command::Run) {
        Command::Run => {
            let build = move |cx: &node::NodeContext| NetworkNode::build(cx, nat, dhcp);
            node::run(host::PROGRAM, node, host::validate(), build).await?;
        }
        Command::CheckConfig => println!("{}: ok, node {}", path.display(), node.node.name),
    }
    Ok(())
}
