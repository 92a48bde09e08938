//! What is there of the DHCP servers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use futures::StreamExt;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use trunkline_agent::netlink::{Handle, Link};
use trunkline_agent::process::{self, Identity};
use trunkline_agent::{files, netns};
use trunkline_proto::resource::Dhcp;
use trunkline_proto::{PortName, VlanId};

use super::execute::{Error, Paths, Servers};
use super::leases::{self, Lease};
use super::table;
use crate::nat::HostNetwork;
use crate::nft::{self, Noted};
use crate::{Fingerprint, Made, Ours};

/// Namespaces looked into at once.
const AT_ONCE: usize = 16;

/// Everything that a plan and a verdict need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// By VLAN: those wanted, and those that something of ours is left of.
    pub sites: BTreeMap<VlanId, Site>,
    /// VLANs of which something could not be read, and why: nothing is done about them.
    pub unknown: BTreeMap<VlanId, String>,
}

/// What is there for one VLAN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Site {
    /// Its namespace.
    pub namespace: NamespaceState,
    /// IPv6 and forwarding are off there, and ARP is answered for own addresses only.
    pub quiet: bool,
    /// `lo` is up there.
    pub loopback_up: bool,
    /// The table in the namespace; looked at where there is to be one, or was.
    pub table: nft::State,
    /// How it was written and read back.
    pub noted: Option<Noted>,
    /// The device of the port's name in the namespace.
    pub device: Option<Device>,
    /// Index of our port's device in the host's namespace.
    pub outside: Option<u32>,
    /// The switch says that it has made the device, and it is neither outside nor where we could reach it.
    pub lost: bool,
    /// Names the content of the configuration on disk.
    pub config: Option<Fingerprint>,
    /// Names the content of the reservations on disk.
    pub hosts: Option<Fingerprint>,
    /// Its directory is there.
    pub has_files: bool,
    /// Its dnsmasq.
    pub server: Option<Server>,
    /// Other processes with its configuration file: started, and then this program ended before it could note that.
    pub strays: Vec<Identity>,
    /// Leases that have not expired.
    pub leases: Vec<Lease>,
}

/// A namespace of the right name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NamespaceState {
    /// There is none.
    #[default]
    Absent,
    /// Ours.
    Ours,
    /// Ours, and not mounted any more; this process still runs in it.
    Hidden(u32),
    /// Somebody else's.
    Foreign,
}

/// The device in the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its index there.
    pub index: u32,
    /// It is up.
    pub up: bool,
    /// The switch holds it.
    pub carrier: bool,
    /// Bytes of payload.
    pub mtu: u32,
    /// Its MAC.
    pub mac: Option<[u8; 6]>,
    /// Its addresses, those that the kernel makes by itself left out.
    pub addresses: Vec<IpNet>,
}

/// A dnsmasq that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// With what it was started.
    pub started: Started,
    /// Its DHCP socket is open.
    pub serving: bool,
}

/// `server.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The process.
    pub identity: Identity,
    /// Names the configuration that it was started with.
    pub config: Fingerprint,
    /// Names the reservations that it has read.
    pub hosts: Fingerprint,
    /// Index of the device that its socket is bound to: a new device of the same name is not served.
    pub device: u32,
}

impl Observed {
    /// Ports whose device was deleted, or went out of reach with its namespace: the switch has to make them anew.
    pub fn lost(&self) -> BTreeSet<PortName> {
        let lost = self.sites.iter().filter(|(_, site)| site.lost);
        lost.map(|(vlan, _)| PortName::dhcp(*vlan)).collect()
    }
}

impl Site {
    /// Every process with its configuration file.
    pub fn processes(&self) -> impl Iterator<Item = Identity> {
        let own = self.server.map(|server| server.started.identity);
        own.into_iter().chain(self.strays.iter().copied())
    }
}

