//! The fleet's daemons: their certificates, their configuration files, and how they are started.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trunkline_certs::Role;
use trunkline_certs::authority::{Authority, AuthorityError, Leaf};
use trunkline_proto::daemon::failpoint;

use super::host::Host;
use super::layout::{CONTROLLER, CONTROLLER_ADDRESS, CONTROLLER_PORT, Layout, NETNODE};
use super::process::Running;
use super::programs;
use crate::LabError;
use crate::wait::until;

/// The controller's daemon.
pub const CONTROLLER_PROGRAM: &str = "trunkline-controller";
/// A worker's.
pub const AGENT_PROGRAM: &str = "trunkline-agent";
/// The network node's.
pub const NETNODE_PROGRAM: &str = "trunkline-netnode";

/// Of the lab's own certificates.
pub const TRUST_DOMAIN: &str = "lab.trunkline.test";

const START_LIMIT: Duration = Duration::from_secs(30);
/// A lab lives for hours; certificates of a month are not renewed in it.
const DAYS: u32 = 30;

/// What a test may want different from the defaults.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    /// Where every daemon sends its traces, as seen from the hosts.
    pub otlp_endpoint: Option<String>,
    /// Lines for the controller's section `[network]`.
    pub network: Vec<String>,
    /// Lines for the controller's section `[nodes]`.
    pub nodes: Vec<String>,
    /// Log filter of every daemon.
    pub log_filter: Option<String>,
}

/// Makes an authority and a bundle for everybody in the fleet, and for an operator and a viewer.
pub(crate) fn issue_all(layout: Layout, folder: &Path) -> Result<(), LabError> {
    let certs = folder.join("certs");
    std::fs::create_dir_all(&certs).map_err(LabError::io(format!("cannot make {}", certs.display())))?;
    let authority = Authority::create(&certs.join("ca"), TRUST_DOMAIN).map_err(certificate)?;
    let issue = |role, name: &str| {
        let controller = role == Role::Controller;
        let dns = if controller {
            vec![CONTROLLER.to_owned(), "localhost".to_owned()]
        } else {
            Vec::new()
        };
        let ips = [IpAddr::from(CONTROLLER_ADDRESS), IpAddr::from(Ipv4Addr::LOCALHOST)];
        let ips = if controller { ips.to_vec() } else { Vec::new() };
        let leaf = Leaf {
            role,
            name: name.to_owned(),
            dns,
            ips,
            days: DAYS,
        };
        authority.issue(&leaf, &certs.join(name)).map(drop).map_err(certificate)
    };
    issue(Role::Controller, CONTROLLER)?;
    issue(Role::Netnode, NETNODE)?;
    issue(Role::Operator, "operator")?;
    issue(Role::Viewer, "viewer")?;
    layout.workers().try_for_each(|worker| issue(Role::Worker, &worker))
}

fn certificate(error: AuthorityError) -> LabError {
    LabError::Other(format!("cannot make the lab's certificates: {error}"))
}

/// Which daemon runs on a host, if one does.
pub(crate) fn program_of(host: &str) -> Option<&'static str> {
    match host {
        CONTROLLER => Some(CONTROLLER_PROGRAM),
        NETNODE => Some(NETNODE_PROGRAM),
        worker if worker.starts_with('w') => Some(AGENT_PROGRAM),
        _ => None,
    }
}

