//! One pass over everything that the network node does.

mod drift;
mod judge;
mod pass;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_agent::config::SwitchSection;
use trunkline_agent::directories::Directories;
use trunkline_agent::node::{BoxError, Desired, Doing, Host, HostFacts, NodeContext, Pass, Program, Validate, Wake};
use trunkline_agent::orphans::{Orphan, Orphans, Thing};
use trunkline_agent::probe::Prober;
use trunkline_agent::report::Board;
use trunkline_agent::switch::FailMode;
use trunkline_agent::worker::Base;
use trunkline_agent::{chain, netlink, netns, ovsdb};
use trunkline_certs::Role;
use trunkline_proto::daemon::Metrics;
use trunkline_proto::resource::{Facts, Key, Kind, Observation, Spec, State};
use trunkline_proto::{Name, PortName, VlanId};

use crate::bridge::Bridge;
use crate::config::{DhcpSection, NatSection};
use crate::nat::Nats;
use crate::{BootId, dhcp, metrics::Counts, setup};
use watch::Watch;

/// The network node's program.
pub const PROGRAM: Program = Program {
    service: "trunkline-netnode",
    version: env!("CARGO_PKG_VERSION"),
    role: Role::Netnode,
    kinds: &[Kind::Trunk, Kind::Gateway, Kind::Dhcp, Kind::Nat, Kind::Probe],
};

/// How old its last sign of life may be: the database goes on telling of ports when ovs-vswitchd is dead.
const ALIVE_EVERY: Duration = Duration::from_secs(20);

/// The host of the network node.
pub struct NetworkNode {
    base: Base,
    bridge: Bridge,
    ovs: ovsdb::Client,
    netlink: netlink::Handle,
    servers: dhcp::Servers,
    nats: Nats,
    prober: Prober,
    doing: Doing,
    watch: Watch,
    counts: Counts,
    alive: Option<Instant>,
    last: BTreeMap<Key, Observation>,
    alive_every: Duration,
    orphans: Orphans,
    /// Those that the last pass has left.
    left: Vec<Orphan>,
    directories: Directories,
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
    /// What a pass is at.
    pub doing: Doing,
    /// What was seen, for the prober.
    pub board: Arc<Board>,
    /// To add to.
    pub metrics: Arc<Metrics>,
    /// Wakes the reconcile loop.
    pub wake: Wake,
    /// Ends the small tasks.
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

impl NetworkNode {
    /// Built by the runtime.
    ///
    /// # Errors
    /// When the state directory cannot be used, or the kernel gives no notices.
    pub fn build(cx: &NodeContext, nat: NatSection, dhcp: DhcpSection) -> Result<Self, BoxError> {
        cx.wake.follow(netlink::watch_rules(cx.cancel.clone())?);
        Self::new(Parts {
            node: cx.node.clone(),
            switch: cx.config.switch.clone(),
            state_dir: cx.config.node.state_dir.clone(),
            nat,
            dhcp,
            ovs: cx.ovs.clone(),
            netlink: cx.netlink.clone(),
            doing: cx.doing.clone(),
            board: Arc::clone(&cx.board),
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
            doing,
            board,
            metrics,
            wake,
            cancel,
            tasks,
        } = parts;
        let boot = BootId::current()?;
        let namespaces = netns::Namespaces::new(setup::marks(&state_dir, &boot)?)?;
        let user = setup::dhcp_user(&state_dir, dhcp.user.as_deref())?;
        let files = state_dir.join("dhcp");
        let matters = |name: &OsStr| {
            dhcp::Servers::is_ours_to_write(name) || name.to_str().is_some_and(|name| name.starts_with("ns-dhcp-vlan"))
        };
        let (mut directories, notices) = Directories::watch(matters, cancel.clone())?;
        // Whoever comes first makes it; it is the same for all.
        std::fs::create_dir_all(netns::NETNS_DIR)?;
        directories.add(netns::NETNS_DIR.as_ref())?;
        wake.follow(notices);
        let base = Base::new(node.as_str(), &switch, FailMode::Standalone);
        let bridge = Bridge::start(&base.bridge.name, &switch.socket, cancel.clone());
        wake.follow(bridge.changes());
        Ok(Self {
            base,
            bridge,
            servers: dhcp::Servers::new(files, namespaces, dhcp.program, user, netlink.clone())?.telling(doing.clone()),
            nats: Nats::new(state_dir.join("nat"), nat, boot)?,
            prober: Prober::start(&node, board, &metrics, cancel.clone(), &tasks),
            doing,
            watch: Watch::start(wake, cancel, &tasks),
            counts: Counts::new(&metrics),
            ovs,
            netlink,
            alive: None,
            last: BTreeMap::new(),
            alive_every: ALIVE_EVERY,
            orphans: Orphans::default(),
            left: Vec::new(),
            directories,
        })
    }

    /// Looks, and asks ovs-vswitchd for a sign of life, more or less often when nothing happens.
    #[must_use]
    pub fn alive_every(mut self, every: Duration) -> Self {
        self.alive_every = every;
        self
    }

    /// Removes leftovers sooner or later than [`trunkline_agent::orphans::SECOND_LOOK`].
    #[must_use]
    pub fn orphans_after(mut self, wait: Duration) -> Self {
        self.orphans = Orphans::new(wait);
        self
    }

    /// A directory that was made anew has to be looked after anew.
    fn look_after(&mut self, vlans: impl Iterator<Item = VlanId>) {
        for vlan in vlans {
            let home = self.servers.home(vlan);
            if let Err(error) = self.directories.add(&home)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%vlan, %error, "changes of a DHCP server's files are noticed late");
            }
        }
    }
}

impl Host for NetworkNode {
    fn facts(&self) -> HostFacts {
        self.base.facts(&self.ovs)
    }

    async fn known(&self) {
        self.base.known(&self.ovs).await;
    }

    async fn pass(&mut self, desired: &Desired) -> Pass {
        let wanted = self.wanted(desired);
        let realised = self.realise(desired, &wanted).await;
        let orphan = self.orphans.next(tokio::time::Instant::now());
        let retry_after = Some(orphan.map_or(self.alive_every, |orphan| orphan.min(self.alive_every)));
        match realised {
            Ok((look, acts)) => {
                self.probe(desired, &wanted, &look, &acts).await;
                self.look_after(wanted.servers.keys().copied());
                let observations = self.judge(desired, &wanted, &look, &acts);
                self.watch
                    .set(look.servers.sites.values().flat_map(dhcp::Site::processes));
                self.last = observations.iter().map(|o| (o.key.clone(), o.clone())).collect();
                self.counts.set(self.last.values());
                Pass {
                    observations,
                    clean: self.is_clean(&wanted, &look, &acts),
                    retry_after,
                    repairs: acts.repairs,
                    orphans: self.left.clone(),
                }
            }
            Err(error) => {
                let text = chain(&error);
                tracing::warn!(error = text, "nothing is known of this host");
                self.prober.blind(&text);
                Pass {
                    observations: desired.all(State::Unknown, &text),
                    retry_after,
                    orphans: self.left.clone(),
                    ..Pass::default()
                }
            }
        }
    }

    fn let_go(&mut self, leftovers: BTreeSet<Thing>) {
        self.orphans.let_go(leftovers);
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
                        facts.leases = u32::try_from(leases.len()).unwrap_or(u32::MAX);
                        facts.held = dhcp::lease_facts(&leases);
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
