//! What somebody else has on the same hosts: never ours to touch, whatever it is named.

use std::time::Duration;

use super::look::rows;
use crate::LabError;
use crate::lab::layout::NETNODE;
use crate::lab::{Host, Lab, Running};
use crate::wait::until;

const TAP: &str = "tap_9_stranger";
const BRIDGE: &str = "br-stranger";
const PORT: &str = "gw_stranger";
const NETNS: &str = "ns-dhcp-stranger";
const TABLE: &str = "stranger";
const ADDRESS: &str = "10.99.0.1/32";
const LIMIT: Duration = Duration::from_secs(30);

/// True for what the strangers made.
pub(super) fn is_one(name: &str) -> bool {
    name.ends_with("stranger")
}

/// The strangers of a fleet, and how they looked at the start.
pub(super) struct Strangers {
    homes: Vec<Home>,
}

struct Home {
    host: String,
    server: Running,
    before: Vec<String>,
}

impl Strangers {
    /// Moves them in on a worker and on the network node, whose bridge must be there.
    pub(super) fn move_in(lab: &Lab) -> Result<Self, LabError> {
        let homes = ["w1", NETNODE].into_iter().map(|host| move_in(lab.host(host)?));
        Ok(Self {
            homes: homes.collect::<Result<_, LabError>>()?,
        })
    }

    /// A host has lost what was in its memory or its switch: its strangers make theirs again.
    pub(super) fn return_to(&mut self, lab: &Lab, host: &str) -> Result<(), LabError> {
        for home in self.homes.iter_mut().filter(|home| home.host == host) {
            home.server.kill();
            *home = move_in(lab.host(host)?)?;
        }
        Ok(())
    }

    /// What is not as it was.
    pub(super) fn check(&mut self, lab: &Lab) -> Result<Vec<String>, LabError> {
        let mut wrong = Vec::new();
        for home in &mut self.homes {
            if let Some(status) = home.server.ended() {
                wrong.push(format!("{}: the stranger's dnsmasq ended: {status}", home.host));
            }
            let now = look(lab.host(&home.host)?)?;
            for (before, now) in home.before.iter().zip(&now).filter(|(before, now)| before != now) {
                wrong.push(format!("{}: the stranger's {before} is {now}", home.host));
            }
        }
        Ok(wrong)
    }
}

fn move_in(host: &Host) -> Result<Home, LabError> {
    until("our bridge", LIMIT, || {
        host.must(&["ovs-vsctl", "--timeout=5", "br-exists", "br-int"])
            .map_err(|error| error.chain())
    })?;
    // Some of it may have stayed.
    if !host.exec(&["ip", "link", "show", TAP])?.ok() {
        host.must(&["ip", "tuntap", "add", TAP, "mode", "tap"])?;
    }
    host.must(&["ip", "address", "replace", ADDRESS, "dev", "mgmt0"])?;
    let vsctl = ["ovs-vsctl", "--timeout=20", "--may-exist"];
    let netdev = ["--", "set", "bridge", BRIDGE, "datapath_type=netdev"];
    host.must(&[&vsctl[..], &["add-br", BRIDGE], &netdev].concat())?;
    let internal = ["tag=3999", "--", "set", "interface", PORT, "type=internal"];
    host.must(&[&vsctl[..], &["add-port", "br-int", PORT], &internal].concat())?;
    if !host.path(&format!("/run/netns/{NETNS}")).exists() {
        host.must(&["ip", "netns", "add", NETNS])?;
    }
    host.must(&["nft", &format!("add table inet {TABLE}; add chain inet {TABLE} mine")])?;
    let argv = [
        "ip",
        "netns",
        "exec",
        NETNS,
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--pid-file=",
        "--user=root",
        "--interface=lo",
        "--dhcp-range=127.0.0.10,127.0.0.20",
        "--dhcp-leasefile=/run/stranger.leases",
    ];
    let server = host.spawn("stranger", &argv)?;
    Ok(Home {
        host: host.name().to_owned(),
        server,
        before: look(host)?,
    })
}

/// Without what a switch that starts anew gives anew.
fn look(host: &Host) -> Result<Vec<String>, LabError> {
    let mut seen = Vec::new();
    let tap = host.exec(&["ip", "-o", "link", "show", TAP])?.stdout;
    let mode = tap
        .split_once(": ")
        .map(|(_, rest)| rest.to_owned())
        .unwrap_or_default();
    seen.push(format!("TAP {}", mode.trim()));
    let addresses = host.must(&["ip", "-o", "-4", "address", "show", "mgmt0"])?;
    seen.push(format!("address {ADDRESS}: {}", addresses.contains(ADDRESS)));
    for (table, name, columns) in [
        ("bridge", BRIDGE, ["name", "fail_mode", "external_ids"]),
        ("port", PORT, ["name", "tag", "external_ids"]),
    ] {
        let row = rows(host, table, &columns)?.into_iter().find(|row| row[0] == name);
        seen.push(format!("{table} {row:?}"));
    }
    let inode = host
        .exec(&["stat", "-Lc", "%i", &format!("/run/netns/{NETNS}")])?
        .stdout;
    seen.push(format!("namespace {}", inode.trim()));
    let rules = host.exec(&["nft", "list", "table", "inet", TABLE])?.stdout;
    seen.push(format!("table {rules}"));
    Ok(seen)
}
