//! What was proved on the wire, one direction at a time.
//!
//! The direction `from -> to` is told of by `to`, where its frames should come. First rule that fits:
//!
//! 1. `from` or `to` has no session, or its full report has not come: `unknown`, and who is missing. A node that is away sends
//!    nothing, and the VLAN is not to blame for it;
//! 2. `to` has not observed its probe, or the probe failed or is blind there: as that is;
//! 3. frames of full size come: `ready`;
//! 4. `from` does not probe, is blind, or has only begun to: as that is. A switch that is dead sends nothing either;
//! 5. `to` has not waited long enough: `pending`;
//! 6. otherwise `degraded`, and the VLAN is named with the largest size that passes.

use trunkline_proto::{
    Name,
    resource::{Facts, Key, Observation, Probe, Spec, State as Health},
    wire,
};

use super::resource::Reader;

/// A direction between two nodes.
pub(super) struct Path<'a> {
    pub(super) from: &'a Name,
    pub(super) to: &'a Name,
    pub(super) health: Health,
    pub(super) reason: String,
    seen: Option<wire::ProbePath>,
    period_ms: u32,
}

impl Path<'_> {
    /// Nothing at all comes, and nobody but the VLAN is to blame.
    fn is_cut(&self) -> bool {
        self.health == Health::Degraded && self.seen.as_ref().is_none_or(|seen| seen.largest == 0)
    }
}

impl From<Path<'_>> for wire::PathStatus {
    fn from(path: Path<'_>) -> Self {
        let Path {
            from,
            to,
            health,
            reason,
            seen,
            period_ms,
        } = path;
        Self {
            from: from.to_string(),
            to: to.to_string(),
            state: wire::State::from(health).into(),
            reason,
            seen,
            period_ms,
        }
    }
}

impl<'a> Reader<'a> {
    /// What a node is told to probe on a VLAN.
    pub(super) fn probe(&self, node: &Name, key: &Key) -> Option<Probe> {
        let envelope = self.state.desired.node(node)?.resources.get(key)?;
        match envelope.open() {
            Ok(Spec::Probe(probe)) => Some(probe),
            _ => None,
        }
    }

    pub(super) fn path<'n>(&self, from: &'n Name, to: &'n Name, key: &Key, probe: &Probe) -> Path<'n> {
        let (there, here) = (self.observed(from, key), self.observed(to, key));
        let seen = here.as_ref().ok().and_then(|observed| seen(observed, from));
        let (health, reason) = self.judge((from, there), (to, here), seen, key, probe);
        let period = |node| self.observed(node, key).ok().and_then(period);
        Path {
            from,
            to,
            health,
            reason,
            seen: seen.cloned(),
            // It is probed as often as the one who sends does.
            period_ms: period(from).or_else(|| period(to)).unwrap_or_default(),
        }
    }

