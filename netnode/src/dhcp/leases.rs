//! dnsmasq's lease file: `expiry mac address hostname client-id` a line.

use std::net::Ipv4Addr;

use trunkline_proto::Mac;

/// A lease that has not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub mac: Mac,
    /// Which address.
    pub address: Ipv4Addr,
}

/// Leases that are still running at `now`, in seconds since 1970. Lines of another form are not leases of ours.
pub fn parse(text: &str, now: u64) -> Vec<Lease> {
    text.lines().filter_map(|line| lease(line, now)).collect()
}

/// The file without the lines of these leases; all others stay as they are.
pub(super) fn without(text: &str, taken: &[Lease]) -> String {
    let stays = |line: &&str| !lease(line.trim_end(), 0).is_some_and(|lease| taken.contains(&lease));
    text.split_inclusive('\n').filter(stays).collect()
}

fn lease(line: &str, now: u64) -> Option<Lease> {
    let mut fields = line.split(' ');
    let expiry: u64 = fields.next()?.parse().ok()?;
    let mac = fields.next()?.parse().ok()?;
    let address = fields.next()?.parse().ok()?;
    // 0: for ever.
    (expiry == 0 || expiry > now).then_some(Lease { mac, address })
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
        };
        assert_eq!(without(text, &[taken]), text.split_once('\n').unwrap().1);
        let other = Lease {
            mac: "52:54:00:03:eb:01".parse().unwrap(),
            ..taken
        };
        assert_eq!(without(text, &[other]), text);
    }
}
