//! What to do about each VLAN's namespace, device, files and dnsmasq. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::IpNet;
use trunkline_agent::process::Identity;
use trunkline_proto::resource::{Dhcp, Facts, Reservation, State};
use trunkline_proto::{Cidr, PortName, VlanId, wire};

use super::leases::{self, Lease};
use super::observe::{Device, NamespaceState, Observed, Server, Site};
use crate::nft::{self, TABLE};
use crate::{Fingerprint, ip_net};

/// One server as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What was asked for.
    pub dhcp: Dhcp,
    /// Content of its configuration file.
    pub config: String,
    /// Content of its file of reservations.
    pub hosts: String,
    /// The batch that writes its namespace's table; `None`: there is to be none.
    pub filter: Option<String>,
}

/// What to do for all servers. Removals come first: a VLAN's device can only be deleted by the switch once it is out of use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Servers that are not wanted.
    pub remove: BTreeMap<VlanId, Removal>,
    /// Changes, for those that need any, in order.
    pub change: BTreeMap<VlanId, Vec<Step>>,
    /// Servers that cannot be had as things are, and why.
    pub blocked: BTreeMap<VlanId, String>,
}

/// What is there of a server that is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removal {
    /// Its processes.
    pub stop: Vec<Identity>,
    /// Its namespace is there.
    pub namespace: bool,
    /// Its files are there.
    pub files: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// End a dnsmasq.
    Stop(Identity),
    /// Mount the namespace that this process runs in under its name again.
    RestoreNamespace(u32),
    /// Make the namespace.
    CreateNamespace,
    /// IPv6 off, ARP for own addresses only.
    QuietNamespace,
    /// `lo` up.
    SetLoopbackUp,
    /// Write the namespace's table.
    SetFilter,
    /// Take it away.
    DropFilter,
    /// A device that the switch no longer holds has the port's name in the namespace: the new one cannot come in before it goes.
    DeleteDeadDevice(u32),
    /// Bring the device in; the index is that in the host's namespace.
    MoveDevice(u32),
    /// MAC.
    SetMac([u8; 6]),
    /// MTU.
    SetMtu(u16),
    /// An address that does not belong there.
    RemoveAddress(IpNet),
    /// The server's address.
    AddAddress(Cidr),
    /// Up.
    SetUp,
    /// Write the configuration.
    WriteConfig,
    /// Write the reservations.
    WriteHosts,
    /// Take leases out of the file of a dnsmasq that does not run.
    DropLeases(Vec<Lease>),
    /// Start dnsmasq.
    Start,
    /// Make it read the reservations again.
    Reload(Server),
}

impl Plan {
    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.change.is_empty()
    }
}

/// Compares.
pub fn plan(wanted: &BTreeMap<VlanId, Wanted>, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    for (vlan, site) in observed.sites.iter().filter(|(vlan, _)| !wanted.contains_key(vlan)) {
        if let Some(removal) = removal(site) {
            plan.remove.insert(*vlan, removal);
        }
    }
    for (vlan, wanted) in wanted {
        if let Some(reason) = observed.unknown.get(vlan) {
            plan.blocked.insert(*vlan, reason.clone());
            continue;
        }
        let site = observed.sites.get(vlan).cloned().unwrap_or_default();
        match blocked(wanted, &site) {
            Some(reason) => {
                plan.blocked.insert(*vlan, reason);
            }
            None => {
                let steps = steps(wanted, &site);
                if !steps.is_empty() {
                    plan.change.insert(*vlan, steps);
                }
            }
        }
    }
    plan
}

/// What can be made of a server before the switch has made its device: the namespace and the files. `taken`: ports that it will not make.
pub fn ahead(wanted: &BTreeMap<VlanId, Wanted>, observed: &Observed, taken: impl Fn(&PortName) -> bool) -> Plan {
    let none = Site::default();
    let begin = |(vlan, wanted): (&VlanId, &Wanted)| {
        let site = observed.sites.get(vlan).unwrap_or(&none);
        let waits = site.namespace == NamespaceState::Absent && site.device.is_none() && site.outside.is_none();
        if !waits || observed.unknown.contains_key(vlan) || taken(&wanted.dhcp.port()) {
            return None;
        }
        let mut steps = Vec::new();
        place(wanted, site, &mut steps);
        files(wanted, site, &mut steps);
        Some((*vlan, steps))
    };
    Plan {
        change: wanted.iter().filter_map(begin).collect(),
        ..Plan::default()
    }
}

/// True when something is still in use of a wanted server that is not wanted of it: an address, a lease, an old configuration.
pub fn has_leftovers(wanted: &BTreeMap<VlanId, Wanted>, observed: &Observed) -> bool {
    let plan = plan(wanted, observed);
    let old = |step: &Step| {
        matches!(
            step,
            Step::RemoveAddress(_) | Step::Stop(_) | Step::Reload(_) | Step::DropLeases(_) | Step::RestoreNamespace(_)
        )
    };
    // Nothing is changed where something is in the way: whatever runs there may be from before.
    let kept = |vlan: &VlanId| {
        observed.sites.get(vlan).is_some_and(|site| {
            let addresses = site.device.as_ref().is_some_and(|device| !device.addresses.is_empty());
            addresses || site.processes().next().is_some()
        })
    };
    plan.change.values().flatten().any(old) || plan.blocked.keys().any(kept) || !observed.unknown.is_empty()
}