    fn judge(
        &self,
        (from, there): (&Name, Told<'a>),
        (to, here): (&Name, Told<'a>),
        seen: Option<&wire::ProbePath>,
        key: &Key,
        probe: &Probe,
    ) -> (Health, String) {
        let (vlan, mtu) = (probe.vlan, probe.mtu);
        if let Some(reason) = self.silence(from).or_else(|| self.silence(to)) {
            return (Health::Unknown, reason);
        }
        let here = match here {
            Ok(here) if here.state == Health::Failed => return failed(to, key, here),
            Ok(here) if here.state == Health::Unknown => return blind(to, key, here),
            Ok(here) => here,
            Err(not) => return not,
        };
        let largest = seen.map_or(0, |seen| seen.largest);
        if here.state == Health::Ready || largest >= mtu.into() {
            return (Health::Ready, String::new());
        }
        match there {
            Ok(there) if there.state == Health::Failed => return failed(from, key, there),
            Ok(there) if there.state == Health::Unknown => return blind(from, key, there),
            Ok(there) if there.state == Health::Pending => {
                return (Health::Pending, format!("{from} has only begun to probe vlan {vlan}"));
            }
            Ok(_) => {}
            Err(not) => return not,
        }
        if here.state == Health::Pending {
            let reason = format!("{to} waits for {from} on vlan {vlan} at {mtu} bytes");
            return (Health::Pending, reason);
        }
        let cut = format!("vlan {vlan} does not pass {from} -> {to}");
        let reason = match largest {
            0 => cut,
            largest => {
                let heard = seen.map_or(0, |seen| seen.largest_heard);
                format!("{cut} at {mtu} bytes ({})", Probe::passes_at(largest, heard))
            }
        };
        (Health::Degraded, reason)
    }

    /// How a probe that is not ready as a whole stands, as its paths do: which one is at fault, and who is to blame. With `toward`
    /// only that direction counts. None when no path is at fault.
    pub(super) fn worst_path(
        &self,
        node: &Name,
        key: &Key,
        seen: &Observation,
        toward: Option<&Name>,
    ) -> Option<(Health, String)> {
        let probe = self.probe(node, key)?;
        let peers = probe.peers.iter();
        let mut worst = (Health::Ready, String::new());
        for peer in peers.filter(|peer| toward.is_none_or(|toward| toward == *peer)) {
            let path = self.path(peer, node, key, &probe);
            if path.health.badness() > worst.0.badness() {
                worst = (path.health, path.reason);
            }
        }
        let elsewhere = || toward.is_some() && passing(seen, probe.mtu) < probe.peers.len();
        (worst.0 != Health::Ready || elsewhere()).then_some(worst)
    }
}

/// What was observed, or why there is nothing that counts.
pub(super) type Told<'a> = Result<&'a Observation, (Health, String)>;

/// The reason of a link, told once for all of its paths where one of them is at fault: a direction between workers, if any is, whether
/// the way back fails alike, and how many more do.
pub(super) fn tell(reason: String, paths: &[Path<'_>], netnode: Option<&Name>) -> String {
    let faults: Vec<&Path> = paths.iter().filter(|path| path.health == Health::Degraded).collect();
    let of_workers = faults
        .iter()
        .find(|path| ![Some(path.from), Some(path.to)].contains(&netnode));
    let (true, Some(fault)) = (
        faults.iter().any(|fault| fault.reason == reason),
        of_workers.or(faults.first()),
    ) else {
        return reason;
    };
    let back = faults
        .iter()
        .find(|back| (back.from, back.to) == (fault.to, fault.from));
    let nor_back = fault.is_cut() && back.is_some_and(|back| back.is_cut());
    let back = if nor_back { ", nor back" } else { "" };
    let reason = &fault.reason;
    match faults.len() - 1 - usize::from(nor_back) {
        0 => format!("{reason}{back}"),
        1 => format!("{reason}{back}, and 1 direction more"),
        more => format!("{reason}{back}, and {more} directions more"),
    }
}

fn failed(node: &Name, key: &Key, observed: &Observation) -> (Health, String) {
    (Health::Failed, format!("{node}, {key}: {}", observed.reason))
}

/// A node that cannot see its own switch.
fn blind(node: &Name, key: &Key, observed: &Observation) -> (Health, String) {
    (Health::Unknown, format!("{node}, {key}: {}", observed.reason))
}

fn seen<'o>(observed: &'o Observation, from: &Name) -> Option<&'o wire::ProbePath> {
    match &observed.facts {
        Some(Facts::Probe(facts)) => facts.paths.iter().find(|path| path.peer == from.as_str()),
        _ => None,
    }
}

fn period(observed: &Observation) -> Option<u32> {
    match &observed.facts {
        Some(Facts::Probe(facts)) => Some(facts.period_ms).filter(|period| *period > 0),
        _ => None,
    }
}

/// How many peers are heard at full size.
fn passing(observed: &Observation, mtu: u16) -> usize {
    match &observed.facts {
        Some(Facts::Probe(facts)) => facts.paths.iter().filter(|path| path.largest >= mtu.into()).count(),
        _ => 0,
    }
}

/// What a node said of the direction from this peer alone.
pub(super) fn narrowed(observed: &Observation, peer: &Name) -> Observation {
    let facts = match &observed.facts {
        Some(Facts::Probe(facts)) => Some(Facts::Probe(wire::ProbeFacts {
            paths: facts
                .paths
                .iter()
                .filter(|path| path.peer == peer.as_str())
                .cloned()
                .collect(),
            period_ms: facts.period_ms,
        })),
        other => other.clone(),
    };
    Observation {
        key: observed.key.clone(),
        hash: observed.hash,
        state: observed.state,
        reason: observed.reason.clone(),
        facts,
    }
}
