//! Status.

use serde::Serialize;
use trunkline_proto::wire::{self, observation::Facts};

use super::{
    key,
    node::in_step,
    nonzero,
    path::{PathStatusView, paths_text},
    state as state_name,
};
use crate::{
    console::{Console, Tone},
    table::{Table, or_dash, plain, state},
};

/// `status`.
#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    pub(crate) revision: u64,
    pub(crate) term: u64,
    pub(crate) generation: u64,
    pub(crate) slices: Vec<SliceStatusView>,
    pub(crate) nodes: Vec<NodeStatusView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SliceStatusView {
    pub(crate) name: String,
    /// `pending`, `ready`, `degraded`, `failed`, `unknown`; `none` when it is not deployed.
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) deployed_number: Option<u32>,
    pub(crate) generation: u64,
    pub(crate) resources: u32,
    pub(crate) resources_ready: u32,
    pub(crate) removing: bool,
    pub(crate) links: Vec<LinkStatusView>,
    pub(crate) vms: Vec<VmStatusView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LinkStatusView {
    pub(crate) name: String,
    pub(crate) vlan: u32,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) resources: Vec<ResourceView>,
    /// Each direction between two of its nodes.
    pub(crate) paths: Vec<PathStatusView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct VmStatusView {
    pub(crate) name: String,
    pub(crate) worker: String,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) resources: Vec<ResourceView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ResourceView {
    pub(crate) node: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) reason: String,
    /// What the node read back; which of the six depends on the kind.
    pub(crate) observed: Option<FactsView>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum FactsView {
    Port {
        exists: bool,
        up: bool,
        ofport: i32,
        tag: Option<i32>,
        carrier: bool,
    },
    Trunk {
        interface: String,
        vlans: Vec<u32>,
        up: bool,
    },
    Gateway {
        up: bool,
        ofport: i32,
        addresses: Vec<String>,
    },
    Dhcp {
        pid: Option<u32>,
        leases: u32,
        current: bool,
    },
    Nat {
        uplink: String,
        packets: u64,
        bytes: u64,
        forwarding: bool,
    },
    Flows {
        flows: u32,
        /// Ports whose limit bites.
        storms: Vec<StormView>,
    },
    Probe {
        period_ms: u32,
        /// From each peer to the node.
        paths: Vec<PathView>,
    },
}

