//! Subnets of VLANs and the addresses that have a meaning in them.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{Invalid, VlanId};

/// The range that derived subnets come from: `10.64.0.0/12` holds a /24 for each of the 4094 VLANs.
pub const DERIVED_POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 64, 0, 0), 12);

const PRIVATE: [(Ipv4Addr, u8); 8] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
];

/// An IPv4 address with the length of its prefix: `10.64.110.1/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address itself, host bits included.
    pub address: Ipv4Addr,
    /// 0 to 32.
    pub prefix_len: u8,
}

impl Cidr {
    /// The network that the address is in.
    pub fn network(self) -> Ipv4Net {
        // The length was checked when the value was made.
        Ipv4Net::new_assert(self.address, self.prefix_len).trunc()
    }
}

impl FromStr for Cidr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let net: Ipv4Net = text.parse().map_err(|_| {
            Invalid::new(
                text,
                "an IPv4 address with prefix length",
                "write one like 10.64.110.1/24",
            )
        })?;
        Ok(Self {
            address: net.addr(),
            prefix_len: net.prefix_len(),
        })
    }
}

impl TryFrom<String> for Cidr {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// The subnet of a link or of VLAN 400: a /20 to /28 with no host bits set.
///
/// ```text
///   .1 gateway   .2 - .9 kept   .10 ... leases ... (last 5 kept)   last usable: DHCP server
/// ```
/// In a /24 these are `.1`, `.10` to `.250`, `.254`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkSubnet(Ipv4Net);

impl LinkSubnet {
    /// The default of VLAN 400.
    pub const INTERNET: &str = "10.60.7.0/24";

    /// Subnet that follows from the VLAN alone: `10.(64 + v/256).(v mod 256).0/24`.
    pub fn derived(vlan: VlanId) -> Self {
        let [high, low] = vlan.get().to_be_bytes();
        // `high` is at most 15, so the second byte stays below 80.
        Self(Ipv4Net::new_assert(Ipv4Addr::new(10, 64 + high, low, 0), 24))
    }

    /// As a network.
    pub fn net(self) -> Ipv4Net {
        self.0
    }

    /// 20 to 28.
    pub fn prefix_len(self) -> u8 {
        self.0.prefix_len()
    }

    /// The first usable address.
    pub fn gateway(self) -> Cidr {
        self.nth(1)
    }

    /// The last usable address.
    pub fn dhcp_server(self) -> Cidr {
        self.nth(self.size() - 2)
    }

    /// First and last address for guests, both included: the tenth to the sixth from the end.
    pub fn guests(self) -> (Ipv4Addr, Ipv4Addr) {
        (self.nth(10).address, self.nth(self.size() - 6).address)
    }

    /// True when it lies in space that nobody on the internet has: private (RFC 1918), shared (RFC 6598), for benchmarks (RFC 2544) or
    /// for documentation (RFC 5737). Any other would cut its guests, and the network node, off from those who have it.
    pub fn is_private(self) -> bool {
        PRIVATE
            .iter()
            .any(|(first, length)| Ipv4Net::new_assert(*first, *length).contains(&self.0))
    }

    /// The address is one of this subnet's.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.0.contains(&address)
    }

    /// True for an address that a guest may have.
    pub fn holds_guest(self, address: Ipv4Addr) -> bool {
        let (first, last) = self.guests();
        (first..=last).contains(&address)
    }

    /// Every guest address, ascending.
    pub fn guest_addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let (first, last) = self.guests();
        (u32::from(first)..=u32::from(last)).map(Ipv4Addr::from)
    }

    /// True when both have an address in common.
    pub fn overlaps(self, other: Ipv4Net) -> bool {
        self.0.contains(&other) || other.contains(&self.0)
    }

    fn size(self) -> u32 {
        1 << (32 - u32::from(self.prefix_len()))
    }

    fn nth(self, host: u32) -> Cidr {
        Cidr {
            address: Ipv4Addr::from(u32::from(self.0.network()) + host),
            prefix_len: self.prefix_len(),
        }
    }
}

