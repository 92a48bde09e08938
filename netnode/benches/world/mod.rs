//! A network node of any size, with everything as it should be: what the planners are given when there is nothing to do.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use trunkline_agent::process::Identity;
use trunkline_netnode::config::NatSection;
use trunkline_netnode::dhcp::{self, NamespaceState, Place, Server, Site, Started, Wanted};
use trunkline_netnode::nat::{self, Filter, ForwardingStep, Readback, Record, Table, TableStep, Way};
use trunkline_netnode::nft::{self, Noted};
use trunkline_netnode::{Fingerprint, gateway};
use trunkline_proto::resource::{Dhcp, Gateway, Nat, Reservation};
use trunkline_proto::{LinkSubnet, Mac, PortName, VlanId, VmId};

const MTU: u16 = 1500;
/// Guests of a link.
const GUESTS: u32 = 4;

/// A network node with its links.
pub(crate) struct World {
    gateways: BTreeMap<VlanId, Gateway>,
    devices: gateway::Observed,
    servers: BTreeMap<VlanId, Wanted>,
    sites: dhcp::Observed,
    filter: Filter,
    tables: nat::Observed,
}

impl World {
    /// With that many links, each with a gateway and a DHCP server, beside internet access.
    #[must_use]
    pub(crate) fn new(links: u32) -> Self {
        let vlans: Vec<VlanId> = (0..links).map(vlan).chain([VlanId::INTERNET]).collect();
        let gateways: BTreeMap<VlanId, Gateway> = vlans.iter().map(|vlan| (*vlan, gateway_of(*vlan))).collect();
        let servers: BTreeMap<VlanId, Wanted> = vlans.iter().map(|vlan| (*vlan, server_of(*vlan))).collect();
        let devices = gateways
            .values()
            .zip(10..)
            .map(|(gateway, index)| (gateway.port(), device(gateway, index)));
        let sites = servers
            .iter()
            .zip(10..)
            .map(|((vlan, wanted), index)| (*vlan, site(wanted, index)));
        let nat = Nat {
            vlan: VlanId::INTERNET,
            subnet: subnet(VlanId::INTERNET),
            gateway_port: PortName::gateway(VlanId::INTERNET),
        };
        let way = Way::new(&NatSection::default(), &BTreeSet::new());
        let dhcp = servers.values().map(|wanted| &wanted.dhcp);
        let filter = Filter::new(&way, gateways.values(), [&nat], dhcp, &BTreeSet::new());
        Self {
            devices: gateway::Observed {
                devices: devices.collect(),
                ..gateway::Observed::default()
            },
            sites: dhcp::Observed {
                sites: sites.collect(),
                ..dhcp::Observed::default()
            },
            tables: tables(&filter),
            gateways,
            servers,
            filter,
        }
    }

    /// Plans the gateways. True: there is nothing to do.
    #[must_use]
    pub(crate) fn plan_gateways(&self) -> bool {
        gateway::plan(&self.gateways, &self.devices).is_empty()
    }

    /// Plans the DHCP servers. True: there is nothing to do.
    #[must_use]
    pub(crate) fn plan_dhcp(&self) -> bool {
        dhcp::plan(&self.servers, &self.sites).is_empty()
    }

    /// Plans the filter and NAT. True: there is nothing to do.
    #[must_use]
    pub(crate) fn plan_nat(&self) -> bool {
        nat::plan(&self.filter, &self.tables).is_empty()
    }
}

fn vlan(number: u32) -> VlanId {
    VlanId::try_from(401 + number % 3694)
        .or_else(|_| VlanId::try_from(number))
        .expect("a VLAN")
}

fn subnet(vlan: VlanId) -> LinkSubnet {
    if vlan == VlanId::INTERNET {
        LinkSubnet::INTERNET.parse().expect("a subnet")
    } else {
        LinkSubnet::derived(vlan)
    }
}

fn gateway_of(vlan: VlanId) -> Gateway {
    Gateway {
        vlan,
        address: subnet(vlan).gateway(),
        mac: Mac::of_gateway(vlan),
        mtu: MTU,
    }
}

