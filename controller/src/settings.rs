//! What an operator sets once for the whole controller, as the pure part needs it.

use std::{collections::BTreeSet, net::Ipv4Addr, num::NonZeroU32, time::Duration};

use trunkline_proto::{Invalid, LinkSubnet, VlanId};

/// Rules for allocation and values for compiled resources. Checked when the controller starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// First VLAN that a slice's pool may hold.
    pub vlan_first: VlanId,
    /// Last VLAN that a slice's pool may hold.
    pub vlan_last: VlanId,
    /// VLANs of a slice that does not say how many it wants.
    pub vlan_pool_size: u32,
    /// VLAN of the hosts' own management network: never given to a slice.
    pub management_vlan: Option<VlanId>,
    /// Other VLANs that are never given to a slice.
    pub reserved_vlans: BTreeSet<VlanId>,
    /// Subnet of VLAN 400.
    pub internet_subnet: LinkSubnet,
    /// DHCP option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Bytes of payload of a link that does not say, and of every `eth0`.
    pub default_mtu: u16,
    /// DHCP lease time.
    pub lease: Duration,
    /// Broadcast and multicast frames a second that one guest port may send; `None`: no limit.
    pub broadcast_limit: Option<NonZeroU32>,
    /// Frames a second to unknown addresses that one guest port may send; `None`: no limit.
    pub unknown_unicast_limit: Option<NonZeroU32>,
    /// How long a VLAN rests after every node reported it gone.
    pub quarantine: Duration,
    /// How many deployed revisions of a slice are kept for rollback.
    pub revisions_kept: usize,
}

impl Default for Settings {
    fn default() -> Self {
        // Both constants are valid, which a test holds; the fallbacks are never taken.
        let subnet = LinkSubnet::INTERNET.parse();
        Self {
            vlan_first: VlanId::try_from(100).unwrap_or(VlanId::MIN),
            vlan_last: VlanId::MAX,
            vlan_pool_size: 20,
            management_vlan: None,
            reserved_vlans: BTreeSet::new(),
            internet_subnet: subnet.unwrap_or_else(|_| LinkSubnet::derived(VlanId::INTERNET)),
            dns: vec![Ipv4Addr::new(8, 8, 8, 8)],
            default_mtu: 1500,
            lease: Duration::from_secs(3600),
            // ARP, DHCP and neighbour discovery of a busy guest are tens of frames a second; a storm is tens of thousands.
            broadcast_limit: NonZeroU32::new(1000),
            unknown_unicast_limit: NonZeroU32::new(1000),
            quarantine: Duration::from_secs(60),
            revisions_kept: 10,
        }
    }
}

impl Settings {
    /// The first rule that these settings break, if any.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.vlan_first > self.vlan_last {
            let range = format!("{} to {}", self.vlan_first, self.vlan_last);
            return Err(Invalid::new(range, "a range of VLANs", "write the lower one first"));
        }
        if self.vlan_pool_size == 0 || self.vlan_pool_size > 4094 {
            let size = self.vlan_pool_size.to_string();
            return Err(Invalid::new(
                size,
                "the size of a VLAN pool",
                "write a number from 1 to 4094",
            ));
        }
        if !(1280..=9000).contains(&self.default_mtu) {
            let mtu = self.default_mtu.to_string();
            return Err(Invalid::new(mtu, "an MTU", "write a number from 1280 to 9000"));
        }
        if self.lease < Duration::from_secs(120) {
            let lease = format!("{:?}", self.lease);
            return Err(Invalid::new(lease, "a lease time", "write two minutes or more"));
        }
        if self.dns.is_empty() {
            return Err(Invalid::new("", "a list of DNS servers", "write at least one address"));
        }
        Ok(())
    }

    /// True for a VLAN that no slice may have.
    pub fn is_reserved(&self, vlan: VlanId) -> bool {
        vlan == VlanId::INTERNET || self.management_vlan == Some(vlan) || self.reserved_vlans.contains(&vlan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let settings = Settings::default();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!(settings.vlan_first.get(), 100);
        assert_eq!(settings.internet_subnet.to_string(), "10.60.7.0/24");
        assert!(settings.is_reserved(VlanId::INTERNET));
    }
}
