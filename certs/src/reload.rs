//! Takes a renewed bundle into use without a restart.
//!
//! Nothing watches the files here: the holder calls [`Reloader::check`] now and then (the controller on a timer, a client before
//! each connection). A check is three `stat` calls while nothing changed. A new bundle is checked before it is used; while it is bad,
//! or half copied, the old one stays.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};

use crate::bundle::{Bundle, CA_FILE, CERT_FILE, KEY_FILE};
use crate::identity::Identity;
use crate::tls::{TlsError, client_config, server_config};

/// Holds the newest good TLS configuration of a bundle's directory.
pub struct Reloader<T> {
    dir: PathBuf,
    build: fn(&Bundle) -> Result<T, TlsError>,
    current: ArcSwap<Loaded<T>>,
    /// Stamps of what was looked at last, good or bad, so that a bad bundle is complained of once.
    seen: Mutex<Option<[Stamp; 3]>>,
}

/// A configuration and the certificate that it was made of.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: Arc<T>,
    /// Who we are.
    pub identity: Identity,
    /// Last second of our certificate's validity.
    pub not_after: SystemTime,
    /// The same as Unix time, for metrics.
    pub not_after_unix: i64,
}

/// Changes when the file is written, replaced, or its mode is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Reloader<ServerConfig> {
    /// Loads the controller's bundle from `dir`.
    ///
    /// # Errors
    /// The bundle is not right: there is no old one to stay with.
    pub fn server(dir: impl Into<PathBuf>) -> Result<Self, TlsError> {
        Self::new(dir.into(), server_config)
    }
}

impl Reloader<ClientConfig> {
    /// Loads a caller's bundle from `dir`.
    ///
    /// # Errors
    /// The bundle is not right: there is no old one to stay with.
    pub fn client(dir: impl Into<PathBuf>) -> Result<Self, TlsError> {
        Self::new(dir.into(), client_config)
    }
}

impl<T> Reloader<T> {
    fn new(dir: PathBuf, build: fn(&Bundle) -> Result<T, TlsError>) -> Result<Self, TlsError> {
        // Stamped before it is read: a change in between is seen by the next check.
        let seen = stamps(&dir).ok();
        let loaded = load(&dir, build)?;
        Ok(Self {
            dir,
            build,
            current: ArcSwap::from_pointee(loaded),
            seen: Mutex::new(seen),
        })
    }

    /// The configuration to use for the next connection.
    pub fn current(&self) -> Arc<Loaded<T>> {
        self.current.load_full()
    }

    /// Reads the bundle again if its files changed. True when a new one is in use from now on. Blocks for a few file reads.
    pub fn check(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.dir).ok();
        if now == *seen {
            return false;
        }
        *seen = now;
        match load(&self.dir, self.build) {
            Ok(new) => self.take(new),
            Err(error) => {
                tracing::error!(bundle = %self.dir.display(), error = %chain(&error), "new certificate refused, the old one stays");
                false
            }
        }
    }

    fn take(&self, new: Loaded<T>) -> bool {
        let old = self.current();
        if new.identity != old.identity {
            // What was started as one node must not become another one under way.
            tracing::error!(bundle = %self.dir.display(), was = %old.identity.uri(), is = %new.identity.uri(),
                "bundle of somebody else refused, the old one stays; restart to become the new one");
            return false;
        }
        tracing::info!(bundle = %self.dir.display(), identity = %new.identity, not_after = new.not_after_unix, "certificate reloaded");
        self.current.store(Arc::new(new));
        true
    }
}

impl<T> std::fmt::Debug for Reloader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

fn load<T>(dir: &Path, build: fn(&Bundle) -> Result<T, TlsError>) -> Result<Loaded<T>, TlsError> {
    let bundle = Bundle::load(dir)?;
    Ok(Loaded {
        config: Arc::new(build(&bundle)?),
        identity: bundle.identity().clone(),
        not_after: bundle.not_after(),
        not_after_unix: bundle.not_after_unix(),
    })
}

fn stamps(dir: &Path) -> io::Result<[Stamp; 3]> {
    let stamp = |file: &str| {
        let metadata = std::fs::metadata(dir.join(file))?;
        io::Result::Ok(Stamp {
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    };
    Ok([stamp(CA_FILE)?, stamp(CERT_FILE)?, stamp(KEY_FILE)?])
}

/// An error with everything under it, for the one line that logs it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
