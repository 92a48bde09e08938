//! Slices, their VMs, links and revisions.

use jiff::Timestamp;
use serde::Serialize;
use trunkline_proto::wire;

use super::{given, nonzero, shown, time};
use crate::{
    console::{Console, Tone},
    table::{Table, or_dash, plain},
    topology::SliceFile,
};

/// A line of `slice list`.
#[derive(Debug, Serialize)]
pub(crate) struct SliceSummary {
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) revision: u64,
    pub(crate) vms: usize,
    pub(crate) links: usize,
    pub(crate) vlan_pool: VlanPoolView,
    pub(crate) deployed: Option<DeploymentView>,
    pub(crate) draft_differs: bool,
    pub(crate) created: Option<Timestamp>,
}

/// Which of the two a slice's VMs and links are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shown {
    Draft,
    Deployed,
}

/// `slice show`.
#[derive(Debug, Serialize)]
pub(crate) struct SliceView {
    pub(crate) shown: Shown,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) revision: u64,
    pub(crate) vlan_pool: VlanPoolView,
    pub(crate) deployed: Option<DeploymentView>,
    pub(crate) draft_differs: bool,
    pub(crate) created: Option<Timestamp>,
    pub(crate) vms: Vec<VmView>,
    pub(crate) links: Vec<LinkView>,
    /// What was asked for, as it stands in a topology file.
    pub(crate) spec: SliceFile,
}

