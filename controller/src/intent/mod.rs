//! What an operator asked for, parsed from the wire: every value that exists is valid by itself, and every one that is not is
//! listed with the path of its field. How values fit together is looked at here as far as one slice can tell; the rest is
//! allocation's.

mod references;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::Ipv4Addr};

use trunkline_proto::{Endpoint, InterfaceName, Invalid, LinkSubnet, Mac, Name, VlanId, wire};

use crate::transition::Mistakes;

/// Payload of a frame on a link, in bytes: IPv6's minimum to what switches pass.
const MTU: std::ops::RangeInclusive<u32> = 1280..=9000;

/// A slice as asked for. `None` stands for a value that is wrong (which is listed) or was left to the controller.
#[derive(Debug)]
pub(crate) struct SliceIntent {
    pub(crate) path: String,
    pub(crate) name: Name,
    /// 0: left to the controller.
    pub(crate) pool_size: u32,
    pub(crate) vms: Vec<VmIntent>,
    pub(crate) links: Vec<LinkIntent>,
}

#[derive(Debug)]
pub(crate) struct VmIntent {
    pub(crate) path: String,
    pub(crate) name: Name,
    pub(crate) worker: Option<Name>,
    pub(crate) internet: bool,
    pub(crate) data_interfaces: u8,
    pub(crate) interfaces: BTreeMap<InterfaceName, InterfaceIntent>,
}

#[derive(Debug)]
pub(crate) struct InterfaceIntent {
    pub(crate) path: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) address: Option<Ipv4Addr>,
}

#[derive(Debug)]
pub(crate) struct LinkIntent {
    pub(crate) path: String,
    /// `None`: made from the ends.
    pub(crate) name: Option<Name>,
    /// In the order that they were given; `None` for one that is no end.
    pub(crate) ends: Vec<Option<Endpoint>>,
    pub(crate) vlan: Option<VlanId>,
    pub(crate) subnet: Option<LinkSubnet>,
    pub(crate) dhcp: bool,
    pub(crate) mtu: Option<u16>,
    pub(crate) port_security: bool,
    pub(crate) protected: bool,
    /// Something of it is wrong: it takes part in nothing more.
    pub(crate) broken: bool,
}

/// Every slice of a request that has a name of its own. All mistakes go to `mistakes`.
pub(crate) fn parse(specs: &[wire::SliceSpec], mistakes: &mut Mistakes) -> Vec<SliceIntent> {
    if specs.is_empty() {
        mistakes.add("slices", "it is empty; name at least one slice");
    }
    let mut slices: Vec<SliceIntent> = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        let Some(slice) = slice(i, spec, mistakes) else {
            continue;
        };
        if slices.iter().any(|s| s.name == slice.name) {
            let text = format!("slice {} is there twice; write it once", slice.name);
            mistakes.add(format!("slices[{i}].name"), text);
        } else {
            slices.push(slice);
        }
    }
    slices
}

/// The name; a wrong one is told, and another stands in for it, so that all else is still looked through.
fn named(path: &str, i: usize, text: &str, mistakes: &mut Mistakes) -> Option<Name> {
    let name = mistakes.take(format!("{path}.name"), text.parse());
    name.or_else(|| format!("z-no-name-{i}").parse().ok())
}

fn slice(i: usize, spec: &wire::SliceSpec, mistakes: &mut Mistakes) -> Option<SliceIntent> {
    let path = format!("slices[{i}]");
    let wire::SliceSpec {
        name,
        vms,
        links,
        vlan_pool_size,
    } = spec;
    let name = named(&path, i, name, mistakes);
    if *vlan_pool_size > 4094 {
        let size = Invalid::new(
            vlan_pool_size.to_string(),
            "the size of a VLAN pool",
            "write a number from 1 to 4094, or 0 for the default",
        );
        mistakes.add(format!("{path}.vlan_pool_size"), size);
    }
    let vms = vms.iter().enumerate();
    let vms: Vec<VmIntent> = vms
        .filter_map(|(i, spec)| vm(format!("{path}.vms[{i}]"), i, spec, mistakes))
        .collect();
    let links = links.iter().enumerate();
    let mut links: Vec<LinkIntent> = links
        .map(|(i, spec)| link(format!("{path}.links[{i}]"), spec, mistakes))
        .collect();
    references::check(&vms, &mut links, mistakes);
    Some(SliceIntent {
        name: name?,
        pool_size: if *vlan_pool_size > 4094 { 0 } else { *vlan_pool_size },
        vms,
        links,
        path,
    })
}

