//! One pass over everything that the network node does.

mod judge;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use trunkline_agent::config::SwitchSection;
use trunkline_agent::node::{BoxError, Desired, Host, HostFacts, NodeContext, Pass, Program, Validate, Wake};
use trunkline_agent::switch::{self, ObservedPort, SwitchState};
use trunkline_agent::worker::Base;
use trunkline_agent::{chain, netlink, netns, ovsdb};
use trunkline_certs::Role;
use trunkline_proto::daemon::{Metrics, telemetry};
use trunkline_proto::resource::{Facts, Gateway, Key, Kind, Nat, Observation, Spec, State};
use trunkline_proto::{Name, PortName, VlanId};

use crate::config::{DhcpSection, NatSection};
use crate::nat::{Filter, HostNetwork, Nats};
use crate::{BootId, dhcp, gateway, metrics::Counts, nat, ports, setup};
use watch::Watch;

/// The network node's program.
pub const PROGRAM: Program = Program {
    service: "trunkline-netnode",
    version: env!("CARGO_PKG_VERSION"),
    role: Role::Netnode,
    kinds: &[Kind::Trunk, Kind::Gateway, Kind::Dhcp, Kind::Nat],
};

/// How long Open vSwitch's database may be away before a pass goes without it.
const OVS_WAIT: Duration = Duration::from_secs(2);
/// How long ovs-vswitchd may take for one transaction.
const SWITCH_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to answer when nothing is to be done.
const ALIVE_LIMIT: Duration = Duration::from_secs(5);

/// How old its last sign of life may be: the database goes on telling of ports when ovs-vswitchd is dead.
const ALIVE_EVERY: Duration = Duration::from_secs(20);

/// The host of the network node.
pub struct NetworkNode {
    base: Base,
    ovs: ovsdb::Client,
    netlink: netlink::Handle,
    servers: dhcp::Servers,
    nats: Nats,
    watch: Watch,
    counts: Counts,
    alive: Option<Instant>,
    last: BTreeMap<Key, Observation>,
}

/// What it is made of.
pub struct Parts {
    /// Name of this node; it marks our ports.
    pub node: Name,
    /// Open vSwitch.
    pub switch: SwitchSection,
    /// What must survive a restart.
    pub state_dir: PathBuf,
    /// The way to the internet.
    pub nat: NatSection,
    /// dnsmasq.
    pub dhcp: DhcpSection,
    /// Open vSwitch's database.
    pub ovs: ovsdb::Client,
    /// The kernel.
    pub netlink: netlink::Handle,
    /// To add to.
    pub metrics: Arc<Metrics>,
    /// Wakes the reconcile loop.
    pub wake: Wake,
    /// Ends the small task.
    pub cancel: CancellationToken,
    /// Waits for its end.
    pub tasks: TaskTracker,
}

/// What the network node refuses.
pub fn validate() -> Validate {
    Arc::new(|spec: &Spec| match spec {
        // The name is written into nftables' rules, and a NAT for another port would open that one.
        Spec::Nat(nat) if nat.gateway_port != PortName::gateway(nat.vlan) => {
            Err(format!("gateway_port: send {}", PortName::gateway(nat.vlan)))
        }
        _ => Ok(()),
    })
}

/// Everything that is wanted, in the forms that the plans take.
struct Wanted {
    switch: SwitchState,
    gateways: BTreeMap<VlanId, Gateway>,
    servers: BTreeMap<VlanId, dhcp::Wanted>,
    nats: Vec<Nat>,
}

/// One look at everything.
struct Look {
    switch: switch::Observed,
    gateways: gateway::Observed,
    servers: dhcp::Observed,
    /// An error: nothing is known of the filter.
    nat: Result<nat::Observed, String>,
    /// Gateway ports that carry our mark.
    gateway_ports: BTreeSet<PortName>,
    /// Names of wanted ports that a device of somebody else has.
    taken: BTreeSet<String>,
}

