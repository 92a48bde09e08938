//! What there is: Open vSwitch's rows and the kernel's devices side by side, because either may be there without the other.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use uuid::Uuid;

use super::{DEVICE_KEY, KEY_PREFIX, KIND_KEY, Mark, UPLINK, execute::Error};
use crate::netlink::{self, Address, Link, Route};
use crate::ovsdb::{self, Snapshot};

/// Most devices that are looked at one by one.
const MOST_ALONE: usize = 48;

/// The columns of an interface that we set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceColumns {
    /// Empty for a device that exists already, `internal` for one that ovs-vswitchd makes. `system` is written as empty.
    pub kind: String,
    /// MAC to set.
    pub mac: Option<String>,
    /// MTU to set.
    pub mtu_request: Option<i64>,
    /// OpenFlow port to take: flows that name it can be there before the port is.
    pub ofport_request: Option<i64>,
    /// Marks.
    pub external_ids: BTreeMap<String, String>,
}

/// The columns of a port, and of its interface, that we set: the form in which desired and observed are compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortColumns {
    /// `access` or `trunk`.
    pub vlan_mode: Option<String>,
    /// Access VLAN; 0 for an isolated port.
    pub tag: Option<i64>,
    /// VLANs of a trunk; never empty on one.
    pub trunks: BTreeSet<i64>,
    /// Exchanges no frames with other protected ports.
    pub protected: bool,
    /// Marks.
    pub external_ids: BTreeMap<String, String>,
    /// Of its interface.
    pub interface: InterfaceColumns,
}

impl PortColumns {
    /// These columns put onto a row that is there: what others wrote into `external_ids` stays.
    pub(super) fn onto(mut self, held: &Self) -> Self {
        keep_others(&mut self.external_ids, &held.external_ids);
        keep_others(&mut self.interface.external_ids, &held.interface.external_ids);
        self
    }
}

/// Adds those pairs of `held` whose keys are not ours.
pub(super) fn keep_others(ours: &mut BTreeMap<String, String>, held: &BTreeMap<String, String>) {
    for (key, value) in held.iter().filter(|(key, _)| !key.starts_with(KEY_PREFIX)) {
        ours.insert(key.clone(), value.clone());
    }
}

/// An interface of a port: what ovs-vswitchd says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedInterface {
    /// Its row.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// OpenFlow port; none before ovs-vswitchd has looked, -1 when it could not take it.
    pub ofport: Option<i64>,
    /// Why it could not.
    pub error: Option<String>,
    /// The kernel's index of the device that ovs-vswitchd has open.
    pub ifindex: Option<i64>,
    /// MTU that it has.
    pub mtu: Option<i64>,
    /// MAC that it has.
    pub mac_in_use: Option<String>,
}

/// A port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedPort {
    /// Its row.
    pub id: Uuid,
    /// Row and name of the bridge that holds it.
    pub bridge: Option<(Uuid, String)>,
    /// Its configuration; the interface's part is that of the first interface.
    pub columns: PortColumns,
    /// Its interfaces; more than one make a bond.
    pub interfaces: Vec<ObservedInterface>,
}

impl ObservedPort {
    /// True when it carries this node's mark.
    #[must_use]
    pub fn is_ours(&self, mark: &Mark) -> bool {
        mark.is_on(&self.columns.external_ids)
    }

    /// True when some node has marked it as its uplink.
    #[must_use]
    pub fn is_uplink(&self) -> bool {
        self.columns
            .external_ids
            .get(KIND_KEY)
            .is_some_and(|kind| kind == UPLINK)
    }

    /// True when it joined with another device than `there`, which has its name now.
    pub(super) fn joined_with_another(&self, there: &Device) -> bool {
        let joined = self.columns.external_ids.get(DEVICE_KEY);
        joined.is_some_and(|joined| joined.parse() != Ok(there.link.index))
    }

    /// OpenFlow port of its only interface, when ovs-vswitchd has taken it.
    #[must_use]
    pub fn ofport(&self) -> Option<i64> {
        self.interfaces.first().and_then(|interface| interface.ofport)
    }
}

/// A bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedBridge {
    /// Its row.
    pub id: Uuid,
    /// `system` or `netdev`; the default is written out.
    pub datapath: String,
    /// `standalone` or `secure`; the default is written out.
    pub fail_mode: String,
    /// Marks.
    pub external_ids: BTreeMap<String, String>,
}

