//! The bridge's flows as it tells of them itself: all of them when the connection begins, then each change, our own too (by the
//! number that we gave it). Reading them costs nothing, however many there are.

use std::sync::Arc;

use tokio::sync::watch;

use super::Error;
use super::codec::Update;
use super::flow::Rules;

/// What the bridge has told so far.
#[derive(Debug, Clone, Default)]
struct Told {
    flows: Arc<Rules>,
    /// All of the beginning has come.
    whole: bool,
    /// It has fallen behind, and will tell of what changed meanwhile.
    paused: bool,
}

/// Shared by the connection's task, which writes, and whoever wants to know.
#[derive(Debug, Clone)]
pub(super) struct Mirror(watch::Sender<Told>);

impl Default for Mirror {
    fn default() -> Self {
        Self(watch::Sender::new(Told::default()))
    }
}

impl Mirror {
    /// A connection begins or ends: nothing is known.
    pub(super) fn clear(&self) {
        self.0.send_replace(Told::default());
    }

    /// Takes a part of the beginning, or changes.
    pub(super) fn take(&self, updates: Vec<Update>) {
        self.0.send_modify(|told| {
            for update in updates {
                match update {
                    Update::There(flow) => {
                        Arc::make_mut(&mut told.flows).insert(flow.rule, (flow.cookie, flow.actions));
                    }
                    Update::Gone(rule) => {
                        Arc::make_mut(&mut told.flows).remove(&rule);
                    }
                    // Whoever hands it on says which change that was.
                    Update::Ours(_) => {}
                    Update::Paused => told.paused = true,
                    Update::Resumed => told.paused = false,
                }
            }
        });
    }

    /// The beginning is over.
    pub(super) fn whole(&self) {
        self.0.send_modify(|told| told.whole = true);
    }

    /// All flows, once the bridge has told all that it had to tell.
    pub(super) async fn flows(&self) -> Result<Arc<Rules>, Error> {
        let mut told = self.0.subscribe();
        let told = told.wait_for(|told| !told.paused).await;
        match told {
            Ok(told) if told.whole => Ok(Arc::clone(&told.flows)),
            Ok(_) | Err(_) => Err(Error::ConnectionLost),
        }
    }
}
