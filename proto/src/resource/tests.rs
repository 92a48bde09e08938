use std::{num::NonZeroU32, time::Duration};

use super::*;
use crate::{LinkSubnet, Mac, PortName, VlanId, VmId};

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

fn specs() -> Vec<Spec> {
    let subnet = LinkSubnet::derived(vlan(110));
    let guest = subnet.guests().0;
    let mac = Mac::of_interface(VmId::try_from(1002).unwrap(), 1);
    let owner = PortOwner {
        slice: "shop".into(),
        vm: "web".into(),
        interface: "eth1".into(),
    };
    let reservation = Reservation {
        mac,
        address: guest,
        hostname: "web".parse().unwrap(),
        no_router: true,
    };
    vec![
        Spec::Port(Port {
            tap: "tap_1002_eth1".parse().unwrap(),
            vlan: Some(vlan(110)),
            mac,
            addresses: vec![guest],
            mtu: 1500,
            owner,
        }),
        Spec::Trunk(Trunk {
            vlans: [vlan(110), vlan(400)].into(),
        }),
        Spec::Gateway(Gateway {
            vlan: vlan(110),
            address: subnet.gateway(),
            mac: Mac::of_gateway(vlan(110)),
            mtu: 1500,
        }),
        Spec::Dhcp(Dhcp {
            vlan: vlan(110),
            address: subnet.dhcp_server(),
            mac: Mac::of_dhcp(vlan(110)),
            mtu: 1500,
            range: Some(subnet.guests()),
            router: subnet.gateway().address,
            dns: vec![[8, 8, 8, 8].into()],
            lease: Duration::from_secs(3600),
            reservations: vec![reservation],
        }),
        Spec::Nat(Nat {
            vlan: vlan(400),
            subnet: LinkSubnet::INTERNET.parse().unwrap(),
            gateway_port: PortName::gateway(vlan(400)),
        }),
        Spec::Flows(Flows {
            vlan: vlan(110),
            gateway_mac: Mac::of_gateway(vlan(110)),
            gateway_address: subnet.gateway().address,
            dhcp: Some((Mac::of_dhcp(vlan(110)), subnet.dhcp_server().address)),
            guests: [mac, Mac::of_interface(VmId::try_from(1003).unwrap(), 1)].into(),
            port_security: true,
            protected: false,
            broadcast_limit: NonZeroU32::new(1000),
            unknown_unicast_limit: None,
        }),
    ]
}

#[test]
fn every_kind_survives_the_wire() {
    for spec in specs() {
        let sealed = Envelope::seal(&spec, "");
        let received = Envelope::try_from(wire::Resource::from(&sealed)).unwrap();
        assert_eq!(received, sealed);
        assert_eq!(received.open().unwrap(), spec);
    }
}