fn removal(site: &Site) -> Option<Removal> {
    let removal = Removal {
        stop: site.processes().collect(),
        namespace: matches!(site.namespace, NamespaceState::Ours | NamespaceState::Hidden(_)),
        files: site.has_files,
    };
    (removal != Removal::default()).then_some(removal)
}

fn blocked(wanted: &Wanted, site: &Site) -> Option<String> {
    let (namespace, port) = (wanted.dhcp.namespace(), wanted.dhcp.port());
    if site.namespace == NamespaceState::Foreign {
        return Some(format!(
            "a namespace {namespace} is there and was not made by this program; delete or rename it"
        ));
    }
    if matches!(site.namespace, NamespaceState::Hidden(_)) {
        return None;
    }
    if site.table == nft::State::Foreign {
        return Some(format!(
            "the nftables table inet {TABLE} in the namespace {namespace} was not made by this program; delete or rename it"
        ));
    }
    if site.device.is_none() && site.outside.is_none() {
        return Some(format!("the switch has made no device {port}"));
    }
    None
}

pub(super) fn steps(wanted: &Wanted, site: &Site) -> Vec<Step> {
    if let NamespaceState::Hidden(pid) = site.namespace {
        // What is in it is seen only then, and most likely right.
        return vec![Step::RestoreNamespace(pid)];
    }
    let mut steps: Vec<Step> = site.strays.iter().copied().map(Step::Stop).collect();
    let (config, hosts) = (Fingerprint::of(&wanted.config), Fingerprint::of(&wanted.hosts));
    // A device that is outside is the one that the switch holds; one of the same name inside is then dead.
    let device = site.device.as_ref().filter(|_| site.outside.is_none());
    let outlived = outlived(&wanted.dhcp, site);
    let fit = site.server.filter(|server| {
        server.serving
            && outlived.is_empty()
            && server.started.config == config
            && device.is_some_and(|d| d.index == server.started.device)
    });
    if let (Some(server), None) = (&site.server, &fit) {
        steps.push(Step::Stop(server.started.identity));
    }
    place(wanted, site, &mut steps);
    settings(&wanted.dhcp, device, &mut steps);
    files(wanted, site, &mut steps);
    if !outlived.is_empty() {
        steps.push(Step::DropLeases(outlived));
    }
    match fit {
        None => steps.push(Step::Start),
        // It may have read a file that somebody edited.
        Some(server) if server.started.hosts != hosts || site.hosts != Some(hosts) => steps.push(Step::Reload(server)),
        Some(_) => {}
    }
    steps
}

/// Leases of guests that were removed, on addresses that are reserved for others by now: dnsmasq would make those wait until they
/// end, since a removed guest gives nothing back. It reads them only when it starts.
fn outlived(dhcp: &Dhcp, site: &Site) -> Vec<Lease> {
    // Where anybody can have a lease, somebody with a MAC of his own may still be there and use it.
    let removed = |lease: &Lease| {
        let reserved = dhcp.reservations.iter().any(|reservation| reservation.mac == lease.mac);
        !reserved && lease.mac.is_derived()
    };
    let ours = |lease: &Lease| dhcp.range.is_none() || removed(lease);
    misleased(dhcp, site).map(|(_, lease)| lease).filter(ours).collect()
}

/// Reservations whose address somebody else has leased.
fn misleased<'a>(dhcp: &'a Dhcp, site: &'a Site) -> impl Iterator<Item = (&'a Reservation, Lease)> {
    let holders: BTreeMap<Ipv4Addr, Lease> = site.leases.iter().map(|lease| (lease.address, *lease)).collect();
    dhcp.reservations.iter().filter_map(move |reservation| {
        let lease = holders.get(&reservation.address)?;
        (lease.mac != reservation.mac).then_some((reservation, *lease))
    })
}

/// The namespace, and the device in it: not before the table stands.
fn place(wanted: &Wanted, site: &Site, steps: &mut Vec<Step>) {
    let fresh = site.namespace != NamespaceState::Ours;
    if fresh {
        steps.push(Step::CreateNamespace);
    }
    if fresh || !site.quiet {
        steps.push(Step::QuietNamespace);
    }
    if fresh || !site.loopback_up {
        steps.push(Step::SetLoopbackUp);
    }
    steps.extend(filter(wanted, site));
    if let Some(outside) = site.outside {
        steps.extend(site.device.as_ref().map(|dead| Step::DeleteDeadDevice(dead.index)));
        steps.push(Step::MoveDevice(outside));
    }
}

fn files(wanted: &Wanted, site: &Site, steps: &mut Vec<Step>) {
    if site.config != Some(Fingerprint::of(&wanted.config)) {
        steps.push(Step::WriteConfig);
    }
    if site.hosts != Some(Fingerprint::of(&wanted.hosts)) {
        steps.push(Step::WriteHosts);
    }
}

