//! What was read back of each resource.

use trunkline_proto::{
    VlanId,
    resource::{Facts, Flows, Observation, Port, Spec, State},
    wire,
};

use super::{Seen, flows::Guarded};
use crate::{
    node::Desired,
    openflow::{self, Fragments},
    probe::Prober,
    switch::{self, FailMode, Judgement},
};

/// Most flows of others that a reason names.
const NAMED: usize = 3;

/// Why nothing is known of what ovs-vswitchd does.
pub(super) const SILENT: &str = "ovs-vswitchd gives no sign of life; is it running?";

/// Every resource, as the second look found it.
pub(super) fn all(desired: &Desired, seen: &Seen, prober: &Prober) -> Vec<Observation> {
    let judged = desired.items.iter().filter_map(|(key, item)| {
        let (state, reason, facts) = match &item.spec {
            Spec::Port(port) => parts(judge_port(port, seen)),
            Spec::Trunk(trunk) => parts(switch::judge_trunk(
                trunk,
                &seen.state,
                &seen.observed,
                &seen.acts.troubles,
            )),
            Spec::Flows(flows) => judge_flows(flows, seen),
            Spec::Probe(probe) => prober.verdict(item, probe),
            // Refused before it came here.
            Spec::Gateway(_) | Spec::Dhcp(_) | Spec::Nat(_) => return None,
        };
        let (state, reason) = match &seen.acts.refused {
            Some(refused) => (State::Failed, refused.clone()),
            None if seen.acts.silent => (State::Unknown, SILENT.to_owned()),
            None => (state, reason),
        };
        Some(item.observation(key, state, reason, facts))
    });
    judged.collect()
}

fn parts(judgement: Judgement) -> (State, String, Option<Facts>) {
    let Judgement { state, reason, facts } = judgement;
    (state, reason, Some(facts))
}

/// A port that is in the switch is only half of it: without its flows the guest is shut, or not held to what it may.
fn judge_port(port: &Port, seen: &Seen) -> Judgement {
    let mut judgement = switch::judge_port(port, &seen.state, &seen.observed, &seen.acts.troubles);
    if let Facts::Port(facts) = &mut judgement.facts {
        facts.received = seen.received.get(port.tap.as_str()).copied().unwrap_or_default();
    }
    if judgement.state == State::Ready
        && let Some((state, reason)) = unguarded(port, seen)
    {
        (judgement.state, judgement.reason) = (state, reason);
    }
    if judgement.state == State::Ready
        && let Some(reason) = seen.heard.get(port.tap.as_str())
    {
        (judgement.state, judgement.reason) = (State::Degraded, reason.clone());
    }
    judgement
}

fn unguarded(port: &Port, seen: &Seen) -> Option<(State, String)> {
    let failed = |reason| Some((State::Failed, reason));
    if let Some(reason) = open(seen) {
        return failed(reason);
    }
    let guarded = match &seen.guarded {
        Ok(guarded) => guarded,
        Err(error) => return Some((State::Unknown, unknown(error))),
    };
    if let Some(vlan) = port.vlan.filter(|vlan| !guarded.network.segments.contains_key(vlan)) {
        return failed(format!("the guest is shut: the rules of VLAN {vlan} have not come yet"));
    }
    let name = port.tap.as_str();
    let shut = |number| {
        guarded
            .network
            .guests
            .get(number)
            .is_some_and(|guest| guest.vlan != port.vlan)
    };
    match guarded.numbers.get(name) {
        Some(number) if shut(number) => failed(format!(
            "the guest is shut until ovs-vswitchd has put {name} into its VLAN"
        )),
        Some(number) => failed(guarded.port_problem(*number)?),
        None => failed(format!(
            "the flows of {name} are not there: its number in the switch is not known"
        )),
    }
}

/// Why nothing keeps guests apart on the bridge as a whole.
fn open(seen: &Seen) -> Option<String> {
    let name = &seen.state.bridge.name;
    let bridge = seen.observed.bridges.get(name)?;
    let wanted = FailMode::Secure.as_str();
    (bridge.fail_mode != wanted).then(|| format!("{name} has fail_mode={} instead of {wanted}", bridge.fail_mode))
}

fn unknown(error: &str) -> String {
    format!("the flows cannot be read from ovs-vswitchd: {error}")
}

fn judge_flows(flows: &Flows, seen: &Seen) -> (State, String, Option<Facts>) {
    let guarded = match &seen.guarded {
        Ok(guarded) => guarded,
        Err(error) => return (State::Unknown, unknown(error), None),
    };
    let standing = guarded.standings.get(&flows.vlan).copied().unwrap_or_default();
    let facts = Facts::Flows(wire::FlowsFacts {
        flows: u32::try_from(standing.there).unwrap_or(u32::MAX),
        storms: Vec::new(),
    });
    let (state, reason) = if let Some(reason) = open(seen) {
        (State::Failed, reason)
    } else if let Some(reason) = strangers(&seen.state.bridge.name, guarded) {
        (State::Degraded, reason)
    } else if standing.missing > 0 {
        let reason = match &seen.acts.unguarded {
            Some(error) => error.clone(),
            None => format!("{} flows are missing", standing.missing),
        };
        (State::Failed, reason)
    } else if let Some(reason) = guarded.unlimited.get(&flows.vlan) {
        (State::Degraded, format!("broadcast limits cannot be set: {reason}"))
    } else if let Some(reason) = unseen(&seen.state.bridge.name, flows, guarded.fragments) {
        (State::Degraded, reason)
    } else {
        (State::Ready, String::new())
    };
    (state, reason, Some(facts))
}

/// What port security does not see; without it a guest may send fragments as it likes.
pub(super) fn unseen(bridge: &str, flows: &Flows, fragments: Fragments) -> Option<String> {
    let secured = flows.port_security || flows.protected || flows.vlan == VlanId::INTERNET;
    (secured && fragments != Fragments::Matched).then(|| {
        format!(
            "{bridge} handles fragments as `{fragments}` and cannot be set to `{}`: honest ones are lost, and a guest can \
             send ICMP redirects in them",
            Fragments::Matched
        )
    })
}

/// Flows of others may let pass what ours would drop; one in the place of ours keeps ours out.
fn strangers(bridge: &str, guarded: &Guarded) -> Option<String> {
    let list = |flows: &[openflow::Flow]| {
        let named: Vec<String> = flows.iter().take(NAMED).map(ToString::to_string).collect();
        let more = flows.len().saturating_sub(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("{}{more}", named.join("; "))
    };
    let (conflicts, others) = (&guarded.rest.conflicts, &guarded.rest.strangers);
    if !conflicts.is_empty() {
        return Some(format!(
            "flows of others on {bridge} stand in the place of ours: {}; remove them",
            list(conflicts)
        ));
    }
    (!others.is_empty()).then(|| {
        format!(
            "flows of others on {bridge} may let pass what ours stop: {}; remove them",
            list(others)
        )
    })
}