impl Servers {
    /// Looks. `ours` are the ports that the switch holds with our mark, each with the device that it made.
    ///
    /// # Errors
    /// When anything cannot be read: then nothing is known.
    pub async fn observe(
        &self,
        wanted: impl IntoIterator<Item = &Dhcp>,
        host: &HostNetwork,
        ours: &Ours,
    ) -> Result<Observed, Error> {
        let processes = self.processes()?;
        let wanted: BTreeMap<VlanId, bool> = wanted
            .into_iter()
            .map(|dhcp| (dhcp.vlan, super::filter(dhcp).is_some()))
            .collect();
        let mut vlans: BTreeSet<VlanId> = wanted.keys().copied().collect();
        vlans.extend(processes.keys());
        vlans.extend(self.directories()?);
        let namespaces = self.namespaces().list().map_err(Error::Namespace)?;
        vlans.extend(
            namespaces
                .iter()
                .filter_map(|name| name.strip_prefix("ns-dhcp-vlan")?.parse::<VlanId>().ok()),
        );
        let look = |vlan: VlanId| {
            let running = processes.get(&vlan).cloned().unwrap_or_default();
            let port = PortName::dhcp(vlan);
            let is_it = |link: &&Link| link.name == port.as_str() && ours.get(&port) == Some(&Made::Device(link.index));
            let index = host.links.iter().find(is_it).map(|link| link.index);
            let made = matches!(ours.get(&port), Some(Made::Device(_) | Made::Elsewhere))
                // A device of that name may be the one, and the switch has only not told its index yet.
                && !host.links.iter().any(|link| link.name == port.as_str());
            let filtered = wanted.get(&vlan).copied().unwrap_or_default();
            async move {
                let site = self.site(vlan, running, index, filtered).await.map(|mut site| {
                    let in_place = site.namespace == NamespaceState::Ours && site.device.is_none();
                    site.lost = made && (in_place || site.namespace == NamespaceState::Absent);
                    site
                });
                self.doing().progress();
                (vlan, site)
            }
        };
        let looks: Vec<_> = futures::stream::iter(vlans.into_iter().map(look))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut observed = Observed::default();
        for (vlan, site) in looks {
            match site {
                Ok(site) => drop(observed.sites.insert(vlan, site)),
                Err(error) => drop(observed.unknown.insert(vlan, trunkline_agent::chain(&error))),
            }
        }
        Ok(observed)
    }

    async fn site(
        &self,
        vlan: VlanId,
        running: Vec<Identity>,
        outside: Option<u32>,
        filtered: bool,
    ) -> Result<Site, Error> {
        let mut site = self.files(vlan, &running)?;
        site.outside = outside;
        let name = Dhcp::namespace_of(vlan);
        if self.namespaces().is_ours(&name) {
            site.namespace = NamespaceState::Ours;
            let path = self.namespaces().path(&name);
            self.look_inside(vlan, &path, &mut site).await?;
            if filtered || site.noted.is_some() {
                site.table = table::look(&path).await?;
            }
        } else if self.namespaces().exists(&name) {
            site.namespace = NamespaceState::Foreign;
        } else {
            let inside = site
                .processes()
                .find(|process| self.namespaces().is_home_of(&name, process.pid));
            site.namespace = inside.map_or(NamespaceState::Absent, |process| NamespaceState::Hidden(process.pid));
        }
        Ok(site)
    }

