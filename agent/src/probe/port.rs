//! The probe's port on the bridge: what it is to be, and whether the device of its name is ours.

use trunkline_proto::{Mac, Name};

use crate::{
    netlink::{self, LinkChange},
    node::Desired,
    switch::{Access, Drift, Labels, Mark, Observed, PortKind, SwitchPort, SwitchState, port_problem},
};

/// Name of port and device.
pub const PORT: &str = "tlprobe0";
/// Our mark on the device: one whose port was deleted while the switch was not running stays behind.
const ALIAS: &str = "trunkline-probe";

/// The port that a node needs for what it is to probe; none when that is nothing.
#[must_use]
pub fn port(node: &Name, desired: &Desired) -> Option<SwitchPort> {
    let mtu = desired.probes().map(|(_, _, probe)| probe.mtu).max()?;
    Some(SwitchPort {
        kind: PortKind::Internal {
            mac: Mac::of_probe(node),
            mtu,
        },
        access: Access::Uplink,
        labels: Labels {
            kind: "probe".to_owned(),
            ..Labels::default()
        },
    })
}

/// Why the port cannot be had: somebody else's device has its name. ovs-vswitchd could take over some sorts of device, so it is not
/// even asked.
#[must_use]
pub fn taken(observed: &Observed, mark: &Mark) -> Option<String> {
    let device = observed.devices.get(PORT)?;
    let ours = device.link.alias.as_deref() == Some(ALIAS);
    // A port that ovs-vswitchd could not take has a number below 1; one that it did not look at yet has none.
    let row = observed.port(PORT).filter(|row| row.is_ours(mark));
    let made = row.is_some_and(|row| row.ofport().is_none_or(|number| number > 0));
    (!ours && !made).then(|| {
        format!(
            "a device {PORT} is there and was not made by this program; rename or remove it, it is needed for probing"
        )
    })
}

/// A device of ours that no port stands behind: it would be in a new port's way.
#[must_use]
pub fn leftover(observed: &Observed) -> Option<u32> {
    let link = &observed.devices.get(PORT)?.link;
    (link.alias.as_deref() == Some(ALIAS) && observed.port(PORT).is_none()).then_some(link.index)
}

/// True when the switch says that it has made the device, and there is none: it does not make another for the same port.
#[must_use]
pub fn lost(observed: &Observed, mark: &Mark) -> bool {
    let row = observed.port(PORT).filter(|row| row.is_ours(mark));
    let made = row.is_some_and(|row| row.ofport().is_some_and(|number| number > 0));
    made && !observed.behind && !observed.devices.contains_key(PORT)
}

/// What is not as it should be with a port that was made before, in words.
#[must_use]
pub fn amiss(switch: &Drift<'_>, observed: &Observed, mark: &Mark) -> Vec<String> {
    let mut words = switch.port(PORT);
    if !switch.is_gone(PORT) {
        if lost(observed, mark) {
            words.push("its device was gone".to_owned());
        } else if observed.devices.get(PORT).is_some_and(|device| !device.link.up) {
            words.push("its device was down".to_owned());
        }
    }
    words.into_iter().map(|what| format!("{PORT}: {what}")).collect()
}

/// Whether the port is as wanted and its device can be used: its index, or why not. Sets up, marked and shielded what is not.
///
/// # Errors
/// The reason, for people.
pub async fn ready(
    wanted: &SwitchPort,
    state: &SwitchState,
    observed: &Observed,
    netlink: &netlink::Handle,
) -> Result<u32, String> {
    if state.uplink.is_none() {
        return Err("no uplink is configured on this node; name one in its configuration".to_owned());
    }
    if let Some(problem) = port_problem(PORT, wanted, state, observed) {
        return Err(problem);
    }
    let device = observed.devices.get(PORT);
    let link = &device
        .ok_or_else(|| format!("ovs-vswitchd has not made the device {PORT}"))?
        .link;
    let marked = link.alias.as_deref() == Some(ALIAS);
    if link.up && marked && netlink::is_shielded(PORT) {
        return Ok(link.index);
    }
    // Deaf before it is up.
    netlink::shield(PORT).map_err(|error| crate::chain(&error))?;
    let change = LinkChange {
        up: Some(true),
        alias: Some(ALIAS.to_owned()),
        ..LinkChange::default()
    };
    let changed = netlink.change(link.index, &change).await;
    changed.map_err(|error| crate::chain(&error))?;
    tracing::info!(device = PORT, "the probe's port is set up");
    Ok(link.index)
}
