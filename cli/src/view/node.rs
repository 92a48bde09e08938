//! Nodes.

use jiff::Timestamp;
use serde::Serialize;
use trunkline_proto::wire;

use super::{
    ago, given, key, nonzero,
    path::seconds,
    shown,
    status::{FactsView, ResourceView, count},
    time,
};
use crate::{
    console::{Console, Tone},
    table::{Table, or_dash, plain, state},
};

#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    /// `worker`, `netnode`.
    pub(crate) role: String,
    pub(crate) connected: bool,
    pub(crate) last_seen: Option<Timestamp>,
    pub(crate) vms: u32,
    /// It takes no new VMs.
    pub(crate) cordoned: bool,
    /// When it was declared gone.
    pub(crate) gone_since: Option<Timestamp>,
    pub(crate) in_step: bool,
    pub(crate) generation: u64,
    pub(crate) resources: u32,
    pub(crate) resources_ready: u32,
    pub(crate) certificate_expires: Option<Timestamp>,
    pub(crate) version: Option<String>,
    pub(crate) hostname: Option<String>,
    /// `system` or `netdev`.
    pub(crate) datapath: Option<String>,
    pub(crate) ovs_version: Option<String>,
    pub(crate) uplink: Option<String>,
}

/// `node show`.
#[derive(Debug, Serialize)]
pub(crate) struct NodeDetailView {
    #[serde(flatten)]
    pub(crate) node: NodeView,
    pub(crate) probes: ProbesView,
    pub(crate) holds: Vec<ResourceView>,
    pub(crate) refused: Vec<RefusalView>,
    pub(crate) orphans: Vec<OrphanView>,
    pub(crate) held_removals: Option<HeldView>,
}

/// `node orphans`.
#[derive(Debug, Serialize)]
pub(crate) struct OrphanView {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) since: Option<Timestamp>,
}

/// Removals that a sentence names.
const NAMED: usize = 20;

/// Removals that wait for `node confirm`.
#[derive(Debug, Serialize)]
pub(crate) struct HeldView {
    pub(crate) term: u64,
    pub(crate) generation: u64,
    /// How many wait, named or not.
    pub(crate) total: u32,
    /// Of these, reservations in DHCP servers.
    pub(crate) reservations: u32,
    pub(crate) removals: Vec<KeyView>,
}

