//! Guests: what an operator's virtual machines would be, on the TAPs that the agents made.
//!
//! Two kinds behind one type. A *namespace* guest is a network namespace of the worker behind a frame pump: quick, and
//! made in any number. A *machine* is Debian's cloud kernel with busybox under qemu: slower, and as real as it gets.
//! Both bring their interfaces up, ask for leases by busybox's udhcpc, and run commands.

mod console;
mod initramfs;
mod lease;
mod machine;
mod namespace;
pub mod pinger;
pub mod pump;
mod tun;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

pub use lease::Lease;
pub use pinger::{Account, Pinger};
pub use tun::open as open_tap;

use crate::LabError;
use crate::lab::{Host, Output, programs};
use crate::wait::until;
use machine::Machine;
use namespace::Namespace;

/// A command in a guest that takes longer than this is ended.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Which kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A network namespace behind a frame pump.
    Namespace,
    /// A virtual machine under qemu.
    Machine,
}

/// One interface of a guest and the TAP that it stands on.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Nic {
    /// `eth0`, `eth1`, ...
    pub name: String,
    /// `tap_1002_eth1`.
    pub tap: String,
    /// `52:54:00:03:ea:01`.
    pub mac: String,
    /// Bytes of payload.
    pub mtu: u32,
}

/// What a guest is made from.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Spec {
    /// `slice/vm`.
    pub name: String,
    /// The VM's number.
    pub vm_id: u32,
    /// Host that it runs on.
    pub worker: String,
    /// Its interfaces, `eth0` first.
    pub nics: Vec<Nic>,
    /// What a real machine's qemu is told about them; from `nics` when empty.
    #[serde(default)]
    pub netdev: Vec<String>,
}

impl Spec {
    /// From what the controller says of a VM.
    pub fn of(vm: &trunkline_proto::wire::Vm) -> Self {
        let nics = vm.interfaces.iter().map(|interface| Nic {
            name: interface.name.clone(),
            tap: interface.tap.clone(),
            mac: interface.mac.clone(),
            mtu: if interface.mtu == 0 { 1500 } else { interface.mtu },
        });
        let name = format!("{}/{}", vm.slice, vm.name);
        Self {
            name,
            vm_id: vm.vm_id,
            worker: vm.worker.clone(),
            nics: nics.collect(),
            netdev: Vec::new(),
        }
    }

    /// With what `trunkctl vm netdev --only qemu` prints, so that a machine runs with the very arguments that an operator
    /// is given.
    pub fn with_netdev(mut self, endpoint: &str, bundle: &Path) -> Result<Self, LabError> {
        let output = Command::new(programs::find("trunkctl")?)
            .args(["vm", "netdev", &self.name, "--only", "qemu"])
            .env("TRUNKLINE_CONTROLLER", endpoint)
            .env("TRUNKLINE_BUNDLE", bundle)
            .process_group(0)
            .stdin(Stdio::null())
            .output()
            .map_err(LabError::io("cannot start trunkctl"))?;
        if !output.status.success() || output.stdout.is_empty() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(LabError::Other(format!("trunkctl vm netdev failed: {}", why.trim())));
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        self.netdev = printed.lines().map(str::to_owned).collect();
        Ok(self)
    }
}

/// A running guest. Dropping it ends it; so does the end of its worker.
pub struct Guest {
    spec: Spec,
    kind: Kind,
    inner: Inner,
}

enum Inner {
    Namespace(Namespace),
    Machine(Machine),
}

impl Guest {
    /// Starts a guest on its worker, whose TAPs must be there. Returns when it runs commands; leases may come later.
    pub fn start(worker: &Arc<Host>, spec: Spec, kind: Kind) -> Result<Self, LabError> {
        for nic in &spec.nics {
            if !worker.path(&format!("/sys/class/net/{}", nic.tap)).exists() {
                let (tap, name) = (&nic.tap, worker.name());
                let hint = "deploy its slice first, and wait until it is ready";
                return Err(LabError::Other(format!(
                    "{name} has no TAP {tap} for {}: {hint}",
                    spec.name
                )));
            }
        }
        let inner = match kind {
            Kind::Namespace => Inner::Namespace(Namespace::start(worker, &spec)?),
            Kind::Machine => Inner::Machine(Machine::start(worker, &spec)?),
        };
        Ok(Self { spec, kind, inner })
    }

    /// What it was made from.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The namespace on the worker of a namespace guest.
    pub fn netns(&self) -> Option<&str> {
        match &self.inner {
            Inner::Namespace(namespace) => Some(namespace.netns()),
            Inner::Machine(_) => None,
        }
    }

    /// Runs a command inside.
    pub fn exec<S: AsRef<str>>(&self, argv: &[S]) -> Result<Output, LabError> {
        self.exec_for(argv, COMMAND_LIMIT)
    }

    /// As `exec`, with a limit of its own.
    pub fn exec_for<S: AsRef<str>>(&self, argv: &[S], limit: Duration) -> Result<Output, LabError> {
        let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
        match &self.inner {
            Inner::Namespace(namespace) => namespace.exec(&argv, limit),
            Inner::Machine(machine) => machine.exec(&argv, limit),
        }
    }

