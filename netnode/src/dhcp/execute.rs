//! Makes a plan true.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use nix::sys::signal::Signal;
use trunkline_agent::files;
use trunkline_agent::netlink::{self, Handle, LinkChange};
use trunkline_agent::netns::{self, Namespaces};
use trunkline_agent::node::Doing;
use trunkline_agent::process::{self, Detached};
use trunkline_proto::daemon::failpoint;
use trunkline_proto::resource::Dhcp;
use trunkline_proto::{PortName, VlanId};

use super::leases::{self, Lease};
use super::observe::{Server, Started, is_serving, read_leases};
use super::plan::{Plan, Removal, Step, Wanted};
use super::render::{self, Place};
use super::table::Read;
use crate::nft;
use crate::{Fingerprint, ip_net};

/// Servers worked on at once.
const AT_ONCE: usize = 16;
/// A dnsmasq that is asked to end does so in milliseconds.
const GRACE: Duration = Duration::from_secs(3);
/// A dnsmasq that starts opens its socket in milliseconds; on a busy machine three hundred start at once.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Longest part of dnsmasq's last words that goes into an error.
const MAX_WORDS: usize = 400;

/// Why a server could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace.
    #[error("the DHCP server's namespace")]
    Namespace(#[source] netns::Error),
    /// The kernel said no.
    #[error("the DHCP server's device")]
    Netlink(#[from] netlink::Error),
    /// The filter of its namespace.
    #[error("the DHCP server's filter")]
    Filter(#[from] nft::Error),
    /// A process.
    #[error("dnsmasq")]
    Process(#[from] process::Error),
    /// A file.
    #[error("the DHCP server's files")]
    State(#[source] io::Error),
    /// dnsmasq ended at once, or opened no socket.
    #[error("dnsmasq does not start: {0}")]
    Start(String),
    /// The device vanished while it was worked on.
    #[error("the device {0} is gone")]
    DeviceGone(PortName),
    /// A directory that dnsmasq's configuration cannot name.
    #[error("{} cannot be written in dnsmasq's configuration; use a path of letters, digits and / . _ -", .0.display())]
    Path(PathBuf),
}

/// The files of one server.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) directory: PathBuf,
    pub(super) config: PathBuf,
    pub(super) hosts: PathBuf,
    pub(super) leases: PathBuf,
    pub(super) filter: PathBuf,
    pub(super) record: PathBuf,
    pub(super) log: PathBuf,
}

/// The driver of every DHCP server of this node.
#[derive(Debug, Clone)]
pub struct Servers {
    directory: PathBuf,
    namespaces: Namespaces,
    program: PathBuf,
    user: String,
    netlink: Handle,
    pub(super) read: Read,
    doing: Doing,
}

impl Servers {
    /// Files are kept in `directory`; dnsmasq is `program` and runs as `user`.
    ///
    /// # Errors
    /// When the directory cannot be made, or its path cannot be written in dnsmasq's configuration.
    pub fn new(
        directory: PathBuf,
        namespaces: Namespaces,
        program: PathBuf,
        user: String,
        netlink: Handle,
    ) -> Result<Self, Error> {
        let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
        if !directory
            .to_str()
            .is_some_and(|path| path.starts_with('/') && path.chars().all(harmless))
        {
            return Err(Error::Path(directory));
        }
        open_directory(&directory).map_err(Error::State)?;
        Ok(Self {
            directory,
            namespaces,
            program,
            user,
            netlink,
            read: Read::default(),
            doing: Doing::default(),
        })
    }

    /// Says there of each server that it is done.
    #[must_use]
    pub fn telling(self, doing: Doing) -> Self {
        Self { doing, ..self }
    }

    pub(super) fn doing(&self) -> &Doing {
        &self.doing
    }

    /// A server as it should be.
    pub fn wanted(&self, dhcp: &Dhcp) -> Wanted {
        let Paths { hosts, leases, .. } = self.paths(dhcp.vlan);
        let place = Place {
            hosts,
            leases,
            user: self.user.clone(),
        };
        Wanted {
            dhcp: dhcp.clone(),
            config: render::config(dhcp, &place),
            hosts: render::hosts(dhcp),
            filter: super::filter(dhcp),
        }
    }

    /// Leases that a server has given and that have not expired.
    ///
    /// # Errors
    /// When dnsmasq's file cannot be read.
    pub fn leases(&self, vlan: VlanId) -> Result<Vec<Lease>, Error> {
        read_leases(&self.paths(vlan).leases)
    }

    /// Where a server's files are.
    pub(crate) fn home(&self, vlan: VlanId) -> PathBuf {
        self.paths(vlan).directory
    }

    /// Whether a file of this name is one that only this program writes.
    pub(crate) fn is_ours_to_write(name: &OsStr) -> bool {
        ["dnsmasq.conf", "hosts", "server.json"]
            .iter()
            .any(|ours| name == *ours)
    }

    pub(super) fn paths(&self, vlan: VlanId) -> Paths {
        let directory = self.directory.join(format!("vlan{vlan}"));
        let file = |name: &str| directory.join(name);
        Paths {
            config: file("dnsmasq.conf"),
            hosts: file("hosts"),
            leases: file("leases"),
            filter: file("filter.json"),
            record: file("server.json"),
            log: file("start.log"),
            directory,
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The VLAN of a process with these arguments, if it is a dnsmasq of ours.
    pub(super) fn vlan_of(&self, argv: &[String]) -> Option<VlanId> {
        vlan_of(argv, &self.program, &self.directory)
    }

    /// Takes away what is not wanted, each server for itself.
    pub async fn remove(&self, plan: &Plan) -> BTreeMap<VlanId, Error> {
        let each = plan.remove.iter().map(|(vlan, removal)| async move {
            let removed = self.remove_one(*vlan, removal).await;
            self.doing.progress();
            (*vlan, removed)
        });
        failed(each.collect()).await
    }

    /// Sets up what is wanted, each server for itself.
    pub async fn change(&self, plan: &Plan, wanted: &BTreeMap<VlanId, Wanted>) -> BTreeMap<VlanId, Error> {
        let each = plan.change.iter().filter_map(|(vlan, steps)| {
            let wanted = wanted.get(vlan)?;
            Some(async move {
                let changed = self.change_one(wanted, steps).await;
                self.doing.progress();
                (*vlan, changed)
            })
        });
        failed(each.collect()).await
    }

    async fn remove_one(&self, vlan: VlanId, removal: &Removal) -> Result<(), Error> {
        let Removal { stop, namespace, files } = removal;
        failpoint::reach("dhcp.before-removal");
        for identity in stop {
            process::stop(identity, GRACE).await?;
        }
        if *namespace {
            self.namespaces
                .delete(&Dhcp::namespace_of(vlan))
                .await
                .map_err(Error::Namespace)?;
        }
        if *files {
            match fs::remove_dir_all(self.paths(vlan).directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::State(error)),
                _ => {}
            }
        }
        failpoint::reach("dhcp.after-removal");
        Ok(())
    }

    async fn change_one(&self, wanted: &Wanted, steps: &[Step]) -> Result<(), Error> {
        let mut inside = Inside {
            servers: self,
            port: wanted.dhcp.port(),
            namespace: wanted.dhcp.namespace(),
            netlink: None,
            index: None,
            change: LinkChange::default(),
        };
        for step in steps {
            if !matches!(step, Step::SetMac(_) | Step::SetMtu(_)) {
                inside.alter().await?;
            }
            match step {
                Step::Stop(identity) => process::stop(identity, GRACE).await?,
                Step::WriteConfig => self.write(wanted.dhcp.vlan, |paths| &paths.config, &wanted.config)?,
                Step::WriteHosts => self.write(wanted.dhcp.vlan, |paths| &paths.hosts, &wanted.hosts)?,
                Step::SetFilter => self.set_filter(wanted).await?,
                Step::DropFilter => self.drop_filter(&wanted.dhcp).await?,
                Step::DropLeases(taken) => self.drop_leases(wanted.dhcp.vlan, taken)?,
                Step::Start => {
                    let device = inside.index().await?;
                    self.start(wanted, device).await?;
                }
                Step::Reload(server) => self.reload(wanted, server)?,
                Step::RestoreNamespace(_)
                | Step::CreateNamespace
                | Step::QuietNamespace
                | Step::SetLoopbackUp
                | Step::DeleteDeadDevice(_)
                | Step::MoveDevice(_)
                | Step::SetMac(_)
                | Step::SetMtu(_)
                | Step::RemoveAddress(_)
                | Step::AddAddress(_)
                | Step::SetUp => inside.step(step).await?,
            }
        }
        inside.alter().await
    }

    fn write(&self, vlan: VlanId, which: impl Fn(&Paths) -> &PathBuf, content: &str) -> Result<(), Error> {
        let paths = self.paths(vlan);
        open_directory(&paths.directory).map_err(Error::State)?;
        // Compared with what it should be in each look.
        files::replace(which(&paths), content.as_bytes(), 0o644).map_err(Error::State)?;
        Ok(())
    }

    fn drop_leases(&self, vlan: VlanId, taken: &[Lease]) -> Result<(), Error> {
        let path = self.paths(vlan).leases;
        let bytes = files::read_if_there(&path).map_err(Error::State)?.unwrap_or_default();
        let text = leases::without(&String::from_utf8_lossy(&bytes), taken);
        tracing::info!(%vlan, leases = taken.len(), "leases of removed guests taken away");
        files::write_atomic(&path, text.as_bytes(), 0o644).map_err(Error::State)?;
        Ok(())
    }

    async fn start(&self, wanted: &Wanted, device: u32) -> Result<(), Error> {
        let Paths {
            config, record, log, ..
        } = self.paths(wanted.dhcp.vlan);
        File::create(&log).map_err(Error::State)?;
        let mut conf_file = OsString::from("--conf-file=");
        conf_file.push(&config);
        let detached = Detached {
            argv: vec![self.program.clone().into(), "--keep-in-foreground".into(), conf_file],
            namespace: Some(self.namespaces.path(&wanted.dhcp.namespace())),
            log: Some(log.clone()),
        };
        failpoint::reach("dnsmasq.before-start");
        let identity = process::spawn_detached(&detached).await?;
        failpoint::reach("dnsmasq.after-start");
        let (config, hosts) = (Fingerprint::of(&wanted.config), Fingerprint::of(&wanted.hosts));
        note(
            &record,
            &Started {
                identity,
                config,
                hosts,
                device,
            },
        )?;
        failpoint::reach("dnsmasq.after-note");
        process::wait_until(START_LIMIT, || is_serving(&identity) || !identity.alive()).await;
        if is_serving(&identity) {
            Ok(())
        } else {
            Err(Error::Start(last_words(&log)))
        }
    }

    /// The note is written after the signal: a crash in between makes for a second signal, which does no harm.
    fn reload(&self, wanted: &Wanted, server: &Server) -> Result<(), Error> {
        server.started.identity.signal(Signal::SIGHUP)?;
        let started = Started {
            hosts: Fingerprint::of(&wanted.hosts),
            ..server.started
        };
        note(&self.paths(wanted.dhcp.vlan).record, &started)
    }
}

/// Work inside one namespace.
struct Inside<'a> {
    servers: &'a Servers,
    port: PortName,
    namespace: String,
    netlink: Option<Handle>,
    /// Of the device, once it is in its place.
    index: Option<u32>,
    /// What is still to be changed on it, in one request.
    change: LinkChange,
}

impl Inside<'_> {
    async fn step(&mut self, step: &Step) -> Result<(), Error> {
        let namespaces = &self.servers.namespaces;
        let path = namespaces.path(&self.namespace);
        match step {
            Step::RestoreNamespace(pid) => {
                // Where it runs is looked at again afterwards; a process that is gone took the namespace with it.
                namespaces
                    .restore(&self.namespace, *pid)
                    .await
                    .map_err(Error::Namespace)?;
            }
            Step::CreateNamespace => namespaces.create(&self.namespace).await.map_err(Error::Namespace)?,
            Step::QuietNamespace => netns::on_thread_in(Some(&path), quiet)
                .await
                .map_err(Error::Namespace)?
                .map_err(Error::State)?,
            Step::SetLoopbackUp => {
                let netlink = self.netlink().await?;
                if let Some(lo) = netlink.link("lo").await? {
                    netlink.set_up(lo.index).await?;
                }
            }
            Step::DeleteDeadDevice(index) => self.netlink().await?.delete(*index).await?,
            Step::MoveDevice(index) => {
                let namespace = File::open(&path).map_err(Error::State)?;
                self.servers.netlink.move_to_namespace(*index, namespace).await?;
            }
            Step::SetMac(mac) => self.change.mac = Some(*mac),
            Step::SetMtu(mtu) => self.change.mtu = Some(u32::from(*mtu)),
            Step::SetUp => {
                self.change.up = Some(true);
                self.alter().await?;
            }
            Step::RemoveAddress(address) => {
                let index = self.index().await?;
                self.netlink().await?.delete_address(index, *address).await?;
            }
            Step::AddAddress(address) => {
                let index = self.index().await?;
                self.netlink().await?.add_address(index, ip_net(*address)).await?;
            }
            Step::Stop(_)
            | Step::WriteConfig
            | Step::WriteHosts
            | Step::SetFilter
            | Step::DropFilter
            | Step::DropLeases(_)
            | Step::Start
            | Step::Reload(_) => {}
        }
        Ok(())
    }

    /// Makes the changes that are still to be made.
    async fn alter(&mut self) -> Result<(), Error> {
        let change = std::mem::take(&mut self.change);
        if change == LinkChange::default() {
            return Ok(());
        }
        let index = self.index().await?;
        Ok(self.netlink().await?.change(index, &change).await?)
    }

    /// The device may have got another number on its way in.
    async fn index(&mut self) -> Result<u32, Error> {
        if let Some(index) = self.index {
            return Ok(index);
        }
        let port = self.port.clone();
        let link = self.netlink().await?.link(port.as_str()).await?;
        let index = link.map(|link| link.index).ok_or(Error::DeviceGone(port))?;
        self.index = Some(index);
        Ok(index)
    }

    async fn netlink(&mut self) -> Result<Handle, Error> {
        if let Some(netlink) = &self.netlink {
            return Ok(netlink.clone());
        }
        let netlink = Handle::in_namespace(&self.servers.namespaces.path(&self.namespace)).await?;
        self.netlink = Some(netlink.clone());
        Ok(netlink)
    }
}

async fn failed(each: Vec<impl Future<Output = (VlanId, Result<(), Error>)>>) -> BTreeMap<VlanId, Error> {
    let results: Vec<_> = futures::stream::iter(each).buffer_unordered(AT_ONCE).collect().await;
    results
        .into_iter()
        .filter_map(|(vlan, result)| Some((vlan, result.err()?)))
        .collect()
}

/// Of what ends with the machine: a process, a namespace's table.
pub(super) fn note(path: &Path, content: &impl serde::Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec_pretty(content).map_err(|error| Error::State(error.into()))?;
    files::replace(path, &bytes, 0o600).map_err(Error::State)?;
    Ok(())
}

/// A directory that dnsmasq's user can pass through, to read its reservations again on SIGHUP.
pub(crate) fn open_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o711))
}