fn device(gateway: &Gateway, index: u32) -> gateway::Device {
    gateway::Device {
        index,
        up: true,
        mtu: u32::from(gateway.mtu),
        mac: Some(gateway.mac.octets()),
        alias: Some(gateway::ALIAS.to_owned()),
        addresses: vec![net(gateway.address)],
        arp_guarded: true,
        sources_guarded: true,
        ipv6_off: true,
    }
}

fn net(address: trunkline_proto::Cidr) -> ipnet::IpNet {
    ipnet::Ipv4Net::new_assert(address.address, address.prefix_len).into()
}

fn server_of(vlan: VlanId) -> Wanted {
    let guests = subnet(vlan).guest_addresses().take(GUESTS as usize).zip(0..);
    let reservations = guests.map(|(address, guest)| Reservation {
        mac: Mac::of_interface(
            VmId::try_from(VmId::MIN + u32::from(vlan) * GUESTS + guest).expect("an id"),
            1,
        ),
        address,
        hostname: format!("vm-{guest}").parse().expect("a name"),
        no_router: false,
    });
    let dhcp = Dhcp {
        vlan,
        address: subnet(vlan).dhcp_server(),
        mac: Mac::of_dhcp(vlan),
        mtu: MTU,
        range: (vlan != VlanId::INTERNET).then(|| subnet(vlan).guests()),
        router: subnet(vlan).gateway().address,
        dns: vec![Ipv4Addr::new(8, 8, 8, 8)],
        lease: Duration::from_secs(3600),
        reservations: reservations.collect(),
    };
    let place = Place {
        hosts: format!("/var/lib/trunkline/netnode/dhcp/{vlan}/hosts").into(),
        leases: format!("/var/lib/trunkline/netnode/dhcp/{vlan}/leases").into(),
        user: "nobody".to_owned(),
    };
    Wanted {
        config: dhcp::config(&dhcp, &place),
        hosts: dhcp::hosts(&dhcp),
        filter: dhcp::filter(&dhcp),
        dhcp,
    }
}

fn site(wanted: &Wanted, index: u32) -> Site {
    let (config, hosts) = (Fingerprint::of(&wanted.config), Fingerprint::of(&wanted.hosts));
    let filter = wanted.filter.as_ref().map(Fingerprint::of);
    Site {
        namespace: NamespaceState::Ours,
        quiet: true,
        loopback_up: true,
        table: filter.map_or(nft::State::Absent, nft::State::Ours),
        noted: filter.map(noted),
        device: Some(dhcp::Device {
            index,
            up: true,
            carrier: true,
            mtu: u32::from(MTU),
            mac: Some(wanted.dhcp.mac.octets()),
            addresses: vec![net(wanted.dhcp.address)],
        }),
        config: Some(config),
        hosts: Some(hosts),
        has_files: true,
        server: Some(Server {
            started: Started {
                identity: Identity {
                    pid: index,
                    start_time: 1,
                },
                config,
                hosts,
                device: index,
            },
            serving: true,
        }),
        ..Site::default()
    }
}

fn noted(content: Fingerprint) -> Noted {
    Noted {
        rendered: Some(content),
        readback: Some(content),
    }
}

/// What the plan for an empty host leaves.
fn tables(filter: &Filter) -> nat::Observed {
    let mut host = nat::Observed {
        table: Table::Absent,
        record: Record::default(),
        forwarding: nat::Forwarding { on: true, before: None },
        uplink: nat::Uplink::default(),
        limits: nat::limits::Seen::default(),
        dropping: Vec::new(),
    };
    let plan = nat::plan(filter, &host);
    if let TableStep::Replace { batch: _, rendered } = plan.table {
        host.table = Table::Ours(Readback {
            fingerprint: rendered,
            whole: true,
            counters: BTreeMap::new(),
        });
        host.record.noted = noted(rendered);
    }
    if let nat::limits::Step::Replace(batch) = plan.limits {
        let content = Fingerprint::of(batch);
        host.limits.table = nft::State::Ours(content);
        host.record.limits = noted(content);
    }
    if plan.forwarding == ForwardingStep::RecordOn {
        host.forwarding.before = Some(true);
    }
    host.record.served = plan.served;
    host
}