/// The direction from a peer, as its end saw it.
#[derive(Debug, Serialize)]
pub(crate) struct PathView {
    pub(crate) peer: String,
    /// Bytes of payload; 0: nothing comes.
    pub(crate) largest: u32,
    pub(crate) loss_permille: u32,
    pub(crate) round_trip_us: u32,
    pub(crate) last_seen_ms: u64,
    pub(crate) largest_heard: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct StormView {
    pub(crate) port: String,
    pub(crate) dropped: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct NodeStatusView {
    pub(crate) name: String,
    pub(crate) connected: bool,
    pub(crate) generation: u64,
    pub(crate) in_step: bool,
    pub(crate) resources: u32,
    pub(crate) resources_ready: u32,
}

impl From<&Facts> for FactsView {
    fn from(facts: &Facts) -> Self {
        match facts {
            Facts::Port(p) => Self::Port {
                exists: p.exists,
                up: p.up,
                ofport: p.ofport,
                tag: (p.tag >= 0).then_some(p.tag),
                carrier: p.carrier,
            },
            Facts::Trunk(t) => Self::Trunk {
                interface: t.interface.clone(),
                vlans: t.vlans.clone(),
                up: t.up,
            },
            Facts::Gateway(g) => Self::Gateway {
                up: g.up,
                ofport: g.ofport,
                addresses: g.addresses.clone(),
            },
            Facts::Dhcp(d) => Self::Dhcp {
                pid: nonzero(d.pid),
                leases: d.leases,
                current: d.current,
            },
            Facts::Nat(n) => Self::Nat {
                uplink: n.uplink.clone(),
                packets: n.packets,
                bytes: n.bytes,
                forwarding: n.forwarding,
            },
            Facts::Flows(f) => Self::Flows {
                flows: f.flows,
                storms: f.storms.iter().map(StormView::from).collect(),
            },
            Facts::Probe(p) => Self::Probe {
                period_ms: p.period_ms,
                paths: p.paths.iter().map(PathView::from).collect(),
            },
        }
    }
}

impl From<&wire::ProbePath> for PathView {
    fn from(path: &wire::ProbePath) -> Self {
        Self {
            peer: path.peer.clone(),
            largest: path.largest,
            loss_permille: path.loss_permille,
            round_trip_us: path.round_trip_us,
            last_seen_ms: path.last_seen_ms,
            largest_heard: path.largest_heard,
        }
    }
}

impl From<&wire::StormFacts> for StormView {
    fn from(storm: &wire::StormFacts) -> Self {
        Self {
            port: storm.port.clone(),
            dropped: storm.dropped,
        }
    }
}

impl From<&wire::ResourceStatus> for ResourceView {
    fn from(resource: &wire::ResourceStatus) -> Self {
        let (kind, name) = key(resource.key.as_ref());
        let facts = resource.observation.as_ref().and_then(|o| o.facts.as_ref());
        Self {
            node: resource.node.clone(),
            kind,
            name,
            state: state_name(resource.state),
            reason: resource.reason.clone(),
            observed: facts.map(FactsView::from),
        }
    }
}

impl ResourceView {
    /// What was read back, in a few words.
    pub(crate) fn seen(&self) -> String {
        match &self.observed {
            None => String::new(),
            Some(FactsView::Port {
                ofport, tag, carrier, ..
            }) => {
                let tag = tag.map_or_else(|| "no tag".to_owned(), |tag| format!("tag {tag}"));
                format!(
                    "ofport {ofport}, {tag}, {}",
                    if *carrier { "guest there" } else { "no guest" }
                )
            }
            Some(FactsView::Trunk { interface, vlans, .. }) => format!("{interface}: {}", ranges(vlans)),
            Some(FactsView::Gateway { addresses, .. }) => addresses.join(" "),
            Some(FactsView::Dhcp { pid, leases, .. }) => match pid {
                Some(pid) => format!("dnsmasq {pid}, {}", count(*leases, "lease")),
                None => "dnsmasq does not run".to_owned(),
            },
            Some(FactsView::Nat { uplink, packets, .. }) => format!("{uplink}: {}", count(*packets, "new connection")),
            Some(FactsView::Flows { flows, storms }) => {
                let storm = |s: &StormView| format!(", {} frames of {} over its limit", s.dropped, s.port);
                format!(
                    "{}{}",
                    count(*flows, "flow"),
                    storms.iter().map(storm).collect::<String>()
                )
            }
            Some(FactsView::Probe { period_ms, paths }) => {
                let passing = paths.iter().filter(|path| path.largest > 0).count();
                format!("{passing} of {} peers heard, every {period_ms} ms", paths.len())
            }
        }
    }
}

/// `1 lease`, `2 leases`.
pub(super) fn count(number: impl Into<u64>, what: &str) -> String {
    let number = number.into();
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `101-103 400`: a list of VLANs is long where it matters.
fn ranges(vlans: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &vlan in vlans {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(vlan) => *last = vlan,
            _ => runs.push((vlan, vlan)),
        }
    }
    let run = |(first, last): &(u32, u32)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    runs.iter().map(run).collect::<Vec<_>>().join(" ")
}

impl From<&wire::SliceStatus> for SliceStatusView {
    fn from(slice: &wire::SliceStatus) -> Self {
        let resources = |all: &[wire::ResourceStatus]| all.iter().map(ResourceView::from).collect();
        let link = |l: &wire::LinkStatus| LinkStatusView {
            name: l.name.clone(),
            vlan: l.vlan,
            state: state_name(l.state),
            reason: l.reason.clone(),
            resources: resources(&l.resources),
            paths: l.paths.iter().map(PathStatusView::from).collect(),
        };
        let vm = |v: &wire::VmStatus| VmStatusView {
            name: v.name.clone(),
            worker: v.worker.clone(),
            state: state_name(v.state),
            reason: v.reason.clone(),
            resources: resources(&v.resources),
        };
        Self {
            name: slice.name.clone(),
            state: state_name(slice.state),
            reason: slice.reason.clone(),
            deployed_number: nonzero(slice.deployed_number),
            generation: slice.generation,
            resources: slice.resources,
            resources_ready: slice.resources_ready,
            removing: slice.removing,
            links: slice.links.iter().map(link).collect(),
            vms: slice.vms.iter().map(vm).collect(),
        }
    }
}

impl From<&wire::GetStatusResponse> for StatusView {
    fn from(status: &wire::GetStatusResponse) -> Self {
        let node = |n: &wire::NodeStatus| NodeStatusView {
            name: n.name.clone(),
            connected: n.connected,
            generation: n.generation,
            in_step: n.in_step,
            resources: n.resources,
            resources_ready: n.resources_ready,
        };
        Self {
            revision: status.revision,
            term: status.term,
            generation: status.generation,
            slices: status.slices.iter().map(SliceStatusView::from).collect(),
            nodes: status.nodes.iter().map(node).collect(),
        }
    }
}

impl SliceStatusView {
    /// In one word.
    fn word(&self) -> String {
        match (self.removing, self.deployed_number) {
            (true, None) => "removing".to_owned(),
            (false, None) => "not deployed".to_owned(),
            _ => self.state.clone(),
        }
    }
}

/// What is shown besides what is not ready.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// Every link and VM.
    pub(crate) parts: bool,
    /// Every direction between two nodes.
    pub(crate) paths: bool,
}

/// `status`: slices and nodes at a glance, then whatever is not ready, or more of it.
pub(crate) fn status_text(console: &Console, status: &StatusView, shown: Shown) -> String {
    let mut table = Table::new(console, &["SLICE", "STATE", "READY", "DEPLOYED", "REASON"]);
    for slice in &status.slices {
        table.row([
            plain(&slice.name),
            state(&slice.word()),
            plain(format!("{}/{}", slice.resources_ready, slice.resources)),
            or_dash(&slice.deployed_number.map(|n| format!("#{n}")).unwrap_or_default()),
            plain(&slice.reason),
        ]);
    }
    let mut out = table.render("nothing is deployed");
    let details = [
        parts(console, status, shown.parts),
        paths_text(console, &status.slices, shown.paths),
    ];
    for part in details.iter().filter(|part| !part.is_empty()) {
        out += &format!("\n{part}");
    }
    let mut table = Table::new(console, &["NODE", "CONNECTED", "IN STEP", "READY"]);
    for node in &status.nodes {
        let connected = if node.connected {
            ("yes".to_owned(), Tone::Good)
        } else {
            ("no".to_owned(), Tone::Bad)
        };
        table.row([
            plain(&node.name),
            connected,
            in_step(node.in_step),
            plain(format!("{}/{}", node.resources_ready, node.resources)),
        ]);
    }
    out + "\n" + &table.render("no node has connected yet")
}

/// Links and VMs: all, or those that are not ready.
fn parts(console: &Console, status: &StatusView, all: bool) -> String {
    let mut table = Table::new(
        console,
        &[
            if all { "PART" } else { "NOT READY" },
            "STATE",
            "VLAN",
            "WHERE",
            "REASON",
        ],
    );
    let mut count = 0_usize;
    let wanted = |state: &str| all || state != "ready";
    for slice in &status.slices {
        for link in slice.links.iter().filter(|l| wanted(&l.state)) {
            let name = format!("{}/{}", slice.name, link.name);
            table.row([
                plain(name),
                state(&link.state),
                plain(link.vlan),
                nodes(&link.resources),
                plain(&link.reason),
            ]);
            count += 1;
        }
        for vm in slice.vms.iter().filter(|v| wanted(&v.state)) {
            let name = format!("{}/{}", slice.name, vm.name);
            table.row([
                plain(name),
                state(&vm.state),
                or_dash(""),
                or_dash(&vm.worker),
                plain(&vm.reason),
            ]);
            count += 1;
        }
    }
    if count == 0 { String::new() } else { table.render("") }
}

/// Nodes that a link stands on, each once.
fn nodes(resources: &[ResourceView]) -> (String, Tone) {
    let mut nodes: Vec<&str> = resources.iter().map(|r| r.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    or_dash(&nodes.join(" "))
}

#[cfg(test)]
mod tests {
    use super::{FactsView, ResourceView, StormView, ranges};

    #[test]
    fn vlans_in_a_row_are_shown_as_a_range() {
        assert_eq!(ranges(&[101, 102, 103, 110, 400]), "101-103 110 400");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn a_limit_that_bites_is_shown_with_its_port() {
        let seen = |storms| {
            let observed = Some(FactsView::Flows { flows: 14, storms });
            let text = || String::new();
            ResourceView {
                node: text(),
                kind: text(),
                name: text(),
                state: text(),
                reason: text(),
                observed,
            }
            .seen()
        };
        assert_eq!(seen(vec![]), "14 flows");
        let storm = StormView {
            port: "tap_1002_eth1".to_owned(),
            dropped: 7,
        };
        assert_eq!(seen(vec![storm]), "14 flows, 7 frames of tap_1002_eth1 over its limit");
    }
}
