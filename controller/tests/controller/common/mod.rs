//! A controller in this process, over real mutual TLS, and what talks to it.

pub mod node;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use trunkline_certs::{
    Role,
    authority::{Authority, Leaf},
};
use trunkline_controller::{
    config::{Config, NodesConfig, StateConfig},
    daemon::{Daemon, DaemonError},
};
use trunkline_proto::{
    client::{Client, ClientConfig, new_request_id},
    daemon::{DurationText, Lifecycle, Metrics},
    wire,
};

/// Longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Controller {
    pub dir: TempDir,
    pub config: Config,
    authority: Authority,
    running: Option<Running>,
}

struct Running {
    life: Lifecycle,
    core: Arc<trunkline_controller::core::Core>,
    metrics: Arc<Metrics>,
    task: tokio::task::JoinHandle<Result<(), DaemonError>>,
    endpoint: String,
}

impl Controller {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("ca"), "lab.test").unwrap();
        let bundle = dir.path().join("controller");
        let leaf = leaf(Role::Controller, "controller");
        authority.issue(&leaf, &bundle).unwrap();
        let mut config = Config {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            bundle,
            state: StateConfig::new(dir.path().join("state")),
            events: Default::default(),
            nodes: NodesConfig {
                heartbeat: DurationText(Duration::from_millis(300)),
                ack_timeout: DurationText(Duration::from_secs(10)),
            },
            network: toml::from_str("quarantine = \"0s\"").unwrap(),
            telemetry: Default::default(),
            metrics: None,
        };
        config.state.export_every = DurationText(Duration::ZERO);
        change(&mut config);
        let mut controller = Self {
            dir,
            config,
            authority,
            running: None,
        };
        controller.up().await.unwrap();
        controller
    }

    pub async fn up(&mut self) -> Result<(), DaemonError> {
        let life = Lifecycle::without_signals();
        let metrics = Arc::new(Metrics::new("trunkline-controller", "test"));
        let daemon = Daemon::start(&self.config, metrics.clone(), &life).await?;
        let (endpoint, core) = (format!("https://{}", daemon.local_addr()), daemon.core.clone());
        let task = tokio::spawn(daemon.run());
        self.running = Some(Running {
            life,
            core,
            metrics,
            task,
            endpoint,
        });
        Ok(())
    }

    /// An orderly end; everything must end in time.
    pub async fn down(&mut self) {
        let Running { life, core, task, .. } = self.running.take().unwrap();
        life.stop();
        task.await.unwrap().unwrap();
        // The database's lock goes with the last holder.
        drop(life);
        assert_eq!(Arc::strong_count(&core), 1, "somebody still holds the state");
    }

    pub fn metrics(&self) -> String {
        self.running.as_ref().unwrap().metrics.text()
    }

    pub fn endpoint(&self) -> &str {
        &self.running.as_ref().unwrap().endpoint
    }

    pub fn bundle(&self, role: Role, name: &str) -> PathBuf {
        let bundle = self.dir.path().join(format!("{role}-{name}"));
        if !bundle.exists() {
            self.authority.issue(&leaf(role, name), &bundle).unwrap();
        }
        bundle
    }

    pub async fn client(&self, role: Role, name: &str) -> Client {
        Client::connect(ClientConfig::new(self.endpoint(), self.bundle(role, name)))
            .await
            .unwrap()
    }

    pub async fn operator(&self) -> Client {
        self.client(Role::Operator, "alice").await
    }

    pub fn state_dir(&self) -> &Path {
        &self.config.state.dir
    }
}

fn leaf(role: Role, name: &str) -> Leaf {
    // Only a server is looked for by an address.
    let server = role == Role::Controller;
    Leaf {
        role,
        name: name.into(),
        dns: Vec::new(),
        ips: server.then_some(Ipv4Addr::LOCALHOST.into()).into_iter().collect(),
        days: 1,
    }
}

pub fn vm(name: &str, worker: &str, data: u32) -> wire::VmSpec {
    wire::VmSpec {
        name: name.into(),
        worker: worker.into(),
        data_interfaces_count: data,
        ..wire::VmSpec::default()
    }
}

pub fn link(ends: &[&str]) -> wire::LinkSpec {
    wire::LinkSpec {
        ends: ends.iter().map(ToString::to_string).collect(),
        ..wire::LinkSpec::default()
    }
}

/// `web` on w1 and `db` on w2, linked.
pub fn pair(slice: &str) -> wire::SliceSpec {
    wire::SliceSpec {
        name: slice.into(),
        vms: vec![vm("web", "w1", 1), vm("db", "w2", 1)],
        links: vec![link(&["web.eth1", "db.eth1"])],
        vlan_pool_size: 0,
    }
}

pub fn apply(slices: Vec<wire::SliceSpec>, deploy: bool) -> wire::ApplySlicesRequest {
    wire::ApplySlicesRequest {
        request_id: new_request_id(),
        slices,
        deploy,
        ..wire::ApplySlicesRequest::default()
    }
}

/// Waits for a condition and says what it was when time is up.
pub async fn eventually<T: std::fmt::Debug, F: Future<Output = T>>(
    what: &str,
    mut look: impl FnMut() -> F,
    good: impl Fn(&T) -> bool,
) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let seen = look().await;
        if good(&seen) {
            return seen;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} did not come about; last seen: {seen:#?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
