//! Network devices as the kernel describes them, and changes to one.

use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State};

/// A network device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `tun`, `veth`, `bridge`, ...; none for a physical device or loopback.
    pub kind: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// It could carry frames; for a TAP: some program holds it open.
    pub carrier: bool,
    /// Bytes of payload.
    pub mtu: u32,
    /// Its own MAC; none for devices without one.
    pub mac: Option<[u8; 6]>,
    /// Text that its maker attached.
    pub alias: Option<String>,
    /// Index of the device that it is enslaved to.
    pub master: Option<u32>,
    /// Link group; 0 unless somebody set one.
    pub group: u32,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: message.header.flags.contains(LinkFlags::LowerUp),
            ..Link::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(address) => link.mac = address.try_into().ok(),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Controller(master) => link.master = Some(master),
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::Carrier(carrier) => link.carrier = carrier != 0,
                // A device that is down keeps its carrier attribute in some drivers.
                LinkAttribute::OperState(State::Down | State::NotPresent) => link.carrier = false,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

/// What to change on a device; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// Bytes of payload.
    pub mtu: Option<u32>,
    /// MAC.
    pub mac: Option<[u8; 6]>,
    /// Alias; empty text removes it.
    pub alias: Option<String>,
    /// Name; the device must be down.
    pub name: Option<String>,
    /// Link group.
    pub group: Option<u32>,
}

impl LinkChange {
    /// The request's message.
    pub(super) fn message(&self, index: u32) -> LinkMessage {
        let Self {
            up,
            mtu,
            mac,
            alias,
            name,
            group,
        } = self;
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some(up) = up {
            message.header.change_mask = LinkFlags::Up;
            if *up {
                message.header.flags = LinkFlags::Up;
            }
        }
        let attributes = &mut message.attributes;
        attributes.extend(mtu.map(LinkAttribute::Mtu));
        attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        attributes.extend(alias.clone().map(LinkAttribute::IfAlias));
        attributes.extend(name.clone().map(LinkAttribute::IfName));
        attributes.extend(group.map(LinkAttribute::Group));
        message
    }
}
