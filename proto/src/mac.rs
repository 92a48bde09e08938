//! MAC addresses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Hash, Invalid, Name, VlanId, VmId};

/// A unicast MAC address; written in lower case with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// MAC of interface `index` of a VM: `52:54`, the VM's id in 24 bits, the index in 8. Unique and constant for the VM's life.
    pub fn of_interface(vm: VmId, index: u8) -> Self {
        let [_, a, b, c] = vm.get().to_be_bytes();
        Self([0x52, 0x54, a, b, c, index])
    }

    /// MAC of a VLAN's gateway. The prefix `52:55` is never that of a VM.
    pub fn of_gateway(vlan: VlanId) -> Self {
        Self::of_service(0x01, vlan)
    }

    /// MAC of a VLAN's DHCP server.
    pub fn of_dhcp(vlan: VlanId) -> Self {
        Self::of_service(0x02, vlan)
    }

    /// MAC of a node's probe port: `52:56` and the first four bytes of the SHA-256 of its name, so that every node can tell every
    /// other's. Two of 10,000 nodes share one with a probability of about 1%; frames are signed with the name, so they do not mix.
    pub fn of_probe(node: &Name) -> Self {
        let [a, b, c, d, ..] = Hash::of(node.as_str().as_bytes()).octets();
        Self([0x52, 0x56, a, b, c, d])
    }

    fn of_service(service: u8, vlan: VlanId) -> Self {
        let [high, low] = vlan.get().to_be_bytes();
        Self([0x52, 0x55, 0, service, high, low])
    }

    /// True for addresses that the controller derives itself (`52:54:...` to `52:56:...`); nobody else may ask for one.
    pub fn is_derived(self) -> bool {
        matches!(self.0, [0x52, 0x54..=0x56, ..])
    }

    /// The six bytes in transmission order.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl TryFrom<[u8; 6]> for Mac {
    type Error = Invalid;

    /// Refuses group (multicast, broadcast) addresses and all zeros.
    fn try_from(octets: [u8; 6]) -> Result<Self, Invalid> {
        let mac = Self(octets);
        let refuse = |why: &str| Err(Invalid::new(mac.to_string(), "the MAC of an interface", why));
        if octets[0] & 1 != 0 {
            return refuse("it is a group address; write one whose first byte is even, like 02:00:00:00:00:01");
        }
        if octets == [0; 6] {
            return refuse("write one that is not all zeros, like 02:00:00:00:00:01");
        }
        Ok(mac)
    }
}

impl FromStr for Mac {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new(text, "a MAC address", "write six bytes in hex, like 02:00:00:00:00:01");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(wrong)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        Self::try_from(octets)
    }
}

impl TryFrom<String> for Mac {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_follows_from_the_vm_and_the_interface() {
        let vm = VmId::try_from(1002).unwrap();
        assert_eq!(Mac::of_interface(vm, 1).to_string(), "52:54:00:03:ea:01");
    }

    #[test]
    fn group_and_zero_addresses_are_refused() {
        for bad in [
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "2:0:0:0:0:1",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "+2:00:00:00:00:01",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert_eq!(
            "02:AB:00:00:00:01".parse::<Mac>().unwrap().to_string(),
            "02:ab:00:00:00:01"
        );
    }

    #[test]
    fn gateway_dhcp_and_vm_addresses_never_meet() {
        let vlan = VlanId::MAX;
        let vm = VmId::try_from(VmId::MAX).unwrap();
        let all = [Mac::of_gateway(vlan), Mac::of_dhcp(vlan), Mac::of_interface(vm, 255)];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        assert!(all.iter().all(|m| m.is_derived() && Mac::try_from(m.octets()).is_ok()));
    }
}
