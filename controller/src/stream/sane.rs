//! What a node may say: values that cannot be are left out, by reason, before anything is made of them.
//!
//! Facts are looked at by people only, but they are kept, shown and put into JSON: so every one of them is bounded here. Where one value
//! is wrong because a clock is, that value becomes *unknown* and the rest counts. Facts that are too long or another kind's are left out,
//! and the state counts. A value that cannot be is a fault of the node: nothing is known of that resource.

use trunkline_proto::{
    Mac, Name,
    resource::{Facts, Key, Kind, Observation},
    wire,
};

use crate::model::Timestamp;

/// Longest text of a repair, in bytes: nodes cut theirs there.
const TEXT: usize = Observation::MAX_REASON;

/// Largest payload of an Ethernet frame that any device knows.
const PAYLOAD: u32 = 65_535;

/// Longest name of an interface or of a bond, in bytes. Linux takes 15 for an interface.
const DEVICE: usize = 64;

/// Longest address with its prefix length in text: `fe80:...` and a scope.
const ADDRESS: usize = 64;

/// Most addresses of one gateway port: one is ours, the others are somebody's by hand.
const ADDRESSES: usize = 256;

/// Most VLANs in a list, 0 and 4095 among them.
const VLANS: usize = 4096;

/// Most leases, paths and limits that bite in one observation: a /16's leases, or as many peers or guests.
const ITEMS: usize = 65_536;

/// Most flows of one VLAN.
const FLOWS: u32 = 1 << 24;

/// Largest number of a port in OpenFlow 1.0 and in Open vSwitch's database.
const OFPORT: i32 = 65_535;

/// Largest process id of Linux (`PID_MAX_LIMIT`).
const PID: u32 = 1 << 22;

/// Largest count: more than any kernel will have counted, and what a gauge takes.
const COUNT: u64 = i64::MAX as u64;

/// Longest that a lease can run, in seconds since 1970: the end of the year 9999, which every program can still show.
const LEASE_END: u64 = 253_402_300_799;

/// Longest way there and back that is believed, in microseconds: a frame that old counts for nothing any more.
const ROUND_TRIP: u32 = 10 * 60 * 1_000_000;

/// Longest period, in milliseconds: a day.
const PERIOD: u32 = 86_400_000;

/// A value of the facts cannot be.
pub(super) const IMPOSSIBLE: &str = "impossible";
/// A text or a list is longer than it can be.
pub(super) const TOO_LONG: &str = "too_long";
/// The facts are of another kind of resource.
pub(super) const OTHER_KIND: &str = "other_kind";
/// A time lies further ahead than any clock is wrong; it alone was left out.
pub(super) const CLOCK: &str = "clock";

/// Looks at an observation; answers what of it was left out and how often, or the reason why none of it can be.
pub(super) fn observation(seen: &mut Observation, now: Timestamp) -> Result<(&'static str, u64), &'static str> {
    if seen.reason.contains(char::is_control) {
        seen.reason = crate::leftovers::plain(&seen.reason);
    }
    let judged = match &mut seen.facts {
        None => Ok(0),
        Some(facts) if !fits(&seen.key, facts) => Err(OTHER_KIND),
        Some(facts) => self::facts(facts, now),
    };
    match judged {
        Ok(unknown) => Ok((CLOCK, unknown)),
        Err(IMPOSSIBLE) => Err(IMPOSSIBLE),
        Err(reason) => {
            seen.facts = None;
            Ok((reason, 1))
        }
    }
}

/// True when facts are of the kind that the key names. Of a kind that we do not know nothing is said here.
fn fits(key: &Key, facts: &Facts) -> bool {
    matches!(
        (key.kind, facts),
        (Kind::Port, Facts::Port(_))
            | (Kind::Trunk, Facts::Trunk(_))
            | (Kind::Gateway, Facts::Gateway(_))
            | (Kind::Dhcp, Facts::Dhcp(_))
            | (Kind::Nat, Facts::Nat(_))
            | (Kind::Flows, Facts::Flows(_))
            | (Kind::Probe, Facts::Probe(_))
    )
}

/// Every field is named: a new one cannot be forgotten here.
fn facts(facts: &mut Facts, now: Timestamp) -> Result<u64, &'static str> {
    match facts {
        Facts::Port(wire::PortFacts {
            exists: _,
            up: _,
            ofport,
            tag,
            carrier: _,
            received,
        }) => {
            can_be(is_ofport(*ofport) && (-1..=4095).contains(tag) && *received <= COUNT)?;
        }
        Facts::Trunk(wire::TrunkFacts {
            interface,
            vlans,
            up: _,
        }) => {
            short(is_device(interface) && vlans.len() <= VLANS)?;
            can_be(vlans.iter().all(|vlan| *vlan <= 4095))?;
        }
        Facts::Gateway(wire::GatewayFacts {
            up: _,
            ofport,
            addresses,
        }) => {
            short(addresses.len() <= ADDRESSES && addresses.iter().all(|text| is_text(text, ADDRESS)))?;
            can_be(is_ofport(*ofport))?;
        }
        Facts::Dhcp(dhcp) => self::dhcp(dhcp)?,
        Facts::Nat(wire::NatFacts {
            uplink,
            packets,
            bytes,
            forwarding: _,
        }) => {
            short(is_device(uplink))?;
            can_be(*packets <= COUNT && *bytes <= COUNT)?;
        }
        Facts::Flows(wire::FlowsFacts { flows, storms }) => {
            short(storms.len() <= ITEMS && storms.iter().all(|storm| is_device(&storm.port)))?;
            can_be(*flows <= FLOWS && storms.iter().all(|storm| storm.dropped <= COUNT))?;
        }
        Facts::Probe(wire::ProbeFacts { paths, period_ms }) => {
            short(paths.len() <= ITEMS)?;
            can_be(*period_ms <= PERIOD)?;
            let mut unknown = 0;
            for path in paths {
                unknown += self::path(path, now)?;
            }
            return Ok(unknown);
        }
    }
    Ok(0)
}

