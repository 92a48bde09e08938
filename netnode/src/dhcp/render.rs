//! dnsmasq's configuration and reservations as text.
//!
//! A newline in dnsmasq's file starts a new directive and a comma a new field. None can come in: every value is a number, an
//! address, a MAC or a name of `a-z 0-9 -`, and the paths were checked when the program started.

use std::fmt::Write as _;
use std::path::PathBuf;

use trunkline_proto::resource::{Dhcp, Reservation};

/// Set on guests that get no default route here.
const NO_ROUTER: &str = "norouter";

/// Where a server's files are, and whom it runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Reservations.
    pub hosts: PathBuf,
    /// Leases.
    pub leases: PathBuf,
    /// User that dnsmasq becomes once its sockets are open.
    pub user: String,
}

/// The configuration file.
pub fn config(dhcp: &Dhcp, place: &Place) -> String {
    let Dhcp {
        vlan,
        address,
        mac: _,
        mtu,
        range,
        router,
        dns,
        lease,
        reservations,
    } = dhcp;
    let Place { hosts, leases, user } = place;
    let network = address.network();
    let (mask, seconds) = (network.netmask(), lease.as_secs());
    let range = match range {
        Some((first, last)) => format!("{first},{last},{mask},{seconds}"),
        None => format!("{},static,{mask},{seconds}", network.network()),
    };
    let most = 1_u64 << (32 - u32::from(network.prefix_len()));
    let mut text = format!(
        "# VLAN {vlan}. Written by trunkline-netnode; changes are overwritten.\n\
         user={user}\n\
         pid-file=\n\
         # No DNS, and nothing read from the host's files.\n\
         port=0\n\
         no-resolv\n\
         no-hosts\n\
         interface={port}\n\
         except-interface=lo\n\
         bind-interfaces\n\
         # The first offer would take 3 s with its ping.\n\
         no-ping\n\
         quiet-dhcp\n\
         dhcp-authoritative\n\
         # A guest is its MAC: an identifier of its own choice could be another guest's.\n\
         dhcp-ignore-clid\n\
         # Plain BOOTP would be answered by reservation.\n\
         dhcp-ignore=tag:bootp\n\
         dhcp-leasefile={leases}\n\
         dhcp-hostsfile={hosts}\n\
         dhcp-lease-max={most}\n\
         dhcp-range={range}\n\
         dhcp-option=option:router,{router}\n\
         # Without a value: not sent, and not filled in by dnsmasq either.\n\
         dhcp-option=tag:{NO_ROUTER},option:router\n",
        port = dhcp.port(),
        leases = leases.display(),
        hosts = hosts.display(),
    );
    if dns.is_empty() {
        text.push_str("dhcp-option=option:dns-server\n");
    } else {
        let servers: Vec<String> = dns.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "dhcp-option=option:dns-server,{}", servers.join(","));
    }
    let _ = writeln!(text, "dhcp-option=option:mtu,{mtu}");
    for Reservation { mac, .. } in reservations.iter().filter(|reservation| reservation.no_router) {
        let _ = writeln!(text, "dhcp-mac=set:{NO_ROUTER},{mac}");
    }
    text
}

/// The reservations, one a line. A tag has no place here: dnsmasq (2.90 and others) dies on SIGHUP once it has served a guest with
/// one, because it frees a list that it has tied its own stack into. So tags are set in the configuration.
pub fn hosts(dhcp: &Dhcp) -> String {
    dhcp.reservations.iter().fold(String::new(), |mut text, reservation| {
        let Reservation {
            mac,
            address,
            hostname,
            no_router: _,
        } = reservation;
        let _ = write!(text, "{mac},{address}");
        if !is_keyword(hostname.as_str()) {
            let _ = write!(text, ",{hostname}");
        }
        text.push('\n');
        text
    })
}

/// In place of a host name these two mean "never serve this guest" and "for ever": a VM that bears one keeps its own name.
fn is_keyword(hostname: &str) -> bool {
    matches!(hostname, "ignore" | "infinite")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{dhcp, reservation};

    fn place() -> Place {
        Place {
            hosts: "/var/lib/trunkline/dhcp/hosts".into(),
            leases: "/var/lib/trunkline/dhcp/leases".into(),
            user: "dnsmasq".into(),
        }
    }

    #[test]
    fn a_link_renders_as_in_the_golden_files() {
        let two = vec![
            reservation(110, 1002, 1, "web", true),
            reservation(110, 1003, 1, "db", false),
        ];
        let dhcp = dhcp(110, two);
        assert_eq!(config(&dhcp, &place()), include_str!("golden/link.conf"));
        assert_eq!(hosts(&dhcp), include_str!("golden/link.hosts"));
    }

    #[test]
    fn the_internet_vlan_serves_reservations_only_as_in_the_golden_files() {
        let dhcp = dhcp(400, vec![reservation(400, 1002, 0, "web", false)]);
        assert_eq!(config(&dhcp, &place()), include_str!("golden/internet.conf"));
        assert_eq!(hosts(&dhcp), include_str!("golden/internet.hosts"));
    }

    #[test]
    fn range_router_and_dns_are_those_of_the_seed() {
        let text = config(&dhcp(110, Vec::new()), &place());
        assert!(
            text.contains("\ndhcp-range=10.64.110.10,10.64.110.250,255.255.255.0,3600\n"),
            "{text}"
        );
        assert!(text.contains("\ndhcp-option=option:router,10.64.110.1\n"), "{text}");
        assert!(text.contains("\ndhcp-option=option:dns-server,8.8.8.8\n"), "{text}");
    }

    #[test]
    fn words_that_dnsmasq_takes_for_commands_are_not_rendered_as_host_names() {
        let text = hosts(&dhcp(
            110,
            vec![
                reservation(110, 1002, 1, "ignore", false),
                reservation(110, 1003, 1, "infinite", false),
            ],
        ));
        assert_eq!(text, "52:54:00:03:ea:01,10.64.110.12\n52:54:00:03:eb:01,10.64.110.13\n");
    }

    proptest! {
        #[test]
        fn no_reservation_can_break_out_of_its_line(name in "[a-z][a-z0-9-]{0,30}[a-z0-9]", index in 0_u8..17, no_router: bool) {
            let text = hosts(&dhcp(110, vec![reservation(110, 1002, index, &name, no_router)]));
            prop_assert_eq!(text.lines().count(), 1);
            let fields: Vec<&str> = text.trim_end().split(',').collect();
            let keyword = usize::from(is_keyword(&name));
            prop_assert_eq!(fields.len(), 3 - keyword);
            prop_assert!(!text.contains(['#', '"', ' ', '\t', '\r', '\0']));
        }
    }

    #[test]
    fn tags_are_set_in_the_configuration_and_never_among_the_reservations() {
        let dhcp = dhcp(
            110,
            vec![
                reservation(110, 1002, 1, "web", true),
                reservation(110, 1003, 1, "db", false),
            ],
        );
        assert!(!hosts(&dhcp).contains("set:"));
        let text = config(&dhcp, &place());
        let tags: Vec<&str> = text.lines().filter(|line| line.contains("set:")).collect();
        assert_eq!(tags, ["dhcp-mac=set:norouter,52:54:00:03:ea:01"]);
    }

    #[test]
    fn a_name_that_could_break_out_of_its_line_cannot_be_made() {
        for name in ["a\nb", "a,b", "a#b", "a b", "a\"b", "a=b", "a:b"] {
            assert!(name.parse::<trunkline_proto::Name>().is_err(), "{name:?}");
        }
    }
}