/// In the namespace that this thread is in. Devices that come in take over `default`.
fn quiet() -> io::Result<()> {
    for path in [
        "/proc/sys/net/ipv6/conf/all/disable_ipv6",
        "/proc/sys/net/ipv6/conf/default/disable_ipv6",
    ] {
        match fs::write(path, "1") {
            // A kernel without IPv6 has no such setting.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // Whether a new namespace takes this over from the host is a setting of the host's; gateways need it on there.
    fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
    fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1")
}

fn last_words(log: &Path) -> String {
    let text = fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
        .unwrap_or_default();
    if text.is_empty() {
        return format!("it did not open its socket within {START_LIMIT:?}");
    }
    let skip = text.chars().count().saturating_sub(MAX_WORDS);
    text.chars()
        .skip(skip)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The VLAN of a process with these arguments, if it is a dnsmasq with a configuration file below `directory`.
fn vlan_of(argv: &[String], program: &Path, directory: &Path) -> Option<VlanId> {
    let (started, args) = argv.split_first()?;
    if Path::new(started).file_name() != program.file_name() {
        return None;
    }
    let config = args.iter().find_map(|arg| arg.strip_prefix("--conf-file="))?;
    let within = Path::new(config).strip_prefix(directory).ok()?.to_str()?;
    within.strip_prefix("vlan")?.strip_suffix("/dnsmasq.conf")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dnsmasq_with_a_configuration_file_of_ours_is_ours() {
        let vlan = |argv: &[&str]| {
            let argv: Vec<String> = argv.iter().map(|arg| (*arg).to_owned()).collect();
            vlan_of(&argv, "dnsmasq".as_ref(), "/var/lib/t/dhcp".as_ref())
        };
        let ours = "--conf-file=/var/lib/t/dhcp/vlan110/dnsmasq.conf";
        assert_eq!(
            vlan(&["/usr/sbin/dnsmasq", "--keep-in-foreground", ours]),
            VlanId::try_from(110).ok()
        );
        assert_eq!(vlan(&["dnsmasq"]), None);
        assert_eq!(vlan(&["vim", ours]), None);
        for theirs in [
            "/etc/dnsmasq.conf",
            "/var/lib/t2/dhcp/vlan110/dnsmasq.conf",
            "/var/lib/t/dhcp/vlan0/dnsmasq.conf",
        ] {
            assert_eq!(vlan(&["dnsmasq", &format!("--conf-file={theirs}")]), None, "{theirs}");
        }
    }
}