fn dhcp(dhcp: &wire::DhcpFacts) -> Result<(), &'static str> {
    let wire::DhcpFacts {
        pid,
        leases,
        current: _,
        held,
    } = dhcp;
    short(held.len() <= ITEMS)?;
    can_be(*pid <= PID && usize::try_from(*leases).is_ok_and(|leases| leases <= ITEMS))?;
    let lease = |lease: &wire::LeaseFacts| {
        let wire::LeaseFacts { mac, address, expires } = lease;
        mac.parse::<Mac>().is_ok() && address.parse::<std::net::Ipv4Addr>().is_ok() && *expires <= LEASE_END
    };
    can_be(held.iter().all(lease))
}

/// How many of its values became unknown.
fn path(path: &mut wire::ProbePath, now: Timestamp) -> Result<u64, &'static str> {
    let wire::ProbePath {
        peer,
        largest,
        loss_permille,
        round_trip_us,
        last_seen_ms,
        largest_heard,
    } = path;
    can_be(peer.parse::<Name>().is_ok() && *largest <= PAYLOAD && *largest_heard <= PAYLOAD && *loss_permille <= 1000)?;
    let seen = i64::try_from(*last_seen_ms).map(Timestamp::from_millis);
    let mut unknown = 0;
    if !seen.is_ok_and(|seen| seen.is_credible(now)) {
        (*last_seen_ms, unknown) = (0, unknown + 1);
    }
    if *round_trip_us > ROUND_TRIP {
        (*round_trip_us, unknown) = (0, unknown + 1);
    }
    Ok(unknown)
}

fn can_be(it: bool) -> Result<(), &'static str> {
    if it { Ok(()) } else { Err(IMPOSSIBLE) }
}

fn short(it: bool) -> Result<(), &'static str> {
    if it { Ok(()) } else { Err(TOO_LONG) }
}

fn is_text(text: &str, most: usize) -> bool {
    text.len() <= most && !text.contains(char::is_control)
}

/// Empty: there is none.
fn is_device(name: &str) -> bool {
    is_text(name, DEVICE)
}

/// -1: the switch has not taken it.
fn is_ofport(ofport: i32) -> bool {
    (-1..=OFPORT).contains(&ofport)
}

/// True for the words of a repair, if they can be.
pub(super) fn words(what: &str) -> bool {
    (1..=TEXT).contains(&what.len())
}

/// When it was, by the node's clock: now, when it does not say. None when that cannot be.
pub(super) fn time(at: Option<prost_types::Timestamp>, now: Timestamp) -> Option<Timestamp> {
    match at {
        None => Some(now),
        Some(at) => Timestamp::try_from(at).ok().filter(|at| at.is_credible(now)),
    }
}

#[cfg(test)]
mod tests;
