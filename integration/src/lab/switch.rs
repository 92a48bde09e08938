//! Open vSwitch of one host: its own database server and its own switch, at the paths where Debian puts them.

use std::time::Duration;

use super::host::Host;
use super::process::Running;
use crate::LabError;
use crate::wait::until;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const DATABASE: &str = "/var/lib/openvswitch/conf.db";
const SOCKET: &str = "/run/openvswitch/db.sock";
const START_LIMIT: Duration = Duration::from_secs(20);

/// The database server.
pub const OVSDB: &str = "ovsdb-server";
/// The switch.
pub const VSWITCHD: &str = "ovs-vswitchd";

/// Starts the database server, with an empty database the first time.
pub(crate) fn start_ovsdb(host: &Host) -> Result<Running, LabError> {
    if !host.path(DATABASE).exists() {
        host.must(&["mkdir", "-p", "/var/lib/openvswitch"])?;
        host.must(&["ovsdb-tool", "create", DATABASE, SCHEMA])?;
    }
    let remote = format!("--remote=punix:{SOCKET}");
    let mut server = host.spawn(
        OVSDB,
        &[OVSDB, DATABASE, &remote, "--pidfile", "-vsyslog:off", "-vconsole:info"],
    )?;
    wait_for(
        host,
        &mut server,
        OVSDB,
        &["ovs-vsctl", "--timeout=5", "--no-wait", "init"],
    )?;
    let id = format!("external_ids:system-id={}", host.name());
    host.must(&["ovs-vsctl", "--timeout=5", "--no-wait", "set", "Open_vSwitch", ".", &id])?;
    Ok(server)
}

/// Starts the switch with the userspace datapath only: several kernel switches cannot be told apart on one machine.
pub(crate) fn start_vswitchd(host: &Host) -> Result<Running, LabError> {
    let socket = format!("unix:{SOCKET}");
    let argv = [
        VSWITCHD,
        &socket,
        "--pidfile",
        "--disable-system",
        "-vsyslog:off",
        "-vconsole:info",
    ];
    let mut switch = host.spawn(VSWITCHD, &argv)?;
    wait_for(
        host,
        &mut switch,
        VSWITCHD,
        &[
            "ovs-vsctl",
            "--timeout=5",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:lab=1",
        ],
    )?;
    Ok(switch)
}

/// Waits until `probe` succeeds, or says what the log ends with when the program died first.
fn wait_for(host: &Host, running: &mut Running, program: &str, probe: &[&str]) -> Result<(), LabError> {
    let mut died = None;
    let answer = until(&format!("{program} on {}", host.name()), START_LIMIT, || {
        if let Some(status) = running.ended() {
            died = Some(status);
            return Ok(());
        }
        match host.exec(probe) {
            Ok(output) if output.ok() => Ok(()),
            Ok(output) => Err(output.stderr.trim().to_owned()),
            Err(error) => Err(error.chain()),
        }
    });
    match died {
        Some(status) => Err(super::ended(host.name(), program, status, running.log())),
        None => answer,
    }
}
