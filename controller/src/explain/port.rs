//! A guest's end: the guest itself, its TAP, the switch port with its tag, the flows.

use trunkline_proto::{
    VlanId,
    resource::{Facts, Kind, State as Health},
    wire::{self, hop},
};

use super::{
    site::{Placed, Site, Told, again, find_out, untold},
    step::Step,
};

/// Which part of a port its reason speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Tap,
    Tag,
    Flows,
}

/// A port as its worker told of it.
struct Port<'a> {
    health: Health,
    reason: &'a str,
    facts: &'a wire::PortFacts,
    /// What is wrong, when anything is.
    fault: Option<Part>,
}

/// Frames pass, but not to the switch alone.
const HEARD: &str = "the host itself hears";

impl<'a> Port<'a> {
    fn new(health: Health, reason: &'a str, facts: &'a wire::PortFacts, tag: i32) -> Self {
        let fault = match health {
            Health::Ready | Health::Unknown => None,
            _ if !facts.exists || !facts.up => Some(Part::Tap),
            _ if reason.contains(HEARD) => Some(Part::Tap),
            _ if ["flow", "the guest is shut", "fail_mode"]
                .iter()
                .any(|word| reason.contains(word)) =>
            {
                Some(Part::Flows)
            }
            _ if facts.tag != tag || facts.ofport <= 0 => Some(Part::Tag),
            _ if reason.contains("TAP") || reason.contains("device") => Some(Part::Tap),
            _ => Some(Part::Tag),
        };
        Self {
            health,
            reason,
            facts,
            fault,
        }
    }
}

impl Site<'_> {
    /// From the guest to the switch.
    pub(super) fn guest(&self, placed: &Placed) -> Vec<Step> {
        let (node, tap) = (placed.worker(), placed.interface.tap.as_str());
        let tag = placed.interface.vlan.map_or(0, |vlan| i32::from(vlan.get()));
        let tag_expected = match placed.interface.vlan {
            Some(vlan) => format!("an access port with tag {vlan}"),
            None => "a port that reaches nothing".to_owned(),
        };
        let step = |kind, what: &str, expected: &str| Step::new(kind, Some(node), what, expected);
        let guest_step = step(
            hop::Kind::Guest,
            &format!("{}/{}", placed.slice, placed.vm.name),
            "a program has opened the TAP and sends",
        );
        let tap_step = step(hop::Kind::Tap, tap, "the TAP exists and is up");
        let tag_step = step(hop::Kind::Tag, tap, &tag_expected);
        let flows = |of_port| placed.interface.vlan.map(|vlan| self.guard(placed, vlan, of_port));
        let (steps, of_port) = match self.told(node, Kind::Port, tap) {
            Told::Seen {
                health,
                reason,
                facts: Some(Facts::Port(facts)),
                ..
            } => {
                let port = Port::new(health, reason, facts, tag);
                let steps = [
                    self.sender(guest_step, placed, facts),
                    device(tap_step, placed, &port),
                    switch_port(tag_step, placed, &port),
                ];
                (steps, (port.fault == Some(Part::Flows)).then_some(reason))
            }
            // Without facts the whole port stands as it was told; what it is made of is not known.
            told @ (Told::Seen { .. } | Told::Nothing { .. }) => {
                let not_told = format!("{node} has not told");
                let tap = match told {
                    Told::Seen {
                        health: Health::Ready, ..
                    } => tap_step.passes("right"),
                    Told::Seen {
                        health: Health::Unknown,
                        reason,
                        ..
                    } => tap_step.unknown(reason, find_out(node, reason)),
                    Told::Seen { health, reason, .. } | Told::Nothing { health, reason } => {
                        untold(tap_step, node, health, reason)
                    }
                };
                let steps = [
                    guest_step.unknown(not_told.as_str(), ""),
                    tap,
                    tag_step.unknown(not_told.as_str(), ""),
                ];
                (steps, None)
            }
        };
        steps.into_iter().chain(flows(of_port)).collect()
    }

    fn sender(&self, step: Step, placed: &Placed, facts: &wire::PortFacts) -> Step {
        let (slice, vm, interface) = (placed.slice, &placed.vm.name, &placed.interface.name);
        if !facts.exists {
            return step.unknown("there is no TAP that it could have opened", "");
        }
        if !facts.up {
            return step.unknown("it is not seen behind a TAP that is down", "");
        }
        if !facts.carrier {
            let mend = format!("start the guest: `trunkctl vm netdev {slice}/{vm}` prints how");
            return step.stops("no program has opened the TAP", mend);
        }
        // A lease that it has it has asked for.
        let leased = placed.interface.vlan.is_some_and(|vlan| self.has_lease(placed, vlan));
        match facts.received {
            0 if leased => step.passes("it has a lease, so it has sent"),
            0 => {
                let mend = format!("in the guest bring {interface} up and ask for a lease: `udhcpc -i {interface}`");
                step.hinders("a program has opened the TAP, and no program has sent anything", mend)
            }
            1 => step.passes("1 frame sent"),
            frames => step.passes(format!("{frames} frames sent")),
        }
    }

    /// `of_port`: what its worker says of the port's own flows.
    fn guard(&self, placed: &Placed, vlan: VlanId, of_port: Option<&str>) -> Step {
        let node = placed.worker();
        let step = Step::new(
            hop::Kind::Flows,
            Some(node),
            trunkline_proto::resource::Flows::name_of(vlan),
            "all rules of the VLAN and of the port are in the switch, and no limit bites",
        );
        let (health, reason, facts) = match self.flows(node, vlan) {
            Told::Nothing { health, reason } => return untold(step, node, health, reason),
            Told::Seen {
                health, reason, facts, ..
            } => (health, reason, facts),
        };
        let facts = match facts {
            Some(Facts::Flows(facts)) => facts.clone(),
            _ => wire::FlowsFacts::default(),
        };
        let count = match facts.flows {
            1 => "1 flow".to_owned(),
            flows => format!("{flows} flows"),
        };
        let own = facts
            .storms
            .iter()
            .find(|storm| storm.port == placed.interface.tap.as_str());
        let strangers = reason.starts_with("flows of others");
        match (health, of_port) {
            (Health::Unknown, _) => step.unknown(reason, find_out(node, reason)),
            (Health::Failed | Health::Pending, _) => step.stops(reason, again(node, reason)),
            (_, Some(of_port)) => step.stops(of_port, again(node, of_port)),
            (Health::Degraded, _) if strangers => {
                let mend =
                    format!("remove them on {node}: `ovs-ofctl del-flows --strict` with the match that is named");
                step.hinders(reason, mend)
            }
            (Health::Degraded, _) if own.is_some() => {
                let dropped = own.map_or(0, |storm| storm.dropped);
                let seen = format!(
                    "{} sends more than its limit allows: {dropped} frames dropped",
                    placed.interface.tap
                );
                let mend = format!(
                    "stop the flood in the guest {}/{}; what it may send is `broadcast_limit` and `unknown_unicast_limit` of the \
                     controller's configuration",
                    placed.slice, placed.vm.name
                );
                step.hinders(seen, mend)
            }
            // Each port has limits of its own.
            (Health::Degraded, _) if !facts.storms.is_empty() => {
                step.passes(format!("{count}; the limit of another guest bites"))
            }
            (Health::Degraded, _) => step.hinders(reason, again(node, reason)),
            (Health::Ready, _) if facts.flows == 0 => step.passes("right"),
            (Health::Ready, _) => step.passes(count),
        }
    }
}

