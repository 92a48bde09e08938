//! What was written, value by value, each checked alone.

use std::{net::Ipv4Addr, rc::Rc};

use trunkline_proto::{Endpoint, InterfaceName, LinkSubnet, Mac, Name, VlanId};

use super::{
    Place,
    read::{At, Reader},
    tree::{Node, Value},
};

/// VLANs that a slice may keep: all of them but 400.
const POOL_SIZE: std::ops::RangeInclusive<u32> = 1..=4093;
/// Payload of a frame on a link, in bytes.
const MTU: std::ops::RangeInclusive<u32> = 1280..=9000;
/// Length of the prefix of a link's subnet.
const LINK_PREFIX: std::ops::RangeInclusive<u8> = 24..=28;

/// A slice as written; `None` where it was wrong or left out.
#[derive(Debug)]
pub(super) struct SliceAt {
    pub(super) name: Option<At<Name>>,
    pub(super) vlan_pool_size: Option<u32>,
    pub(super) vms: Vec<VmAt>,
    pub(super) links: Vec<LinkAt>,
}

#[derive(Debug)]
pub(super) struct VmAt {
    pub(super) name: Option<At<Name>>,
    /// The name as it came, also when it is wrong: its links are not to be blamed for it.
    pub(super) name_text: String,
    pub(super) worker: Option<Name>,
    pub(super) internet_enabled: bool,
    /// `None` when it was wrong, so that nothing is said about interfaces beyond it.
    pub(super) data_interfaces_count: Option<u8>,
    pub(super) interfaces: Vec<InterfaceAt>,
}

#[derive(Debug)]
pub(super) struct InterfaceAt {
    pub(super) name: Option<At<InterfaceName>>,
    pub(super) mac: Option<At<Mac>>,
    pub(super) address: Option<At<Ipv4Addr>>,
}

#[derive(Debug)]
pub(super) struct LinkAt {
    pub(super) place: Place,
    pub(super) name: Option<At<Name>>,
    pub(super) ends: Vec<Option<At<Endpoint>>>,
    pub(super) vlan: Option<At<VlanId>>,
    pub(super) subnet: Option<At<LinkSubnet>>,
    pub(super) dhcp: bool,
    pub(super) mtu: Option<u32>,
    pub(super) port_security: bool,
    /// Where it is asked for.
    pub(super) protected: Option<Place>,
}

/// The whole file.
pub(super) fn slices(root: &Node, reader: &mut Reader) -> Vec<SliceAt> {
    let Some(fields) = reader.fields(root, "the file", &["slices"]) else {
        return Vec::new();
    };
    let Some(node) = fields.get("slices") else {
        // A key that is misspelt is told already.
        if reader.mistakes.is_empty() {
            reader.mistake(
                &fields.place,
                "the file has no slices",
                "write `slices:` and a list of slices",
            );
        }
        return Vec::new();
    };
    reader.places.insert("slices".to_owned(), node.place.clone());
    let items = reader.list(Some(node), "slices", "`- name: shop`");
    if items.is_empty() && (node.is_null() || matches!(node.value, Value::List(_))) {
        reader.mistake(
            &node.place,
            "the list of slices is empty",
            "write at least one: `- name: shop`",
        );
    }
    let each = items.iter().enumerate();
    each.filter_map(|(at, node)| slice(node, reader, &format!("slices[{at}]")))
        .collect()
}

fn slice(node: &Node, reader: &mut Reader, path: &str) -> Option<SliceAt> {
    reader.places.insert(path.to_owned(), node.place.clone());
    let fields = reader.fields(node, "a slice", &["name", "vlan_pool_size", "vms", "links"])?;
    let at = |field: &str| format!("{path}.{field}");
    let name = name(fields.get("name"), &fields.place, "slice", reader, &at("name"));
    let vlan_pool_size = fields.get("vlan_pool_size").and_then(|node| {
        reader.places.insert(at("vlan_pool_size"), node.place.clone());
        reader.number(node, "a number of VLANs", POOL_SIZE)
    });
    let vms = reader.list(fields.get("vms"), "VMs", "`- name: web`");
    let vms = vms.iter().enumerate();
    let vms = vms
        .filter_map(|(i, node)| vm(node, reader, &format!("{path}.vms[{i}]")))
        .collect();
    let links = reader.list(fields.get("links"), "links", "`- [web.eth1, db.eth1]`");
    let links = links.iter().enumerate();
    let links = links
        .filter_map(|(i, node)| link(node, reader, &format!("{path}.links[{i}]")))
        .collect();
    Some(SliceAt {
        name,
        vlan_pool_size: vlan_pool_size.map(|n| n.value),
        vms,
        links,
    })
}

