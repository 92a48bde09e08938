//! What takes a whole host, or all that its switch knows, with it.

use crate::LabError;
use crate::lab::{Host, Lab, OVSDB, VSWITCHD};

/// What a host has before anything runs.
const CABLES: [&str; 4] = ["lo", "mgmt0", "trunk0", "ens3"];
const DATABASE: &str = "/var/lib/openvswitch/conf.db";

/// The switch dies, and its whole database is lost.
pub(super) fn wipe(lab: &Lab, node: &str) -> Result<(), LabError> {
    for program in [VSWITCHD, OVSDB] {
        // Who is dead already stays so.
        let _ = lab.kill_daemon(node, program);
    }
    lab.host(node)?.must(&["rm", "-f", DATABASE]).map(drop)
}

/// Every process ends at once, and what the kernel held is gone. What is on the disks stays, the switch's rows among it.
pub(super) fn off(lab: &Lab, node: &str) -> Result<(), LabError> {
    for program in lab.programs(node).into_iter().rev() {
        let _ = lab.kill_daemon(node, program);
    }
    let host = lab.host(node)?;
    for pid in servers(host)? {
        host.exec(&["kill", "-KILL", &pid])?;
    }
    host.must(&["nft", "flush", "ruleset"])?;
    host.exec(&["conntrack", "-F"])?;
    host.must(&["sysctl", "-qw", "net.ipv4.ip_forward=0"])?;
    for line in host.must(&["ip", "netns", "list"])?.lines() {
        if let Some(name) = line.split_whitespace().next() {
            host.exec(&["ip", "netns", "delete", name])?;
        }
    }
    // Some go with another one, so they are looked for again.
    for _ in 0..3 {
        for name in devices(host)? {
            host.exec(&["ip", "link", "delete", &name])?;
        }
    }
    host.must(&["find", "/run/openvswitch", "/run/trunkline", "-type", "f", "-delete"])
        .or_else(|_| host.must(&["find", "/run/openvswitch", "-type", "f", "-delete"]))
        .map(drop)
}

/// DHCP servers of anybody.
fn servers(host: &Host) -> Result<Vec<String>, LabError> {
    let listed = host.must(&["ps", "-eo", "pid,comm"])?;
    let of_one = |line: &str| {
        let (pid, program) = line.trim().split_once(' ')?;
        (program.trim() == "dnsmasq").then(|| pid.to_owned())
    };
    Ok(listed.lines().filter_map(of_one).collect())
}

/// Devices that a loss of power takes away: all but the cables.
fn devices(host: &Host) -> Result<Vec<String>, LabError> {
    let listed = host.must(&["ip", "-o", "link"])?;
    let name = |line: &str| {
        let name = line.split(": ").nth(1)?.split('@').next()?;
        (!CABLES.contains(&name)).then(|| name.to_owned())
    };
    Ok(listed.lines().filter_map(name).collect())
}
