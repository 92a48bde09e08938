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
            plain(&node.role),
            connected(node, now),
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
    let mut out = format!("node         {} ({})\n", node.name, node.role);
    out += &format!("connected    {}\n", console.paint.tone(tone, connected));
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
    out
}
