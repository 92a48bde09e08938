//! A host of its own for one test: network and mount namespaces, a private /run, a real Open vSwitch.
//!
//! Nothing outlives the test: what is started dies with the thread that started it (`setpriv --pdeathsig`), and the namespaces die
//! with their last thread.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio_util::sync::CancellationToken;
use trunkline_agent::{netlink, ovsdb};

/// Generous, because the machine may be busy; nothing waits this long when it works.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Runs a test in namespaces of its own.
pub(crate) fn alone<T: Future<Output = ()>>(test: impl FnOnce() -> T) {
    // All threads that this one starts from here on are inside too.
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("this test needs root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test());
}

pub(crate) struct Started(Child);

impl Started {
    /// Must be called on the test's own thread.
    pub(crate) fn new(program: &str, args: &[String]) -> Self {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", program])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, name: &str) {
        run("kill", &[&format!("-{name}"), &self.0.id().to_string()]);
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Open vSwitch in a directory of its own.
pub(crate) struct Ovs {
    dir: tempfile::TempDir,
    server: Option<Started>,
    vswitchd: Option<Started>,
    cancel: CancellationToken,
}

impl Ovs {
    pub(crate) async fn start() -> Self {
        // ovs-vswitchd puts each bridge's management sockets here.
        std::fs::create_dir_all("/run/openvswitch").unwrap();
        let mut ovs = Self {
            dir: tempfile::tempdir().unwrap(),
            server: None,
            vswitchd: None,
            cancel: CancellationToken::new(),
        };
        run(
            "ovsdb-tool",
            &[
                "create",
                &ovs.path("conf.db"),
                "/usr/share/openvswitch/vswitch.ovsschema",
            ],
        );
        ovs.start_server().await;
        ovs.vsctl(&["--no-wait", "init"]);
        ovs.start_vswitchd();
        ovs
    }

    /// The database's socket is where ovs-vswitchd puts those of its bridges, as on a real host.
    fn path(&self, name: &str) -> String {
        if name == "db.sock" {
            return self.socket().display().to_string();
        }
        self.dir.path().join(name).display().to_string()
    }

    /// The database's journal, comments of transactions included.
    pub(crate) fn log(&self) -> String {
        run("ovsdb-tool", &["-m", "show-log", &self.path("conf.db")])
    }

    pub(crate) fn socket(&self) -> PathBuf {
        PathBuf::from("/run/openvswitch/db.sock")
    }

    pub(crate) async fn start_server(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let args = [
            self.path("conf.db"),
            format!("--remote=punix:{}", self.path("db.sock")),
            format!("--unixctl={}", self.path("db.ctl")),
            format!("--log-file={}", self.path("db.log")),
            "-vconsole:off".to_owned(),
        ];
        self.server = Some(Started::new("ovsdb-server", &args));
        let socket = self.socket();
        eventually("the database's socket", async || {
            socket.exists().then_some(()).ok_or("not there")
        })
        .await;
    }

    /// The database as on the day of its making; ovs-vswitchd, if it runs, finds itself without any configuration.
    // Not every test program that has this module needs it.
    #[allow(dead_code)]
    pub(crate) async fn wipe(&mut self) {
        self.stop_server();
        let path = self.path("conf.db");
        std::fs::remove_file(&path).unwrap();
        run(
            "ovsdb-tool",
            &["create", &path, "/usr/share/openvswitch/vswitch.ovsschema"],
        );
        self.start_server().await;
        self.vsctl(&["--no-wait", "init"]);
    }

    pub(crate) fn stop_server(&mut self) {
        self.server = None;
    }

    /// The database answers nobody until [`Self::thaw_server`].
    pub(crate) fn freeze_server(&self) {
        self.server.as_ref().unwrap().signal("STOP");
    }

    pub(crate) fn thaw_server(&self) {
        self.server.as_ref().unwrap().signal("CONT");
    }

    pub(crate) fn start_vswitchd(&mut self) {
        let args = [
            format!("unix:{}", self.path("db.sock")),
            format!("--unixctl={}", self.path("vs.ctl")),
            format!("--pidfile={}", self.path("vs.pid")),
            format!("--log-file={}", self.path("vs.log")),
            "--disable-system".to_owned(),
            "-vconsole:off".to_owned(),
        ];
        self.vswitchd = Some(Started::new("ovs-vswitchd", &args));
    }

    pub(crate) fn kill_vswitchd(&mut self) {
        self.vswitchd = None;
    }

    /// A client of the product, connected.
    pub(crate) async fn client(&self) -> ovsdb::Client {
        let client = ovsdb::Client::start(self.socket(), self.cancel.clone());
        client.ready(LIMIT).await.unwrap();
        client
    }

    /// The reference client, to act as a stranger and to check by other eyes.
    pub(crate) fn vsctl(&self, args: &[&str]) -> String {
        let db = format!("--db=unix:{}", self.path("db.sock"));
        let mut all = vec![db.as_str(), "--timeout=20"];
        all.extend(args);
        run("ovs-vsctl", &all)
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        self.cancel.cancel();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("vs.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("ovs-vswitchd's last words, newest first:\n{}", tail.join("\n"));
        }
    }
}

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits for a condition; the last thing seen is in the panic's message.
pub(crate) async fn eventually<T, E: std::fmt::Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if tokio::time::Instant::now() > deadline => panic!("{what}: {seen:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A pair of joined devices; the second is the first's "cable".
pub(crate) fn veth(name: &str) {
    run("ip", &["link", "add", name, "type", "veth", "peer", "name", "cable"]);
    run("ip", &["link", "set", "cable", "up"]);
}

pub(crate) fn netlink() -> netlink::Handle {
    netlink::Handle::current().unwrap()
}

pub(crate) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