/// What a pass could not do.
#[derive(Debug, Default)]
struct Acts {
    /// Why the bridge cannot be had at all.
    refused: Option<String>,
    /// By port or resource name.
    troubles: BTreeMap<String, String>,
    /// The filter could not be set.
    filter: Option<String>,
    /// Something was done, so it has to be looked at again.
    acted: bool,
    /// ovs-vswitchd gives no sign of life.
    silent: bool,
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
enum Blind {
    #[error("Open vSwitch is not reachable")]
    Ovs(#[from] ovsdb::Error),
    #[error(transparent)]
    Switch(#[from] switch::Error),
    #[error("the host's network cannot be read")]
    Netlink(#[from] netlink::Error),
    #[error("the gateways' settings cannot be read")]
    Settings(#[from] std::io::Error),
    #[error("the DHCP servers cannot be looked at")]
    Dhcp(#[from] dhcp::Error),
}

impl NetworkNode {
    /// Built by the runtime.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn build(cx: &NodeContext, nat: NatSection, dhcp: DhcpSection) -> Result<Self, BoxError> {
        Self::new(Parts {
            node: cx.node.clone(),
            switch: cx.config.switch.clone(),
            state_dir: cx.config.node.state_dir.clone(),
            nat,
            dhcp,
            ovs: cx.ovs.clone(),
            netlink: cx.netlink.clone(),
            metrics: Arc::clone(&cx.metrics),
            wake: cx.wake.clone(),
            cancel: cx.cancel.clone(),
            tasks: cx.tasks.clone(),
        })
    }

    /// Puts it together; needs a runtime.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn new(parts: Parts) -> Result<Self, BoxError> {
        let Parts {
            node,
            switch,
            state_dir,
            nat,
            dhcp,
            ovs,
            netlink,
            metrics,
            wake,
            cancel,
            tasks,
        } = parts;
        let boot = BootId::current()?;
        let namespaces = netns::Namespaces::new(setup::marks(&state_dir, &boot)?)?;
        let user = setup::dhcp_user(&state_dir, dhcp.user.as_deref())?;
        let files = state_dir.join("dhcp");
        Ok(Self {
            base: Base::new(node.as_str(), &switch),
            servers: dhcp::Servers::new(files, namespaces, dhcp.program, user, netlink.clone())?,
            nats: Nats::new(state_dir.join("nat"), nat.uplink, boot)?,
            watch: Watch::start(wake, cancel, &tasks),
            counts: Counts::new(&metrics),
            ovs,
            netlink,
            alive: None,
            last: BTreeMap::new(),
        })
    }

    fn wanted(&self, desired: &Desired) -> Wanted {
        Wanted {
            switch: ports::switch(&self.base, desired),
            gateways: desired.gateways().map(|(_, _, g)| (g.vlan, g.clone())).collect(),
            servers: desired
                .dhcps()
                .map(|(_, _, d)| (d.vlan, self.servers.wanted(d)))
                .collect(),
            nats: desired.nats().map(|(_, _, n)| n.clone()).collect(),
        }
    }

    async fn look(&self, wanted: &Wanted) -> Result<Look, Blind> {
        let switch = switch::observe(&self.ovs, &self.netlink).await?;
        let (links, addresses, routes) =
            tokio::try_join!(self.netlink.links(), self.netlink.addresses(), self.netlink.routes())?;
        let host = HostNetwork {
            links,
            addresses,
            routes,
        };
        let marked = switch.ports.iter().filter(|(_, row)| row.is_ours(&self.base.mark));
        let marked: BTreeMap<PortName, &ObservedPort> = marked
            .filter_map(|(name, row)| Some((name.parse().ok()?, row)))
            .collect();
        let ours = marked
            .iter()
            .filter_map(|(name, row)| Some((name.clone(), device_of(row)?)))
            .collect();
        let gateways = gateway::observe(&host, &ours)?;
        let is_free = |name: &str| {
            !host.links.iter().any(|link| link.name == name)
                || gateways.orphans.contains_key(name)
                || switch
                    .port(name)
                    .is_some_and(|row| row.is_ours(&self.base.mark) && row.ofport().is_some_and(|number| number > 0))
        };
        let taken = wanted
            .switch
            .ports
            .keys()
            .filter(|name| !is_free(name))
            .cloned()
            .collect();
        Ok(Look {
            gateway_ports: marked
                .keys()
                .filter(|port| port.as_str().starts_with("gw_vlan"))
                .cloned()
                .collect(),
            servers: self
                .servers
                .observe(wanted.servers.values().map(|w| &w.dhcp), &host, &ours)
                .await?,
            nat: self.nats.observe(&host).await.map_err(|error| chain(&error)),
            gateways,
            taken,
            switch,
        })
    }

    /// The filter: while gateways that are not wanted are still there they stay shut off.
    fn filter(&self, wanted: &Wanted, look: &Look) -> Filter {
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
        Filter::new(self.nats.uplink(), gateways, nats, &leaving)
    }

    /// Looks, acts, looks again. An error means that nothing is known.
    async fn realise(&mut self, wanted: &Wanted) -> Result<(Look, Acts), Blind> {
        self.ovs.ready(OVS_WAIT).await?;
        let mut acts = Acts::default();
        let mut look = self.look(wanted).await?;
        self.set_filter(wanted, &look, &mut acts).await;
        self.remove(wanted, &look, &mut acts).await;
        if acts.acted {
            look = self.look(wanted).await?;
        }
        if self.set_switch(wanted, &look, &mut acts).await {
            look = self.look(wanted).await?;
        }
        let before = std::mem::take(&mut acts.acted);
        self.set_up(wanted, &look, &mut acts).await;
        self.prove_alive(&mut acts).await;
        if acts.acted || before {
            look = self.look(wanted).await?;
            acts.acted = false;
            // Without the gateways that are gone by now.
            self.set_filter(wanted, &look, &mut acts).await;
            if acts.acted {
                look = self.look(wanted).await?;
            }
        }
        Ok((look, acts))
    }

    async fn set_filter(&self, wanted: &Wanted, look: &Look, acts: &mut Acts) {
        acts.filter = self.try_filter(wanted, look, acts).await.err();
    }

    async fn try_filter(&self, wanted: &Wanted, look: &Look, acts: &mut Acts) -> Result<(), String> {
        let observed = look.nat.as_ref().map_err(Clone::clone)?;
        let plan = nat::plan(&self.filter(wanted, look), observed);
        if let Some(conflict) = &plan.conflict {
            return Err(conflict.clone());
        }
        if plan.is_empty() {
            return Ok(());
        }
        acts.acted = true;
        let nats = wanted.nats.len();
        tracing::info!(gateways = wanted.gateways.len(), nats, "setting the filter");
        self.nats.execute(&plan, observed).await.map_err(|error| {
            tracing::warn!(error = chain(&error), "the filter could not be set");
            chain(&error)
        })
    }

    /// What goes before its switch port does; and devices without a port, because they would be in a new port's way.
    async fn remove(&self, wanted: &Wanted, look: &Look, acts: &mut Acts) {
        let plan = dhcp::plan(&wanted.servers, &look.servers);
        for (vlan, error) in self.servers.remove(&plan).await {
            tracing::warn!(%vlan, error = chain(&error), "a DHCP server could not be removed");
        }
        let orphans = gateway::Plan {
            orphans: look.gateways.orphans.clone(),
            ..gateway::Plan::default()
        };
        if let Some(error) = gateway::execute(&orphans, &self.netlink).await.orphans {
            tracing::warn!(error = chain(&error), "left gateway devices could not be removed");
        }
        acts.acted |= !plan.remove.is_empty() || !orphans.is_empty();
    }

    /// Brings the switch where it is to be, in one transaction. True when it was changed.
    async fn set_switch(&mut self, wanted: &Wanted, look: &Look, acts: &mut Acts) -> bool {
        let mut state = wanted.switch.clone();
        state.ports.retain(|name, _| !look.taken.contains(name));
        let theirs = |name: &String| {
            (
                name.clone(),
                format!("a device {name} is there and was not made by this program"),
            )
        };
        acts.troubles.extend(look.taken.iter().map(theirs));
        let plan = match switch::plan(&state, &look.switch) {
            Ok(plan) => plan,
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
        let gateways = gateway::plan(&wanted.gateways, &look.gateways);
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

    async fn prove_alive(&mut self, acts: &mut Acts) {
        if self.alive.is_some_and(|at| at.elapsed() < ALIVE_EVERY) {
            return;
        }
        match switch::prove_alive(&self.ovs, ALIVE_LIMIT).await {
            Ok(()) => self.alive = Some(Instant::now()),
            Err(error) => {
                tracing::warn!(error = chain(&error), "no sign of life from ovs-vswitchd");
                acts.silent = true;
            }
        }
    }

    /// Whether a second look finds nothing that should not be there.
    fn is_clean(&self, wanted: &Wanted, look: &Look, acts: &Acts) -> bool {
        let tidy = |plan: switch::Plan| plan.remove.is_empty() && plan.modify.is_empty();
        let servers = dhcp::plan(&wanted.servers, &look.servers);
        let unknown = look
            .servers
            .unknown
            .keys()
            .any(|vlan| !wanted.servers.contains_key(vlan));
        let filter = |nat: &nat::Observed| nat::plan(&self.filter(wanted, look), nat).is_empty();
        switch::plan(&wanted.switch, &look.switch).is_ok_and(tidy)
            && !look.switch.behind
            && !acts.silent
            && servers.remove.is_empty()
            && !unknown
            && look.gateways.orphans.is_empty()
            && look.nat.as_ref().is_ok_and(filter)
    }
}

/// The device that ovs-vswitchd says it made for a port: one that only has its name is somebody else's.
fn device_of(row: &ObservedPort) -> Option<u32> {
    let interface = row.interfaces.first()?;
    interface.ofport.filter(|number| *number > 0)?;
    u32::try_from(interface.ifindex?).ok()
}

impl Host for NetworkNode {
    fn facts(&self) -> HostFacts {
        self.base.facts(&self.ovs)
    }

    async fn pass(&mut self, desired: &Desired) -> Pass {
        let wanted = self.wanted(desired);
        let retry_after = Some(ALIVE_EVERY);
        match self.realise(&wanted).await {
            Ok((look, acts)) => {
                let observations = self.judge(desired, &wanted, &look, &acts);
                self.watch
                    .set(look.servers.sites.values().flat_map(dhcp::Site::processes));
                self.last = observations.iter().map(|o| (o.key.clone(), o.clone())).collect();
                self.counts.set(self.last.values());
                Pass {
                    observations,
                    clean: self.is_clean(&wanted, &look, &acts),
                    retry_after,
                }
            }
            Err(error) => {
                let text = chain(&error);
                tracing::warn!(error = text, "nothing is known of this host");
                Pass {
                    observations: desired.all(State::Unknown, &text),
                    clean: false,
                    retry_after,
                }
            }
        }
    }

    async fn counters(&mut self, desired: &Desired) -> Vec<Observation> {
        let nats = if desired.nats().next().is_some() {
            self.nats.counters().await.unwrap_or_default()
        } else {
            BTreeMap::new()
        };
        let mut changed = Vec::new();
        for (key, item) in &desired.items {
            let Some(seen) = self.last.get_mut(key).filter(|seen| seen.hash == item.hash) else {
                continue;
            };
            let before = seen.facts.clone();
            match (&item.spec, &mut seen.facts) {
                (Spec::Dhcp(dhcp), Some(Facts::Dhcp(facts))) => {
                    if let Ok(leases) = self.servers.leases(dhcp.vlan) {
                        facts.leases = u32::try_from(leases).unwrap_or(u32::MAX);
                    }
                }
                (Spec::Nat(nat), Some(Facts::Nat(facts))) => {
                    if let Some(counter) = nats.get(&nat.vlan) {
                        (facts.packets, facts.bytes) = (counter.packets, counter.bytes);
                    }
                }
                _ => {}
            }
            if seen.facts != before {
                changed.push(seen.clone());
            }
        }
        self.counts.set(self.last.values());
        changed
    }
}
