//! Devices, addresses, namespaces, DHCP servers, rules and settings.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trunkline_integration::LabError;

use super::{Case, Node};
use crate::discover::await_offers;
use crate::floor::{ALIAS, MTU, dnsmasq, nft, tap};

/// Where the network node keeps its DHCP servers' files.
const DHCP: &str = "/var/lib/trunkline-netnode/dhcp";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// A server that does not answer is asked again so often.
const AGAIN: Duration = Duration::from_millis(2);

/// A TAP is deleted.
pub(crate) struct TapDeleted(pub(crate) String);

impl Case for TapDeleted {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        let index = node.kernel.index(&self.0)?;
        Ok(node.kernel.delete(index)?)
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        match node.kernel.device(&self.0)?.filter(|device| device.up) {
            Some(device) => super::switch::has_open(node, &self.0, device.index),
            None => Ok(false),
        }
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        let names = [self.0.clone()];
        let made = node.host.run(move || tap::make(&names))?;
        made.map_err(LabError::io("cannot make a TAP"))?;
        node.kernel.set_up_all(std::slice::from_ref(&self.0), ALIAS, MTU)?;
        while !self.is_right(node)? {}
        Ok(())
    }
}

/// A TAP is set down.
pub(crate) struct TapDown(pub(crate) String);

impl Case for TapDown {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        let index = node.kernel.index(&self.0)?;
        Ok(node.kernel.set_up(index, false)?)
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        Ok(node.kernel.device(&self.0)?.is_some_and(|device| device.up))
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        let index = node.kernel.index(&self.0)?;
        Ok(node.kernel.set_up(index, true)?)
    }
}

/// A gateway loses its address.
pub(crate) struct Address {
    pub(crate) device: String,
    pub(crate) address: Ipv4Addr,
}

impl Case for Address {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        let index = node.kernel.index(&self.device)?;
        Ok(node.kernel.delete_address(index, self.address, 24)?)
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        // Only the host's own address can be bound to.
        let address = self.address;
        node.host.run(move || UdpSocket::bind((address, 0)).is_ok())
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        let index = node.kernel.index(&self.device)?;
        Ok(node.kernel.add_address(index, self.address, 24)?)
    }
}

/// A DHCP server's namespace is deleted, as `ip netns del` does it: its name is gone, and what runs in it goes on.
pub(crate) struct Namespace {
    path: String,
    inode: u64,
    server: u32,
}

impl Namespace {
    pub(crate) fn new(node: &Node, vlan: u16) -> Result<Self, LabError> {
        let path = format!("/run/netns/ns-dhcp-vlan{vlan}");
        let inode = inode(node, &path).ok_or_else(|| LabError::Other(format!("there is no namespace {path}")))?;
        let server = server(node, vlan)?;
        Ok(Self { path, inode, server })
    }
}

impl Case for Namespace {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        let path = self.path.clone();
        node.host.run(move || {
            umount2(path.as_str(), MntFlags::MNT_DETACH)?;
            std::fs::remove_file(&path).map_err(LabError::io("cannot remove a namespace"))
        })?
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        Ok(inode(node, &self.path) == Some(self.inode))
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        let path = self.path.clone();
        // The host's own file system names processes by other numbers, and ours is not visible there; by an open file it is.
        let source =
            File::open(format!("/proc/{}/ns/net", self.server)).map_err(LabError::io("cannot open a namespace"))?;
        let home = home(node)?;
        let own = format!("/proc/{}/ns/net", inner(self.server)?);
        node.host.run(move || {
            File::create(&path).map_err(LabError::io("cannot make a namespace's file"))?;
            mount(
                Some(own.as_str()),
                path.as_str(),
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
            drop((source, home));
            Ok(())
        })?
    }
}

/// A dnsmasq is killed.
pub(crate) struct Server {
    vlan: u16,
    pid: u32,
    started: Option<Child>,
}

impl Server {
    pub(crate) fn new(node: &Node, vlan: u16) -> Result<Self, LabError> {
        let pid = server(node, vlan)?;
        let started = None;
        Ok(Self { vlan, pid, started })
    }

    fn answers(&self, node: &Node) -> Result<(), LabError> {
        await_offers(&node.fabric, &node.cable, &[self.vlan], AGAIN)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended by the node, which has its own.
        if let Some(mut child) = self.started.take() {
            let _ = child.wait();
        }
    }
}

impl Case for Server {
    fn throw(&mut self, _: &mut Node) -> Result<(), LabError> {
        kill(process(self.pid), Signal::SIGKILL)?;
        while is_running(self.pid) {}
        Ok(())
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        self.answers(node).map(|()| true)
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        self.started = Some(start(node, self.vlan)?);
        self.answers(node)
    }
}

/// One of a server's files is edited.
pub(crate) struct Edited {
    server: Server,
    path: PathBuf,
    content: String,
    line: &'static str,
    /// A running server reads this file again at a signal; otherwise it has to be another.
    reload: bool,
}

