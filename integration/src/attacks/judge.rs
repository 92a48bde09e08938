//! Says of one attempt what came of it, out of what the sniffers heard.

use std::collections::BTreeMap;
use std::time::Duration;

use super::attempts::Attempt;
use super::sniff::{Ears, STACK, Sighting};
use super::table::Expect;
use super::world::{Kind, Nic, World};

/// The limit on broadcasts, and on frames to unknown addresses, of each port: frames a second, as the lab's controller
/// has it by default. As many may be saved up.
const RATE: u32 = 1000;
/// One part in so many on top, for the clocks.
const TOLERANCE: u32 = 5;
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
    /// Nothing was heard of it that should not have been, but not everything was heard.
    NotHeard,
    /// What was seen instead.
    Broken(String),
}

/// Judges one attempt.
pub fn judge(attempt: &Attempt, expect: Expect, world: &World, ears: &Ears) -> Verdict {
    let all: Vec<(u32, Sightings)> = (attempt.id..attempt.id + attempt.ids)
        .map(|id| (id, ears.sightings(id)))
        .collect();
    // Whatever else is not known of it: what leaked has leaked.
    if !expect.passes()
        && let Some(leaks) = leaked(attempt, expect, world, ears, &all)
    {
        return Verdict::Broken(leaks);
    }
    let sent = all.iter().map(|(_, seen)| sent(attempt, seen)).collect::<Vec<_>>();
    let wanted = attempt.burst.count / attempt.ids;
    if sent.iter().any(|sent| sent * 100 < wanted * WHOLE) {
        return Verdict::NotSent;
    }
    let first = || all.first().map(|(_, seen)| seen.clone()).unwrap_or_default();
    match expect {
        Expect::Reaches | Expect::ReachesPeers | Expect::Answered | Expect::Heard => {
            passed(attempt, expect, world, ears, &first())
        }
        Expect::Limited => {
            let flood = Flood {
                sent: sent.first().copied().unwrap_or_default(),
                span: ears.span(attempt.id),
            };
            flood.limited(attempt, world, &first())
        }
        Expect::Confined | Expect::NoGuest | Expect::NoOther | Expect::Inside | Expect::Dropped => Verdict::Holds,
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
        Expect::ReachesPeers if attempt.target.is_some() => {
            attempt.target.iter().filter(misses).map(Nic::full).collect()
        }
        Expect::ReachesPeers => world.peers(&attempt.from).filter(misses).map(Nic::full).collect(),
        Expect::Heard => {
            let took =
                |sighting: &Sighting| sighting.point.interface == STACK && sighting.point.host == attempt.from.tap.host;
            if seen.keys().any(took) {
                Vec::new()
            } else {
                vec![STACK.to_owned()]
            }
        }
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

/// A flood as it entered the switch.
struct Flood {
    sent: u32,
    span: Duration,
}

impl Flood {
    /// What a limit lets through of it: what it saves up, and its rate for as long as the flood went on.
    fn most(&self) -> u32 {
        let milliseconds = u32::try_from(self.span.as_millis()).unwrap_or(u32::MAX);
        let exact = RATE + RATE.saturating_mul(milliseconds) / 1000;
        exact + exact / TOLERANCE
    }

    fn limited(&self, attempt: &Attempt, world: &World, seen: &Sightings) -> Verdict {
        let most = self.most();
        // As slow as the limit: it cannot bite, and nothing is shown.
        if most * 2 > self.sent {
            return Verdict::NotSent;
        }
        let receivers = receivers(&attempt.from, world, seen);
        let bad = |count: u32| count == 0 || count > most;
        match receivers.iter().find(|(_, count)| bad(*count)) {
            None if receivers.is_empty() => Verdict::Broken("there is nobody to hear it".to_owned()),
            None => Verdict::Holds,
            Some((name, count)) => Verdict::Broken(format!(
                "{name} heard {count} of {}, not up to {most} in {:?}",
                self.sent, self.span
            )),
        }
    }
}

/// Who hears a flood, and how much of it: the peers, or the gateway where guests are kept apart.
fn receivers(from: &Nic, world: &World, seen: &Sightings) -> Vec<(String, u32)> {
    if !apart(from.kind) {
        let peers = world.peers(from);
        return peers.map(|nic| (nic.full(), handed(nic, seen))).collect();
    }
    let gateway = from.vlan.map(|vlan| format!("gw_vlan{vlan}")).into_iter();
    let heard = |device: String| {
        let there = seen.iter().filter(|(sighting, _)| sighting.point.interface == device);
        (device.clone(), there.map(|(_, count)| *count).sum())
    };
    gateway.map(heard).collect()
}

/// Where another guest of the VLAN is another tenant.
fn apart(kind: Kind) -> bool {
    matches!(kind, Kind::Internet | Kind::Protected)
}

/// What it reached that it should not have, in words.
fn leaked(attempt: &Attempt, expect: Expect, world: &World, ears: &Ears, all: &[(u32, Sightings)]) -> Option<String> {
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
    let text = leaks.into_iter().map(|(leak, count)| match count {
        1 => leak,
        _ => format!("{leak} ({count})"),
    });
    let text = text.collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then_some(text)
}

/// In words, when the attempt should not have been heard so.
fn leak(from: &Nic, expect: Expect, world: &World, sighting: &Sighting) -> Option<String> {
    let point = &sighting.point;
    let own_vlan = |vlan: Option<u16>| vlan.is_some() && vlan == from.vlan;
    let among_peers = matches!(expect, Expect::Confined | Expect::Limited) && !apart(from.kind);
    if *point == from.tap {
        // An answer: on the own VLAN the other guests may give one, where they may be spoken to at all.
        let peer = || world.peers(from).any(|nic| nic.mac == sighting.from);
        let allowed = !sighting.out || expect == Expect::NoOther || (among_peers && peer());
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
        "ens3" | "up0" if expect == Expect::Inside => says(point.to_string()),
        "ens3" | "up0" if from.kind == Kind::Internet => None,
        _ => says(point.to_string()),
    }
}