/// A network device of the kernel, with what speaks against its use as uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// The device.
    pub link: Link,
    /// Name of the device that it is enslaved to.
    pub master: Option<String>,
    /// Its addresses, but for those that IPv6 makes by itself.
    pub addresses: Vec<IpNet>,
    /// Destinations of the routes over it, but for IPv6's own.
    pub routes: Vec<IpNet>,
    /// The host's own stack neither hears nor answers on it. Looked at for uplinks only, false for all others.
    pub shielded: bool,
}

/// Everything seen in one look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Bridges by name.
    pub bridges: BTreeMap<String, ObservedBridge>,
    /// Ports of all bridges by name: names are unique in the whole database.
    pub ports: BTreeMap<String, ObservedPort>,
    /// Devices by name.
    pub devices: BTreeMap<String, Device>,
    /// True while ovs-vswitchd has not acted on the newest configuration.
    pub behind: bool,
}

/// Looks at both.
///
/// # Errors
/// When either cannot be read: then nothing is known, and nothing may be planned.
pub async fn observe(ovs: &ovsdb::Client, netlink: &netlink::Handle) -> Result<Observed, Error> {
    let (links, addresses, routes) = tokio::try_join!(netlink.links(), netlink.addresses(), netlink.routes())?;
    observe_beside(ovs, &links, &addresses, &routes)
}

/// Looks at the rows only, beside devices that were read already.
///
/// # Errors
/// As [`observe`].
pub fn observe_beside(
    ovs: &ovsdb::Client,
    links: &[Link],
    addresses: &[Address],
    routes: &[Route],
) -> Result<Observed, Error> {
    let snapshot = ovs.snapshot().ok_or(Error::Unknown)?;
    let mut observed = Observed::new(&snapshot, links, addresses, routes);
    for name in observed.uplinks() {
        if let Some(device) = observed.devices.get_mut(&name) {
            device.shielded = netlink::is_shielded(&name);
        }
    }
    Ok(observed)
}

/// Looks again after a change of our own: at all rows, and of the devices at those that were touched. What others have changed meanwhile
/// is seen by the pass that the kernel's notice wakes.
///
/// # Errors
/// As [`observe`].
pub async fn observe_again(
    ovs: &ovsdb::Client,
    netlink: &netlink::Handle,
    before: &Observed,
    touched: &BTreeSet<String>,
) -> Result<Observed, Error> {
    // Reading all is quicker then. An uplink has more to it than the device itself.
    let uplink = |name: &String| before.ports.get(name).is_some_and(ObservedPort::is_uplink);
    if touched.len() > MOST_ALONE || touched.iter().any(uplink) {
        return observe(ovs, netlink).await;
    }
    let look = touched.iter().map(async |name| Ok((name, netlink.link(name).await?)));
    let found: Vec<_> = futures::future::try_join_all(look)
        .await
        .map_err(|error: netlink::Error| error)?;
    let snapshot = ovs.snapshot().ok_or(Error::Unknown)?;
    let mut observed = Observed {
        devices: before.devices.clone(),
        ..Observed::new(&snapshot, &[], &[], &[])
    };
    for (name, link) in found {
        match link {
            None => drop(observed.devices.remove(name)),
            Some(link) if link.master.is_some() => return observe(ovs, netlink).await,
            Some(link) => {
                observed.devices.entry(name.clone()).or_default().link = link;
            }
        }
    }
    Ok(observed)
}

impl Observed {
    /// Puts rows and devices together.
    #[must_use]
    pub fn new(snapshot: &Snapshot, links: &[Link], addresses: &[Address], routes: &[Route]) -> Self {
        Self {
            bridges: bridges(snapshot),
            ports: ports(snapshot),
            devices: devices(links, addresses, routes),
            behind: snapshot.root.cur_cfg < snapshot.root.next_cfg,
        }
    }

    /// A port by name.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<&ObservedPort> {
        self.ports.get(name)
    }

    /// Names of the ports that some node has marked as its uplink.
    fn uplinks(&self) -> Vec<String> {
        let marked = self.ports.iter().filter(|(_, port)| port.is_uplink());
        marked.map(|(name, _)| name.clone()).collect()
    }

    /// Interfaces that are called otherwise than their port, with it.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, (&str, &ObservedPort))> {
        self.ports.iter().flat_map(|(name, port)| {
            let others = port.interfaces.iter().filter(move |member| member.name != *name);
            others.map(move |member| (member.name.as_str(), (name.as_str(), port)))
        })
    }

    /// The port that holds an interface of this name.
    pub(super) fn holder(&self, interface: &str) -> Option<(&str, &ObservedPort)> {
        // Nearly always port and interface have one name.
        let own = self
            .ports
            .get_key_value(interface)
            .map(|(name, port)| (name.as_str(), port));
        own.or_else(|| {
            self.members()
                .find(|(member, _)| *member == interface)
                .map(|(_, holder)| holder)
        })
    }
}

