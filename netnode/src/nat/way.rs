//! The way to the internet: by which interface, to where, and how much of it. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::{Interface, NatSection};

/// Addresses that are valid on a link only; clouds answer with their instances' secrets there.
const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);

/// Where NAT leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Interface that leads there.
    pub uplink: Interface,
    /// What no guest reaches by it, in as few prefixes as that takes.
    pub denied: Vec<Ipv4Net>,
    /// What they reach although it is denied.
    pub allowed: Vec<Ipv4Net>,
    /// How many connections each guest may have open.
    pub connections: u32,
}

impl Way {
    /// As configured, when these networks are beside the uplink. A guest that passes through a router addresses its MAC only, so that
    /// routers are denied as well.
    pub fn new(section: &NatSection, beside: &BTreeSet<Ipv4Net>) -> Self {
        let NatSection {
            uplink,
            deny,
            allow,
            connections_per_guest,
        } = section;
        let denied: Vec<Ipv4Net> = match deny {
            Some(prefixes) => prefixes.clone(),
            None => beside.iter().copied().chain([LINK_LOCAL]).collect(),
        };
        Self {
            uplink: uplink.clone(),
            // nft refuses intervals that overlap.
            denied: Ipv4Net::aggregate(&denied),
            allowed: Ipv4Net::aggregate(allow),
            connections: connections_per_guest.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn way(deny: Option<&[&str]>, allow: &[&str], beside: &[&str]) -> Way {
        let section = NatSection {
            deny: deny.map(nets),
            allow: nets(allow),
            ..NatSection::default()
        };
        Way::new(&section, &nets(beside).into_iter().collect())
    }

    #[test]
    fn what_is_beside_the_uplink_is_denied_unless_something_else_is_said() {
        let beside = ["203.0.113.0/24", "203.0.113.1/32", "10.9.0.0/30"];
        let expected = nets(&["10.9.0.0/30", "169.254.0.0/16", "203.0.113.0/24"]);
        assert_eq!(way(None, &[], &beside).denied, expected);
        assert_eq!(way(Some(&["10.0.0.0/8"]), &[], &beside).denied, nets(&["10.0.0.0/8"]));
        assert_eq!(way(Some(&[]), &[], &beside).denied, []);
    }

    #[test]
    fn prefixes_that_overlap_become_one() {
        let way = way(
            Some(&["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16"]),
            &["192.0.2.1/32", "192.0.2.0/31"],
            &[],
        );
        assert_eq!(
            (way.denied, way.allowed),
            (nets(&["10.0.0.0/8"]), nets(&["192.0.2.0/31"]))
        );
    }
}
