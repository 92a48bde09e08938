//! The command line.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use trunkline_proto::{InterfaceName, Mac};

use crate::console::{ColourChoice, Format};

/// What scripts can rely on.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for a reason not listed here
  2  wrong usage or bad input, in the command line or in a file; also when a pool has no room for it
  3  not found
  4  conflict: it exists already, somebody changed it meanwhile, or something else must be done first
  5  the controller is not reached, or does not accept who we are
  6  waited in vain: the time was up, or it cannot become ready; not reached, as explain finds";

const EXAMPLES: &str = "\
A first run:
  trunkctl apply -f topology.yaml --deploy --wait
  trunkctl status
  trunkctl vm netdev shop/web";

/// Operates a Trunkline controller: slices, virtual machines, links and nodes.
#[derive(Debug, Parser)]
#[command(name = "trunkctl", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where the controller listens
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "TRUNKLINE_CONTROLLER",
        hide_short_help = true,
        default_value = "https://127.0.0.1:7443"
    )]
    pub(crate) controller: String,
    /// Directory with your ca.pem, cert.pem and key.pem
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "TRUNKLINE_BUNDLE",
        hide_short_help = true
    )]
    pub(crate) bundle: Option<PathBuf>,
    /// Name to expect in the controller's certificate [default: the URL's host]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "TRUNKLINE_SERVER_NAME",
        hide_short_help = true
    )]
    pub(crate) server_name: Option<String>,
    /// How to print what was read
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
    /// When to use colours; NO_COLOR is honoured
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_short_help = true
    )]
    pub(crate) color: ColourChoice,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make slices what a topology file says
    Apply(Apply),
    /// Slices: drafts, deployments, revisions
    #[command(subcommand)]
    Slice(SliceCommand),
    /// Virtual machines of a slice's draft
    #[command(subcommand)]
    Vm(VmCommand),
    /// Links of a slice's draft
    #[command(subcommand)]
    Link(LinkCommand),
    /// How far what was deployed is true
    Status(Status),
    /// Why a guest reaches another one, or does not: the way of a frame, step by step
    Explain(Explain),
    /// Workers and the network node
    #[command(subcommand)]
    Node(NodeCommand),
    /// What happened, and who asked for it
    Events(Events),
    /// Print a completion script for your shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// Topology file, YAML or JSON; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Deploy the slices in the same step
    #[arg(long)]
    pub(crate) deploy: bool,
    /// Say what would change and change nothing
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
    /// Fail unless the slice is still at this revision; may be given several times
    #[arg(long, value_name = "SLICE=REVISION", value_parser = revision_of)]
    pub(crate) expect_revision: Vec<(String, u64)>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Wait {
    /// Wait until it is true on every host
    #[arg(long)]
    pub(crate) wait: bool,
    /// Longest wait: 30s, 5m, 1h
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, requires = "wait")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Expect {
    /// Fail unless the slice is still at this revision
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    pub(crate) expect_revision: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SliceCommand {
    /// List the slices
    #[command(visible_alias = "ls")]
    List,
    /// Show a slice's draft with its VMs, links and addresses
    Show {
        /// Its name
        slice: String,
        /// What is deployed, instead of the draft
        #[arg(long)]
        deployed: bool,
    },
    /// Freeze the draft as a revision and make it true on the hosts
    Deploy(OneSlice),
    /// Remove a slice from every host; its draft stays
    Undeploy(OneSlice),
    /// Delete a slice and all it has on hosts
    #[command(visible_alias = "rm")]
    Delete(OneSlice),
    /// Deploy an earlier revision again
    Rollback {
        /// Number of the revision, see `slice revisions`
        #[arg(long, value_name = "NUMBER")]
        to: u32,
        #[command(flatten)]
        one: OneSlice,
    },
    /// List what was deployed, newest first
    Revisions {
        /// Its name
        slice: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneSlice {
    /// Its name
    pub(crate) slice: String,
    #[command(flatten)]
    pub(crate) expect: Expect,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct InSlice {
    /// Slice that it is in; may be left out when the name is unique or written SLICE/NAME
    #[arg(long, value_name = "SLICE")]
    pub(crate) slice: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// List the VMs with their TAPs, VLANs and addresses
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        within: InSlice,
    },
    /// Add a VM to a slice's draft
    Add {
        /// SLICE/VM, or VM with --slice
        vm: String,
        #[command(flatten)]
        within: InSlice,
        /// Worker to run on [default: placed automatically]
        #[arg(long)]
        worker: Option<String>,
        /// Internet on eth0
        #[arg(long)]
        internet: bool,
        /// Data interfaces eth1..ethN, 0 to 16
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16))]
        data_interfaces: u32,
        /// A MAC that is not to be derived: eth1=02:00:00:00:00:01; may be given several times
        #[arg(long, value_name = "INTERFACE=MAC", value_parser = mac_of)]
        mac: Vec<(InterfaceName, Mac)>,
        /// An address that is not to be allocated: eth1=10.64.110.20; may be given several times
        #[arg(long, value_name = "INTERFACE=ADDRESS", value_parser = address_of)]
        address: Vec<(InterfaceName, Ipv4Addr)>,
        #[command(flatten)]
        expect: Expect,
    },
    /// Remove a VM from a slice's draft
    #[command(visible_alias = "rm")]
    Remove {
        /// SLICE/VM, or VM when unique
        vm: String,
        #[command(flatten)]
        within: InSlice,
        #[command(flatten)]
        expect: Expect,
    },
    /// Move a VM to another worker; its MACs, addresses and VLANs stay
    Move {
        /// SLICE/VM, or VM when unique
        vm: String,
        #[command(flatten)]
        within: InSlice,
        /// Worker that it is to run on
        #[arg(long, value_name = "WORKER")]
        to: String,
        /// Deploy the slice's draft as well
        #[arg(long)]
        deploy: bool,
        /// Also to a worker that is not connected: once deployed, the VM has nothing until that worker comes
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        expect: Expect,
        #[command(flatten)]
        wait: Wait,
    },
    /// Print how to start qemu or libvirt on a VM's TAPs
    Netdev {
        /// SLICE/VM, or VM when unique
        vm: String,
        #[command(flatten)]
        within: InSlice,
        /// Only this, without explanations
        #[arg(long, value_name = "FOR")]
        only: Option<Launcher>,
    },
}

