//! One pass: look, act, look again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tracing::Instrument;
use trunkline_agent::node::{Desired, Repair};
use trunkline_agent::orphans::{self, Thing};
use trunkline_agent::switch::{self, SwitchState};
use trunkline_agent::{chain, netlink, ovsdb, probe};
use trunkline_proto::daemon::telemetry;
use trunkline_proto::resource::{Gateway, Nat, State};
use trunkline_proto::{PortName, VlanId};

use super::judge::SILENT;
use super::{NetworkNode, drift};
use crate::nat::{Filter, HostNetwork};
use crate::{dhcp, gateway, nat, ports};

/// How long Open vSwitch's database may be away before a pass goes without it.
const OVS_WAIT: Duration = Duration::from_secs(2);
/// How long ovs-vswitchd may take for one transaction.
const SWITCH_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to answer when nothing is to be done.
const ALIVE_LIMIT: Duration = Duration::from_secs(5);

/// Everything that is wanted, in the forms that the plans take.
pub(super) struct Wanted {
    pub(super) switch: SwitchState,
    pub(super) gateways: BTreeMap<VlanId, Gateway>,
    pub(super) servers: BTreeMap<VlanId, dhcp::Wanted>,
    pub(super) nats: Vec<Nat>,
}

/// One look at everything.
pub(super) struct Look {
    /// Devices, addresses and routes.
    host: HostNetwork,
    pub(super) switch: switch::Observed,
    pub(super) gateways: gateway::Observed,
    pub(super) servers: dhcp::Observed,
    /// An error: nothing is known of the filter.
    pub(super) nat: Result<nat::Observed, String>,
    /// Gateway ports that carry our mark.
    pub(super) gateway_ports: BTreeSet<PortName>,
    /// Ports whose device is gone though the switch has made one: it does not make another by itself.
    pub(super) lost: BTreeSet<PortName>,
    /// The same of the probe's port.
    pub(super) lost_probe: bool,
    /// Names of wanted ports that a device of somebody else has.
    pub(super) taken: BTreeSet<String>,
}

/// What a pass could not do.
#[derive(Debug, Default)]
pub(super) struct Acts {
    /// Why the bridge cannot be had at all.
    pub(super) refused: Option<String>,
    /// By port or resource name.
    pub(super) troubles: BTreeMap<String, String>,
    /// The filter could not be set.
    pub(super) filter: Option<String>,
    /// Something was done, so it has to be looked at again.
    pub(super) acted: bool,
    /// ovs-vswitchd gives no sign of life.
    pub(super) silent: bool,
    /// Why the bridge may not forward.
    pub(super) forwarding: Option<(State, String)>,
    /// Leftovers that may not go yet.
    kept: BTreeSet<Thing>,
    /// What the first look found other than it should be.
    pub(super) repairs: Vec<Repair>,
}

