//! Looks after every dnsmasq: one that ends wakes the reconcile loop.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tokio_util::task::TaskTracker;
use trunkline_agent::node::Wake;
use trunkline_agent::process::Identity;

/// How often those are looked at that the kernel does not tell of.
const EVERY: Duration = Duration::from_secs(1);

/// Whom to look after. Most are not children of this process.
pub(super) struct Watch {
    watched: HashMap<Identity, Option<AbortOnDropHandle<()>>>,
    /// Those that the kernel does not tell of.
    polled: Arc<Mutex<Vec<Identity>>>,
    wake: Wake,
}

impl Watch {
    /// Starts the task; it ends with the program.
    pub(super) fn start(wake: Wake, cancel: CancellationToken, tasks: &TaskTracker) -> Self {
        let polled = Arc::new(Mutex::new(Vec::<Identity>::new()));
        let (shared, waker) = (Arc::clone(&polled), wake.clone());
        tasks.spawn(async move {
            // Either may be dropped: a tick and a cancellation carry nothing.
            while cancel.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
                let mut polled = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let before = polled.len();
                polled.retain(Identity::alive);
                if polled.len() < before {
                    waker.now();
                }
            }
        });
        Self {
            watched: HashMap::new(),
            polled,
            wake,
        }
    }

    /// Whom to look after from now on. Needs a runtime.
    pub(super) fn set(&mut self, identities: impl Iterator<Item = Identity>) {
        let mut before = std::mem::take(&mut self.watched);
        let followed = |identity: Identity| {
            let handle = before.remove(&identity).flatten();
            (identity, handle.or_else(|| follow(identity, self.wake.clone())))
        };
        let watched: HashMap<_, _> = identities.map(followed).collect();
        let polled = watched.iter().filter(|(_, handle)| handle.is_none());
        *self.polled.lock().unwrap_or_else(PoisonError::into_inner) = polled.map(|(identity, _)| *identity).collect();
        self.watched = watched;
    }
}

/// Wakes at the end of a process, from a task that ends with its handle. `None`: the kernel does not tell.
fn follow(identity: Identity, wake: Wake) -> Option<AbortOnDropHandle<()>> {
    // What replaces this needs unsafe code, for descriptors that may be closed meanwhile; this one is owned.
    #[allow(deprecated)]
    let open = || -> io::Result<AsyncFd<_>> {
        let pid = i32::try_from(identity.pid).ok().and_then(Pid::from_raw);
        let process = pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::NONBLOCK)?;
        AsyncFd::with_interest(process, Interest::READABLE)
    };
    let process = open().ok()?;
    let ended = async move {
        // The number may be another's by now: then this one has ended before anybody could follow it.
        if identity.alive() && process.readable().await.is_err() {
            return;
        }
        wake.now();
    };
    Some(AbortOnDropHandle::new(tokio::spawn(ended)))
}