fn filter(wanted: &Wanted, site: &Site) -> Option<Step> {
    let seen = site.table.fingerprint();
    match &wanted.filter {
        Some(batch)
            if site
                .noted
                .is_some_and(|noted| noted.stands(Fingerprint::of(batch), seen)) =>
        {
            None
        }
        Some(_) => Some(Step::SetFilter),
        None => (seen.is_some() || site.noted.is_some()).then_some(Step::DropFilter),
    }
}

/// The device's settings; `None`: it is only just brought in, and has none of them.
fn settings(dhcp: &Dhcp, device: Option<&Device>, steps: &mut Vec<Step>) {
    let Dhcp {
        vlan: _,
        address,
        mac,
        mtu,
        range: _,
        router: _,
        dns: _,
        lease: _,
        reservations: _,
    } = dhcp;
    let own = ip_net(*address);
    if device.and_then(|d| d.mac) != Some(mac.octets()) {
        steps.push(Step::SetMac(mac.octets()));
    }
    if device.map(|d| d.mtu) != Some(u32::from(*mtu)) {
        steps.push(Step::SetMtu(*mtu));
    }
    let held = device.map(|d| d.addresses.as_slice()).unwrap_or_default();
    steps.extend(
        held.iter()
            .filter(|held| **held != own)
            .map(|foreign| Step::RemoveAddress(*foreign)),
    );
    if !held.contains(&own) {
        steps.push(Step::AddAddress(*address));
    }
    if !device.is_some_and(|d| d.up) {
        steps.push(Step::SetUp);
    }
}

/// How far a server is true, from what was read back. `ofport` is the switch's number for the port.
pub fn judge(wanted: &Wanted, site: &Site, ofport: Option<i64>) -> (State, String, Facts) {
    let running = site.server.filter(|server| server.serving);
    let current = running.is_some_and(|server| {
        server.started.config == Fingerprint::of(&wanted.config)
            && server.started.hosts == Fingerprint::of(&wanted.hosts)
    });
    let facts = Facts::Dhcp(wire::DhcpFacts {
        pid: running.map_or(0, |server| server.started.identity.pid),
        leases: u32::try_from(site.leases.len()).unwrap_or(u32::MAX),
        current,
        held: leases::facts(&site.leases),
    });
    let (state, reason) = verdict(wanted, site, ofport);
    (state, reason, facts)
}

fn verdict(wanted: &Wanted, site: &Site, ofport: Option<i64>) -> (State, String) {
    let port = wanted.dhcp.port();
    if let Some(reason) = blocked(wanted, site) {
        return (State::Failed, reason);
    }
    if ofport.is_none_or(|number| number <= 0) {
        return (State::Failed, format!("the switch has not taken the port {port}"));
    }
    if let Some(step) = steps(wanted, site).first() {
        return (State::Failed, missing(step));
    }
    if site.device.as_ref().is_some_and(|device| !device.carrier) {
        return (
            State::Failed,
            format!("the switch does not hold the device {port}; does ovs-vswitchd run?"),
        );
    }
    match misleased(&wanted.dhcp, site).next() {
        Some((reservation, lease)) => (
            State::Degraded,
            format!(
                "{} is reserved for {} but leased to {} until that lease ends",
                reservation.address, reservation.hostname, lease.mac
            ),
        ),
        None => (State::Ready, String::new()),
    }
}

fn missing(step: &Step) -> String {
    match step {
        Step::Stop(_) => "a dnsmasq with an old configuration runs".to_owned(),
        Step::RestoreNamespace(_) => "its namespace is not mounted any more".to_owned(),
        Step::CreateNamespace => "its namespace is not there".to_owned(),
        Step::QuietNamespace => "IPv6, forwarding or ARP settings of its namespace are not right".to_owned(),
        Step::SetLoopbackUp => "lo is down in its namespace".to_owned(),
        Step::SetFilter => "what comes into its namespace is not filtered as it should be".to_owned(),
        Step::DropFilter => "a filter is left in its namespace that is not wanted any more".to_owned(),
        Step::DeleteDeadDevice(_) => "a dead device holds the port's place in its namespace".to_owned(),
        Step::MoveDevice(_) => "its device is not in its namespace".to_owned(),
        Step::SetMac(_) => "its device has another MAC".to_owned(),
        Step::SetMtu(mtu) => format!("its device's MTU is not {mtu}"),
        Step::RemoveAddress(address) => format!("its device has the foreign address {address}"),
        Step::AddAddress(address) => format!("its device does not have the address {address}"),
        Step::SetUp => "its device is down".to_owned(),
        Step::WriteConfig | Step::WriteHosts => "its files are not what they should be".to_owned(),
        Step::DropLeases(_) => "a removed guest still has the lease of an address that is another's now".to_owned(),
        Step::Start => "dnsmasq does not run".to_owned(),
        Step::Reload(_) => "dnsmasq has not read the newest reservations".to_owned(),
    }
}

#[cfg(test)]
mod tests;