fn device(step: Step, placed: &Placed, port: &Port) -> Step {
    let node = placed.worker();
    if port.reason.contains(HEARD) {
        let mend = format!("install the package `nftables` on {node}, and remove or rename a table of that name");
        return step.hinders(port.reason, mend);
    }
    if port.fault == Some(Part::Tap) {
        let mend = if port.reason.contains("not made by") || port.reason.contains("not a TAP that") {
            format!(
                "remove or rename {} on {node}: it is somebody else's",
                placed.interface.tap
            )
        } else {
            again(node, port.reason)
        };
        return step.broken(port.health, super::Effect::Stops, port.reason, mend);
    }
    match (port.facts.exists, port.facts.up) {
        (true, true) => step.passes("it exists and is up"),
        (true, false) => step.stops("it is down", again(node, port.reason)),
        (false, _) => step.stops("it does not exist", again(node, port.reason)),
    }
}

fn switch_port(step: Step, placed: &Placed, port: &Port) -> Step {
    let node = placed.worker();
    let tag = placed.interface.vlan.map_or(0, |vlan| i32::from(vlan.get()));
    if port.health == Health::Unknown {
        return step.unknown(port.reason, find_out(node, port.reason));
    }
    if port.fault == Some(Part::Tag) {
        return step.broken(port.health, super::Effect::Stops, port.reason, again(node, port.reason));
    }
    if port.facts.tag == tag {
        return step.passes(match placed.interface.vlan {
            Some(vlan) => format!("tag {vlan}"),
            None => "reaches nothing".to_owned(),
        });
    }
    let seen = match port.facts.tag {
        tag if tag < 0 => "no tag".to_owned(),
        tag => format!("tag {tag}"),
    };
    step.stops(seen, again(node, port.reason))
}
