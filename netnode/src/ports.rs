//! What the network node's resources ask of the switch. Pure.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_agent::netlink::Link;
use trunkline_agent::node::Desired;
use trunkline_agent::switch::{Access, Labels, Mark, Observed, ObservedPort, PortKind, SwitchPort, SwitchState};
use trunkline_agent::worker::Base;
use trunkline_proto::{Mac, PortName, VlanId};

/// The whole switch as it is to be.
pub(crate) fn switch(base: &Base, desired: &Desired) -> SwitchState {
    let mut state = base.empty();
    for (_, _, gateway) in desired.gateways() {
        let port = internal("gateway", gateway.vlan, gateway.mac, gateway.mtu);
        state.ports.insert(gateway.port().to_string(), port);
    }
    for (_, _, dhcp) in desired.dhcps() {
        state
            .ports
            .insert(dhcp.port().to_string(), internal("dhcp", dhcp.vlan, dhcp.mac, dhcp.mtu));
    }
    if let (Some(uplink), Some((_, _, trunk))) = (&mut state.uplink, desired.trunks().next()) {
        uplink.vlans.clone_from(&trunk.vlans);
    }
    state
}

/// Ports that carry our mark.
pub type Ours = BTreeMap<PortName, Made>;

/// What ovs-vswitchd says of a port of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It made this device. One that only has the port's name is somebody else's.
    Device(u32),
    /// It made one, which is not in the host's namespace, or it has not told its index yet.
    Elsewhere,
    /// It could not make one.
    Refused,
    /// It has not said yet, or does not run.
    Unknown,
}

/// The ports that carry our mark.
pub(crate) fn ours(switch: &Observed, mark: &Mark) -> Ours {
    let marked = switch.ports.iter().filter(|(_, row)| row.is_ours(mark));
    marked
        .filter_map(|(name, row)| Some((name.parse().ok()?, made(row))))
        .collect()
}

fn made(row: &ObservedPort) -> Made {
    let device = row
        .interfaces
        .first()
        .and_then(|interface| u32::try_from(interface.ifindex?).ok());
    match (row.ofport(), device) {
        (Some(ofport), _) if ofport <= 0 => Made::Refused,
        (Some(_), Some(device)) if device > 0 => Made::Device(device),
        (Some(_), _) => Made::Elsewhere,
        (None, _) => Made::Unknown,
    }
}

/// Names of wanted ports that a device of somebody else has: ovs-vswitchd could take over some sorts of device, so it is not even
/// asked. `devices` are those of the host that are not known to be ours.
pub(crate) fn taken(wanted: &SwitchState, ours: &Ours, devices: &BTreeSet<&str>) -> BTreeSet<String> {
    let made = |name: &str| name.parse().ok().and_then(|name: PortName| ours.get(&name).copied());
    let taken = |name: &&String| devices.contains(name.as_str()) && made(name).is_none_or(|made| made == Made::Refused);
    wanted.ports.keys().filter(taken).cloned().collect()
}

/// Gateways' ports whose device somebody has deleted or moved away: the switch does not make another one by itself.
pub(crate) fn lost_gateways(ours: &Ours, links: &[Link]) -> BTreeSet<PortName> {
    let lost = |port: &&PortName| {
        let made = matches!(ours.get(*port), Some(Made::Device(_) | Made::Elsewhere));
        port.as_str().starts_with("gw_vlan") && made && !links.iter().any(|link| link.name == port.as_str())
    };
    ours.keys().filter(lost).cloned().collect()
}

fn internal(kind: &str, vlan: VlanId, mac: Mac, mtu: u16) -> SwitchPort {
    SwitchPort {
        kind: PortKind::Internal { mac, mtu },
        access: Access::Vlan(vlan),
        labels: Labels {
            kind: kind.to_owned(),
            ..Labels::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use trunkline_agent::config::SwitchSection;
    use trunkline_agent::switch::FailMode;
    use trunkline_proto::resource::{Spec, Trunk};

    use super::*;
    use crate::testing::{desired, dhcp, gateway, vlan};

    #[test]
    fn gateway_and_dhcp_have_an_access_port_each_with_the_names_of_the_seed() {
        let trunk = Trunk {
            vlans: BTreeSet::from([vlan(110)]),
        };
        let all = [
            Spec::Gateway(gateway(110)),
            Spec::Dhcp(dhcp(110, Vec::new())),
            Spec::Trunk(trunk.clone()),
        ];
        let section = SwitchSection {
            uplink: Some("trunk0".into()),
            ..SwitchSection::default()
        };
        let state = switch(&Base::new("n1", &section, FailMode::Standalone), &desired(all));
        assert_eq!(state.ports.keys().collect::<Vec<_>>(), ["dhcp_v110", "gw_vlan110"]);
        assert!(state.ports.values().all(|port| port.access == Access::Vlan(vlan(110))));
        assert_eq!(state.uplink.map(|uplink| uplink.vlans), Some(trunk.vlans));
    }

    #[test]
    fn a_gateway_is_lost_only_when_its_device_was_made_and_is_nowhere() {
        let ours = Ours::from([
            (gateway(110).port(), Made::Device(3)),
            (gateway(111).port(), Made::Device(4)),
            (gateway(112).port(), Made::Unknown),
            (dhcp(113, Vec::new()).port(), Made::Elsewhere),
        ]);
        let links = [Link {
            index: 3,
            name: "gw_vlan110".to_owned(),
            ..Link::default()
        }];
        assert_eq!(lost_gateways(&ours, &links), BTreeSet::from([gateway(111).port()]));
    }

    #[test]
    fn a_name_is_taken_only_by_a_device_that_the_switch_did_not_make() {
        let all = [
            Spec::Gateway(gateway(110)),
            Spec::Gateway(gateway(111)),
            Spec::Gateway(gateway(112)),
            Spec::Gateway(gateway(113)),
        ];
        let wanted = switch(
            &Base::new("n1", &SwitchSection::default(), FailMode::Standalone),
            &desired(all),
        );
        let ours = Ours::from([
            (gateway(110).port(), Made::Device(3)),
            (gateway(111).port(), Made::Refused),
            // ovs-vswitchd has just been restarted: this is no reason to give up the port.
            (gateway(112).port(), Made::Unknown),
        ]);
        let devices = BTreeSet::from(["gw_vlan110", "gw_vlan111", "gw_vlan112", "gw_vlan113", "gw_vlan114"]);
        let taken = taken(&wanted, &ours, &devices);
        assert_eq!(
            taken.iter().map(String::as_str).collect::<Vec<_>>(),
            ["gw_vlan111", "gw_vlan113"]
        );
    }
}
