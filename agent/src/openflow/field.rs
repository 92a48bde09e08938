//! What a flow matches on.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use trunkline_proto::{Mac, VlanId};

/// Bit of the field [`Field::VlanVid`] that is set on every tagged frame.
pub const VLAN_PRESENT: u16 = 0x1000;

/// Class of the standard's fields.
const BASIC: u16 = 0x8000;
/// Class of Open vSwitch's own fields.
const NICIRA: u16 = 0x0001;

/// A field of a frame, or of its way through the tables. In an order in which each comes after those that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Number of the port it came from.
    InPort,
    /// A register, zero at the start.
    Reg0,
    /// Destination MAC.
    EthDst,
    /// Source MAC.
    EthSrc,
    /// EtherType, behind a VLAN tag when there is one.
    EthType,
    /// VLAN id of the outer tag, with [`VLAN_PRESENT`]; 0 without a tag.
    VlanVid,
    /// Protocol of IPv4 and IPv6.
    IpProto,
    /// Bit 0: a fragment; bit 1: not the first one.
    IpFrag,
    /// IPv4 source.
    Ipv4Src,
    /// IPv4 destination.
    Ipv4Dst,
    /// TCP source port.
    TcpSrc,
    /// TCP destination port.
    TcpDst,
    /// UDP source port.
    UdpSrc,
    /// UDP destination port.
    UdpDst,
    /// ICMP type.
    IcmpType,
    /// ICMPv6 type.
    Icmpv6Type,
    /// ICMPv6 code.
    Icmpv6Code,
    /// ARP operation.
    ArpOp,
    /// ARP sender's IPv4 address.
    ArpSpa,
    /// ARP target's IPv4 address.
    ArpTpa,
    /// ARP sender's MAC.
    ArpSha,
    /// Target of IPv6 neighbour discovery. Values here have 64 bits, so only `::` can be named: what Open vSwitch makes of a target that
    /// is missing or behind options that contradict each other.
    NdTarget,
    /// Sender's MAC in an IPv6 neighbour solicitation; zero without that option.
    NdSll,
    /// Target's MAC in an IPv6 neighbour advertisement; zero without that option.
    NdTll,
}

/// How a value is written for people.
#[derive(Clone, Copy)]
enum Style {
    Decimal,
    Hex,
    Mac,
    Ipv4,
    Ipv6,
}

impl Field {
    /// All fields that are known.
    pub const ALL: [Self; 24] = [
        Self::InPort,
        Self::Reg0,
        Self::EthDst,
        Self::EthSrc,
        Self::EthType,
        Self::VlanVid,
        Self::IpProto,
        Self::IpFrag,
        Self::Ipv4Src,
        Self::Ipv4Dst,
        Self::TcpSrc,
        Self::TcpDst,
        Self::UdpSrc,
        Self::UdpDst,
        Self::IcmpType,
        Self::Icmpv6Type,
        Self::Icmpv6Code,
        Self::ArpOp,
        Self::ArpSpa,
        Self::ArpTpa,
        Self::ArpSha,
        Self::NdTarget,
        Self::NdSll,
        Self::NdTll,
    ];

    /// Class and number on the wire, bytes, bits that can be set, name and style for people.
    fn about(self) -> (u16, u8, u8, u32, &'static str, Style) {
        use Style::{Decimal, Hex, Ipv4, Ipv6, Mac};
        match self {
            Self::InPort => (BASIC, 0, 4, 32, "in_port", Decimal),
            Self::Reg0 => (NICIRA, 0, 4, 32, "reg0", Decimal),
            Self::EthDst => (BASIC, 3, 6, 48, "dl_dst", Mac),
            Self::EthSrc => (BASIC, 4, 6, 48, "dl_src", Mac),
            Self::EthType => (BASIC, 5, 2, 16, "dl_type", Hex),
            Self::VlanVid => (BASIC, 6, 2, 13, "vlan_vid", Hex),
            Self::IpProto => (BASIC, 10, 1, 8, "nw_proto", Decimal),
            Self::IpFrag => (NICIRA, 26, 1, 2, "ip_frag", Hex),
            Self::Ipv4Src => (BASIC, 11, 4, 32, "nw_src", Ipv4),
            Self::Ipv4Dst => (BASIC, 12, 4, 32, "nw_dst", Ipv4),
            Self::TcpSrc => (BASIC, 13, 2, 16, "tcp_src", Decimal),
            Self::TcpDst => (BASIC, 14, 2, 16, "tcp_dst", Decimal),
            Self::UdpSrc => (BASIC, 15, 2, 16, "udp_src", Decimal),
            Self::UdpDst => (BASIC, 16, 2, 16, "udp_dst", Decimal),
            Self::IcmpType => (BASIC, 19, 1, 8, "icmp_type", Decimal),
            Self::Icmpv6Type => (BASIC, 29, 1, 8, "icmpv6_type", Decimal),
            Self::Icmpv6Code => (BASIC, 30, 1, 8, "icmpv6_code", Decimal),
            Self::ArpOp => (BASIC, 21, 2, 16, "arp_op", Decimal),
            Self::ArpSpa => (BASIC, 22, 4, 32, "arp_spa", Ipv4),
            Self::ArpTpa => (BASIC, 23, 4, 32, "arp_tpa", Ipv4),
            Self::ArpSha => (BASIC, 24, 6, 48, "arp_sha", Mac),
            Self::NdTarget => (BASIC, 31, 16, 64, "nd_target", Ipv6),
            Self::NdSll => (BASIC, 32, 6, 48, "nd_sll", Mac),
            Self::NdTll => (BASIC, 33, 6, 48, "nd_tll", Mac),
        }
    }