/// Starts a host's daemon and returns when it says that it is ready, as it says it to systemd.
pub(crate) fn start(host: &Host, program: &'static str, folder: &Path, tuning: &Tuning) -> Result<Running, LabError> {
    let config = write_config(host, program, folder, tuning)?;
    let state = host.path(&state_dir(program));
    std::fs::create_dir_all(&state).map_err(LabError::io(format!("cannot make {}", state.display())))?;
    let (notify, socket) = notify_socket(host, program)?;
    let path = programs::find(program)?.display().to_string();
    let argv = [
        path,
        "run".to_owned(),
        "--config".to_owned(),
        config.display().to_string(),
    ];
    let mut daemon = host.spawn_with(
        program,
        &argv,
        &[
            ("NOTIFY_SOCKET", socket),
            ("RUST_BACKTRACE", "1".to_owned()),
            (failpoint::VARIABLE, fail_point(host).display().to_string()),
        ],
    )?;
    let mut died = None;
    let ready = until(
        &format!("{program} on {} to say that it is ready", host.name()),
        START_LIMIT,
        || {
            died = daemon.ended();
            let mut message = [0; 1024];
            let length = notify.recv(&mut message).unwrap_or(0);
            let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
            if died.is_some() || text.lines().any(|line| line == "READY=1") {
                Ok(())
            } else {
                Err(String::from(text))
            }
        },
    );
    match died {
        Some(status) => Err(super::ended(host.name(), program, status, daemon.log())),
        None => ready.map(|()| daemon),
    }
}

/// The file that names where a host's daemon is to die next.
pub fn fail_point(host: &Host) -> PathBuf {
    host.folder().join("fail-point")
}

/// A socket where systemd would listen. It is given up once the daemon is ready: what else it says is for nobody.
fn notify_socket(host: &Host, program: &str) -> Result<(UnixDatagram, String), LabError> {
    let path = format!("/run/notify-{program}");
    let bound = path.clone();
    let bind = move || {
        // Of an earlier start.
        let _ = std::fs::remove_file(&bound);
        let socket = UnixDatagram::bind(&bound)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(socket)
    };
    let socket = host
        .run(bind)?
        .map_err(LabError::io(format!("cannot listen on {path}")))?;
    Ok((socket, path))
}

fn state_dir(program: &str) -> String {
    format!("/var/lib/{program}")
}

fn write_config(host: &Host, program: &str, folder: &Path, tuning: &Tuning) -> Result<PathBuf, LabError> {
    let path = host.folder().join(format!("{program}.toml"));
    let bundle = folder.join("certs").join(host.name());
    let text = match program {
        CONTROLLER_PROGRAM => controller(&bundle, tuning),
        _ => node(host.name(), program, &bundle, tuning),
    };
    std::fs::write(&path, text).map_err(LabError::io(format!("cannot write {}", path.display())))?;
    Ok(path)
}

fn controller(bundle: &Path, tuning: &Tuning) -> String {
    let bundle = bundle.display();
    let state = state_dir(CONTROLLER_PROGRAM);
    let network = tuning.network.join("\n");
    let nodes = tuning.nodes.join("\n");
    format!(
        "listen = \"0.0.0.0:{CONTROLLER_PORT}\"\nbundle = \"{bundle}\"\n\n[state]\ndir = \"{state}\"\n\n\
         [network]\n{network}\n\n[nodes]\n{nodes}\n\n{}",
        telemetry(tuning, 9464)
    )
}

/// The userspace datapath, as the lab's switches have no other.
fn node(name: &str, program: &str, bundle: &Path, tuning: &Tuning) -> String {
    let bundle = bundle.display();
    let state = state_dir(program);
    let port = if program == NETNODE_PROGRAM { 9466 } else { 9465 };
    format!(
        "[node]\nname = \"{name}\"\nbundle = \"{bundle}\"\nstate_dir = \"{state}\"\n\n\
         [controller]\nendpoint = \"https://{CONTROLLER_ADDRESS}:{CONTROLLER_PORT}\"\n\n\
         [switch]\nuplink = \"trunk0\"\ndatapath = \"netdev\"\n\n{}",
        telemetry(tuning, port)
    )
}

fn telemetry(tuning: &Tuning, port: u16) -> String {
    let filter = tuning.log_filter.as_deref().unwrap_or("info");
    let otlp = tuning
        .otlp_endpoint
        .as_ref()
        .map(|url| format!("otlp_endpoint = \"{url}\"\n"))
        .unwrap_or_default();
    format!("[telemetry]\nlog_filter = \"{filter}\"\n{otlp}\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n")
}
