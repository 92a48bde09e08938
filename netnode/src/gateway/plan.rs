//! What to do about each gateway's device. Pure.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};
use trunkline_proto::resource::{Facts, Gateway, State};
use trunkline_proto::{Cidr, PortName, VlanId, wire};

use super::observe::{Device, ForeignRoute, Observed};
use crate::ip_net;

/// Written on every gateway's device.
pub const ALIAS: &str = "trunkline gateway";

/// What to do for all gateways.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Devices of ours whose port is gone: name and index.
    pub orphans: BTreeMap<String, u32>,
    /// Changes, for those that need any.
    pub devices: BTreeMap<VlanId, DevicePlan>,
    /// Gateways that cannot be had as things are, and why. What is there of them stays as it is.
    pub blocked: BTreeMap<VlanId, String>,
}

/// Changes of one device, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlan {
    /// Its name.
    pub port: PortName,
    /// Its index.
    pub index: u32,
    /// What to do.
    pub steps: Vec<Step>,
}

/// One change. The address comes after the settings that guard it, and the device goes up last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// IPv6 off.
    DisableIpv6,
    /// Answer ARP only for this device's own address: otherwise a guest could ask for any address of the node.
    IgnoreForeignArp,
    /// Take no packet whose source is elsewhere (strict `rp_filter`): what is answered would leave by another device.
    RefuseForeignSources,
    /// Our alias.
    SetAlias,
    /// MAC.
    SetMac([u8; 6]),
    /// MTU.
    SetMtu(u16),
    /// An address that does not belong there.
    RemoveAddress(IpNet),
    /// The gateway's address.
    AddAddress(Cidr),
    /// Up.
    SetUp,
}

impl Plan {
    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.orphans.is_empty() && self.devices.is_empty()
    }
}

/// Compares.
pub fn plan(wanted: &BTreeMap<VlanId, Gateway>, observed: &Observed) -> Plan {
    let mut plan = Plan {
        orphans: observed.orphans.clone(),
        ..Plan::default()
    };
    for (vlan, gateway) in wanted {
        match blocked(gateway, observed) {
            Err(reason) => {
                plan.blocked.insert(*vlan, reason);
            }
            Ok(device) => {
                let steps = steps(gateway, device);
                if !steps.is_empty() {
                    plan.devices.insert(
                        *vlan,
                        DevicePlan {
                            port: gateway.port(),
                            index: device.index,
                            steps,
                        },
                    );
                }
            }
        }
    }
    plan
}

/// True when a wanted gateway still has an address that is not wanted of it, because it could not be taken away or something is in
/// the way of the change.
pub fn has_leftovers(wanted: &BTreeMap<VlanId, Gateway>, observed: &Observed) -> bool {
    wanted.values().any(|gateway| {
        let own = ip_net(gateway.address);
        let device = observed.devices.get(&gateway.port());
        device.is_some_and(|device| device.addresses.iter().any(|held| *held != own))
    })
}

fn blocked<'a>(gateway: &Gateway, observed: &'a Observed) -> Result<&'a Device, String> {
    let port = gateway.port();
    if let Some(route) = overlap(gateway.address.network(), &observed.foreign_routes) {
        let ForeignRoute { destination, device } = route;
        return Err(format!(
            "its subnet {} overlaps the route {destination} by {device} of this node",
            gateway.address.network()
        ));
    }
    observed
        .devices
        .get(&port)
        .ok_or_else(|| format!("the switch has made no device {port}"))
}

fn overlap(subnet: Ipv4Net, routes: &[ForeignRoute]) -> Option<&ForeignRoute> {
    routes
        .iter()
        .find(|route| subnet.contains(&route.destination) || route.destination.contains(&subnet))
}

fn steps(gateway: &Gateway, device: &Device) -> Vec<Step> {
    let Gateway {
        vlan: _,
        address,
        mac,
        mtu,
    } = gateway;
    let own = ip_net(*address);
    let mut steps = Vec::new();
    let mut step = |needed: bool, step: Step| {
        if needed {
            steps.push(step);
        }
    };
    step(!device.ipv6_off, Step::DisableIpv6);
    step(!device.arp_guarded, Step::IgnoreForeignArp);
    step(!device.sources_guarded, Step::RefuseForeignSources);
    step(device.alias.as_deref() != Some(ALIAS), Step::SetAlias);
    step(device.mac != Some(mac.octets()), Step::SetMac(mac.octets()));
    step(device.mtu != u32::from(*mtu), Step::SetMtu(*mtu));
    for foreign in device.addresses.iter().filter(|held| **held != own) {
        step(true, Step::RemoveAddress(*foreign));
    }
    step(!device.addresses.contains(&own), Step::AddAddress(*address));
    step(!device.up, Step::SetUp);
    steps
}

/// What was changed of a gateway's device behind our back, in words.
pub fn drift(gateway: &Gateway, observed: &Observed) -> Vec<String> {
    let Ok(device) = blocked(gateway, observed) else {
        // Not put right here, so no news.
        return Vec::new();
    };
    let word = |step: &Step| match step {
        Step::DisableIpv6 => "IPv6 was on".to_owned(),
        Step::IgnoreForeignArp => "arp_ignore was not 1".to_owned(),
        Step::RefuseForeignSources => "rp_filter was not 1".to_owned(),
        Step::SetAlias => "its device did not carry our alias".to_owned(),
        Step::SetMac(_) => "its device had another MAC".to_owned(),
        Step::SetMtu(mtu) => format!("its device had an MTU of {}, not {mtu}", device.mtu),
        Step::RemoveAddress(address) => format!("its device had the foreign address {address}"),
        Step::AddAddress(_) => "gateway address was gone".to_owned(),
        Step::SetUp => "its device was down".to_owned(),
    };
    steps(gateway, device).iter().map(word).collect()
}

/// How far a gateway is true, from what was read back. `ofport` is the switch's number for the port.
pub fn judge(gateway: &Gateway, observed: &Observed, ofport: Option<i64>) -> (State, String, Facts) {
    let device = observed.devices.get(&gateway.port());
    let facts = Facts::Gateway(wire::GatewayFacts {
        up: device.is_some_and(|device| device.up),
        ofport: ofport.and_then(|number| i32::try_from(number).ok()).unwrap_or_default(),
        addresses: device
            .map(|d| d.addresses.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
    });
    let verdict = match blocked(gateway, observed) {
        Err(reason) => Err(reason),
        Ok(_) if ofport.is_none_or(|number| number <= 0) => {
            Err(format!("the switch has not taken the port {}", gateway.port()))
        }
        Ok(device) => match steps(gateway, device).first() {
            Some(step) => Err(missing(step)),
            None => Ok(()),
        },
    };
    match verdict {
        Ok(()) => (State::Ready, String::new(), facts),
        Err(reason) => (State::Failed, reason, facts),
    }
}

fn missing(step: &Step) -> String {
    match step {
        Step::DisableIpv6 => "IPv6 is on".to_owned(),
        Step::IgnoreForeignArp => "arp_ignore is not 1".to_owned(),
        Step::RefuseForeignSources => "rp_filter is not 1".to_owned(),
        Step::SetAlias => "its device does not carry our alias".to_owned(),
        Step::SetMac(_) => "its device has another MAC".to_owned(),
        Step::SetMtu(mtu) => format!("its device's MTU is not {mtu}"),
        Step::RemoveAddress(address) => format!("its device has the foreign address {address}"),
        Step::AddAddress(address) => format!("its device does not have the address {address}"),
        Step::SetUp => "its device is down".to_owned(),
    }
}

#[cfg(test)]
mod tests;