fn bridges(snapshot: &Snapshot) -> BTreeMap<String, ObservedBridge> {
    let or = |text: &str, default: &str| {
        if text.is_empty() {
            default.to_owned()
        } else {
            text.to_owned()
        }
    };
    let bridge = |(id, row): (&Uuid, &std::sync::Arc<ovsdb::Bridge>)| {
        let observed = ObservedBridge {
            id: *id,
            datapath: or(&row.datapath_type, "system"),
            fail_mode: or(row.fail_mode.as_deref().unwrap_or_default(), "standalone"),
            external_ids: row.external_ids.clone(),
        };
        (row.name.clone(), observed)
    };
    snapshot.bridges.iter().map(bridge).collect()
}

fn ports(snapshot: &Snapshot) -> BTreeMap<String, ObservedPort> {
    let mut bridge_of: BTreeMap<Uuid, (Uuid, String)> = BTreeMap::new();
    for (id, bridge) in &snapshot.bridges {
        bridge_of.extend(bridge.ports.iter().map(|port| (*port, (*id, bridge.name.clone()))));
    }
    let port = |(id, row): (&Uuid, &std::sync::Arc<ovsdb::Port>)| {
        let rows: Vec<_> = row
            .interfaces
            .iter()
            .filter_map(|id| Some((*id, snapshot.interfaces.get(id)?)))
            .collect();
        let observed = ObservedPort {
            id: *id,
            bridge: bridge_of.get(id).cloned(),
            columns: PortColumns {
                vlan_mode: row.vlan_mode.clone(),
                tag: row.tag,
                trunks: row.trunks.clone(),
                protected: row.protected,
                external_ids: row.external_ids.clone(),
                interface: rows.first().map(|(_, row)| interface_columns(row)).unwrap_or_default(),
            },
            interfaces: rows.into_iter().map(|(id, row)| interface(id, row)).collect(),
        };
        (row.name.clone(), observed)
    };
    snapshot.ports.iter().map(port).collect()
}

fn interface_columns(row: &ovsdb::Interface) -> InterfaceColumns {
    InterfaceColumns {
        kind: if row.kind == "system" {
            String::new()
        } else {
            row.kind.clone()
        },
        mac: row.mac.clone(),
        mtu_request: row.mtu_request,
        ofport_request: row.ofport_request,
        external_ids: row.external_ids.clone(),
    }
}

fn interface(id: Uuid, row: &ovsdb::Interface) -> ObservedInterface {
    ObservedInterface {
        id,
        name: row.name.clone(),
        ofport: row.ofport,
        error: row.error.clone(),
        ifindex: row.ifindex,
        mtu: row.mtu,
        mac_in_use: row.mac_in_use.clone(),
    }
}

fn devices(links: &[Link], addresses: &[Address], routes: &[Route]) -> BTreeMap<String, Device> {
    let names: BTreeMap<u32, &str> = links.iter().map(|link| (link.index, link.name.as_str())).collect();
    let mut devices: BTreeMap<String, Device> = BTreeMap::new();
    for link in links {
        let master = link.master.map(|master| {
            names
                .get(&master)
                .map_or_else(|| format!("device {master}"), ToString::to_string)
        });
        devices.insert(
            link.name.clone(),
            Device {
                link: link.clone(),
                master,
                ..Device::default()
            },
        );
    }
    let mut with = |index: u32, note: &dyn Fn(&mut Device)| {
        if let Some(device) = names.get(&index).and_then(|name| devices.get_mut(*name)) {
            note(device);
        }
    };
    for address in addresses
        .iter()
        .filter(|address| !(address.link_local && is_ipv6(&address.net)))
    {
        with(address.index, &|device| device.addresses.push(address.net));
    }
    for route in routes.iter().filter(|route| !is_ipv6_own(&route.destination)) {
        if let Some(index) = route.output {
            with(index, &|device| device.routes.push(route.destination));
        }
    }
    devices
}

fn is_ipv6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

/// Routes that IPv6 makes for every device that is up: link-local and multicast.
fn is_ipv6_own(net: &IpNet) -> bool {
    match net {
        IpNet::V6(net) => net.network().is_unicast_link_local() || net.network().is_multicast(),
        IpNet::V4(_) => false,
    }
}