    /// Runs a line of shell inside.
    pub fn shell(&self, line: &str) -> Result<Output, LabError> {
        self.exec(&["sh", "-c", line])
    }

    /// The lease that an interface has now.
    pub fn lease(&self, interface: &str) -> Result<Option<Lease>, LabError> {
        let text = match &self.inner {
            Inner::Namespace(namespace) => namespace.lease_text(interface),
            Inner::Machine(machine) => {
                machine
                    .exec(&["cat", &format!("/run/leases/{interface}")], COMMAND_LIMIT)?
                    .stdout
            }
        };
        Ok(Lease::parse(&text))
    }

    /// Waits for an interface's lease.
    pub fn await_lease(&self, interface: &str, within: Duration) -> Result<Lease, LabError> {
        until(
            &format!("a lease on {interface} of {}", self.spec.name),
            within,
            || match self.lease(interface) {
                Ok(Some(lease)) => Ok(lease),
                Ok(None) => Err("none".to_owned()),
                Err(error) => Err(error.chain()),
            },
        )
    }

    /// True when one of a few echo requests is answered.
    pub fn ping(&self, address: impl Into<IpAddr>) -> Result<bool, LabError> {
        let address = address.into().to_string();
        Ok(self
            .exec(&["ping", "-c", "3", "-i", "0.2", "-W", "1", "-A", &address])?
            .ok())
    }

    /// Starts a TCP server that tells every caller `text` and hangs up.
    pub fn tcp_serve(&self, port: u16, text: &str) -> Result<(), LabError> {
        let line = format!(
            "mkdir -p /run/serve && printf '#!/bin/sh\\necho {text}\\n' > /run/serve/{text} && chmod +x /run/serve/{text} && \
             (nc -ll -p {port} -e /run/serve/{text} > /dev/null 2>&1 < /dev/null &)"
        );
        self.must_shell(&line)?;
        until(
            &format!("{} to listen on port {port}", self.spec.name),
            Duration::from_secs(5),
            || {
                let listening = self.shell("netstat -ltn").map_err(|error| error.chain())?.stdout;
                if listening.contains(&format!(":{port} ")) {
                    Ok(())
                } else {
                    Err(listening)
                }
            },
        )
    }

    /// What a TCP server says to us: `None` when no connection came about.
    pub fn tcp_read(&self, address: Ipv4Addr, port: u16) -> Result<Option<String>, LabError> {
        let answer = self.shell(&format!("nc -w 3 {address} {port} < /dev/null"))?;
        Ok(answer
            .ok()
            .then(|| answer.stdout.trim().to_owned())
            .filter(|text| !text.is_empty()))
    }

    /// The body of a page, fetched with HTTP; `None` when no connection came about.
    pub fn http_get(&self, address: Ipv4Addr) -> Result<Option<String>, LabError> {
        let line = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 80");
        // A serial console leaves no carriage return as it was.
        let answer = self.shell(&line)?.stdout.replace('\r', "");
        Ok(answer.split_once("\n\n").map(|(_, body)| body.trim().to_owned()))
    }

    /// A connection made inside a namespace guest and held by us.
    pub fn tcp_open(&self, address: Ipv4Addr, port: u16) -> Result<TcpStream, LabError> {
        let to = SocketAddr::from((address, port));
        self.inside(move || TcpStream::connect_timeout(&to, CONNECT_LIMIT))?
            .map_err(LabError::io(format!("{} cannot connect to {to}", self.spec.name)))
    }

    /// A server's socket inside a namespace guest, held by us.
    pub fn tcp_listen(&self, port: u16) -> Result<TcpListener, LabError> {
        self.inside(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?
            .map_err(LabError::io(format!("{} cannot listen on port {port}", self.spec.name)))
    }

    fn inside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, LabError> {
        match &self.inner {
            Inner::Namespace(namespace) => namespace.run(job),
            Inner::Machine(_) => Err(LabError::Other("sockets of a real machine are its own".to_owned())),
        }
    }

    fn must_shell(&self, line: &str) -> Result<(), LabError> {
        let output = self.shell(line)?;
        if output.ok() {
            return Ok(());
        }
        Err(LabError::Command {
            host: self.spec.name.clone(),
            command: line.to_owned(),
            status: format!("status {}", output.status),
            stderr: output.stderr + &output.stdout,
        })
    }
}

/// `PATH=...` that puts the tools of a real machine first, for a command in a namespace guest.
pub(crate) fn tools_path() -> Result<String, LabError> {
    let tools = programs::guest_file("busybox")?.with_file_name("bin");
    Ok(format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display()))
}

/// Writes a file of the lab, its folders included.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), LabError> {
    use std::os::unix::fs::PermissionsExt;
    let what = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(LabError::io(what()))?;
    }
    std::fs::write(path, text).map_err(LabError::io(what()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(LabError::io(what()))
}