/// A name that must be there.
fn name(node: Option<&Node>, whole: &Place, of: &str, reader: &mut Reader, path: &str) -> Option<At<Name>> {
    let Some(node) = node else {
        reader.mistake(
            whole,
            format!("this {of} has no name"),
            "write `name:` and 1 to 32 of a-z, 0-9 and -",
        );
        return None;
    };
    reader.places.insert(path.to_owned(), node.place.clone());
    reader.parsed(node, "a name", "web")
}

fn vm(node: &Node, reader: &mut Reader, path: &str) -> Option<VmAt> {
    const KEYS: [&str; 5] = [
        "name",
        "worker",
        "internet_enabled",
        "data_interfaces_count",
        "interfaces",
    ];
    reader.places.insert(path.to_owned(), node.place.clone());
    let fields = reader.fields(node, "a VM", &KEYS)?;
    let at = |field: &str| format!("{path}.{field}");
    for key in KEYS {
        if let Some(node) = fields.get(key) {
            reader.places.insert(at(key), node.place.clone());
        }
    }
    let name_text = match fields.get("name").map(|node| &node.value) {
        Some(Value::Scalar { text, .. }) => text.clone(),
        _ => String::new(),
    };
    let data = fields.get("data_interfaces_count");
    let count = data.map(|node| reader.number(node, "a number of data interfaces", 0..=InterfaceName::MAX_DATA));
    let interfaces = reader.list(
        fields.get("interfaces"),
        "interfaces",
        "`- { name: eth1, address: 10.64.100.20 }`",
    );
    let interfaces = interfaces.iter().enumerate();
    Some(VmAt {
        name: name(fields.get("name"), &fields.place, "VM", reader, &at("name")),
        name_text,
        worker: present(fields.get("worker"))
            .and_then(|node| reader.parsed(node, "the name of a worker", "w1"))
            .map(|n| n.value),
        internet_enabled: fields
            .get("internet_enabled")
            .and_then(|node| reader.flag(node, "yes or no"))
            .unwrap_or(false),
        data_interfaces_count: match count {
            None => Some(0),
            Some(read) => read.map(|n| n.value),
        },
        interfaces: interfaces
            .filter_map(|(i, node)| interface(node, reader, &format!("{path}.interfaces[{i}]")))
            .collect(),
    })
}

/// A key with nothing behind it is a key that was left out, where leaving out has a meaning.
fn present(node: Option<&Node>) -> Option<&Node> {
    node.filter(|node| !node.is_null())
}

fn interface(node: &Node, reader: &mut Reader, path: &str) -> Option<InterfaceAt> {
    const KEYS: [&str; 3] = ["name", "mac", "address"];
    reader.places.insert(path.to_owned(), node.place.clone());
    let fields = reader.fields(node, "an interface", &KEYS)?;
    for key in KEYS {
        if let Some(node) = fields.get(key) {
            reader.places.insert(format!("{path}.{key}"), node.place.clone());
        }
    }
    if fields.get("name").is_none() {
        reader.mistake(&fields.place, "this interface has no name", "write `name: eth1`");
    }
    let name = fields
        .get("name")
        .and_then(|node| reader.parsed(node, "an interface", "eth1"));
    let mac = present(fields.get("mac")).and_then(|node| mac(node, reader));
    let address = present(fields.get("address")).and_then(|node| address(node, reader));
    Some(InterfaceAt { name, mac, address })
}

fn mac(node: &Node, reader: &mut Reader) -> Option<At<Mac>> {
    let read: At<Mac> = reader.parsed(node, "a MAC address", "\"02:00:00:00:00:01\"")?;
    if read.value.is_derived() {
        let what = format!("{} is of those that the controller makes", read.value);
        reader.mistake(&read.place, what, "write one like 02:00:00:00:00:01, or leave mac out");
        return None;
    }
    Some(read)
}

fn address(node: &Node, reader: &mut Reader) -> Option<At<Ipv4Addr>> {
    let text = reader.text(node, "an IPv4 address", "10.64.100.20")?;
    if let Ok(value) = text.parse() {
        return Some(At {
            value,
            place: node.place.clone(),
        });
    }
    let instead = match text.split_once('/') {
        Some((address, _)) if address.parse::<Ipv4Addr>().is_ok() => {
            format!("write it without prefix length: {address}")
        }
        _ => "write one like 10.64.100.20".to_owned(),
    };
    reader.invalid(
        &node.place,
        &trunkline_proto::Invalid::new(text, "an IPv4 address", instead),
    );
    None
}

