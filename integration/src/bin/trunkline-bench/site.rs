//! A controller by itself on this machine: its certificates, its state directory, its process. For figures that need no switch.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use trunkline_certs::Role;
use trunkline_certs::authority::{Authority, Leaf};
use trunkline_integration::LabError;
use trunkline_integration::lab::{CONTROLLER_PROGRAM, process::tail, programs};
use trunkline_integration::wait::until;
use trunkline_proto::client::{Client, ClientConfig};

const TRUST_DOMAIN: &str = "bench.trunkline.test";
const START_LIMIT: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(20);
/// A controller that has much to read listens long before it answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Where a controller runs, and whom it knows.
pub(crate) struct Site {
    folder: TempDir,
    authority: Authority,
    address: SocketAddr,
}

impl Site {
    /// Makes certificates and the configuration; `network` are lines of its section of that name.
    pub(crate) fn new(network: &str) -> Result<Self, LabError> {
        let folder = tempfile::tempdir().map_err(LabError::io("cannot make a folder"))?;
        let authority = Authority::create(&folder.path().join("ca"), TRUST_DOMAIN).map_err(other)?;
        let address = free_address()?;
        let site = Self {
            folder,
            authority,
            address,
        };
        let bundle = site.bundle(Role::Controller, "controller")?;
        let text = format!(
            "listen = \"{address}\"\nbundle = \"{}\"\n[state]\ndir = \"{}\"\n[nodes]\nheartbeat = \"2s\"\n[network]\n{network}\n",
            bundle.display(),
            site.state().display()
        );
        std::fs::write(site.path("controller.toml"), text).map_err(LabError::io("cannot write the configuration"))?;
        Ok(site)
    }

    /// A path in the site's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The controller's state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// `https://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The bundle of somebody, made when it is asked for first.
    pub(crate) fn bundle(&self, role: Role, name: &str) -> Result<PathBuf, LabError> {
        let bundle = self.path(&format!("{role}-{name}"));
        if !bundle.exists() {
            let server = role == Role::Controller;
            let leaf = Leaf {
                role,
                name: name.to_owned(),
                dns: Vec::new(),
                ips: server.then_some(Ipv4Addr::LOCALHOST.into()).into_iter().collect(),
                days: 1,
            };
            self.authority.issue(&leaf, &bundle).map_err(other)?;
        }
        Ok(bundle)
    }

    /// Starts the controller. It may not serve yet.
    pub(crate) fn exec(&self) -> Result<Process, LabError> {
        let program = programs::find(CONTROLLER_PROGRAM)?;
        let mut command = command(&program);
        command.arg("run").arg("--config").arg(self.path("controller.toml"));
        Process::start(command, &self.path("controller.log"))
    }

    /// Starts the controller and returns when it serves.
    pub(crate) fn start(&self) -> Result<Process, LabError> {
        let socket = self.path("notify");
        // Of an earlier start.
        let _ = std::fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).map_err(LabError::io("cannot listen for the controller's word"))?;
        notify
            .set_read_timeout(Some(Duration::from_millis(50)))
            .map_err(LabError::io("cannot set a time limit"))?;
        let program = programs::find(CONTROLLER_PROGRAM)?;
        let mut command = command(&program);
        command.arg("run").arg("--config").arg(self.path("controller.toml"));
        command.env("NOTIFY_SOCKET", &socket);
        let mut controller = Process::start(command, &self.path("controller.log"))?;
        until("the controller to say that it is ready", START_LIMIT, || {
            let mut message = [0; 1024];
            let length = notify.recv(&mut message).unwrap_or(0);
            let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
            if controller.has_ended() || text.lines().any(|line| line == "READY=1") {
                return Ok(());
            }
            Err(text.into_owned())
        })?;
        controller.must_run()?;
        Ok(controller)
    }

    /// A client that connects with its first call.
    pub(crate) fn client(&self, role: Role, name: &str, endpoint: &str) -> Result<Client, LabError> {
        let mut config = ClientConfig::new(endpoint, self.bundle(role, name)?);
        config.connect_timeout = ANSWER_LIMIT;
        config.request_timeout = ANSWER_LIMIT;
        Client::lazy(config).map_err(other)
    }

    /// The operator's.
    pub(crate) fn operator(&self) -> Result<Client, LabError> {
        self.client(Role::Operator, "operator", &self.endpoint())
    }
}

/// A child that ends with us, however we end.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// A command that the kernel kills when this process ends.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.stdin(Stdio::null());
    command
}

impl Process {
    /// Starts a [`command`], with what it says to people in `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self, LabError> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.map_err(LabError::io(format!("cannot open {}", log.display())))?;
        let child = command
            .stderr(file)
            .spawn()
            .map_err(LabError::io("cannot start a program"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, once, where that was asked for.
    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// An error with the end of its log when it has ended.
    pub(crate) fn must_run(&mut self) -> Result<(), LabError> {
        if self.has_ended() {
            return Err(LabError::Other(format!(
                "a program ended early:\n{}",
                tail(&self.log, 15)
            )));
        }
        Ok(())
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn finish(mut self) -> Result<(), LabError> {
        let status = self.child.wait().map_err(LabError::io("cannot wait for a program"))?;
        if status.success() {
            return Ok(());
        }
        Err(LabError::Other(format!(
            "a program ended with {status}:\n{}",
            tail(&self.log, 15)
        )))
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<(), LabError> {
        let pid = i32::try_from(self.pid()).unwrap_or(i32::MAX);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)?;
        until("the end of a program", END_LIMIT, || {
            if self.has_ended() {
                Ok(())
            } else {
                Err("it still runs".to_owned())
            }
        })?;
        self.finish()
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free now. Another program could take it before we do: then the start fails and says so.
fn free_address() -> Result<SocketAddr, LabError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(LabError::io("no free port"))
}

/// Any error and what is behind it.
pub(crate) fn other(error: impl std::error::Error) -> LabError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    LabError::Other(text)
}