impl FromStr for LinkSubnet {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |instead: String| Invalid::new(text, "the subnet of a link", instead);
        let net: Ipv4Net = text
            .parse()
            .map_err(|_| wrong("write one like 10.64.110.0/24".into()))?;
        if !(20..=28).contains(&net.prefix_len()) {
            return Err(wrong("write a prefix length from 20 to 28, like 10.64.110.0/24".into()));
        }
        if net.addr() != net.network() {
            return Err(wrong(format!("host bits are set; write {}", net.trunc())));
        }
        let first = net.addr();
        if first.is_multicast()
            || first.is_loopback()
            || first.is_link_local()
            || first.octets()[0] == 0
            || first.octets()[0] >= 240
        {
            return Err(wrong(
                "guests cannot use that range; write a private one, like 10.64.110.0/24".into(),
            ));
        }
        Ok(Self(net))
    }
}

impl TryFrom<String> for LinkSubnet {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<LinkSubnet> for String {
    fn from(subnet: LinkSubnet) -> String {
        subnet.to_string()
    }
}

impl fmt::Display for LinkSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_vlan_has_a_subnet_of_its_own() {
        let all: BTreeSet<LinkSubnet> = (1..=4094)
            .map(|v| LinkSubnet::derived(VlanId::try_from(v).unwrap()))
            .collect();
        assert_eq!(all.len(), 4094);
        let pool = Ipv4Net::new(DERIVED_POOL.0, DERIVED_POOL.1).unwrap();
        assert!(all.iter().all(|s| pool.contains(&s.net())));
        assert_eq!(
            LinkSubnet::derived(VlanId::try_from(110).unwrap()).to_string(),
            "10.64.110.0/24"
        );
        assert_eq!(
            LinkSubnet::derived(VlanId::try_from(366).unwrap()).to_string(),
            "10.65.110.0/24"
        );
    }

    #[test]
    fn a_slash_24_has_the_addresses_of_the_seed() {
        let subnet: LinkSubnet = LinkSubnet::INTERNET.parse().unwrap();
        assert_eq!(subnet.gateway().to_string(), "10.60.7.1/24");
        assert_eq!(subnet.dhcp_server().to_string(), "10.60.7.254/24");
        assert_eq!(
            subnet.guests(),
            (Ipv4Addr::new(10, 60, 7, 10), Ipv4Addr::new(10, 60, 7, 250))
        );
        assert_eq!(subnet.guest_addresses().count(), 241);
    }

    #[test]
    fn the_smallest_subnet_still_holds_guests() {
        let subnet: LinkSubnet = "192.168.5.16/28".parse().unwrap();
        assert_eq!(
            subnet.guests(),
            (Ipv4Addr::new(192, 168, 5, 26), Ipv4Addr::new(192, 168, 5, 26))
        );
        assert_eq!(subnet.dhcp_server().to_string(), "192.168.5.30/28");
    }

    #[test]
    fn odd_subnets_are_refused() {
        for bad in [
            "10.0.0.1/24",
            "10.0.0.0/8",
            "10.0.0.0/29",
            "224.0.0.0/24",
            "127.0.0.0/24",
            "0.0.0.0/24",
            "fe80::/64",
            "10.0.0.0",
            "x",
        ] {
            assert!(bad.parse::<LinkSubnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_space_that_nobody_has_is_private() {
        let is_private = |text: &str| text.parse::<LinkSubnet>().unwrap().is_private();
        for private in [
            "10.255.255.0/24",
            "172.16.0.0/24",
            "172.31.255.0/24",
            "192.168.7.0/24",
            "100.64.0.0/24",
            "100.127.255.0/24",
            "198.19.255.0/24",
            "192.0.2.0/24",
            "198.51.100.240/28",
            "203.0.113.0/24",
        ] {
            assert!(is_private(private), "{private}");
        }
        for public in [
            "8.8.8.0/24",
            "9.255.255.0/24",
            "172.15.255.0/24",
            "172.32.0.0/24",
            "192.167.255.0/24",
            "100.128.0.0/24",
            "198.20.0.0/24",
            "203.0.112.0/23",
            "192.0.3.0/24",
        ] {
            assert!(!is_private(public), "{public}");
        }
        assert!((1..=4094).all(|v| LinkSubnet::derived(VlanId::try_from(v).unwrap()).is_private()));
    }
}
