//! Network devices as the kernel describes them, and changes to one.

use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};

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
    /// Its own settings of IPv4; none where it has no IPv4.
    pub ipv4: Option<Ipv4Settings>,
    /// Its `disable_ipv6`; none where it has no IPv6.
    pub ipv6_off: Option<bool>,
}

/// What `/proc/sys/net/ipv4/conf/DEVICE` says: the kernel tells it with the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ipv4Settings {
    /// `arp_ignore`.
    pub arp_ignore: i32,
    /// `rp_filter`.
    pub rp_filter: i32,
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
                LinkAttribute::AfSpecUnspec(families) => link.settings(families),
                _ => {}
            }
        }
        link
    }
}

impl Link {
    fn settings(&mut self, families: Vec<AfSpecUnspec>) {
        for family in families {
            match family {
                AfSpecUnspec::Inet(settings) => {
                    self.ipv4 = settings.into_iter().find_map(|setting| match setting {
                        AfSpecInet::DevConf(all) => Some(Ipv4Settings {
                            arp_ignore: all.arp_ignore,
                            rp_filter: all.rp_filter,
                        }),
                        _ => None,
                    });
                }
                AfSpecUnspec::Inet6(settings) => {
                    self.ipv6_off = settings.into_iter().find_map(|setting| match setting {
                        AfSpecInet6::DevConf(all) => Some(all.disable_ipv6 == 1),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
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