fn vm(path: String, i: usize, spec: &wire::VmSpec, mistakes: &mut Mistakes) -> Option<VmIntent> {
    let wire::VmSpec {
        name,
        worker,
        internet_enabled,
        data_interfaces_count,
        interfaces: specs,
    } = spec;
    let name = named(&path, i, name, mistakes);
    let worker = (!worker.is_empty()).then(|| mistakes.take(format!("{path}.worker"), worker.parse()));
    let most = InterfaceName::MAX_DATA;
    let data_interfaces = u8::try_from(*data_interfaces_count).ok().filter(|n| *n <= most);
    if data_interfaces.is_none() {
        let count = Invalid::new(
            data_interfaces_count.to_string(),
            "a number of data interfaces",
            format!("write 0 to {most}"),
        );
        mistakes.add(format!("{path}.data_interfaces_count"), count);
    }
    // With a wrong count every interface passes, so that one mistake is not told again for each of them.
    let data_interfaces = data_interfaces.unwrap_or(most);
    let mut interfaces = BTreeMap::new();
    for (i, spec) in specs.iter().enumerate() {
        let path = format!("{path}.interfaces[{i}]");
        let parsed = interface(path.clone(), spec, mistakes);
        let Some(name) = mistakes.take(format!("{path}.name"), spec.name.parse::<InterfaceName>()) else {
            continue;
        };
        if name.index() > data_interfaces {
            let text = format!("there is no {name}; raise data_interfaces_count to {}", name.index());
            mistakes.add(format!("{path}.name"), text);
        } else if interfaces.insert(name, parsed).is_some() {
            mistakes.add(format!("{path}.name"), format!("{name} is there twice; write it once"));
        }
    }
    if !internet_enabled
        && let Some(eth0) = interfaces.get(&InterfaceName::MANAGEMENT)
        && eth0.address.is_some()
    {
        let text = "eth0 has no subnet without internet; set internet_enabled or leave the address out";
        mistakes.add(format!("{}.address", eth0.path), text);
    }
    Some(VmIntent {
        path,
        name: name?,
        worker: worker.flatten(),
        internet: *internet_enabled,
        data_interfaces,
        interfaces,
    })
}

fn interface(path: String, spec: &wire::InterfaceSpec, mistakes: &mut Mistakes) -> InterfaceIntent {
    let wire::InterfaceSpec { name: _, mac, address } = spec;
    let mac = (!mac.is_empty()).then(|| mistakes.take(format!("{path}.mac"), given_mac(mac)));
    let address = (!address.is_empty()).then(|| {
        let parsed = address
            .parse::<Ipv4Addr>()
            .map_err(|_| Invalid::new(address, "an IPv4 address", "write one like 10.64.110.10"));
        mistakes.take(format!("{path}.address"), parsed)
    });
    InterfaceIntent {
        path,
        mac: mac.flatten(),
        address: address.flatten(),
    }
}

fn given_mac(text: &str) -> Result<Mac, Invalid> {
    let mac: Mac = text.parse()?;
    if mac.is_derived() {
        return Err(Invalid::new(
            text,
            "a MAC that may be given",
            "52:54 to 52:56 are for those that the controller makes; write one like 02:00:00:00:00:01",
        ));
    }
    Ok(mac)
}

fn link(path: String, spec: &wire::LinkSpec, mistakes: &mut Mistakes) -> LinkIntent {
    let wire::LinkSpec {
        name,
        ends,
        vlan,
        subnet,
        dhcp_off,
        mtu,
        port_security,
        protected,
    } = spec;
    let before = mistakes.len();
    let name = (!name.is_empty()).then(|| mistakes.take(format!("{path}.name"), name.parse()));
    let vlan = (*vlan != 0).then(|| mistakes.take(format!("{path}.vlan"), VlanId::try_from(*vlan)));
    if vlan == Some(Some(VlanId::INTERNET)) {
        let text = "vlan 400 is that of internet access; write another, or leave it out";
        mistakes.add(format!("{path}.vlan"), text);
    }
    let subnet = (!subnet.is_empty()).then(|| mistakes.take(format!("{path}.subnet"), given_subnet(subnet)));
    let mtu = (*mtu != 0).then(|| mistakes.take(format!("{path}.mtu"), given_mtu(*mtu)));
    if ends.len() < 2 {
        let text = format!(
            "it has {} end(s); write two or more, like web.eth1 and db.eth1",
            ends.len()
        );
        mistakes.add(format!("{path}.ends"), text);
    }
    if *protected && ends.len() == 2 {
        let text = "it keeps the ends of a link apart, and these two are all there are; leave it out, or write three or more \
                    ends";
        mistakes.add(format!("{path}.protected"), text);
    }
    let ends = ends.iter().enumerate();
    let ends: Vec<Option<Endpoint>> = ends
        .map(|(i, end)| mistakes.take(format!("{path}.ends[{i}]"), end.parse()))
        .collect();
    LinkIntent {
        path,
        name: name.flatten(),
        ends,
        vlan: vlan.flatten(),
        subnet: subnet.flatten(),
        dhcp: !dhcp_off,
        mtu: mtu.flatten(),
        port_security: *port_security,
        protected: *protected,
        broken: mistakes.len() > before,
    }
}

fn given_subnet(text: &str) -> Result<LinkSubnet, Invalid> {
    let subnet: LinkSubnet = text.parse()?;
    if subnet.prefix_len() < 24 {
        return Err(Invalid::new(
            text,
            "the subnet of a link",
            "write a prefix length from 24 to 28, like 10.64.110.0/24",
        ));
    }
    if !subnet.is_private() {
        return Err(Invalid::new(
            text,
            "the subnet of a link",
            "its addresses are somebody's on the internet, whom no guest could reach any more; write a private one, in \
             10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        ));
    }
    Ok(subnet)
}

fn given_mtu(mtu: u32) -> Result<u16, Invalid> {
    let fits = u16::try_from(mtu).ok().filter(|_| MTU.contains(&mtu));
    fits.ok_or_else(|| Invalid::new(mtu.to_string(), "an MTU", "write 1280 to 9000, or 0 for the default"))
}
