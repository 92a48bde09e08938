//! What may come into the namespace of a server that knows reservations only, as an nftables table of that namespace.
//!
//! Tenants share the VLAN of such a server, or the guests of a link are kept apart. Port security at a guest's port holds it to its
//! own Ethernet source, but not to what it writes into a DHCP message, and dnsmasq goes by the latter. Without this table a guest
//! could release another one's lease (`chaddr`), or decline its address, which dnsmasq then gives to nobody for ten minutes, have
//! answers sent to a relay (`giaddr`) or to another guest (`ciaddr`) of its choice, or to all of them at once (the flag). A server with
//! a dynamic range serves one tenant's open link, where anybody may run what he likes, relays as well; it has no table.
//!
//! A rule cannot compare two fields of a packet with each other, so there are sets of pairs: Ethernet source and `chaddr`, and Ethernet
//! source and `ciaddr`, one for each reservation. Offsets are in bits from the UDP header (64 bits) on: BOOTP's operation at 64, sort
//! of hardware at 72, length of its address at 80, the flags at 144, `ciaddr` at 160, `giaddr` at 256, `chaddr` at 288, DHCP's magic
//! number at 1952. The fields behind the headers are readable in a whole packet only, so fragments are dropped; no DHCP message is one.
//!
//! The flag asks for an answer by broadcast, which all tenants would hear. It is cleared, so that the answer goes to the one who asked:
//! DHCP clients hear it before they have an address (a client that cannot is not served here). nft does not mend the checksum over a
//! field that it has no name for, so the checksum is cleared too: in UDP over IPv4 that says that there is none. What remains of
//! broadcasts are refusals (DHCPNAK), which dnsmasq sends in no other way: few for each guest.
//!
//! The limits are statements of the sets' elements, so each guest has its own, and the table reads the same whatever they have counted.
//!
//! Client identifiers are not looked at: dnsmasq (2.90) prefers them to the MAC when it looks for a lease, even where the address is
//! reserved by MAC, so that a guest with another one's identifier took its lease away; it is told to ignore them (`dhcp-ignore-clid`).
//! It is also told not to answer plain BOOTP.

use std::fmt::Write as _;

use trunkline_proto::resource::{Dhcp, Reservation};

use crate::nft::{self, MARK_CHAIN, TABLE};

/// What dnsmasq hears of each guest; a lease takes two messages.
const HEARD: &str = "limit rate 20/second burst 40 packets";
/// Broadcasts that it answers each guest with.
const REFUSED: &str = "limit rate 1/second burst 5 packets";

/// A batch that writes the table; `None`: there is to be none.
pub fn filter(dhcp: &Dhcp) -> Option<String> {
    if dhcp.range.is_some() {
        return None;
    }
    let hex = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
    let each = |element: &dyn Fn(&Reservation) -> String| dhcp.reservations.iter().map(element).collect::<Vec<_>>();
    let guests = each(&|guest| format!("{} . {}", guest.mac, hex(&guest.mac.octets())));
    let addresses = each(&|guest| format!("{} . {}", guest.mac, hex(&guest.address.octets())));
    let refused = each(&|guest| hex(&guest.mac.octets()));
    let mut text = nft::replace(TABLE);
    for (name, kind, elements) in [
        (
            "guests",
            format!("typeof ether saddr . @th,288,48\n\t\t{HEARD}"),
            guests,
        ),
        ("addresses", "typeof ether saddr . @th,160,32".to_owned(), addresses),
        ("refused", format!("typeof @th,288,48\n\t\t{REFUSED}"), refused),
    ] {
        text.push_str(&nft::set(name, &kind, &elements));
    }
    let _ = write!(
        text,
        "\tchain {MARK_CHAIN} {{\n\t}}\n\
         \tchain prerouting {{\n\
         \t\ttype filter hook prerouting priority raw; policy drop;\n\
         \t\tip frag-off & 0x3fff != 0 drop\n\
         \t\tip hdrlength != 5 drop\n\
         \t\tip daddr {server} icmp type echo-request accept\n\
         \t\tudp dport 67 @th,64,24 0x010106 @th,256,32 0 @th,1952,32 0x63825363 ether saddr . @th,288,48 @guests goto requests\n\
         \t}}\n\
         \tchain requests {{\n\
         \t\t@th,144,16 != 0 @th,144,16 set 0 udp checksum set 0\n\
         \t\t@th,160,32 0 accept\n\
         \t\tether saddr . @th,160,32 @addresses accept\n\
         \t\tdrop\n\
         \t}}\n\
         \tchain output {{\n\
         \t\ttype filter hook output priority raw; policy accept;\n\
         \t\tip daddr 255.255.255.255 udp dport 68 @th,288,48 @refused accept\n\
         \t\tip daddr 255.255.255.255 drop\n\
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