/// Who opens the TAPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Launcher {
    /// Arguments, a line each
    Qemu,
    /// Elements of a domain
    Libvirt,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// List the links with their VLANs and subnets
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        within: InSlice,
    },
    /// Join two or more interfaces in a slice's draft
    Add {
        /// SLICE/VM.INTERFACE, or VM.INTERFACE when unique
        #[arg(required = true, num_args = 2.., value_name = "END")]
        ends: Vec<String>,
        #[command(flatten)]
        within: InSlice,
        /// Its name [default: made from its ends]
        #[arg(long)]
        name: Option<String>,
        /// Its VLAN [default: the lowest free of the slice's pool]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4094))]
        vlan: Option<u32>,
        /// Its subnet, /24 to /28 [default: derived from the VLAN]
        #[arg(long)]
        subnet: Option<trunkline_proto::LinkSubnet>,
        /// No DHCP server on it
        #[arg(long)]
        no_dhcp: bool,
        /// Bytes of payload, 1280 to 9000
        #[arg(long, value_parser = clap::value_parser!(u32).range(1280..=9000))]
        mtu: Option<u32>,
        /// Guests send with their own MAC and IPv4 address only, and are no DHCP server and no router
        #[arg(long)]
        port_security: bool,
        /// The ends reach the gateway and the DHCP server, not each other; for three ends or more
        #[arg(long)]
        protected: bool,
        #[command(flatten)]
        expect: Expect,
    },
    /// Remove a link from a slice's draft
    #[command(visible_alias = "rm")]
    Remove {
        /// SLICE/LINK, or LINK when unique
        link: String,
        #[command(flatten)]
        within: InSlice,
        #[command(flatten)]
        expect: Expect,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Slices to look at [default: all that are deployed or going away]
    pub(crate) slices: Vec<String>,
    /// Show every direction between two nodes, with what its probe measured
    #[arg(long)]
    pub(crate) paths: bool,
    /// Wait until all of it is ready
    #[arg(long, conflicts_with = "watch")]
    pub(crate) wait: bool,
    /// Longest wait: 30s, 5m, 1h
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, requires = "wait")]
    pub(crate) timeout: Duration,
    /// Show it again whenever it changes, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Where it begins: VM.INTERFACE, or SLICE/VM.INTERFACE
    pub(crate) from: String,
    /// Where it ends: the same, or `internet`
    pub(crate) to: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes
    #[command(visible_alias = "ls")]
    List,
    /// Show a node and what it holds
    Show {
        /// Its name
        node: String,
    },
    /// Close a worker to new VMs
    Cordon {
        /// Its name
        node: String,
    },
    /// Let a worker take new VMs again
    Uncordon {
        /// Its name
        node: String,
    },
    /// Move every VM away from a worker, in drafts and in what is deployed, and cordon it
    Drain {
        /// Its name
        node: String,
        /// Worker that takes them all [default: each is placed anew, on workers that are connected]
        #[arg(long, value_name = "WORKER")]
        onto: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Move all that a worker has onto another one
    Replace {
        /// The worker that is to go
        old: String,
        /// The worker that takes its place
        new: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Vouch that a node is dead and cut off: nobody waits for it until it connects again
    Gone {
        /// Its name
        node: String,
        /// Yes, it forwards nothing any more
        #[arg(long)]
        yes: bool,
    },
    /// Have a node carry out the removals that it holds back
    Confirm {
        /// Its name
        node: String,
    },
    /// List leftovers on a node that are about to be removed
    Orphans {
        /// Its name
        node: String,
    },
    /// Forget a node that is gone for good
    #[command(visible_aliases = ["remove", "rm"])]
    Forget {
        /// Its name
        node: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on with each event as it comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only those of the last 30s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Only those of a slice
    #[arg(long)]
    pub(crate) slice: Option<String>,
    /// Only those of a node
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Only those of a VLAN
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4094))]
    pub(crate) vlan: Option<u32>,
}