fn link(node: &Node, reader: &mut Reader, path: &str) -> Option<LinkAt> {
    const KEYS: [&str; 8] = [
        "name",
        "ends",
        "vlan",
        "subnet",
        "dhcp",
        "mtu",
        "port_security",
        "protected",
    ];
    reader.places.insert(path.to_owned(), node.place.clone());
    if let Value::List(items) = &node.value {
        return Some(LinkAt {
            place: node.place.clone(),
            name: None,
            ends: ends(items, reader, path),
            vlan: None,
            subnet: None,
            dhcp: true,
            mtu: None,
            port_security: false,
            protected: None,
        });
    }
    if !matches!(node.value, Value::Map(_)) {
        let instead = "write its ends, like [web.eth1, db.eth1], or a mapping with ends and more";
        reader.mistake(&node.place, format!("{} is not a link", node.kind()), instead);
        reader.left_out = true;
        return None;
    }
    let fields = reader.fields(node, "a link", &KEYS)?;
    for key in KEYS {
        if let Some(node) = fields.get(key) {
            // On the wire it is what is unusual that is said.
            let field = if key == "dhcp" { "dhcp_off" } else { key };
            reader.places.insert(format!("{path}.{field}"), node.place.clone());
        }
    }
    if fields.get("ends").is_none() {
        reader.mistake(
            &fields.place,
            "this link has no ends",
            "write `ends: [web.eth1, db.eth1]`",
        );
    }
    let items = reader.list(fields.get("ends"), "ends", "[web.eth1, db.eth1]");
    let ends_place = fields.get("ends").map(|node| node.place.clone());
    let mut flag = |key: &str, left_out: bool| {
        let flag = fields.get(key).and_then(|node| reader.flag(node, "yes or no"));
        flag.unwrap_or(left_out)
    };
    let dhcp = flag("dhcp", true);
    let port_security = flag("port_security", false);
    let protected = flag("protected", false);
    let protected = fields.get("protected").filter(|_| protected);
    let mtu = present(fields.get("mtu")).and_then(|node| reader.number(node, "an MTU", MTU));
    Some(LinkAt {
        place: ends_place.unwrap_or_else(|| fields.place.clone()),
        name: present(fields.get("name")).and_then(|node| reader.parsed(node, "a name", "backend")),
        ends: ends(items, reader, path),
        vlan: present(fields.get("vlan")).and_then(|node| vlan(node, reader)),
        subnet: present(fields.get("subnet")).and_then(|node| subnet(node, reader)),
        dhcp,
        mtu: mtu.map(|n| n.value),
        port_security,
        protected: protected.map(|node| node.place.clone()),
    })
}

fn ends(items: &[Rc<Node>], reader: &mut Reader, path: &str) -> Vec<Option<At<Endpoint>>> {
    let mut end = |(i, node): (usize, &Rc<Node>)| {
        reader.places.insert(format!("{path}.ends[{i}]"), node.place.clone());
        reader.parsed(node, "an end of a link", "web.eth1")
    };
    items.iter().enumerate().map(&mut end).collect()
}

fn vlan(node: &Node, reader: &mut Reader) -> Option<At<VlanId>> {
    let read = reader.number(node, "a VLAN id", 1..=4094_u32)?;
    let value = VlanId::try_from(read.value).ok()?;
    if value == VlanId::INTERNET {
        reader.mistake(
            &read.place,
            "VLAN 400 is that of internet access",
            "write another number, or leave vlan out",
        );
        return None;
    }
    Some(At {
        value,
        place: read.place,
    })
}

fn subnet(node: &Node, reader: &mut Reader) -> Option<At<LinkSubnet>> {
    let read: At<LinkSubnet> = reader.parsed(node, "a subnet", "10.64.110.0/24")?;
    if !read.value.is_private() {
        reader.mistake(
            &read.place,
            format!("{} is somebody's on the internet", read.value),
            "write a private one, in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        );
        return None;
    }
    if LINK_PREFIX.contains(&read.value.prefix_len()) {
        return Some(read);
    }
    let what = format!("{} is too large for a link", read.value);
    reader.mistake(
        &read.place,
        what,
        "write a prefix length from 24 to 28, like 10.64.110.0/24",
    );
    None
}