impl Acts {
    fn keeps(&self, kind: &'static str, name: &str) -> bool {
        !self.kept.is_empty() && self.kept.contains(&Thing::new(kind, name))
    }
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Blind {
    #[error("Open vSwitch is not reachable")]
    Ovs(#[from] ovsdb::Error),
    #[error(transparent)]
    Switch(#[from] switch::Error),
    #[error("the host's network cannot be read")]
    Netlink(#[from] netlink::Error),
    #[error("the DHCP servers cannot be looked at")]
    Dhcp(#[from] dhcp::Error),
}

impl NetworkNode {
    pub(super) fn wanted(&self, desired: &Desired) -> Wanted {
        let mut switch = ports::switch(&self.base, desired);
        if let Some(port) = self.prober.port(desired) {
            switch.ports.insert(probe::PORT.to_owned(), port);
        }
        Wanted {
            switch,
            gateways: desired.gateways().map(|(_, _, g)| (g.vlan, g.clone())).collect(),
            servers: desired
                .dhcps()
                .map(|(_, _, d)| (d.vlan, self.servers.wanted(d)))
                .collect(),
            nats: desired.nats().map(|(_, _, n)| n.clone()).collect(),
        }
    }

    async fn look(&self, wanted: &Wanted) -> Result<Look, Blind> {
        let (links, addresses, routes) =
            tokio::try_join!(self.netlink.links(), self.netlink.addresses(), self.netlink.routes())?;
        let switch = switch::observe_beside(&self.ovs, &links, &addresses, &routes)?;
        let host = HostNetwork {
            links,
            addresses,
            routes,
        };
        let ours = ports::ours(&switch, &self.base.mark);
        let gateways = gateway::observe(&host, &ours);
        let devices = host.links.iter().map(|link| link.name.as_str());
        let devices = devices.filter(|name| !gateways.orphans.contains_key(*name)).collect();
        let mut taken = ports::taken(&wanted.switch, &ours, &devices);
        taken.remove(probe::PORT);
        taken.extend(probe::port::taken(&switch, &self.base.mark).map(|_| probe::PORT.to_owned()));
        let servers = self
            .servers
            .observe(wanted.servers.values().map(|w| &w.dhcp), &host, &ours)
            .await?;
        let mut lost = servers.lost();
        lost.extend(ports::lost_gateways(&ours, &host.links));
        if switch.behind {
            // It may be about to make them.
            lost.clear();
        }
        Ok(Look {
            lost,
            lost_probe: wanted.switch.ports.contains_key(probe::PORT) && probe::port::lost(&switch, &self.base.mark),
            gateway_ports: ours
                .keys()
                .filter(|port| port.as_str().starts_with("gw_vlan"))
                .cloned()
                .collect(),
            servers,
            nat: self.nats.observe(&host).await.map_err(|error| chain(&error)),
            gateways,
            taken,
            switch,
            host,
        })
    }

    /// The filter: while gateways that are not wanted are still there they stay shut off.
    pub(super) fn filter(&self, wanted: &Wanted, look: &Look) -> Filter {
        let orphans = look
            .gateways
            .orphans
            .keys()
            .filter_map(|name| name.parse::<PortName>().ok());
        // What somebody else's device of that name does is not ours to filter.
        let ours = |port: &PortName| !look.taken.contains(port.as_str());
        let leaving = look.gateway_ports.iter().cloned().chain(orphans).filter(ours).collect();
        let gateways = wanted.gateways.values().filter(|gateway| ours(&gateway.port()));
        let nats = wanted.nats.iter().filter(|nat| ours(&nat.gateway_port));
        let servers = wanted.servers.values().map(|server| &server.dhcp);
        // When nothing is known of the uplink the filter is neither written nor taken for right.
        let beside = look
            .nat
            .as_ref()
            .map(|nat| nat.uplink.beside.clone())
            .unwrap_or_default();
        Filter::new(&self.nats.way(&beside), gateways, nats, servers, &leaving)
    }

    /// Looks, acts, looks again. An error means that nothing is known.
    pub(super) async fn realise(&mut self, desired: &Desired, wanted: &Wanted) -> Result<(Look, Acts), Blind> {
        self.doing.step("looking at the host");
        self.ovs.ready(OVS_WAIT).await?;
        let mut look = self.look(wanted).await?;
        if self.prober.clear(&look.switch, &self.netlink).await {
            look = self.look(wanted).await?;
        }
        let (unwanted, now) = (drift::unwanted(wanted, &look), tokio::time::Instant::now());
        let things = drift::wanted(wanted);
        let found = orphans::Look {
            there: drift::there(&things, &look),
            wanted: things,
            unwanted,
            // Names tell the VLAN, so whatever stands in a wanted one is wanted itself; the uplink carries no other.
            in_the_way: BTreeSet::new(),
            leaving: Some(&desired.leaving),
        };
        let mut acts = Acts {
            kept: self.orphans.look(found, now),
            repairs: drift::repairs(desired, wanted, &look),
            ..Acts::default()
        };
        match switch::plan(&wanted.switch, &look.switch) {
            Ok(plan) => {
                let probe = self.prober.repairs(desired, &wanted.switch, &look.switch, Some(&plan));
                acts.repairs.extend(probe);
            }
            Err(reason) => {
                // Without the bridge nothing can work, so nothing is begun.
                acts.refused = Some(reason);
                return Ok((look, acts));
            }
        }
        // Its flow is new with it.
        let is_new = !look.switch.bridges.contains_key(&wanted.switch.bridge.name);
        self.set_filter(wanted, &mut look, &mut acts).await;
        if self.remove(wanted, &look, &mut acts).await {
            look = self.look(wanted).await?;
        }
        let (lost, lost_probe) = (&look.lost, look.lost_probe);
        if !lost.is_empty() || lost_probe {
            // Taken off the switch and put back, so that it makes their devices anew.
            tracing::warn!(ports = ?lost, lost_probe, "devices are gone, perhaps with their namespaces; they are made again");
            let mut without = wanted.switch.clone();
            without.ports.retain(|name, _| {
                !(lost_probe && name == probe::PORT || lost.iter().any(|port| port.as_str() == name))
            });
            self.set_switch(&without, &look, &mut acts).await;
            look = self.look(wanted).await?;
        }
        if self.set_switch_and_begin(wanted, &look, &mut acts).await {
            look = self.look(wanted).await?;
        }
        self.hold_flow(desired, is_new, &mut acts).await;
        let before = std::mem::take(&mut acts.acted);
        self.set_up(wanted, &look, &mut acts).await;
        self.prove_alive(&mut acts).await;
        if acts.acted || before {
            look = self.look(wanted).await?;
            // Without the gateways that are gone by now.
            self.set_filter(wanted, &mut look, &mut acts).await;
        }
        self.left = self.orphans.list(&drift::unwanted(wanted, &look));
        Ok((look, acts))
    }

    /// Hands over what is to be probed, when everything that it needs was set and read back.
    pub(super) async fn probe(&self, desired: &Desired, wanted: &Wanted, look: &Look, acts: &Acts) {
        let refused = acts.refused.as_ref().or(acts.troubles.get(probe::PORT));
        let failed = refused.map(|reason| (State::Failed, reason.clone()));
        let silent = || acts.silent.then(|| (State::Unknown, SILENT.to_owned()));
        let trouble = failed.or_else(silent);
        self.prober
            .attend(desired, &wanted.switch, &look.switch, trouble, &self.netlink)
            .await;
    }

    async fn set_filter(&self, wanted: &Wanted, look: &mut Look, acts: &mut Acts) {
        let before = std::mem::take(&mut acts.acted);
        acts.filter = self.try_filter(wanted, look, acts).await.err();
        if acts.acted {
            look.nat = self.nats.observe(&look.host).await.map_err(|error| chain(&error));
        }
        acts.acted |= before;
    }

    async fn try_filter(&self, wanted: &Wanted, look: &Look, acts: &mut Acts) -> Result<(), String> {
        let mut observed = look.nat.clone()?;
        let filter = self.filter(wanted, look);
        let mut plan = nat::plan(&filter, &observed);
        if matches!(plan.table, nat::TableStep::Replace { .. }) {
            // A table that is written anew goes on counting where the one before it is now, not where it was when it was read.
            self.nats.count(&mut observed).await;
            plan = nat::plan(&filter, &observed);
        }
        if let Some(conflict) = &plan.conflict {
            return Err(conflict.clone());
        }
        if plan.is_empty() {
            return Ok(());
        }
        acts.acted = true;
        self.doing.step("setting the filter");
        let nats = wanted.nats.len();
        tracing::info!(gateways = wanted.gateways.len(), nats, "setting the filter");
        self.nats.execute(&plan, &observed).await.map_err(|error| {
            tracing::warn!(error = chain(&error), "the filter could not be set");
            chain(&error)
        })
    }

    /// What goes before its switch port does; and devices without a port, because they would be in a new port's way. True when something
    /// went.
    async fn remove(&self, wanted: &Wanted, look: &Look, acts: &mut Acts) -> bool {
        self.doing.step("removing what is not wanted");
        let mut plan = dhcp::plan(&wanted.servers, &look.servers);
        plan.remove
            .retain(|vlan, _| !drift::server(*vlan).iter().any(|thing| acts.kept.contains(thing)));
        for (vlan, error) in self.servers.remove(&plan).await {
            tracing::warn!(%vlan, error = chain(&error), "a DHCP server could not be removed");
        }
        let mut orphans = gateway::Plan {
            orphans: look.gateways.orphans.clone(),
            ..gateway::Plan::default()
        };
        orphans.orphans.retain(|name, _| !acts.keeps(drift::GATEWAY, name));
        if let Some(error) = gateway::execute(&orphans, &self.netlink).await.orphans {
            tracing::warn!(error = chain(&error), "left gateway devices could not be removed");
        }
        let acted = !plan.remove.is_empty() || !orphans.is_empty();
        acts.acted |= acted;
        acted
    }

    /// ovs-vswitchd takes its time for new ports: what DHCP servers have besides is made meanwhile. True when anything was changed.
    async fn set_switch_and_begin(&mut self, wanted: &Wanted, look: &Look, acts: &mut Acts) -> bool {
        let ahead = dhcp::ahead(&wanted.servers, &look.servers, |port| {
            look.taken.contains(port.as_str())
        });
        let servers = self.servers.clone();
        let (changed, failed) = tokio::join!(
            self.set_switch(&wanted.switch, look, acts),
            servers.change(&ahead, &wanted.servers)
        );
        for (vlan, error) in failed {
            // It is planned again with the rest, and told then.
            tracing::debug!(%vlan, error = chain(&error), "a DHCP server could not be begun");
        }
        acts.acted |= !ahead.is_empty();
        changed || !ahead.is_empty()
    }

    /// Brings the switch where it is to be, in one transaction. True when it was changed.
    async fn set_switch(&mut self, wanted: &SwitchState, look: &Look, acts: &mut Acts) -> bool {
        let mut state = wanted.clone();
        state.ports.retain(|name, _| !look.taken.contains(name));
        let theirs = |name: &String| {
            (
                name.clone(),
                format!("a device {name} is there and was not made by this program"),
            )
        };
        acts.troubles.extend(look.taken.iter().map(theirs));
        let plan = match switch::plan(&state, &look.switch) {
            Ok(mut plan) => {
                plan.remove
                    .retain(|removal| !acts.keeps(drift::SWITCH_PORT, &removal.name));
                plan
            }
            Err(reason) => {
                acts.refused = Some(reason);
                return false;
            }
        };
        acts.troubles.extend(plan.conflicts.clone());
        if plan.is_empty() {
            return false;
        }
        let (add, modify, remove) = (plan.add.len(), plan.modify.len(), plan.remove.len());
        self.doing.step("setting switch ports");
        let span = tracing::info_span!("ovs transaction", add, modify, remove);
        let act = async {
            let trace = telemetry::current_traceparent();
            let trace = (!trace.is_empty()).then_some(&*trace);
            switch::execute(&plan, &self.ovs, &self.netlink, trace, SWITCH_LIMIT).await
        };
        match act.instrument(span).await {
            Ok(()) => {
                tracing::info!(add, modify, remove, "switch ports set");
                if switch::transaction(&plan, None).is_some() {
                    self.alive = Some(Instant::now());
                }
            }
            Err(error) => {
                let text = chain(&error);
                tracing::warn!(error = text, "switch ports could not be set");
                let changed = plan
                    .add
                    .iter()
                    .map(|a| &a.name)
                    .chain(plan.modify.iter().map(|m| &m.name));
                acts.troubles.extend(changed.map(|name| (name.clone(), text.clone())));
            }
        }
        acts.acted = true;
        true
    }

    /// Gateways and DHCP servers. A gateway gets no address while nothing filters it.
    async fn set_up(&self, wanted: &Wanted, look: &Look, acts: &mut Acts) {
        self.doing.step("setting up gateways and DHCP servers");
        let mut gateways = gateway::plan(&wanted.gateways, &look.gateways);
        gateways.orphans.retain(|name, _| !acts.keeps(drift::GATEWAY, name));
        let servers = dhcp::plan(&wanted.servers, &look.servers);
        if acts.filter.is_none() && !gateways.is_empty() {
            acts.acted = true;
            for (vlan, error) in gateway::execute(&gateways, &self.netlink).await.gateways {
                self.trouble(acts, PortName::gateway(vlan), vlan, chain(&error));
            }
        }
        if !servers.change.is_empty() {
            acts.acted = true;
            for (vlan, error) in self.servers.change(&servers, &wanted.servers).await {
                self.trouble(acts, PortName::dhcp(vlan), vlan, chain(&error));
            }
        }
    }

    fn trouble(&self, acts: &mut Acts, port: PortName, vlan: VlanId, error: String) {
        tracing::warn!(%vlan, %port, error, "a port could not be set up");
        acts.troubles.insert(port.to_string(), error);
    }

    /// The bridge forwards by a flow of ours.
    async fn hold_flow(&mut self, desired: &Desired, is_new: bool, acts: &mut Acts) {
        if acts.refused.is_some() {
            return;
        }
        let held = self.bridge.hold().await;
        acts.forwarding = held.trouble;
        let trunk = desired.trunks().next();
        if let (Some(what), Some((key, _, _)), false) = (held.repaired, trunk, is_new) {
            acts.repairs.extend(Repair::all(key, [what]));
        }
    }

    async fn prove_alive(&mut self, acts: &mut Acts) {
        if self.alive.is_some_and(|at| at.elapsed() < self.alive_every) {
            return;
        }
        self.doing.step("asking ovs-vswitchd for a sign of life");
        match switch::prove_alive(&self.ovs, ALIVE_LIMIT).await {
            Ok(()) => self.alive = Some(Instant::now()),
            Err(error) => {
                tracing::warn!(error = chain(&error), "no sign of life from ovs-vswitchd");
                acts.silent = true;
            }
        }
    }

    /// Whether a second look finds nothing that should not be there.
    pub(super) fn is_clean(&self, wanted: &Wanted, look: &Look, acts: &Acts) -> bool {
        let tidy = |plan: switch::Plan| plan.remove.is_empty() && plan.modify.is_empty();
        let servers = dhcp::plan(&wanted.servers, &look.servers);
        let filter = |nat: &nat::Observed| nat::plan(&self.filter(wanted, look), nat).is_empty();
        switch::plan(&wanted.switch, &look.switch).is_ok_and(tidy)
            && !look.switch.behind
            && !acts.silent
            && servers.remove.is_empty()
            && !dhcp::has_leftovers(&wanted.servers, &look.servers)
            && !gateway::has_leftovers(&wanted.gateways, &look.gateways)
            && look.gateways.orphans.is_empty()
            && look.nat.as_ref().is_ok_and(filter)
    }
}
