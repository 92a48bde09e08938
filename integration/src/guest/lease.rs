//! A lease as the guest got it, every option that the proofs look at included.

use std::net::Ipv4Addr;

/// What DHCP gave to one interface.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// Option 3: empty when it was left out.
    pub routers: Vec<Ipv4Addr>,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Who gave it.
    pub server: Option<Ipv4Addr>,
    /// For how long, in seconds.
    pub seconds: u32,
    /// Option 12.
    pub hostname: String,
}

/// The script that a guest's DHCP client calls; it writes what [`Lease::parse`] reads.
pub(crate) const SCRIPT: &str = include_str!("../../guest/lease");

impl Lease {
    /// Reads what the script wrote: a word and its values on each line. `None` when it is not whole.
    pub fn parse(text: &str) -> Option<Self> {
        let values = |word: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(word))
                .map(|rest| rest.trim().to_owned())
        };
        let addresses = |word: &str| -> Vec<Ipv4Addr> {
            values(word)
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|text| text.parse().ok())
                .collect()
        };
        Some(Self {
            address: values("address ")?.parse().ok()?,
            prefix: values("prefix ")?.parse().ok()?,
            routers: addresses("router"),
            dns: addresses("dns"),
            server: addresses("server").first().copied(),
            seconds: values("seconds ")?.parse().ok()?,
            hostname: values("hostname").unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_without_a_router_is_whole() {
        let text =
            "address 10.64.1.10\nprefix 24\nrouter \ndns 8.8.8.8\nserver 10.64.1.254\nseconds 3600\nhostname web\n";
        let lease = Lease::parse(text).unwrap();
        assert!(lease.routers.is_empty());
        assert_eq!(lease.dns, [Ipv4Addr::new(8, 8, 8, 8)]);
        assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 64, 1, 10), 24));
        assert_eq!((lease.seconds, lease.hostname.as_str()), (3600, "web"));
    }

    #[test]
    fn half_a_lease_is_none() {
        assert_eq!(Lease::parse("address 10.64.1.10\n"), None);
        assert_eq!(Lease::parse(""), None);
    }
}
