//! What may come into the namespace of a server that knows reservations only, as an nftables table of that namespace.
//!
//! The VLAN of such a server is shared by tenants. Port security at a guest's port holds it to its own Ethernet source, but not to
//! the hardware address that it writes into a DHCP message (`chaddr`), and dnsmasq goes by the latter: without this table a guest
//! could release another one's lease, or decline its address, which dnsmasq then gives to nobody for ten minutes, or have answers sent
//! to a relay (`giaddr`) of its choice. A server with a dynamic range serves one tenant's link, where anybody may run what he likes,
//! relays as well; it has no table.
//!
//! A rule cannot compare two fields of a packet with each other, so there is a set of pairs: Ethernet source and `chaddr`, one for each
//! reservation. Offsets are in bits from the UDP header (64 bits) on: BOOTP's operation at 64, sort of hardware at 72, length of its
//! address at 80, `giaddr` at 256, `chaddr` at 288. The fields behind the headers are readable in a whole packet only, so fragments
//! are dropped; no DHCP message is one.
//!
//! Client identifiers are not looked at: dnsmasq (2.90) prefers them to the MAC when it looks for a lease, even where the address is
//! reserved by MAC, so that a guest with another one's identifier took its lease away; it is told to ignore them (`dhcp-ignore-clid`).

use std::fmt::Write as _;

use trunkline_proto::Mac;
use trunkline_proto::resource::Dhcp;

use crate::nft::{self, MARK_CHAIN, TABLE};

/// A batch that writes the table; `None`: there is to be none.
pub fn filter(dhcp: &Dhcp) -> Option<String> {
    if dhcp.range.is_some() {
        return None;
    }
    let pair = |mac: Mac| format!("{mac} . 0x{}", hex::encode(mac.octets()));
    let guests: Vec<String> = dhcp.reservations.iter().map(|guest| pair(guest.mac)).collect();
    let mut text = nft::replace(TABLE);
    text.push_str(&nft::set("guests", "typeof ether saddr . @th,288,48", &guests));
    let _ = write!(
        text,
        "\tchain {MARK_CHAIN} {{\n\t}}\n\
         \tchain prerouting {{\n\
         \t\ttype filter hook prerouting priority raw; policy drop;\n\
         \t\tip frag-off & 0x3fff != 0 drop\n\
         \t\tip hdrlength != 5 drop\n\
         \t\tip daddr {server} icmp type echo-request accept\n\
         \t\tudp dport 67 @th,64,24 0x010106 @th,256,32 0 ether saddr . @th,288,48 @guests accept\n\
         \t}}\n}}\n",
        server = dhcp.address.address,
    );
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{dhcp, reservation};

    #[test]
    fn a_server_with_reservations_only_is_filtered_as_in_the_golden_file() {
        let two = [(1002, "web"), (1003, "db")];
        let dhcp = dhcp(400, two.map(|(vm, name)| reservation(400, vm, 0, name, false)).to_vec());
        assert_eq!(filter(&dhcp).as_deref(), Some(include_str!("golden/internet.nft")));
    }

    #[test]
    fn a_server_with_a_dynamic_range_is_not_filtered() {
        assert_eq!(filter(&dhcp(110, vec![reservation(110, 1002, 1, "web", false)])), None);
    }
}
