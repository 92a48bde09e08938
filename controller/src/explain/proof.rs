//! What was proved on the wire between two nodes.

use trunkline_proto::{
    Name, VlanId,
    resource::{Facts, Kind, MTU_RANGE, Probe, State as Health},
    wire::{self, hop},
};

use super::{
    Effect,
    site::{Site, Told, again, refused},
    step::Step,
};

/// One direction, as it was judged.
struct Direction<'a> {
    from: &'a Name,
    to: &'a Name,
    health: Health,
    reason: String,
    seen: Option<wire::ProbePath>,
}

impl Direction<'_> {
    fn largest(&self) -> u32 {
        self.seen.as_ref().map_or(0, |seen| seen.largest)
    }

    fn passes(&self) -> bool {
        self.health == Health::Ready
    }
}

impl Site<'_> {
    /// Both directions between two nodes. Two that are not probed with each other, on a VLAN of many nodes, are each with the network
    /// node.
    pub(super) fn proof(&self, one: &Name, other: &Name, vlan: VlanId) -> Vec<Step> {
        let peers = |node: &Name| self.probe(node, vlan).map(|probe| probe.peers).unwrap_or_default();
        let (ours, theirs) = (peers(one), peers(other));
        if ours.contains(other) {
            return self.both_ways(one, other, vlan);
        }
        match self.netnode_name() {
            Some(between) if ours.contains(between) && theirs.contains(between) => {
                let mut steps = vec![self.trunk(between, vlan)];
                steps.extend(self.both_ways(one, between, vlan));
                steps.extend(self.both_ways(between, other, vlan));
                steps
            }
            _ => {
                let expected = format!("vlan {vlan} passes {one} -> {other}");
                let step = Step::new(hop::Kind::Probe, None, format!("{one} -> {other}"), expected);
                vec![step.unknown(format!("vlan {vlan} is not probed between {one} and {other} yet"), "")]
            }
        }
    }

    fn both_ways(&self, one: &Name, other: &Name, vlan: VlanId) -> Vec<Step> {
        let (there, back) = (self.direction(one, other, vlan), self.direction(other, one, vlan));
        let probe = self.probe(one, vlan);
        let port = self.shut_port(one, other, vlan);
        vec![
            told(&there, &back, vlan, probe.as_ref(), port),
            told(&back, &there, vlan, probe.as_ref(), port),
        ]
    }

    /// Which of two nodes hears nobody and is heard by nobody on a VLAN, while the other one and a third hear each other: then the way
    /// is shut at its port.
    fn shut_port<'n>(&self, one: &'n Name, other: &'n Name, vlan: VlanId) -> Option<&'n Name> {
        let both = [one.as_str(), other.as_str()];
        // Each third node's directions from and to one of the two: how many there are, how many pass, how many are cut.
        let count = |node: &Name| {
            let with_third = |path: &&wire::PathStatus| match node.as_str() {
                node if path.from == node => !both.contains(&path.to.as_str()),
                node if path.to == node => !both.contains(&path.from.as_str()),
                _ => false,
            };
            let (mut all, mut passing, mut cut) = (0, 0, 0);
            for path in self.paths(vlan).filter(with_third) {
                all += 1;
                passing += u32::from(path.state() == wire::State::Ready);
                let largest = path.seen.as_ref().map_or(0, |seen| seen.largest);
                cut += u32::from(path.state() == wire::State::Degraded && largest == 0);
            }
            (passing > 1, all > 0 && cut == all)
        };
        match (count(one), count(other)) {
            ((_, true), (true, _)) => Some(one),
            ((true, _), (_, true)) => Some(other),
            _ => None,
        }
    }

    /// The status has judged it already: on a link for each direction, on VLAN 400 for each node.
    fn direction<'n>(&self, from: &'n Name, to: &'n Name, vlan: VlanId) -> Direction<'n> {
        let is_it = |path: &&wire::PathStatus| path.from == from.as_str() && path.to == to.as_str();
        if let Some(path) = self.paths(vlan).find(is_it) {
            return Direction {
                from,
                to,
                health: Health::try_from(path.state).unwrap_or(Health::Unknown),
                reason: path.reason.clone(),
                seen: path.seen.clone(),
            };
        }
        let (health, reason, seen) = match self.told(to, Kind::Probe, &Probe::name_of(vlan)) {
            Told::Nothing { health, reason } => (health, reason, None),
            Told::Seen {
                health, judged, facts, ..
            } => {
                let seen = match facts {
                    Some(Facts::Probe(facts)) => facts.paths.iter().find(|path| path.peer == from.as_str()).cloned(),
                    _ => None,
                };
                (health, judged, seen)
            }
        };
        let reason = reason.to_owned();
        Direction {
            from,
            to,
            health,
            reason,
            seen,
        }
    }
}