impl Edited {
    /// Its reservations.
    pub(crate) fn reservations(node: &Node, vlan: u16) -> Result<Self, LabError> {
        Self::new(node, vlan, "hosts", "52:54:00:00:00:99,10.99.99.99,intruder\n", true)
    }

    /// Its configuration.
    pub(crate) fn configuration(node: &Node, vlan: u16) -> Result<Self, LabError> {
        Self::new(node, vlan, "dnsmasq.conf", "dhcp-option=option:mtu,576\n", false)
    }

    fn new(node: &Node, vlan: u16, file: &str, line: &'static str, reload: bool) -> Result<Self, LabError> {
        let path = node.host.path(&format!("{DHCP}/vlan{vlan}/{file}"));
        Ok(Self {
            content: std::fs::read_to_string(&path).map_err(unread(&path))?,
            server: Server::new(node, vlan)?,
            path,
            line,
            reload,
        })
    }

    fn write(&self, content: &str) -> Result<(), LabError> {
        std::fs::write(&self.path, content).map_err(unread(&self.path))
    }
}

impl Case for Edited {
    fn throw(&mut self, _: &mut Node) -> Result<(), LabError> {
        self.write(&(self.content.clone() + self.line))
    }

    fn is_right(&mut self, _: &mut Node) -> Result<bool, LabError> {
        // A server that has read what was edited would be none that can stay; one that has not, may.
        Ok(std::fs::read_to_string(&self.path).is_ok_and(|content| content == self.content))
    }

    fn mend(&mut self, _: &mut Node) -> Result<(), LabError> {
        self.write(&self.content)?;
        if self.reload {
            kill(process(self.server.pid), Signal::SIGHUP)?;
        }
        Ok(())
    }
}

/// Our table has no rules any more.
pub(crate) struct Rules {
    rules: usize,
    listing: PathBuf,
}

impl Rules {
    pub(crate) fn new(node: &mut Node) -> Result<Self, LabError> {
        let listing = node.host.folder().join("bench-rules.nft");
        let text = node.host.must(&["nft", "list", "table", "inet", ALIAS])?;
        std::fs::write(&listing, text).map_err(unread(&listing))?;
        let rules = node.netfilter.rules(ALIAS)?;
        Ok(Self { rules, listing })
    }
}

impl Case for Rules {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        node.host.run(|| nft(&["flush", "table", "inet", ALIAS]))?
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        Ok(node.netfilter.rules(ALIAS)? == self.rules)
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        let listing = self.listing.display().to_string();
        node.host.run(move || nft(&["-f", &listing]))?
    }
}

/// The kernel forwards nothing any more.
pub(crate) struct Forwarding;

impl Case for Forwarding {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        forward(node, "0")
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        node.host
            .run(|| std::fs::read_to_string(FORWARDING).is_ok_and(|value| value.trim() == "1"))
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        forward(node, "1")
    }
}

fn forward(node: &Node, value: &'static str) -> Result<(), LabError> {
    node.host
        .run(move || std::fs::write(FORWARDING, value))?
        .map_err(unread(Path::new(FORWARDING)))
}

fn unread(path: &Path) -> impl FnOnce(std::io::Error) -> LabError + use<> {
    LabError::io(format!("cannot read or write {}", path.display()))
}

/// The inode of what is mounted there, if it is a namespace: the plain file beneath has none of theirs.
fn inode(node: &Node, path: &str) -> Option<u64> {
    std::fs::metadata(node.host.path(path)).ok().map(|file| file.ino())
}

fn home(node: &Node) -> Result<File, LabError> {
    File::open(format!("/proc/{}/ns/net", node.host.pid())).map_err(LabError::io("cannot open the host's namespace"))
}

fn process(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

/// A zombie does not.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The number that the host itself gives a process.
fn inner(pid: u32) -> Result<u32, LabError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let last = line.and_then(|line| line.split_whitespace().last()?.parse().ok());
    last.ok_or_else(|| LabError::Other(format!("process {pid} is gone")))
}

fn configuration(vlan: u16) -> String {
    format!("{DHCP}/vlan{vlan}/dnsmasq.conf")
}

/// The dnsmasq of a VLAN, by the machine's number.
fn server(node: &Node, vlan: u16) -> Result<u32, LabError> {
    let mounts = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let ours = mounts(node.host.pid());
    let config = format!("--conf-file={}", configuration(vlan));
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == config.as_bytes()) && mounts(*pid) == ours
    };
    let all = std::fs::read_dir("/proc")
        .map_err(unread(Path::new("/proc")))?
        .flatten();
    let found = all
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(is_it);
    found.ok_or_else(|| LabError::Other(format!("no dnsmasq serves VLAN {vlan}")))
}

fn start(node: &Node, vlan: u16) -> Result<Child, LabError> {
    let inside = node.host.path(&format!("/run/netns/ns-dhcp-vlan{vlan}"));
    let inside = File::open(&inside).map_err(unread(&inside))?;
    let home = home(node)?;
    node.host.run(move || {
        setns(&inside, CloneFlags::CLONE_NEWNET)?;
        let started = dnsmasq(&configuration(vlan));
        setns(&home, CloneFlags::CLONE_NEWNET)?;
        started
    })?
}
