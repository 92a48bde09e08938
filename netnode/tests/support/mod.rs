//! A host of its own for a test: network, mounts and processes apart from the machine's, with a real Open vSwitch.
//!
//! The test runs itself again under `unshare`; when that process ends, for whatever reason, the kernel ends everything in it and
//! takes the namespaces away.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc
)]

pub mod far;
pub mod guest;
pub mod raw;
pub mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_agent::config::{DatapathChoice, SwitchSection};
use trunkline_agent::node::{Desired, Doing, Host, Item, Pass, Wake};
use trunkline_agent::{netlink, ovsdb};
use trunkline_netnode::config::{DhcpSection, NatSection};
use trunkline_netnode::host::{NetworkNode, Parts};
use trunkline_proto::daemon::Metrics;
use trunkline_proto::resource::{
    Dhcp, Envelope, Gateway, Key, Nat, Observation, Probe, ProbeKey, Reservation, Spec, State, Trunk,
};
use trunkline_proto::{LinkSubnet, Mac, PortName, VlanId};

const INSIDE: &str = "TRUNKLINE_TEST_INSIDE";
/// Bounds every wait for a condition.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `test` on a host of its own. `name` is the test's, with its modules.
pub fn on_private_host<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Lab) -> F) {
    let Some(here) = std::env::var_os(INSIDE) else {
        let mark = std::env::temp_dir().join(format!("trunkline-inside-{}", std::process::id()));
        let status = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--propagation",
                "private",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, &mark)
            .status()
            .expect("unshare; these tests need root");
        let ran = std::fs::remove_file(&mark).is_ok();
        assert!(status.success(), "{name} failed on its private host: {status}");
        assert!(ran, "there is no test {name}");
        return;
    };
    std::fs::write(here, "").unwrap();
    run(&["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { test(Lab::start()).await });
}

/// The host.
pub struct Lab {
    pub directory: PathBuf,
}

impl Lab {
    fn start() -> Self {
        let lab = Self {
            directory: PathBuf::from("/run/lab"),
        };
        std::fs::create_dir_all(&lab.directory).unwrap();
        run(&["ip", "link", "set", "lo", "up"]);
        lab.start_database();
        lab.start_vswitchd();
        run(&[
            "ip",
            "link",
            "add",
            "trunk0",
            "type",
            "veth",
            "peer",
            "name",
            "trunk0-far",
        ]);
        run(&["ip", "link", "set", "trunk0-far", "up"]);
        run(&["ip", "netns", "add", "internet"]);
        run(&[
            "ip", "link", "add", "ens3", "type", "veth", "peer", "name", "up0", "netns", "internet",
        ]);
        run(&["ip", "-n", "internet", "addr", "add", "203.0.113.1/24", "dev", "up0"]);
        // Behind the router, as the internet is: what is beside the uplink guests do not reach.
        run(&["ip", "-n", "internet", "addr", "add", "198.51.100.1/32", "dev", "lo"]);
        run(&["ip", "-n", "internet", "link", "set", "lo", "up"]);
        run(&["ip", "-n", "internet", "link", "set", "up0", "up"]);
        run(&["ip", "addr", "add", "203.0.113.2/24", "dev", "ens3"]);
        run(&["ip", "link", "set", "ens3", "up"]);
        run(&["ip", "route", "add", "default", "via", "203.0.113.1"]);
        lab
    }

    pub fn file(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    pub fn start_vswitchd(&self) {
        let status = Command::new("ovs-vswitchd")
            .env("OVS_RUNDIR", &self.directory)
            .arg(format!("unix:{}", self.file("db.sock")))
            .arg(format!("--pidfile={}", self.file("vs.pid")))
            .arg(format!("--log-file={}", self.file("vs.log")))
            .arg(format!("--unixctl={}", self.file("vs.ctl")))
            .args(["--disable-system", "--detach"])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Kills ovs-vswitchd the hard way.
    pub fn kill_vswitchd(&self) {
        let pid = std::fs::read_to_string(self.file("vs.pid")).unwrap();
        run(&["kill", "-9", pid.trim()]);
        // A killed one stays as a zombie of this test.
        wait("ovs-vswitchd to end", || {
            trunkline_agent::process::Identity::of(pid.trim().parse().unwrap()).is_none()
        });
    }

    /// Kills ovsdb-server the hard way and starts it with a database as on the day of its making.
    pub fn wipe_database(&self) {
        let pid = std::fs::read_to_string(self.file("db.pid")).unwrap();
        run(&["kill", "-9", pid.trim()]);
        wait("ovsdb-server to end", || {
            trunkline_agent::process::Identity::of(pid.trim().parse().unwrap()).is_none()
        });
        for file in ["conf.db", "db.sock", "db.pid"] {
            let _ = std::fs::remove_file(self.file(file));
        }
        let _ = std::fs::remove_file(self.file(".conf.db.~lock~"));
        self.start_database();
    }

    fn start_database(&self) {
        run(&[
            "ovsdb-tool",
            "create",
            &self.file("conf.db"),
            "/usr/share/openvswitch/vswitch.ovsschema",
        ]);
        run(&[
            "ovsdb-server",
            &self.file("conf.db"),
            &format!("--remote=punix:{}", self.file("db.sock")),
            &format!("--pidfile={}", self.file("db.pid")),
            &format!("--log-file={}", self.file("db.log")),
            &format!("--unixctl={}", self.file("db.ctl")),
            "--detach",
        ]);
        self.vsctl(&["--no-wait", "init"]);
    }

    pub fn vsctl(&self, args: &[&str]) -> String {
        let db = format!("--db=unix:{}", self.file("db.sock"));
        run(&[&["ovs-vsctl", "--timeout=20", &db], args].concat())
    }

    /// Asks the bridge about its flows; `rest` comes after its name.
    pub fn ofctl(&self, command: &[&str], rest: &[&str]) -> String {
        let bridge = format!("unix:{}", self.file("br-int.mgmt"));
        run(&[&["ovs-ofctl", "-O", "OpenFlow14"], command, &[&bridge], rest].concat())
    }

    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The network node, as the program builds it when it starts.
    pub async fn node(&self) -> Node {
        self.node_with(NatSection::default()).await
    }

    /// The same, with another way to the internet.
    pub async fn node_with(&self, nat: NatSection) -> Node {
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let ovs = ovsdb::Client::start(self.directory.join("db.sock"), cancel.clone());
        ovs.ready(PATIENCE).await.unwrap();
        trunkline_agent::files::state_dir(&self.state_dir()).unwrap();
        let host = NetworkNode::new(Parts {
            node: "n1".parse().unwrap(),
            switch: SwitchSection {
                socket: self.directory.join("db.sock"),
                uplink: Some("trunk0".into()),
                datapath: DatapathChoice::Netdev,
                ..SwitchSection::default()
            },
            state_dir: self.state_dir(),
            nat,
            dhcp: DhcpSection::default(),
            ovs,
            netlink: netlink::Handle::current().unwrap(),
            doing: Doing::default(),
            board: Arc::default(),
            metrics: Arc::new(Metrics::new("trunkline-netnode", "0")),
            wake: Wake::new(tasks.clone(), cancel.clone()),
            cancel: cancel.clone(),
            tasks,
        });
        Node {
            host: host.unwrap(),
            cancel,
        }
    }
}

/// A network node that runs.
pub struct Node {
    pub host: NetworkNode,
    cancel: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Node {
    /// One pass.
    pub async fn pass(&mut self, desired: &Desired) -> Seen {
        Seen::new(self.host.pass(desired).await)
    }

    /// Passes until everything is ready, or the time is up.
    pub async fn until_ready(&mut self, desired: &Desired) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.pass(desired).await;
            if seen.problems().is_empty() && seen.clean {
                return seen;
            }
            assert!(
                Instant::now() < deadline,
                "clean {}, not ready: {:#?}",
                seen.clean,
                seen.problems()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What a pass reported.
pub struct Seen {
    pub clean: bool,
    pub repairs: Vec<(String, String)>,
    pub orphans: Vec<String>,
    by_name: BTreeMap<String, Observation>,
}

impl Seen {
    fn new(pass: Pass) -> Self {
        let repairs = pass.repairs.iter().map(|r| (r.key.name.to_string(), r.what.clone()));
        let orphans = pass
            .orphans
            .iter()
            .map(|o| format!("{} {}", o.thing.kind, o.thing.name));
        let (repairs, orphans) = (repairs.collect(), orphans.collect());
        let by_name = pass
            .observations
            .into_iter()
            .map(|o| (o.key.name.to_string(), o))
            .collect();
        Self {
            clean: pass.clean,
            repairs,
            orphans,
            by_name,
        }
    }

    pub fn of(&self, name: &str) -> &Observation {
        self.by_name
            .get(name)
            .unwrap_or_else(|| panic!("nothing reported of {name}"))
    }

    pub fn problems(&self) -> Vec<(String, State, String)> {
        let not_ready = self.by_name.iter().filter(|(_, o)| o.state != State::Ready);
        not_ready
            .map(|(name, o)| (name.clone(), o.state, o.reason.clone()))
            .collect()
    }

    pub fn pid(&self, name: &str) -> u32 {
        match &self.of(name).facts {
            Some(trunkline_proto::resource::Facts::Dhcp(facts)) => facts.pid,
            other => panic!("{name}: {other:?}"),
        }
    }
}

pub fn desired(specs: impl IntoIterator<Item = Spec>) -> Desired {
    let items: BTreeMap<Key, Item> = specs
        .into_iter()
        .map(|spec| {
            let envelope = Envelope::seal(&spec, "");
            (
                envelope.key,
                Item {
                    spec,
                    hash: envelope.hash,
                    traceparent: String::new(),
                },
            )
        })
        .collect();
    Desired {
        term: 1,
        generation: 1,
        items,
        ..Desired::default()
    }
}

pub fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

pub fn subnet(vlan: VlanId) -> LinkSubnet {
    if vlan == VlanId::INTERNET {
        LinkSubnet::INTERNET.parse().unwrap()
    } else {
        LinkSubnet::derived(vlan)
    }
}

pub fn gateway(id: u32) -> Spec {
    let vlan = vlan(id);
    Spec::Gateway(Gateway {
        vlan,
        address: subnet(vlan).gateway(),
        mac: Mac::of_gateway(vlan),
        mtu: 1500,
    })
}

pub fn dhcp(id: u32, reservations: &[Reservation]) -> Spec {
    dhcp_with_dns(id, reservations, "8.8.8.8")
}

pub fn dhcp_with_dns(id: u32, reservations: &[Reservation], dns: &str) -> Spec {
    let vlan = vlan(id);
    let subnet = subnet(vlan);
    Spec::Dhcp(Dhcp {
        vlan,
        address: subnet.dhcp_server(),
        mac: Mac::of_dhcp(vlan),
        mtu: 1500,
        range: (vlan != VlanId::INTERNET).then(|| subnet.guests()),
        router: subnet.gateway().address,
        dns: vec![dns.parse().unwrap()],
        lease: Duration::from_secs(3600),
        reservations: reservations.to_vec(),
    })
}

pub fn nat() -> Spec {
    let vlan = VlanId::INTERNET;
    Spec::Nat(Nat {
        vlan,
        subnet: subnet(vlan),
        gateway_port: PortName::gateway(vlan),
    })
}

/// What joins a node to its peers is to be proved; all have the same key.
pub fn probe(id: u32, peers: &[&str]) -> Probe {
    Probe {
        vlan: vlan(id),
        mtu: 1500,
        peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
        keys: vec![ProbeKey { id: 1, secret: [7; 32] }],
    }
}

pub fn trunk(vlans: &[u32]) -> Spec {
    Spec::Trunk(Trunk {
        vlans: vlans.iter().map(|id| vlan(*id)).collect(),
    })
}

pub fn reservation(mac: &str, address: &str, hostname: &str, no_router: bool) -> Reservation {
    Reservation {
        mac: mac.parse().unwrap(),
        address: address.parse().unwrap(),
        hostname: hostname.parse().unwrap(),
        no_router,
    }
}

/// Runs a program that must succeed, and says what it wrote.
pub fn run(argv: &[&str]) -> String {
    let output = Command::new(argv[0])
        .args(&argv[1..])
        .output()
        .unwrap_or_else(|error| panic!("{argv:?}: {error}"));
    assert!(
        output.status.success(),
        "{argv:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a program succeeds.
pub fn succeeds(argv: &[&str]) -> bool {
    Command::new(argv[0])
        .args(&argv[1..])
        .output()
        .unwrap()
        .status
        .success()
}

/// Waits for a condition.
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn sysctl(path: &str) -> String {
    std::fs::read_to_string(Path::new("/proc/sys").join(path))
        .unwrap()
        .trim()
        .to_owned()
}
