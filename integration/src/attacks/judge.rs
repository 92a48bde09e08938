//! Says of one attempt what came of it, out of what the sniffers heard.

use std::collections::BTreeMap;

use super::attempts::Attempt;
use super::sniff::{Ears, Sighting};
use super::table::Expect;
use super::world::{Kind, Nic, World};

/// What a limit may let through of a flood, of a hundred.
const LIMITED: u32 = 60;
/// What must come through of a trickle, of a hundred.
const WHOLE: u32 = 95;

type Sightings = BTreeMap<Sighting, u32>;

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As the table says.
    Holds,
    /// Never left the guest, or not whole: it proves nothing.
    NotSent,
    /// What was seen instead.
    Broken(String),
}

/// Judges one attempt.
pub fn judge(attempt: &Attempt, expect: Expect, world: &World, ears: &Ears) -> Verdict {
    let all: Vec<(u32, Sightings)> = (attempt.id..attempt.id + attempt.ids)
        .map(|id| (id, ears.sightings(id)))
        .collect();
    let sent = all.iter().map(|(_, seen)| sent(attempt, seen)).collect::<Vec<_>>();
    let wanted = attempt.burst.count / attempt.ids;
    if sent.iter().any(|sent| sent * 100 < wanted * WHOLE) {
        return Verdict::NotSent;
    }
    match expect {
        Expect::Reaches | Expect::ReachesPeers | Expect::Answered => {
            let seen = all.into_iter().next().map(|(_, seen)| seen).unwrap_or_default();
            passed(attempt, expect, world, ears, &seen)
        }
        Expect::Limited => {
            let seen = all.into_iter().next().map(|(_, seen)| seen).unwrap_or_default();
            limited(attempt, world, &seen, sent.first().copied().unwrap_or_default())
        }
        Expect::Confined | Expect::NoGuest | Expect::Dropped => leaked(attempt, expect, world, ears, &all),
    }
}

/// How often it was heard where the guest's frames enter the switch.
fn sent(attempt: &Attempt, seen: &Sightings) -> u32 {
    let own = seen
        .iter()
        .filter(|(sighting, _)| sighting.point == attempt.from.tap && !sighting.out);
    own.map(|(_, count)| *count).sum()
}

/// How often the switch handed it to a guest.
fn handed(nic: &Nic, seen: &Sightings) -> u32 {
    let there = seen
        .iter()
        .filter(|(sighting, _)| sighting.point == nic.tap && sighting.out);
    there.map(|(_, count)| *count).sum()
}

fn passed(attempt: &Attempt, expect: Expect, world: &World, ears: &Ears, seen: &Sightings) -> Verdict {
    let misses = |nic: &&Nic| handed(nic, seen) * 100 < attempt.burst.count * WHOLE;
    let missing: Vec<String> = match expect {
        Expect::Reaches => attempt.target.iter().filter(misses).map(Nic::full).collect(),
        Expect::ReachesPeers => world.peers(&attempt.from).filter(misses).map(Nic::full).collect(),
        _ => {
            let answered = match attempt.arp {
                Some(ip) => ears.arp_answer(&attempt.from.tap, ip),
                None => handed(&attempt.from, seen) > 0,
            };
            if answered {
                Vec::new()
            } else {
                vec!["no answer".to_owned()]
            }
        }
    };
    if missing.is_empty() {
        Verdict::Holds
    } else {
        Verdict::Broken(format!("did not reach {}", missing.join(" ")))
    }
}

fn limited(attempt: &Attempt, world: &World, seen: &Sightings, sent: u32) -> Verdict {
    let peers: Vec<(String, u32)> = world
        .peers(&attempt.from)
        .map(|nic| (nic.full(), handed(nic, seen)))
        .collect();
    let bad = |count: u32| count == 0 || count * 100 > sent * LIMITED;
    match peers.iter().find(|(_, count)| bad(*count)) {
        None => Verdict::Holds,
        Some((name, count)) => Verdict::Broken(format!("{name} heard {count} of {sent}")),
    }
}

fn leaked(attempt: &Attempt, expect: Expect, world: &World, ears: &Ears, all: &[(u32, Sightings)]) -> Verdict {
    let mut leaks: BTreeMap<String, u32> = BTreeMap::new();
    for (_, seen) in all {
        for sighting in seen.keys() {
            if let Some(leak) = leak(&attempt.from, expect, world, sighting) {
                *leaks.entry(leak).or_default() += 1;
            }
        }
    }
    if attempt.arp.is_some_and(|ip| ears.arp_answer(&attempt.from.tap, ip)) {
        leaks.insert("ARP answered".to_owned(), 1);
    }
    if leaks.is_empty() {
        return Verdict::Holds;
    }
    let text = leaks.into_iter().map(|(leak, count)| match count {
        1 => leak,
        _ => format!("{leak} ({count})"),
    });
    Verdict::Broken(text.collect::<Vec<_>>().join(", "))
}

/// In words, when the attempt should not have been heard so.
fn leak(from: &Nic, expect: Expect, world: &World, sighting: &Sighting) -> Option<String> {
    let point = &sighting.point;
    let own_vlan = |vlan: Option<u16>| vlan.is_some() && vlan == from.vlan;
    // Where guests are kept apart, another guest of the VLAN is another tenant.
    let among_peers = expect == Expect::Confined && !matches!(from.kind, Kind::Internet | Kind::Protected);
    if *point == from.tap {
        // An answer: on the own VLAN the other guests may give one, where they may be spoken to at all.
        let peer = || world.peers(from).any(|nic| nic.mac == sighting.from);
        let allowed = !sighting.out || (among_peers && peer());
        return (!allowed).then(|| "answered".to_owned());
    }
    let says = |what: String| Some(what);
    if let Some(nic) = world.behind(point) {
        let allowed = !sighting.out || (among_peers && own_vlan(nic.vlan));
        return if allowed { None } else { says(nic.full()) };
    }
    if expect == Expect::Dropped {
        return says(point.to_string());
    }
    let device = point.interface.as_str();
    let vlan = ["gw_vlan", "dhcp_v"]
        .iter()
        .find_map(|prefix| device.strip_prefix(prefix));
    if let Some(vlan) = vlan {
        return (!own_vlan(vlan.parse().ok())).then(|| point.to_string());
    }
    match device {
        // A tag is there on the way out only; on the way in the kernel keeps it apart.
        "trunk0" if sighting.out && !own_vlan(sighting.tag) => says(format!("{point} as {:?}", sighting.tag)),
        "trunk0" | "tlprobe0" => None,
        "ens3" | "up0" if from.kind == Kind::Internet => None,
        _ => says(point.to_string()),
    }
}
