//! What is there of the DHCP servers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use trunkline_agent::netlink::{self, Address, Here, Link};
use trunkline_agent::process::{self, Identity};
use trunkline_agent::{files, netns};
use trunkline_proto::resource::Dhcp;
use trunkline_proto::{PortName, VlanId};

use super::execute::{Error, Paths, Servers};
use super::leases::{self, Lease};
use crate::nat::HostNetwork;
use crate::nft::{self, Noted};
use crate::{Fingerprint, Made, Ours};

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
        let mut observed = Observed::default();
        let mut homes = Vec::new();
        for vlan in vlans {
            let running = processes.get(&vlan).map(Vec::as_slice).unwrap_or_default();
            match self.outside(vlan, running, host, ours) {
                Ok(site) => {
                    if site.namespace == NamespaceState::Ours {
                        homes.push((vlan, self.namespaces().path(&Dhcp::namespace_of(vlan))));
                    }
                    observed.sites.insert(vlan, site);
                }
                Err(error) => drop(observed.unknown.insert(vlan, trunkline_agent::chain(&error))),
            }
        }
        let looks = netns::on_threads_in(homes.iter().map(|(_, path)| path.clone()).collect(), Inside::look);
        let looks = looks.await.map_err(Error::Namespace)?;
        for ((vlan, path), look) in homes.into_iter().zip(looks) {
            let filtered = wanted.get(&vlan).copied().unwrap_or_default();
            let look = look.map_err(Error::Namespace).flatten();
            let Some(mut site) = observed.sites.remove(&vlan) else {
                continue;
            };
            let seen = match look {
                Ok(inside) => self.inside(vlan, &path, inside, filtered, &mut site).await,
                Err(error) => Err(error),
            };
            self.doing().progress();
            match seen {
                Ok(()) => drop(observed.sites.insert(vlan, site)),
                Err(error) => drop(observed.unknown.insert(vlan, trunkline_agent::chain(&error))),
            }
        }
        for (vlan, site) in &mut observed.sites {
            let port = PortName::dhcp(*vlan);
            let made = matches!(ours.get(&port), Some(Made::Device(_) | Made::Elsewhere))
                // A device of that name may be the one, and the switch has only not told its index yet.
                && !host.links.iter().any(|link| link.name == port.as_str());
            let in_place = site.namespace == NamespaceState::Ours && site.device.is_none();
            site.lost = made && (in_place || site.namespace == NamespaceState::Absent);
        }
        Ok(observed)
    }

    /// What is seen without going into the namespace.
    fn outside(&self, vlan: VlanId, running: &[Identity], host: &HostNetwork, ours: &Ours) -> Result<Site, Error> {
        let mut site = self.files(vlan, running)?;
        let port = PortName::dhcp(vlan);
        let is_it = |link: &&Link| link.name == port.as_str() && ours.get(&port) == Some(&Made::Device(link.index));
        site.outside = host.links.iter().find(is_it).map(|link| link.index);
        let name = Dhcp::namespace_of(vlan);
        site.namespace = if self.namespaces().is_ours(&name) {
            NamespaceState::Ours
        } else if self.namespaces().exists(&name) {
            NamespaceState::Foreign
        } else {
            let inside = site
                .processes()
                .find(|process| self.namespaces().is_home_of(&name, process.pid));
            inside.map_or(NamespaceState::Absent, |process| NamespaceState::Hidden(process.pid))
        };
        Ok(site)
    }

    /// What was seen in the namespace, and its table.
    async fn inside(
        &self,
        vlan: VlanId,
        namespace: &Path,
        inside: Inside,
        filtered: bool,
        site: &mut Site,
    ) -> Result<(), Error> {
        let Inside {
            quiet,
            links,
            addresses,
            rules,
        } = inside;
        site.quiet = quiet;
        site.loopback_up = links.iter().any(|link| link.name == "lo" && link.up);
        let port = PortName::dhcp(vlan);
        if let Some(link) = links.into_iter().find(|link| link.name == port.as_str()) {
            let Link {
                index,
                up,
                carrier,
                mtu,
                mac,
                ..
            } = link;
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
        if filtered || site.noted.is_some() {
            site.table = self.table(vlan, namespace, rules).await?;
        }
        Ok(())
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

    /// Every dnsmasq that was started with a configuration file of ours, by VLAN.
    fn processes(&self) -> Result<BTreeMap<VlanId, Vec<Identity>>, Error> {
        let mut processes: BTreeMap<VlanId, Vec<Identity>> = BTreeMap::new();
        for (identity, vlan) in process::find_all(|argv| self.vlan_of(argv)).map_err(Error::State)? {
            processes.entry(vlan).or_default().push(identity);
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

/// What a look into a namespace finds.
struct Inside {
    quiet: bool,
    links: Vec<Link>,
    addresses: Vec<Address>,
    /// Number of its nftables' rules.
    rules: Option<u32>,
}

impl Inside {
    /// Looks, in the namespace that this thread is in.
    fn look() -> Result<Self, Error> {
        let here = Here::open()?;
        Ok(Self {
            quiet: is_quiet().map_err(Error::State)?,
            links: here.links()?,
            addresses: here.addresses()?,
            rules: netlink::nft::rules_generation()?,
        })
    }
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
