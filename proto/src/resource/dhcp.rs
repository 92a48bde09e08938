//! A VLAN's DHCP server on the network node.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use super::{OpenError, field, mtu_from, port::ipv4};
use crate::{Cidr, Invalid, Mac, Name, PortName, VlanId, wire};

/// A namespace with a switch port and a dnsmasq in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// The VLAN.
    pub vlan: VlanId,
    /// The server's address and its subnet's prefix length.
    pub address: Cidr,
    /// MAC of the port.
    pub mac: Mac,
    /// Bytes of payload.
    pub mtu: u16,
    /// First and last dynamic address, both included. `None`: reservations only.
    pub range: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Option 3.
    pub router: Ipv4Addr,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Lease time in whole seconds, two minutes or more (dnsmasq takes no less).
    pub lease: Duration,
    /// Sorted by MAC; no MAC and no address twice.
    pub reservations: Vec<Reservation>,
}

/// The address of one guest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reservation {
    /// The guest's MAC.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
    /// Host name handed to it.
    pub hostname: Name,
    /// Leave option 3 out: this guest has its default route on eth0.
    pub no_router: bool,
}

impl Dhcp {
    /// Name of the port and of the resource.
    pub fn port(&self) -> PortName {
        PortName::dhcp(self.vlan)
    }

    /// Name of the namespace: `ns-dhcp-vlan{v}`.
    pub fn namespace(&self) -> String {
        Self::namespace_of(self.vlan)
    }

    /// Name of a VLAN's namespace.
    pub fn namespace_of(vlan: VlanId) -> String {
        format!("ns-dhcp-vlan{vlan}")
    }
}

impl TryFrom<wire::DhcpSpec> for Dhcp {
    type Error = OpenError;

    fn try_from(spec: wire::DhcpSpec) -> Result<Self, OpenError> {
        let wire::DhcpSpec {
            vlan,
            namespace,
            address,
            mac,
            mtu,
            range_start,
            range_end,
            router,
            dns,
            lease_seconds,
            reservations,
        } = spec;
        let dhcp = Self {
            vlan: vlan.try_into().map_err(field("vlan"))?,
            address: address.parse().map_err(field("address"))?,
            mac: mac.parse().map_err(field("mac"))?,
            mtu: mtu_from(mtu)?,
            range: range(&range_start, &range_end).map_err(field("range_start"))?,
            router: ipv4(&router).map_err(field("router"))?,
            dns: dns
                .iter()
                .map(|a| ipv4(a))
                .collect::<Result<_, _>>()
                .map_err(field("dns"))?,
            lease: lease(lease_seconds).map_err(field("lease_seconds"))?,
            reservations: reservations
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        };
        dhcp.check(&namespace)?;
        Ok(dhcp)
    }
}

impl Dhcp {
    fn check(&self, namespace: &str) -> Result<(), OpenError> {
        if namespace != self.namespace() {
            let problem = Invalid::new(
                namespace,
                "the namespace of this VLAN",
                format!("send {}", self.namespace()),
            );
            return Err(field("namespace")(problem));
        }
        let network = self.address.network();
        let (mut macs, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for Reservation { mac, address, .. } in &self.reservations {
            if !network.contains(address) || *address == self.address.address {
                let problem = Invalid::new(
                    address.to_string(),
                    "a guest's address here",
                    format!("send one in {network}"),
                );
                return Err(field("reservations")(problem));
            }
            if !macs.insert(mac) || !addresses.insert(address) {
                let problem = Invalid::new(
                    format!("{mac} {address}"),
                    "a new reservation",
                    "send each MAC and address once",
                );
                return Err(field("reservations")(problem));
            }
        }
        Ok(())
    }
}

impl TryFrom<wire::Reservation> for Reservation {
    type Error = OpenError;

    fn try_from(reservation: wire::Reservation) -> Result<Self, OpenError> {
        let wire::Reservation {
            mac,
            address,
            hostname,
            no_router,
        } = reservation;
        Ok(Self {
            mac: mac.parse().map_err(field("reservations.mac"))?,
            address: ipv4(&address).map_err(field("reservations.address"))?,
            hostname: hostname.parse().map_err(field("reservations.hostname"))?,
            no_router,
        })
    }
}

fn range(start: &str, end: &str) -> Result<Option<(Ipv4Addr, Ipv4Addr)>, Invalid> {
    if start.is_empty() && end.is_empty() {
        return Ok(None);
    }
    let (first, last) = (ipv4(start)?, ipv4(end)?);
    if first > last {
        return Err(Invalid::new(
            format!("{first} to {last}"),
            "a range",
            "send the lower address first",
        ));
    }
    Ok(Some((first, last)))
}

fn lease(seconds: u32) -> Result<Duration, Invalid> {
    if seconds < 120 {
        return Err(Invalid::new(
            seconds.to_string(),
            "a lease time",
            "send 120 seconds or more",
        ));
    }
    Ok(Duration::from_secs(seconds.into()))
}

impl From<&Dhcp> for wire::DhcpSpec {
    fn from(dhcp: &Dhcp) -> Self {
        let Dhcp {
            vlan,
            address,
            mac,
            mtu,
            range,
            router,
            dns,
            lease,
            reservations,
        } = dhcp;
        let (range_start, range_end) = range.map(|(a, b)| (a.to_string(), b.to_string())).unwrap_or_default();
        Self {
            vlan: (*vlan).into(),
            namespace: dhcp.namespace(),
            address: address.to_string(),
            mac: mac.to_string(),
            mtu: u32::from(*mtu),
            range_start,
            range_end,
            router: router.to_string(),
            dns: dns.iter().map(ToString::to_string).collect(),
            lease_seconds: u32::try_from(lease.as_secs()).unwrap_or(u32::MAX),
            reservations: reservations.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Reservation> for wire::Reservation {
    fn from(reservation: &Reservation) -> Self {
        let Reservation {
            mac,
            address,
            hostname,
            no_router,
        } = reservation;
        Self {
            mac: mac.to_string(),
            address: address.to_string(),
            hostname: hostname.to_string(),
            no_router: *no_router,
        }
    }
}
