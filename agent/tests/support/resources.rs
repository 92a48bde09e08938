//! What a controller would compile.

use super::*;

// ---- what a controller would compile

pub fn port_with(id: u32, vlan: Option<u32>, mtu: u16) -> Envelope {
    let vm = VmId::try_from(id).unwrap();
    let spec = Spec::Port(Port {
        tap: format!("tap_{id}_eth1").parse().unwrap(),
        vlan: vlan.map(|v| VlanId::try_from(v).unwrap()),
        mac: Mac::of_interface(vm, 1),
        addresses: vec![],
        mtu,
        owner: PortOwner {
            slice: "shop".to_owned(),
            vm: "web".to_owned(),
            interface: "eth1".to_owned(),
        },
    });
    Envelope::seal(&spec, "")
}

pub fn port(id: u32, vlan: u32) -> Envelope {
    port_with(id, Some(vlan), 1500)
}

pub fn trunk(vlans: &[u32]) -> Envelope {
    let vlans = vlans.iter().map(|v| VlanId::try_from(*v).unwrap()).collect();
    Envelope::seal(&Spec::Trunk(Trunk { vlans }), "")
}

/// The rules of an open link's guests.
pub fn flows(vlan: u32) -> Envelope {
    flows_with(vlan, None)
}

pub fn flows_with(vlan: u32, broadcast_limit: Option<u32>) -> Envelope {
    flows_limited(vlan, broadcast_limit, None)
}

pub fn flows_limited(vlan: u32, broadcast: Option<u32>, unknown_unicast: Option<u32>) -> Envelope {
    let vlan = VlanId::try_from(vlan).unwrap();
    let subnet = LinkSubnet::derived(vlan);
    let spec = Spec::Flows(Flows {
        vlan,
        gateway_mac: Mac::of_gateway(vlan),
        gateway_address: subnet.gateway().address,
        dhcp: Some((Mac::of_dhcp(vlan), subnet.dhcp_server().address)),
        guests: [].into(),
        port_security: false,
        protected: false,
        broadcast_limit: broadcast.and_then(NonZeroU32::new),
        unknown_unicast_limit: unknown_unicast.and_then(NonZeroU32::new),
    });
    Envelope::seal(&spec, "")
}

/// What joins this node to its peers on a VLAN is to be proved. All nodes have the same key.
pub fn probe(vlan: u32, peers: &[&str]) -> Envelope {
    let spec = Spec::Probe(Probe {
        vlan: VlanId::try_from(vlan).unwrap(),
        mtu: 1500,
        peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
        keys: vec![ProbeKey { id: 1, secret: [7; 32] }],
    });
    Envelope::seal(&spec, "")
}

pub fn digest(all: &[Envelope]) -> Digest {
    Digest::of(all.iter().map(|e| (&e.key, e.hash)))
}

/// The exact difference between two states.
pub fn update(base: u64, generation: u64, from: &[Envelope], to: &[Envelope]) -> Update {
    let gone = from.iter().filter(|e| !to.iter().any(|n| n.key == e.key));
    Update {
        cluster_id: CLUSTER.to_owned(),
        term: 1,
        base_generation: base,
        generation,
        digest: digest(to).to_vec(),
        upserts: to.iter().filter(|e| !from.contains(e)).map(Into::into).collect(),
        removals: gone.map(|e| ResourceKey::from(&e.key)).collect(),
        last: true,
        removals_intended: true,
    }
}
