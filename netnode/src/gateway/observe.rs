//! What is there of the gateways.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net};
use trunkline_agent::netlink::Route;
use trunkline_proto::PortName;

use super::plan::ALIAS;
use crate::nat::HostNetwork;
use crate::{Made, Ours};

/// Everything that a plan and a verdict need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Devices whose switch port carries our mark.
    pub devices: BTreeMap<PortName, Device>,
    /// Devices with our alias and a gateway's name that no switch port stands behind: name and index.
    pub orphans: BTreeMap<String, u32>,
    /// The node's routes by devices other than our gateways, without default routes.
    pub foreign_routes: Vec<ForeignRoute>,
}

/// A gateway's device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// It is up.
    pub up: bool,
    /// Bytes of payload.
    pub mtu: u32,
    /// Its MAC.
    pub mac: Option<[u8; 6]>,
    /// Text on it.
    pub alias: Option<String>,
    /// Its addresses, those that the kernel makes by itself left out.
    pub addresses: Vec<IpNet>,
    /// `arp_ignore` is 1 or stricter.
    pub arp_guarded: bool,
    /// `rp_filter` is 1.
    pub sources_guarded: bool,
    /// IPv6 is off.
    pub ipv6_off: bool,
}

/// A route that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRoute {
    /// Where to.
    pub destination: Ipv4Net,
    /// By which device; `?` when the route names none.
    pub device: String,
}

/// Looks. `ours` are the ports that the switch holds with our mark, each with the device that it made.
pub fn observe(host: &HostNetwork, ours: &Ours) -> Observed {
    let mut observed = Observed::default();
    let mut own = BTreeSet::new();
    for link in &host.links {
        if !link.name.starts_with("gw_vlan") {
            continue;
        }
        let is_marked = link.alias.as_deref() == Some(ALIAS);
        if is_marked {
            own.insert(link.index);
        }
        let port = link
            .name
            .parse()
            .ok()
            .and_then(|name: PortName| ours.get_key_value(&name));
        if let Some((name, made)) = port {
            if *made != Made::Device(link.index) {
                continue;
            }
            own.insert(link.index);
            let addresses = host.addresses.iter().filter(|a| a.index == link.index && !a.link_local);
            let device = Device {
                index: link.index,
                up: link.up,
                mtu: link.mtu,
                mac: link.mac,
                alias: link.alias.clone(),
                addresses: addresses.map(|a| a.net).collect(),
                arp_guarded: link.ipv4.is_some_and(|settings| settings.arp_ignore >= 1),
                sources_guarded: link.ipv4.is_some_and(|settings| settings.rp_filter == 1),
                // A kernel without IPv6 has no such setting.
                ipv6_off: link.ipv6_off.unwrap_or(true),
            };
            observed.devices.insert(name.clone(), device);
        } else if is_marked {
            observed.orphans.insert(link.name.clone(), link.index);
        }
    }
    observed.foreign_routes = foreign_routes(host, &own);
    observed
}

fn foreign_routes(host: &HostNetwork, own: &BTreeSet<u32>) -> Vec<ForeignRoute> {
    let foreign = |route: &&Route| route.output.is_none_or(|index| !own.contains(&index));
    host.routes
        .iter()
        .filter(foreign)
        .filter_map(|route| match route.destination {
            IpNet::V4(destination) if destination.prefix_len() > 0 => {
                let link = host.links.iter().find(|link| Some(link.index) == route.output);
                Some(ForeignRoute {
                    destination,
                    device: link.map_or("?".to_owned(), |link| link.name.clone()),
                })
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trunkline_agent::netlink::Link;

    use super::*;

    fn link(index: u32, name: &str, alias: Option<&str>) -> Link {
        Link {
            index,
            name: name.into(),
            alias: alias.map(str::to_owned),
            ..Link::default()
        }
    }

    #[test]
    fn only_marked_devices_are_ours() {
        let host = HostNetwork {
            links: vec![
                link(1, "lo", None),
                link(2, "gw_vlan110", None),
                link(3, "gw_vlan111", None),
                link(4, "gw_vlan112", Some(ALIAS)),
                link(5, "mine", Some(ALIAS)),
                link(6, "gw_vlan113", Some(ALIAS)),
            ],
            routes: [
                (2, "10.64.110.0/24"),
                (3, "10.64.111.0/24"),
                (4, "10.64.112.0/24"),
                (9, "0.0.0.0/0"),
            ]
            .map(|(index, net)| Route {
                destination: net.parse().unwrap(),
                gateway: None,
                output: Some(index),
                table: Route::MAIN,
            })
            .into(),
            addresses: Vec::new(),
        };
        let ours = Ours::from([
            ("gw_vlan110".parse().unwrap(), Made::Device(2)),
            ("gw_vlan111".parse().unwrap(), Made::Device(99)),
            ("gw_vlan113".parse().unwrap(), Made::Unknown),
        ]);
        let observed = observe(&host, &ours);
        assert_eq!(
            observed.devices.keys().map(PortName::as_str).collect::<Vec<_>>(),
            ["gw_vlan110"]
        );
        assert_eq!(observed.orphans, BTreeMap::from([("gw_vlan112".to_owned(), 4)]));
        let foreign: Vec<&str> = observed
            .foreign_routes
            .iter()
            .map(|route| route.device.as_str())
            .collect();
        assert_eq!(
            foreign,
            ["gw_vlan111"],
            "a stranger's device of that name, and no default route"
        );
    }
}