    /// What does not need the namespace.
    fn files(&self, vlan: VlanId, running: &[Identity]) -> Result<Site, Error> {
        let Paths {
            directory,
            config,
            hosts,
            leases,
            filter,
            record,
            log: _,
        } = &self.paths(vlan);
        let names = |path: &Path| -> Result<_, Error> {
            Ok(files::read_if_there(path).map_err(Error::State)?.map(Fingerprint::of))
        };
        let started: Option<Started> = files::read_if_there(record)
            .map_err(Error::State)?
            // A note that cannot be read is as good as none: its process is found as a stray and replaced.
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let noted = files::read_if_there(filter).map_err(Error::State)?;
        let server = started.filter(|started| running.contains(&started.identity));
        let own = server.map(|started| started.identity);
        Ok(Site {
            config: names(config)?,
            hosts: names(hosts)?,
            // One that cannot be read is as good as an empty one: the table is written again.
            noted: noted.map(|bytes| serde_json::from_slice(&bytes).unwrap_or_default()),
            has_files: directory.exists(),
            server: server.map(|started| Server {
                started,
                serving: is_serving(&started.identity),
            }),
            strays: running
                .iter()
                .copied()
                .filter(|identity| Some(*identity) != own)
                .collect(),
            leases: read_leases(leases)?,
            ..Site::default()
        })
    }

    async fn look_inside(&self, vlan: VlanId, namespace: &Path, site: &mut Site) -> Result<(), Error> {
        site.quiet = netns::on_thread_in(Some(namespace), is_quiet)
            .await
            .map_err(Error::Namespace)?
            .map_err(Error::State)?;
        let netlink = Handle::in_namespace(namespace).await?;
        let links = netlink.links().await?;
        site.loopback_up = links.iter().any(|link| link.name == "lo" && link.up);
        let port = PortName::dhcp(vlan);
        if let Some(Link {
            index,
            up,
            carrier,
            mtu,
            mac,
            ..
        }) = links.into_iter().find(|link| link.name == port.as_str())
        {
            let addresses = netlink.addresses().await?;
            let own = addresses.into_iter().filter(|a| a.index == index && !a.link_local);
            site.device = Some(Device {
                index,
                up,
                carrier,
                mtu,
                mac,
                addresses: own.map(|a| a.net).collect(),
            });
        }
        Ok(())
    }

    /// Every dnsmasq that was started with a configuration file of ours, by VLAN.
    fn processes(&self) -> Result<BTreeMap<VlanId, Vec<Identity>>, Error> {
        let found = process::find(|argv| self.vlan_of(argv).is_some()).map_err(Error::State)?;
        let mut processes: BTreeMap<VlanId, Vec<Identity>> = BTreeMap::new();
        for identity in found.into_values() {
            if let Some(vlan) = self.vlan_of(&identity.cmdline()) {
                processes.entry(vlan).or_default().push(identity);
            }
        }
        Ok(processes)
    }

    fn directories(&self) -> Result<Vec<VlanId>, Error> {
        let mut vlans = Vec::new();
        for entry in fs::read_dir(self.directory()).map_err(Error::State)? {
            let name = entry.map_err(Error::State)?.file_name();
            vlans.extend(
                name.to_str()
                    .and_then(|name| name.strip_prefix("vlan")?.parse::<VlanId>().ok()),
            );
        }
        Ok(vlans)
    }
}

/// Leases of a file that have not expired.
pub(super) fn read_leases(path: &Path) -> Result<Vec<Lease>, Error> {
    let text = files::read_if_there(path).map_err(Error::State)?.unwrap_or_default();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    Ok(leases::parse(&String::from_utf8_lossy(&text), now))
}

/// True once the process's namespace has a socket on the DHCP server's port.
pub(super) fn is_serving(identity: &Identity) -> bool {
    const PORT_67: &str = ":0043";
    let table = fs::read_to_string(format!("/proc/{}/net/udp", identity.pid)).unwrap_or_default();
    identity.alive()
        && table.lines().any(|line| {
            line.split_whitespace()
                .nth(1)
                .is_some_and(|local| local.ends_with(PORT_67))
        })
}

/// In the namespace that this thread is in.
fn is_quiet() -> io::Result<bool> {
    let holds = |path: &str, value: &str| match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim() == value),
        // A kernel without IPv6 has no such setting.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    };
    Ok(holds("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")?
        && holds("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?
        && holds("/proc/sys/net/ipv4/ip_forward", "0")?
        && holds("/proc/sys/net/ipv4/conf/all/arp_ignore", "1")?)
}