fn told(way: &Direction, back: &Direction, vlan: VlanId, probe: Option<&Probe>, port: Option<&Name>) -> Step {
    let (from, to) = (way.from, way.to);
    let mtu = probe.map_or(0, |probe| probe.mtu);
    // The end that judges, unless the other one has said that it cannot send.
    let by_sender = way.health == Health::Failed && way.reason.starts_with(&format!("{from}, "));
    let at = if by_sender { from } else { to };
    let step = Step::new(
        hop::Kind::Probe,
        Some(at),
        format!("{from} -> {to}"),
        format!("vlan {vlan} passes {from} -> {to} at {mtu} bytes"),
    );
    match way.health {
        Health::Ready => step.passes(passing(way, mtu)),
        // What to do about it is said where the node is told of.
        Health::Unknown => step.unknown(way.reason.split(';').next().unwrap_or_default(), ""),
        Health::Pending => step.waits(way.reason.clone(), "wait a moment and ask again"),
        // Without a proof it is not known to pass, nor is it known not to.
        Health::Failed => {
            let mend = match way.reason.split_once(" refused ") {
                Some((node, _)) => refused(node),
                None => again(at, &way.reason),
            };
            step.broken(Health::Failed, Effect::Hinders, way.reason.clone(), mend)
        }
        Health::Degraded => match way.largest() {
            0 => {
                let seen = format!("vlan {vlan} does not pass {from} -> {to}");
                step.broken(Health::Degraded, Effect::Stops, seen, open(way, back, vlan, port))
            }
            largest => {
                let heard = way.seen.as_ref().map_or(0, |seen| seen.largest_heard);
                let passes = Probe::passes_at(largest, heard);
                let seen = format!("vlan {vlan} does not pass {from} -> {to} at {mtu} bytes ({passes})");
                // On the wire it has an Ethernet header and a tag besides.
                let frame = u32::from(mtu) + 18;
                let mut mend = format!("let every switch between {from} and {to} take frames of {frame} bytes");
                let could_be = u16::try_from(largest).is_ok_and(|largest| MTU_RANGE.contains(&largest));
                if vlan != VlanId::INTERNET && could_be {
                    mend += &format!(", or give the link an `mtu` of {largest} or less");
                }
                step.hinders(seen, mend)
            }
        },
    }
}

fn open(way: &Direction, back: &Direction, vlan: VlanId, port: Option<&Name>) -> String {
    let (from, to) = (way.from, way.to);
    if let Some(port) = port {
        format!(
            "let the switch carry vlan {vlan} tagged on the port of {port}: it passes between the other nodes, and none of it comes \
             from or to {port}"
        )
    } else if back.passes() {
        format!(
            "{to} -> {from} passes, so it is one way only: let the switch between them take vlan {vlan} tagged from the port of {from} and \
             give it out tagged at the port of {to}"
        )
    } else {
        format!("let the switch between them carry vlan {vlan} tagged on the ports of both {from} and {to}")
    }
}

fn passing(way: &Direction, mtu: u16) -> String {
    let Some(seen) = &way.seen else {
        return format!("{mtu} bytes pass");
    };
    let loss = match seen.loss_permille {
        0 => String::new(),
        loss => format!(", {}.{} % lost", loss / 10, loss % 10),
    };
    let time = match seen.round_trip_us {
        0 => String::new(),
        time => format!(", {}.{} ms there and back", time / 1000, time % 1000 / 100),
    };
    format!("{} bytes pass{loss}{time}", seen.largest)
}
