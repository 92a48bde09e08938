//! What was read back of each resource.

use trunkline_agent::node::{Desired, Item};
use trunkline_agent::probe::Prober;
use trunkline_agent::switch::{self, Judgement};
use trunkline_proto::resource::{Dhcp, Facts, Gateway, Key, Nat, Observation, Spec, State};

use super::NetworkNode;
use super::pass::{Acts, Look, Wanted};
use crate::nat::{Filter, TableStep};
use crate::{dhcp, gateway, nat};

/// Why nothing is known of what ovs-vswitchd does.
pub(super) const SILENT: &str = "ovs-vswitchd gives no sign of life; is it running?";

type Verdict = (State, String, Option<Facts>);

impl NetworkNode {
    pub(super) fn judge(&self, desired: &Desired, wanted: &Wanted, look: &Look, acts: &Acts) -> Vec<Observation> {
        let judge = Judge {
            wanted,
            look,
            acts,
            filter: self.filter(wanted, look),
            prober: &self.prober,
        };
        desired
            .items
            .iter()
            .filter_map(|(key, item)| judge.observation(key, item))
            .collect()
    }
}

/// Everything that a verdict stands on.
struct Judge<'a> {
    wanted: &'a Wanted,
    look: &'a Look,
    acts: &'a Acts,
    filter: Filter,
    prober: &'a Prober,
}

impl Judge<'_> {
    fn observation(&self, key: &Key, item: &Item) -> Option<Observation> {
        let (state, reason, facts) = match &item.spec {
            Spec::Trunk(trunk) => {
                let Judgement { state, reason, facts } =
                    switch::judge_trunk(trunk, &self.wanted.switch, &self.look.switch, &self.acts.troubles);
                match &self.acts.forwarding {
                    Some((state_of_flow, why)) if state == State::Ready => (*state_of_flow, why.clone(), Some(facts)),
                    _ => (state, reason, Some(facts)),
                }
            }
            Spec::Gateway(gateway) => self.gateway(gateway),
            Spec::Dhcp(dhcp) => self.dhcp(dhcp),
            Spec::Nat(nat) => self.nat(nat),
            Spec::Probe(probe) => self.prober.verdict(item, probe),
            // Refused before it came here.
            Spec::Port(_) | Spec::Flows(_) => return None,
        };
        let (state, reason) = match (&self.acts.refused, &item.spec) {
            (Some(refused), _) => (State::Failed, refused.clone()),
            (None, Spec::Nat(_)) => (state, reason),
            (None, _) if self.acts.silent => (State::Unknown, SILENT.to_owned()),
            (None, _) => (state, reason),
        };
        Some(item.observation(key, state, reason, facts))
    }

    fn gateway(&self, gateway: &Gateway) -> Verdict {
        let port = gateway.port();
        let ofport = self.look.switch.port(port.as_str()).and_then(|row| row.ofport());
        let (state, reason, facts) = gateway::judge(gateway, &self.look.gateways, ofport);
        let trouble = self.port_trouble(port.as_str()).or_else(|| self.unfiltered());
        worse(trouble, state, reason, facts)
    }

    fn dhcp(&self, dhcp: &Dhcp) -> Verdict {
        let Some(wanted) = self.wanted.servers.get(&dhcp.vlan) else {
            return (State::Failed, "not looked at".to_owned(), None);
        };
        if let Some(reason) = self.look.servers.unknown.get(&dhcp.vlan) {
            return (State::Unknown, reason.clone(), None);
        }
        let port = dhcp.port();
        let site = self.look.servers.sites.get(&dhcp.vlan).cloned().unwrap_or_default();
        let ofport = self.look.switch.port(port.as_str()).and_then(|row| row.ofport());
        let (state, reason, facts) = dhcp::judge(wanted, &site, ofport);
        worse(self.port_trouble(port.as_str()), state, reason, facts)
    }

    fn nat(&self, nat: &Nat) -> Verdict {
        let observed = match &self.look.nat {
            Ok(observed) => observed,
            Err(reason) => return (State::Unknown, reason.clone(), None),
        };
        let gateway = self.wanted.gateways.get(&nat.vlan);
        let trouble = match gateway.map(|gateway| self.gateway(gateway)) {
            None => Some("it is not wanted".to_owned()),
            Some((State::Ready, _, _)) => None,
            Some((_, reason, _)) => Some(reason),
        };
        let (state, reason, facts) = nat::judge(nat, &self.filter, observed, trouble.as_deref());
        worse(self.acts.filter.clone(), state, reason, facts)
    }

    /// What stood in the port's way, or is wrong with its row in the switch.
    fn port_trouble(&self, port: &str) -> Option<String> {
        let row = || {
            let wanted = self.wanted.switch.ports.get(port)?;
            switch::port_problem(port, wanted, &self.wanted.switch, &self.look.switch)
        };
        self.acts.troubles.get(port).cloned().or_else(row)
    }

    fn unfiltered(&self) -> Option<String> {
        let right = |nat: &nat::Observed| {
            let plan = nat::plan(&self.filter, nat);
            plan.conflict.is_none() && plan.table == TableStep::Keep
        };
        match &self.look.nat {
            Ok(observed) if right(observed) => None,
            Ok(_) => Some(
                self.acts
                    .filter
                    .clone()
                    .unwrap_or_else(|| "its traffic is not filtered as it should be".to_owned()),
            ),
            Err(reason) => Some(reason.clone()),
        }
    }
}

/// What could not be done explains best what is not there.
fn worse(trouble: Option<String>, state: State, reason: String, facts: Facts) -> Verdict {
    match trouble {
        Some(trouble) => (State::Failed, trouble, Some(facts)),
        None => (state, reason, Some(facts)),
    }
}
