//! dnsmasq's lease file: `expiry mac address hostname client-id` a line.

use std::net::Ipv4Addr;

use trunkline_proto::{Mac, wire};

/// A lease that has not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub mac: Mac,
    /// Which address.
    pub address: Ipv4Addr,
    /// When it ends, in seconds since 1970; 0: never.
    pub expires: u64,
}

impl From<&Lease> for wire::LeaseFacts {
    fn from(Lease { mac, address, expires }: &Lease) -> Self {
        Self {
            mac: mac.to_string(),
            address: address.to_string(),
            expires: *expires,
        }
    }
}

/// Leases as the controller is told of them, by address.
pub fn facts(leases: &[Lease]) -> Vec<wire::LeaseFacts> {
    let mut leases: Vec<&Lease> = leases.iter().collect();
    leases.sort_by_key(|lease| lease.address);
    leases.into_iter().map(Into::into).collect()
}

/// Leases that are still running at `now`, in seconds since 1970. Lines of another form are not leases of ours.
pub fn parse(text: &str, now: u64) -> Vec<Lease> {
    text.lines().filter_map(|line| lease(line, now)).collect()
}

/// The file without the lines of these leases; all others stay as they are.
pub(super) fn without(text: &str, taken: &[Lease]) -> String {
    // One that was renewed meanwhile is still the same guest's.
    let is_taken = |held: Lease| {
        taken
            .iter()
            .any(|lease| (lease.mac, lease.address) == (held.mac, held.address))
    };
    let stays = |line: &&str| !lease(line.trim_end(), 0).is_some_and(is_taken);
    text.split_inclusive('\n').filter(stays).collect()
}

fn lease(line: &str, now: u64) -> Option<Lease> {
    let mut fields = line.split(' ');
    let expiry: u64 = fields.next()?.parse().ok()?;
    let mac = fields.next()?.parse().ok()?;
    let address = fields.next()?.parse().ok()?;
    // 0: for ever.
    (expiry == 0 || expiry > now).then_some(Lease {
        mac,
        address,
        expires: expiry,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_running_ipv4_leases_count() {
        let text = "1000 52:54:00:03:ea:01 10.64.110.10 web *\n\
                    2000 52:54:00:03:eb:01 10.64.110.11 * 01:52:54:00:03:eb:01\n\
                    0 52:54:00:03:ec:01 10.64.110.12 * *\n\
                    duid 00:01:00:01\n\
                    half a li";
        let leases = parse(text, 1500);
        assert_eq!(
            leases.iter().map(|l| l.address.octets()[3]).collect::<Vec<_>>(),
            [11, 12]
        );
    }

    #[test]
    fn taking_a_lease_away_leaves_every_other_line_as_it_is() {
        let text = "1000 52:54:00:03:ea:01 10.64.110.10 web *\n\
                    2000 52:54:00:03:eb:01 10.64.110.11 * 01:52:54:00:03:eb:01\n\
                    duid 00:01:00:01\n";
        let taken = Lease {
            mac: "52:54:00:03:ea:01".parse().unwrap(),
            address: "10.64.110.10".parse().unwrap(),
            expires: 900,
        };
        assert_eq!(without(text, &[taken]), text.split_once('\n').unwrap().1);
        let other = Lease {
            mac: "52:54:00:03:eb:01".parse().unwrap(),
            ..taken
        };
        assert_eq!(without(text, &[other]), text);
    }
}