#[test]
fn the_hash_covers_the_spec_and_not_the_trace() {
    let [spec, ..] = &specs()[..] else { panic!() };
    assert_eq!(
        Envelope::seal(spec, "").hash,
        Envelope::seal(spec, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").hash
    );
}

#[test]
fn names_follow_from_what_a_resource_is() {
    let names: Vec<String> = specs().iter().map(|s| s.key().to_string()).collect();
    assert_eq!(
        names,
        [
            "port tap_1002_eth1",
            "trunk uplink",
            "gateway gw_vlan110",
            "dhcp dhcp_v110",
            "nat nat_vlan400",
            "flows flows_vlan110"
        ]
    );
}

#[test]
fn a_kind_from_the_future_is_kept_but_not_opened() {
    let mut resource = wire::Resource::from(&Envelope::seal(&specs()[0], ""));
    resource.kind = 99;
    let envelope = Envelope::try_from(resource.clone()).unwrap();
    assert_eq!(wire::Resource::from(&envelope), resource);
    assert!(envelope.open().unwrap_err().to_string().contains("upgrade"));
}

#[test]
fn a_spec_under_another_name_is_refused() {
    let mut envelope = Envelope::seal(&specs()[2], "");
    envelope.key.name = "gw_vlan111".parse().unwrap();
    assert!(matches!(envelope.open(), Err(OpenError::Misnamed(_))));
}

#[test]
fn a_port_is_named_after_a_vm_and_its_interface_only() {
    let open = |name: &str| {
        let mut envelope = Envelope::seal(&specs()[0], "");
        envelope.key.name = name.parse().unwrap();
        envelope.open()
    };
    for good in ["tap_1000_eth0", "tap_1002_eth16", "tap_999999_eth1"] {
        open(good).unwrap();
    }
    for bad in [
        "tap%d",
        "tap_%d",
        "tap_1002_eth%d",
        "eth0",
        "tap_01002_eth1",
        "tap_1002_eth01",
        "tap_7_eth1",
        "tap_1002_eth17",
    ] {
        let text = open(bad).unwrap_err().to_string();
        assert!(text.starts_with("name: "), "{bad}: {text}");
    }
}

#[test]
fn impossible_values_are_refused_by_field() {
    let refused = |spec: wire::PortSpec| {
        let envelope = Envelope {
            key: specs()[0].key(),
            hash: Hash::of(b""),
            spec: spec.encode_to_vec().into(),
            traceparent: String::new(),
        };
        envelope.open().unwrap_err().to_string()
    };
    let good = || match &specs()[0] {
        Spec::Port(port) => wire::PortSpec::from(port),
        _ => unreachable!(),
    };
    assert!(refused(wire::PortSpec { vlan: 4095, ..good() }).starts_with("vlan: "));
    assert!(
        refused(wire::PortSpec {
            mac: "01:00:00:00:00:00".into(),
            ..good()
        })
        .starts_with("mac: ")
    );
    assert!(refused(wire::PortSpec { mtu: 70_000, ..good() }).starts_with("mtu: "));
    assert!(
        refused(wire::PortSpec {
            addresses: vec!["x".into()],
            ..good()
        })
        .starts_with("addresses: ")
    );
}

#[test]
fn flows_without_dhcp_have_neither_its_mac_nor_its_address() {
    let [.., Spec::Flows(flows)] = &specs()[..] else {
        panic!()
    };
    let spec = Spec::Flows(Flows {
        dhcp: None,
        ..flows.clone()
    });
    assert_eq!(Envelope::seal(&spec, "").open().unwrap(), spec);
    for (mac, address) in [("52:54:00:00:00:01", ""), ("", "10.1.110.2")] {
        let half = wire::FlowsSpec {
            dhcp_mac: mac.into(),
            dhcp_address: address.into(),
            ..flows.into()
        };
        assert!(Flows::try_from(half).unwrap_err().to_string().starts_with("dhcp_"));
    }
}

#[test]
fn flows_that_open_the_internets_vlan_are_refused() {
    let [.., Spec::Flows(flows)] = &specs()[..] else {
        panic!()
    };
    let open = |port_security, protected| {
        let spec = Spec::Flows(Flows {
            vlan: VlanId::INTERNET,
            port_security,
            protected,
            ..flows.clone()
        });
        Envelope::seal(&spec, "").open().map_err(|e| e.to_string())
    };
    assert!(open(true, true).is_ok());
    assert!(open(false, true).unwrap_err().starts_with("port_security: "));
    assert!(open(true, false).unwrap_err().starts_with("protected: "));
}

#[test]
fn the_worst_part_names_the_state_of_the_whole() {
    use State::{Degraded, Failed, Pending, Ready, Unknown};
    assert_eq!(State::worst([]), Ready);
    assert_eq!(State::worst([Ready, Pending]), Pending);
    assert_eq!(State::worst([Pending, Degraded, Ready]), Degraded);
    assert_eq!(State::worst([Unknown, Degraded]), Unknown);
    assert_eq!(State::worst([Unknown, Failed, Ready]), Failed);
}