/// `500ms`, `30s`, `5m`, `2h`, `1d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time like 30s, 5m or 2h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let seconds = match &text[digits..] {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    // A hundred years is as good as for ever, and adds to every clock without overflow.
    let most = 100 * 366 * 86_400;
    number
        .checked_mul(seconds)
        .filter(|s| *s <= most)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

fn revision_of(text: &str) -> Result<(String, u64), String> {
    let (slice, revision) = text.split_once('=').ok_or("write SLICE=REVISION, like shop=12")?;
    let revision = revision.parse().map_err(|_| "write SLICE=REVISION, like shop=12")?;
    Ok((slice.to_owned(), revision))
}

fn of_interface<T>(
    text: &str,
    example: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<(InterfaceName, T), String> {
    let (interface, value) = text.split_once('=').ok_or_else(|| format!("write {example}"))?;
    let interface = interface.parse().map_err(|e: trunkline_proto::Invalid| e.to_string())?;
    Ok((interface, parse(value)?))
}

fn mac_of(text: &str) -> Result<(InterfaceName, Mac), String> {
    of_interface(text, "eth1=02:00:00:00:00:01", |mac| {
        mac.parse().map_err(|e: trunkline_proto::Invalid| e.to_string())
    })
}

fn address_of(text: &str) -> Result<(InterfaceName, Ipv4Addr), String> {
    of_interface(text, "eth1=10.64.110.20", |ip| {
        ip.parse().map_err(|_| "write eth1=10.64.110.20".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "10", "m", "-1s", "1.5h", "10 m", "99999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_help_lists_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("6  waited in vain"), "{help}");
    }
}
