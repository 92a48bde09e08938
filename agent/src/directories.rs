//! Notice of changes in directories: the kernel tells (inotify), we only wake up.
//!
//! One instance for all directories, because a kernel gives a user 128 of them.

use std::{ffi::OsStr, io, path::Path};

use futures::StreamExt;
use inotify::{Inotify, WatchMask, Watches};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Room for a burst; what does not fit is read next.
const BUFFER: usize = 4096;

/// The directories that are looked after.
#[derive(Debug)]
pub struct Directories(Watches);

impl Directories {
    /// Starts the task that reads the notices, until `cancel`. The receiver ticks when a file that `matters` by its name was written,
    /// replaced, moved or deleted in one of the directories, or one of them went itself. Needs a runtime.
    ///
    /// # Errors
    /// When the kernel gives no instance.
    pub fn watch(
        matters: impl Fn(&OsStr) -> bool + Send + 'static,
        cancel: CancellationToken,
    ) -> io::Result<(Self, watch::Receiver<u64>)> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        let mut notices = inotify.into_event_stream(vec![0; BUFFER])?;
        let (sender, receiver) = watch::channel(0_u64);
        tokio::spawn(async move {
            loop {
                let notice = tokio::select! {
                    // Nothing is half done: a notice is only a tick.
                    () = cancel.cancelled() => return,
                    () = sender.closed() => return,
                    notice = notices.next() => notice,
                };
                match notice {
                    Some(Ok(notice)) if notice.name.as_deref().is_some_and(|name| !matters(name)) => {}
                    Some(Ok(_)) => sender.send_modify(|tick| *tick = tick.wrapping_add(1)),
                    Some(Err(error)) => {
                        tracing::warn!(%error, "no more notices of changed files");
                        return;
                    }
                    None => return,
                }
            }
        });
        Ok((Self(watches), receiver))
    }

    /// Looks after a directory from now on; again does no harm, and is needed when it was deleted and made anew.
    ///
    /// # Errors
    /// When it is not there, or the kernel has no room for one more.
    pub fn add(&mut self, directory: &Path) -> io::Result<()> {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::ONLYDIR;
        self.0.add(directory, mask).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn only_a_file_that_matters_is_noticed_however_it_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut directories, mut ticks) =
            Directories::watch(|name| name == "hosts", CancellationToken::new()).unwrap();
        directories.add(dir.path()).unwrap();
        directories.add(dir.path()).unwrap();
        let hosts = dir.path().join("hosts");
        let mut noticed = async |what: &str| {
            timeout(Duration::from_secs(20), ticks.changed())
                .await
                .unwrap_or_else(|_| panic!("{what} was not noticed"))
                .unwrap();
        };
        std::fs::write(&hosts, "one").unwrap();
        noticed("a write").await;
        crate::files::write_atomic(&hosts, b"two", 0o600).unwrap();
        noticed("a replacement").await;
        std::fs::remove_file(&hosts).unwrap();
        noticed("a deletion").await;
        std::fs::write(dir.path().join("leases"), "one").unwrap();
        std::fs::remove_dir_all(dir.path()).unwrap();
        noticed("the end of the directory").await;
        std::fs::create_dir(dir.path()).unwrap();
        directories.add(dir.path()).unwrap();
        std::fs::write(&hosts, "again").unwrap();
        noticed("a write in its heir").await;
    }
}