#[derive(Debug, Serialize)]
pub(crate) struct VlanPoolView {
    pub(crate) size: u32,
    pub(crate) used: u32,
    pub(crate) ranges: Vec<VlanRangeView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct VlanRangeView {
    pub(crate) first: u32,
    pub(crate) last: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct DeploymentView {
    pub(crate) number: u32,
    pub(crate) term: u64,
    pub(crate) generation: u64,
    pub(crate) at: Option<Timestamp>,
    pub(crate) by: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct VmView {
    pub(crate) slice: String,
    pub(crate) name: String,
    pub(crate) vm_id: u32,
    pub(crate) worker: Option<String>,
    pub(crate) placed: bool,
    pub(crate) internet_enabled: bool,
    pub(crate) interfaces: Vec<InterfaceView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct InterfaceView {
    pub(crate) name: String,
    pub(crate) tap: String,
    pub(crate) mac: String,
    pub(crate) vlan: Option<u32>,
    pub(crate) address: Option<String>,
    pub(crate) prefix_len: Option<u32>,
    pub(crate) gateway: Option<String>,
    pub(crate) link: Option<String>,
    pub(crate) mtu: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct LinkView {
    pub(crate) slice: String,
    pub(crate) name: String,
    pub(crate) vlan: u32,
    pub(crate) subnet: String,
    pub(crate) gateway: String,
    pub(crate) dhcp: bool,
    pub(crate) mtu: u32,
    pub(crate) port_security: bool,
    pub(crate) protected: bool,
    pub(crate) ends: Vec<String>,
}

impl From<&wire::VlanPool> for VlanPoolView {
    fn from(pool: &wire::VlanPool) -> Self {
        let range = |r: &wire::VlanRange| VlanRangeView {
            first: r.first,
            last: r.last,
        };
        Self {
            size: pool.size,
            used: pool.used,
            ranges: pool.ranges.iter().map(range).collect(),
        }
    }
}

impl From<&wire::Deployment> for DeploymentView {
    fn from(deployment: &wire::Deployment) -> Self {
        let wire::Deployment {
            number,
            term,
            generation,
            at,
            by,
        } = deployment;
        Self {
            number: *number,
            term: *term,
            generation: *generation,
            at: time(at.as_ref()),
            by: by.clone(),
        }
    }
}

fn pool(slice: &wire::Slice) -> VlanPoolView {
    slice.vlan_pool.as_ref().map_or(
        VlanPoolView {
            size: 0,
            used: 0,
            ranges: Vec::new(),
        },
        VlanPoolView::from,
    )
}

impl From<&wire::Slice> for SliceSummary {
    fn from(slice: &wire::Slice) -> Self {
        Self {
            name: slice.name.clone(),
            owner: slice.owner.clone(),
            revision: slice.revision,
            vms: slice.vms.len(),
            links: slice.links.len(),
            vlan_pool: pool(slice),
            deployed: slice.deployed.as_ref().map(DeploymentView::from),
            draft_differs: slice.draft_differs,
            created: time(slice.created.as_ref()),
        }
    }
}

impl From<&wire::Slice> for SliceView {
    fn from(slice: &wire::Slice) -> Self {
        Self {
            shown: Shown::Draft,
            name: slice.name.clone(),
            owner: slice.owner.clone(),
            revision: slice.revision,
            vlan_pool: pool(slice),
            deployed: slice.deployed.as_ref().map(DeploymentView::from),
            draft_differs: slice.draft_differs,
            created: time(slice.created.as_ref()),
            vms: slice.vms.iter().map(VmView::from).collect(),
            links: slice.links.iter().map(LinkView::from).collect(),
            spec: SliceFile::from(slice.spec.as_ref().unwrap_or(&wire::SliceSpec::default())),
        }
    }
}

impl From<&wire::Vm> for VmView {
    fn from(vm: &wire::Vm) -> Self {
        Self {
            slice: vm.slice.clone(),
            name: vm.name.clone(),
            vm_id: vm.vm_id,
            worker: given(&vm.worker),
            placed: vm.placed,
            internet_enabled: vm.internet_enabled,
            interfaces: vm.interfaces.iter().map(InterfaceView::from).collect(),
        }
    }
}

impl From<&wire::Interface> for InterfaceView {
    fn from(interface: &wire::Interface) -> Self {
        Self {
            name: interface.name.clone(),
            tap: interface.tap.clone(),
            mac: interface.mac.clone(),
            vlan: nonzero(interface.vlan),
            address: given(&interface.address),
            prefix_len: given(&interface.address).map(|_| interface.prefix_len),
            gateway: given(&interface.gateway),
            link: given(&interface.link),
            mtu: interface.mtu,
        }
    }
}

impl From<&wire::Link> for LinkView {
    fn from(link: &wire::Link) -> Self {
        Self {
            slice: link.slice.clone(),
            name: link.name.clone(),
            vlan: link.vlan,
            subnet: link.subnet.clone(),
            gateway: link.gateway.clone(),
            dhcp: link.dhcp,
            mtu: link.mtu,
            port_security: link.port_security,
            protected: link.protected,
            ends: link.ends.clone(),
        }
    }
}

fn deployed(deployed: Option<&DeploymentView>, differs: bool) -> (String, Tone) {
    match deployed {
        None => ("no".to_owned(), Tone::Faint),
        Some(d) if differs => (format!("#{}, draft differs", d.number), Tone::Warn),
        Some(d) => plain(format!("#{}", d.number)),
    }
}

/// `slice list`.
pub(crate) fn slices_table(console: &Console, slices: &[SliceSummary]) -> String {
    let mut table = Table::new(
        console,
        &["SLICE", "VMS", "LINKS", "VLANS", "DEPLOYED", "OWNER", "REVISION"],
    );
    for slice in slices {
        let SliceSummary {
            name,
            owner,
            revision,
            vms,
            links,
            vlan_pool,
            ..
        } = slice;
        table.row([
            plain(name),
            plain(vms),
            plain(links),
            plain(format!("{}/{}", vlan_pool.used, vlan_pool.size)),
            deployed(slice.deployed.as_ref(), slice.draft_differs),
            plain(owner),
            plain(revision),
        ]);
    }
    table.render("there are no slices; make one with `trunkctl apply -f FILE`")
}

/// `slice show`.
pub(crate) fn slice_text(console: &Console, slice: &SliceView) -> String {
    let (state, tone) = deployed(slice.deployed.as_ref(), slice.draft_differs);
    let by = slice
        .deployed
        .as_ref()
        .map_or_else(String::new, |d| format!(" by {} at {}", d.by, shown(d.at)));
    let ranges: Vec<String> = slice
        .vlan_pool
        .ranges
        .iter()
        .map(|r| format!("{}-{}", r.first, r.last))
        .collect();
    let mut out = format!("slice     {}\n", slice.name);
    out += &format!("owner     {}\n", slice.owner);
    out += &format!("created   {}\n", shown(slice.created));
    out += &format!("revision  {}\n", slice.revision);
    out += &format!("deployed  {}{by}\n", console.paint.tone(tone, state));
    out += &format!(
        "VLANs     {} of {} used ({})\n\n",
        slice.vlan_pool.used,
        slice.vlan_pool.size,
        ranges.join(", ")
    );
    out += match (slice.shown, &slice.deployed) {
        (Shown::Deployed, _) => "This is what is deployed.\n\n",
        (Shown::Draft, Some(_)) if slice.draft_differs => {
            "This is the draft; what is deployed differs: see --deployed.\n\n"
        }
        _ => "",
    };
    out += &vms_table(console, slice.vms.iter());
    out.push('\n');
    out += &links_table(console, slice.links.iter());
    out
}

/// Says that what is listed is the draft, where that matters. For standard error.
pub(crate) fn say_differing<'a>(console: &Console, slices: impl IntoIterator<Item = &'a wire::Slice>) {
    for slice in slices {
        if let Some(deployed) = slice.deployed.as_ref().filter(|_| slice.draft_differs) {
            console.note(format!(
                "note: this is the draft of {0}; what is deployed (#{1}) differs: see `trunkctl slice show {0} --deployed`",
                slice.name, deployed.number
            ));
        }
    }
}

/// `vm list`: a line per interface.
pub(crate) fn vms_table<'a>(console: &Console, vms: impl Iterator<Item = &'a VmView>) -> String {
    let heads = [
        "VM",
        "ID",
        "WORKER",
        "INTERFACE",
        "TAP",
        "VLAN",
        "MAC",
        "ADDRESS",
        "LINK",
    ];
    let mut table = Table::new(console, &heads);
    for vm in vms {
        for (index, interface) in vm.interfaces.iter().enumerate() {
            // The VM is named on its first line only, as an indented list would.
            let first = |text: String| plain(if index == 0 { text } else { String::new() });
            let address = match (&interface.address, interface.prefix_len) {
                (Some(address), Some(len)) => format!("{address}/{len}"),
                _ => String::new(),
            };
            let link = match &interface.link {
                None if interface.name == "eth0" && vm.internet_enabled => "internet",
                None => "",
                Some(link) => link,
            };
            table.row([
                first(format!("{}/{}", vm.slice, vm.name)),
                first(vm.vm_id.to_string()),
                first(vm.worker.clone().unwrap_or_else(|| "-".to_owned())),
                plain(&interface.name),
                plain(&interface.tap),
                or_dash(&interface.vlan.map(|v| v.to_string()).unwrap_or_default()),
                plain(&interface.mac),
                or_dash(&address),
                or_dash(link),
            ]);
        }
    }
    table.render("there are no VMs")
}

/// `link list`.
pub(crate) fn links_table<'a>(console: &Console, links: impl Iterator<Item = &'a LinkView>) -> String {
    let mut table = Table::new(
        console,
        &["LINK", "VLAN", "SUBNET", "GATEWAY", "DHCP", "MTU", "SECURITY", "ENDS"],
    );
    for link in links {
        table.row([
            plain(format!("{}/{}", link.slice, link.name)),
            plain(link.vlan),
            plain(&link.subnet),
            plain(&link.gateway),
            plain(if link.dhcp { "on" } else { "off" }),
            plain(link.mtu),
            or_dash(&security(link)),
            plain(link.ends.join(" ")),
        ]);
    }
    table.render("there are no links")
}

/// What is asked for of what guests may send.
fn security(link: &LinkView) -> String {
    let asked = [(link.port_security, "port"), (link.protected, "protected")];
    let words: Vec<&str> = asked.into_iter().filter_map(|(on, word)| on.then_some(word)).collect();
    words.join(" ")
}

/// `slice revisions`.
pub(crate) fn revisions_table(console: &Console, revisions: &[DeploymentView]) -> String {
    let mut table = Table::new(console, &["REVISION", "DEPLOYED", "BY", "GENERATION"]);
    for revision in revisions {
        table.row([
            plain(format!("#{}", revision.number)),
            plain(shown(revision.at)),
            plain(&revision.by),
            plain(format!("{}.{}", revision.term, revision.generation)),
        ]);
    }
    table.render("it was never deployed")
}
