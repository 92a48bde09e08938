//! What the network node's resources ask of the switch. Pure.

use trunkline_agent::node::Desired;
use trunkline_agent::switch::{Access, Labels, PortKind, SwitchPort, SwitchState};
use trunkline_agent::worker::Base;
use trunkline_proto::{Mac, VlanId};

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
    use std::collections::BTreeSet;

    use trunkline_agent::config::SwitchSection;
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
        let state = switch(&Base::new("n1", &section), &desired(all));
        assert_eq!(state.ports.keys().collect::<Vec<_>>(), ["dhcp_v110", "gw_vlan110"]);
        assert!(state.ports.values().all(|port| port.access == Access::Vlan(vlan(110))));
        assert_eq!(state.uplink.map(|uplink| uplink.vlans), Some(trunk.vlans));
    }
}
