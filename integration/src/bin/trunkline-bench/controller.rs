//! A controller by itself on this machine, over loopback: its certificates, its configuration, its process. For figures that need no
//! switch.
//!
//! Its state is on the disk that temporary files are on. Certificates come from the real authority, and are in memory.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tempfile::TempDir;
use trunkline_certs::Role;
use trunkline_certs::authority::{Authority, Leaf};
use trunkline_integration::LabError;
use trunkline_integration::lab::{CONTROLLER_PROGRAM, programs};
use trunkline_integration::wait::until;
use trunkline_proto::client::{Client, ClientConfig};

use crate::process::{Process, command};
use crate::simulator::nanos;

/// Where nothing is written to a disk.
const MEMORY: &str = "/dev/shm";
const TRUST_DOMAIN: &str = "bench.trunkline.test";
const START_LIMIT: Duration = Duration::from_secs(60);
/// A controller that has much to read listens long before it answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Certificates of everybody: a folder of bundles, each by its holder's name.
pub(crate) struct Certificates {
    folder: TempDir,
    authority: Authority,
}

impl Certificates {
    /// A new authority.
    pub(crate) fn new() -> Result<Rc<Self>, LabError> {
        let folder = memory()?;
        let authority = Authority::create(&folder.path().join("authority"), TRUST_DOMAIN).map_err(other)?;
        Ok(Rc::new(Self { folder, authority }))
    }

    /// Folder of the bundles.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The bundle of somebody, made when it is asked for first.
    pub(crate) fn bundle(&self, role: Role, name: &str) -> Result<PathBuf, LabError> {
        let bundle = self.path().join(name);
        if !bundle.exists() {
            let serves = role == Role::Controller;
            let leaf = Leaf {
                role,
                name: name.to_owned(),
                dns: Vec::new(),
                ips: serves.then_some(Ipv4Addr::LOCALHOST.into()).into_iter().collect(),
                days: 2,
            };
            self.authority.issue(&leaf, &bundle).map_err(other)?;
        }
        Ok(bundle)
    }

    /// Of whoever serves.
    pub(crate) fn of_controller(&self) -> Result<PathBuf, LabError> {
        self.bundle(Role::Controller, "controller")
    }

    /// Of whoever asks.
    pub(crate) fn of_operator(&self) -> Result<PathBuf, LabError> {
        self.bundle(Role::Operator, "operator")
    }
}

/// A controller, whether it runs or not.
pub(crate) struct Controller {
    pub(crate) certificates: Rc<Certificates>,
    process: Option<Process>,
    /// Where it says that it is ready, until it has.
    notify: Option<UnixDatagram>,
    folder: TempDir,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Controller {
    /// One without any state. `more` are the sections of its configuration that are not the default ones.
    pub(crate) fn new(certificates: &Rc<Certificates>, more: &str) -> Result<Self, LabError> {
        let new = Self {
            certificates: certificates.clone(),
            process: None,
            notify: None,
            folder: tempfile::tempdir().map_err(LabError::io("cannot make a folder"))?,
            address: free_address()?,
            metrics: free_address()?,
        };
        let text = format!(
            "listen = \"{}\"\nbundle = \"{}\"\n[state]\ndir = \"{}\"\n[telemetry]\n[metrics]\nlisten = \"{}\"\n{more}",
            new.address,
            certificates.of_controller()?.display(),
            new.folder.path().join("state").display(),
            new.metrics,
        );
        std::fs::write(new.config(), text).map_err(LabError::io("cannot write the configuration"))?;
        Ok(new)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("controller.toml")
    }

    /// Its database.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("state/db")
    }

    /// Starts the program, which may not serve yet; when it began.
    pub(crate) fn exec(&mut self) -> Result<u64, LabError> {
        let socket = self.folder.path().join("notify");
        // Of an earlier start.
        let _ = std::fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).map_err(LabError::io("cannot listen for the controller's word"))?;
        let mut command = command(&programs::find(CONTROLLER_PROGRAM)?);
        command.arg("run").arg("--config").arg(self.config());
        command.env("NOTIFY_SOCKET", &socket);
        let at = nanos();
        self.process = Some(Process::start(command, "the controller")?);
        self.notify = Some(notify);
        Ok(at)
    }

    /// Waits until it says that it serves.
    pub(crate) fn await_ready(&mut self) -> Result<(), LabError> {
        let (Some(notify), Some(process)) = (self.notify.take(), &mut self.process) else {
            return Err(LabError::Other("the controller was not started".to_owned()));
        };
        notify
            .set_read_timeout(Some(Duration::from_millis(50)))
            .map_err(LabError::io("cannot set a time limit"))?;
        until("the controller to say that it is ready", START_LIMIT, || {
            let mut message = [0; 1024];
            let length = notify.recv(&mut message).unwrap_or(0);
            let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
            if process.has_ended() || text.lines().any(|line| line == "READY=1") {
                return Ok(());
            }
            Err(text.into_owned())
        })?;
        process.must_run()
    }

    /// Starts it and returns when it serves.
    pub(crate) fn start(&mut self) -> Result<(), LabError> {
        self.exec()?;
        self.await_ready()
    }

    /// Ends it as if its machine had died.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) -> Result<(), LabError> {
        self.process.take().map_or(Ok(()), Process::stop)
    }

    /// Of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::id)
    }

    /// `https://127.0.0.1:12345`.
    pub(crate) fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A client that connects with its first call.
    pub(crate) fn client(&self, role: Role, name: &str, endpoint: &str) -> Result<Client, LabError> {
        let mut config = ClientConfig::new(endpoint, self.certificates.bundle(role, name)?);
        config.connect_timeout = ANSWER_LIMIT;
        config.request_timeout = ANSWER_LIMIT;
        Client::lazy(config).map_err(other)
    }

    /// The operator's.
    pub(crate) fn operator(&self) -> Result<Client, LabError> {
        self.client(Role::Operator, "operator", &self.endpoint())
    }

    /// A counter or gauge without labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64, LabError> {
        let exchange = || {
            let mut stream = TcpStream::connect(self.metrics)?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        };
        let text = exchange().map_err(LabError::io("cannot read metrics"))?;
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        found.ok_or_else(|| LabError::Other(format!("there is no metric {name}")))
    }
}

/// A folder in memory.
pub(crate) fn memory() -> Result<TempDir, LabError> {
    tempfile::tempdir_in(MEMORY).map_err(LabError::io("cannot make a folder in memory"))
}

/// A port that is free now. Another program could take it before we do: then the start fails and says so.
pub(crate) fn free_address() -> Result<SocketAddr, LabError> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
    bind().map_err(LabError::io("cannot find a free port"))
}

/// Any error and what is behind it.
pub(crate) fn other(error: impl std::error::Error) -> LabError {
    LabError::Other(trunkline_agent::chain(&error))
}
