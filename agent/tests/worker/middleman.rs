//! Somebody between the agent and the real bridge, who makes it a worse one.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, Notify},
    task::JoinHandle,
};

/// Types of messages.
const ERROR: u8 = 1;
const METER_MOD: u8 = 29;
const BUNDLE_CONTROL: u8 = 33;
/// Type and code of the error that says that there is no room for a meter's bands: what a datapath without meters says.
const NO_METERS: [u8; 4] = [0, 12, 0, 11];

/// Ends with the test's runtime.
pub(crate) struct Middleman {
    dir: tempfile::TempDir,
    how: Arc<How>,
    _task: JoinHandle<()>,
}

#[derive(Default)]
struct How {
    refuses_meters: AtomicBool,
    meters_refused: AtomicUsize,
    ends: Notify,
    loses_bundles: AtomicBool,
}

impl Middleman {
    pub(crate) fn start(database: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        symlink(database, dir.path().join("db.sock")).unwrap();
        let listener = UnixListener::bind(dir.path().join("br-int.mgmt")).unwrap();
        let how = Arc::new(How::default());
        let shared = how.clone();
        let task = tokio::spawn(async move {
            loop {
                let (agent, _) = listener.accept().await.unwrap();
                // Without a bridge the agent is told so by the end of its connection.
                if let Ok(bridge) = UnixStream::connect("/run/openvswitch/br-int.mgmt").await {
                    tokio::spawn(between(agent, bridge, shared.clone()));
                }
            }
        });
        Self { dir, how, _task: task }
    }

    /// What the agent takes for the database's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("db.sock")
    }

    pub(crate) fn refuse_meters(&self, yes: bool) {
        self.how.refuses_meters.store(yes, Ordering::SeqCst);
    }

    /// How many were refused by now.
    pub(crate) fn meters_refused(&self) -> usize {
        self.how.meters_refused.load(Ordering::SeqCst)
    }

    /// Ends the connections that there are.
    pub(crate) fn cut(&self) {
        self.how.ends.notify_waiters();
    }

    /// From now on nothing is heard of bundles.
    pub(crate) fn lose_bundles(&self, yes: bool) {
        self.how.loses_bundles.store(yes, Ordering::SeqCst);
    }
}

async fn between(agent: UnixStream, bridge: UnixStream, how: Arc<How>) {
    let (from_agent, to_agent) = agent.into_split();
    let (mut from_bridge, to_bridge) = bridge.into_split();
    let to_agent = Mutex::new(to_agent);
    let back = async {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_bridge.read(&mut chunk).await {
            to_agent.lock().await.write_all(&chunk[..read]).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::select! {
        _ = back => {}
        _ = forth(from_agent, to_bridge, &to_agent, &how) => {}
        () = how.ends.notified() => {}
    }
}

/// Message by message. What the bridge sends comes in whole messages too, but for long ones, which are no answers to what is refused.
async fn forth(
    mut agent: OwnedReadHalf,
    mut bridge: OwnedWriteHalf,
    to_agent: &Mutex<OwnedWriteHalf>,
    how: &How,
) -> std::io::Result<()> {
    loop {
        let mut message = vec![0; 8];
        agent.read_exact(&mut message).await?;
        let size = usize::from(u16::from_be_bytes([message[2], message[3]]));
        message.resize(size, 0);
        agent.read_exact(&mut message[8..]).await?;
        match message[1] {
            // Not the deletion of one, which there is nothing to say against.
            METER_MOD if how.refuses_meters.load(Ordering::SeqCst) && message[9] != 2 => {
                how.meters_refused.fetch_add(1, Ordering::SeqCst);
                let head = [message[0], ERROR, 0, 12];
                let error = [&head, &message[4..8], &NO_METERS].concat();
                to_agent.lock().await.write_all(&error).await?;
            }
            BUNDLE_CONTROL if how.loses_bundles.load(Ordering::SeqCst) => {
                copy(&mut agent, &mut tokio::io::sink()).await?;
                return Ok(());
            }
            _ => bridge.write_all(&message).await?,
        }
    }
}