impl HeldView {
    /// `port tap_1002_eth0, port tap_1002_eth1 and 10 more`.
    pub(crate) fn named(&self) -> String {
        let name = |removal: &KeyView| format!("{} {}", removal.kind, removal.name);
        let names: Vec<String> = self.removals.iter().take(NAMED).map(name).collect();
        match self.more() + self.removals.len() - names.len() {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }

    /// `No operator asked for these 12 removals, 3 of them reservations in DHCP servers`.
    fn sentence(&self) -> String {
        let removals = match self.total {
            1 => "this removal".to_owned(),
            total => format!("these {total} removals"),
        };
        let reservations = match self.reservations {
            0 => String::new(),
            1 if self.total == 1 => ", a reservation in the DHCP server above".to_owned(),
            all if all == self.total => ", all reservations in the DHCP servers above".to_owned(),
            some => format!(", {some} of them reservations in DHCP servers"),
        };
        format!("No operator asked for {removals}{reservations}")
    }

    /// Resources that wait beyond those that are named.
    fn more(&self) -> usize {
        let resources = usize::try_from(self.total.saturating_sub(self.reservations)).unwrap_or(usize::MAX);
        resources.saturating_sub(self.removals.len())
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct KeyView {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// How much a node has to prove, and how often it can.
#[derive(Debug, Serialize)]
pub(crate) struct ProbesView {
    /// Of a VLAN and another node on it.
    pub(crate) pairs: u64,
    /// It follows from the number of pairs; none while there are none.
    pub(crate) period_ms: Option<u32>,
}

impl ProbesView {
    /// From what it says of everything that it holds.
    pub(crate) fn of(holds: &[ResourceView]) -> Self {
        let (mut pairs, mut period_ms) = (0, None);
        for resource in holds {
            if let Some(FactsView::Probe {
                period_ms: every,
                paths,
            }) = &resource.observed
            {
                pairs += u64::try_from(paths.len()).unwrap_or(0);
                period_ms = period_ms.max(nonzero(*every));
            }
        }
        Self { pairs, period_ms }
    }

    fn text(&self) -> String {
        match self.period_ms {
            Some(period) => format!(
                "{} of VLAN and node, each every {}",
                count(self.pairs, "pair"),
                seconds(period.into())
            ),
            None => "-".to_owned(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct RefusalView {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl From<&wire::Node> for NodeView {
    fn from(node: &wire::Node) -> Self {
        let (facts, status) = (
            node.facts.clone().unwrap_or_default(),
            node.status.clone().unwrap_or_default(),
        );
        Self {
            name: node.name.clone(),
            role: match node.role() {
                wire::NodeRole::Worker => "worker",
                wire::NodeRole::Netnode => "netnode",
                wire::NodeRole::Unspecified => "none",
            }
            .to_owned(),
            connected: node.connected,
            last_seen: time(node.last_seen.as_ref()),
            vms: node.vms,
            cordoned: node.cordoned,
            gone_since: time(node.gone_since.as_ref()),
            in_step: status.in_step,
            generation: status.generation,
            resources: status.resources,
            resources_ready: status.resources_ready,
            certificate_expires: time(node.certificate_expires.as_ref()),
            version: given(&facts.version),
            hostname: given(&facts.hostname),
            datapath: given(&facts.datapath),
            ovs_version: given(&facts.ovs_version),
            uplink: given(&facts.uplink),
        }
    }
}

impl From<&wire::Orphan> for OrphanView {
    fn from(orphan: &wire::Orphan) -> Self {
        Self {
            kind: orphan.kind.clone(),
            name: orphan.name.clone(),
            since: time(orphan.since.as_ref()),
        }
    }
}

impl From<&wire::HeldRemovals> for HeldView {
    fn from(held: &wire::HeldRemovals) -> Self {
        let removals = held.keys.iter().map(|one| {
            let (kind, name) = key(Some(one));
            KeyView { kind, name }
        });
        Self {
            term: held.term,
            generation: held.generation,
            total: held.total.max(u32::try_from(held.keys.len()).unwrap_or(u32::MAX)),
            reservations: held.reservations,
            removals: removals.collect(),
        }
    }
}

impl From<&wire::Refusal> for RefusalView {
    fn from(refusal: &wire::Refusal) -> Self {
        let (kind, name) = key(refusal.key.as_ref());
        Self {
            kind,
            name,
            reason: refusal.reason.clone(),
        }
    }
}

/// Connected, or since when not.
fn connected(node: &NodeView, now: Timestamp) -> (String, Tone) {
    match (node.connected, node.last_seen) {
        (true, _) => ("yes".to_owned(), Tone::Good),
        (false, None) => ("never".to_owned(), Tone::Bad),
        (false, seen) => (format!("no, {} ago", ago(seen, now)), Tone::Bad),
    }
}

/// `node list`.
pub(crate) fn nodes_table(console: &Console, nodes: &[NodeView], now: Timestamp) -> String {
    let heads = [
        "NODE",
        "ROLE",
        "CONNECTED",
        "IN STEP",
        "READY",
        "VMS",
        "DATAPATH",
        "UPLINK",
        "VERSION",
    ];
    let mut table = Table::new(console, &heads);
    for node in nodes {
        table.row([
            plain(&node.name),
            role(node),
            presence(node, now),
            in_step(node.in_step),
            plain(format!("{}/{}", node.resources_ready, node.resources)),
            plain(node.vms),
            or_dash(node.datapath.as_deref().unwrap_or_default()),
            or_dash(node.uplink.as_deref().unwrap_or_default()),
            or_dash(node.version.as_deref().unwrap_or_default()),
        ]);
    }
    table.render("no node has connected yet; see `trunkline-certs issue` and the agent's configuration")
}

/// The same, or since when it counts as gone.
fn presence(node: &NodeView, now: Timestamp) -> (String, Tone) {
    match node.gone_since {
        Some(gone) => (format!("gone, {} ago", ago(Some(gone), now)), Tone::Bad),
        None => connected(node, now),
    }
}

fn role(node: &NodeView) -> (String, Tone) {
    if node.cordoned {
        (format!("{} (cordoned)", node.role), Tone::Warn)
    } else {
        plain(&node.role)
    }
}

/// Whether it holds just what it should.
pub(super) fn in_step(yes: bool) -> (String, Tone) {
    if yes {
        ("yes".to_owned(), Tone::Good)
    } else {
        ("no".to_owned(), Tone::Warn)
    }
}

/// `node show`.
pub(crate) fn node_text(console: &Console, detail: &NodeDetailView, now: Timestamp) -> String {
    let node = &detail.node;
    let (connected, tone) = connected(node, now);
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let closed = if node.cordoned {
        ", cordoned: takes no new VMs"
    } else {
        ""
    };
    let mut out = format!("node         {} ({}{closed})\n", node.name, node.role);
    out += &format!("connected    {}\n", console.paint.tone(tone, connected));
    if let Some(gone) = node.gone_since {
        let text = format!("declared gone at {}", shown(Some(gone)));
        out += &format!("gone         {}\n", console.paint.tone(Tone::Bad, text));
    }
    out += &format!("host         {}\n", dash(&node.hostname));
    out += &format!(
        "version      {}, Open vSwitch {}\n",
        dash(&node.version),
        dash(&node.ovs_version)
    );
    out += &format!("datapath     {}\n", dash(&node.datapath));
    out += &format!("uplink       {}\n", dash(&node.uplink));
    out += &format!("VMs          {}\n", node.vms);
    out += &format!("probes       {}\n", detail.probes.text());
    let expires = shown(node.certificate_expires);
    out += &format!(
        "certificate  {}\n",
        if expires.is_empty() {
            "-".to_owned()
        } else {
            format!("until {expires}")
        }
    );
    out += &format!("generation   {}\n\n", node.generation);
    let mut table = Table::new(console, &["RESOURCE", "NAME", "STATE", "SEEN", "REASON"]);
    for resource in &detail.holds {
        table.row([
            plain(&resource.kind),
            plain(&resource.name),
            state(&resource.state),
            plain(resource.seen()),
            plain(&resource.reason),
        ]);
    }
    out += &table.render("it holds nothing");
    if !detail.refused.is_empty() {
        let mut table = Table::new(console, &["REFUSED", "NAME", "REASON"]);
        for refusal in &detail.refused {
            table.row([
                plain(&refusal.kind),
                plain(&refusal.name),
                (refusal.reason.clone(), Tone::Bad),
            ]);
        }
        out += &format!("\n{}", table.render(""));
    }
    if !detail.orphans.is_empty() {
        out += &format!("\n{}", orphans_table(console, &detail.orphans));
    }
    if let Some(held) = &detail.held_removals {
        let mut table = Table::new(console, &["HELD BACK", "NAME"]);
        for removal in &held.removals {
            table.row([plain(&removal.kind), plain(&removal.name)]);
        }
        if held.more() > 0 {
            table.row([plain("..."), plain(format!("and {} more", held.more()))]);
        }
        let (name, term, generation) = (&node.name, held.term, held.generation);
        out += &format!(
            "\n{}{} (term {term}, generation {generation}). To have {} carried out: trunkctl node confirm {name}\n",
            table.render(""),
            held.sentence(),
            if held.total == 1 { "it" } else { "them" }
        );
    }
    out
}

/// `node orphans`.
pub(crate) fn orphans_table(console: &Console, orphans: &[OrphanView]) -> String {
    let mut table = Table::new(console, &["LEFTOVER", "NAME", "SINCE"]);
    for orphan in orphans {
        table.row([plain(&orphan.kind), plain(&orphan.name), or_dash(&shown(orphan.since))]);
    }
    table.render("it has no leftovers")
}