    pub(super) fn code(self) -> (u16, u8) {
        let (class, number, ..) = self.about();
        (class, number)
    }

    /// Length of a value on the wire, in bytes.
    pub(super) fn length(self) -> u8 {
        self.about().2
    }

    pub(super) fn of_code(class: u16, number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.code() == (class, number))
    }

    /// The mask of a match on the whole field.
    #[must_use]
    pub fn whole(self) -> u64 {
        u64::MAX >> (64 - self.about().3)
    }

    /// Name for people; `ovs-ofctl` takes it too.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.about().4
    }

    pub(super) fn text(self, value: u64) -> String {
        match self.about().5 {
            Style::Decimal => value.to_string(),
            Style::Hex => format!("{value:#x}"),
            Style::Mac => {
                let bytes = value.to_be_bytes();
                let parts: Vec<String> = bytes.iter().skip(2).map(|byte| format!("{byte:02x}")).collect();
                parts.join(":")
            }
            Style::Ipv6 => Ipv6Addr::from(u128::from(value)).to_string(),
            Style::Ipv4 => u32::try_from(value).map_or_else(|_| value.to_string(), |ip| Ipv4Addr::from(ip).to_string()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Masked {
    pub(super) value: u64,
    pub(super) mask: u64,
}

/// What a frame must be like. Empty: every frame.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match {
    /// In order, each at most once. There are few, and tens of thousands of matches.
    fields: Vec<(Field, Masked)>,
    /// Fields that we do not know, whole and in their order on the wire; only strangers' flows have them.
    pub(super) others: Vec<Vec<u8>>,
}

impl Match {
    /// Every frame.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Also wants a field to be exactly this.
    #[must_use]
    pub fn is(self, field: Field, value: impl Into<u64>) -> Self {
        self.masked(field, value, field.whole())
    }

    /// Also wants the bits of `mask` in a field to be these. A mask of zero asks for nothing.
    #[must_use]
    pub fn masked(mut self, field: Field, value: impl Into<u64>, mask: u64) -> Self {
        let mask = mask & field.whole();
        if mask != 0 {
            let value = value.into() & mask;
            self.put(field, Masked { value, mask });
        }
        self
    }

    /// In the place of what was wanted of this field before.
    pub(super) fn put(&mut self, field: Field, wanted: Masked) {
        match self.fields.binary_search_by_key(&field, |(held, _)| *held) {
            Ok(at) => {
                if let Some((_, held)) = self.fields.get_mut(at) {
                    *held = wanted;
                }
            }
            Err(at) => self.fields.insert(at, (field, wanted)),
        }
    }

    /// From a port.
    #[must_use]
    pub fn in_port(self, port: u32) -> Self {
        self.is(Field::InPort, port)
    }

    /// From a MAC.
    #[must_use]
    pub fn from_mac(self, mac: Mac) -> Self {
        self.is(Field::EthSrc, mac_value(mac.octets()))
    }

    /// To a MAC.
    #[must_use]
    pub fn to_mac(self, mac: Mac) -> Self {
        self.is(Field::EthDst, mac_value(mac.octets()))
    }

    /// With an EtherType.
    #[must_use]
    pub fn eth_type(self, eth_type: u16) -> Self {
        self.is(Field::EthType, eth_type)
    }

    /// With a tag of a VLAN.
    #[must_use]
    pub fn vlan(self, vlan: VlanId) -> Self {
        self.is(Field::VlanVid, vlan.get() | VLAN_PRESENT)
    }

    /// With any tag, priority tags (VLAN 0) included.
    #[must_use]
    pub fn tagged(self) -> Self {
        self.masked(Field::VlanVid, VLAN_PRESENT, u64::from(VLAN_PRESENT))
    }

    /// A field that holds an IPv4 address.
    #[must_use]
    pub fn ip(self, field: Field, address: Ipv4Addr) -> Self {
        self.is(field, u32::from(address))
    }

    /// Value and mask that a field must have; `None`: anything.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<(u64, u64)> {
        let held = self.fields.iter().find(|(held, _)| *held == field);
        held.map(|(_, wanted)| (wanted.value, wanted.mask))
    }

    /// The fields that are looked at, with value and mask.
    pub fn fields(&self) -> impl Iterator<Item = (Field, u64, u64)> {
        self.fields
            .iter()
            .map(|(field, wanted)| (*field, wanted.value, wanted.mask))
    }
}

/// A MAC as the number that fields hold.
pub(crate) fn mac_value(octets: [u8; 6]) -> u64 {
    octets.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut part = |f: &mut fmt::Formatter<'_>, text: String| {
            let comma = if std::mem::take(&mut first) { "" } else { "," };
            write!(f, "{comma}{text}")
        };
        for (field, wanted) in &self.fields {
            let Masked { value, mask } = *wanted;
            let text = match (field, mask == field.whole()) {
                (Field::VlanVid, true) if value & u64::from(VLAN_PRESENT) != 0 => {
                    format!("dl_vlan={}", value & 0xfff)
                }
                (Field::InPort, true) if value == u64::from(super::port::LOCAL) => "in_port=LOCAL".to_owned(),
                (Field::IpFrag, false) if (value, mask) == (1, 1) => "ip_frag=yes".to_owned(),
                (Field::IpFrag, true) if value == 1 => "ip_frag=first".to_owned(),
                (_, true) => format!("{}={}", field.name(), field.text(value)),
                (_, false) => format!("{}={}/{}", field.name(), field.text(value), field.text(mask)),
            };
            part(f, text)?;
        }
        for other in &self.others {
            let hex: String = other.iter().map(|byte| format!("{byte:02x}")).collect();
            part(f, format!("unknown={hex}"))?;
        }
        Ok(())
    }
}
