//! How one would do it by hand: a command for each step of each port, one after the other, all workers at once.

use serde_json::Value;
use trunkline_integration::LabError;
use trunkline_integration::lab::{Host, Lab};

use super::held::{More, Port};
use super::site::Sites;
use super::{BRIDGE, at_once};

/// Makes TAPs and ports; answers how many seconds it took. No flows, no uplink, no gateways: a script has none.
pub(crate) fn run(lab: &Lab, sites: &Sites) -> Result<f64, LabError> {
    let add = |host: &Host, tap: &str, tag: &str| {
        host.must(&["ip", "tuntap", "add", "dev", tap, "mode", "tap"])?;
        host.must(&["ip", "link", "set", tap, "up"])?;
        host.must(&["ovs-vsctl", "--timeout=20", "add-port", BRIDGE, tap, tag])
            .map(drop)
    };
    on_all(lab, sites, add)
}

/// Removes them.
pub(crate) fn undo(lab: &Lab, sites: &Sites) -> Result<(), LabError> {
    let remove = |host: &Host, tap: &str, _: &str| {
        host.must(&["ovs-vsctl", "--timeout=20", "--no-wait", "del-port", BRIDGE, tap])?;
        host.must(&["ip", "link", "delete", tap]).map(drop)
    };
    on_all(lab, sites, remove).map(drop)
}

fn on_all(
    lab: &Lab,
    sites: &Sites,
    work: impl Fn(&Host, &str, &str) -> Result<(), LabError> + Sync,
) -> Result<f64, LabError> {
    at_once(sites.iter(), |(name, more): (&String, &More)| {
        let host = lab.host(name)?;
        let mut taps = more.ports.iter().filter(|(name, _)| name.starts_with("tap_"));
        taps.try_for_each(|(tap, port)| work(host, tap, &tag(port)))
    })
}

fn tag(port: &Port) -> String {
    let tag = port.port.get("tag").and_then(Value::as_i64);
    format!("tag={}", tag.unwrap_or_default())
}
