//! Which TAPs are shut for the host's own stack: those of ours, while the bridge has the userspace datapath.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::watch;

use super::{Worker, links};
use crate::{
    ingress::{self, Ingress, Taps},
    netlink,
    node::NodeContext,
    switch::{Datapath, Observed},
    tap,
};

/// What wakes the loop when somebody changes the table.
pub(super) fn watched(cx: &NodeContext, every: Duration) -> Ingress {
    let changes = match netlink::watch_table(ingress::TABLE, cx.cancel.clone()) {
        Ok(changes) => changes,
        Err(error) => {
            tracing::warn!(
                error = crate::chain(&error),
                "nobody tells of changes of nftables; they are looked for"
            );
            watch::channel(0).1
        }
    };
    cx.wake.follow(changes.clone());
    Ingress::new(changes, every)
}

impl Worker {
    /// Answers the TAPs that were found open, and how. Those that are waiting to be removed are shut as well: they may still be in the
    /// switch.
    pub(super) async fn shut_ingress(&mut self, observed: &Observed) -> BTreeMap<String, &'static str> {
        let taps = self.to_shut(observed);
        self.ingress.settle(&taps).await
    }

    /// TAPs whose frames the host's stack hears, and why.
    pub(super) fn heard(&self, observed: &Observed) -> BTreeMap<String, String> {
        let heard = |(name, _): (String, u32)| {
            let reason = self.ingress.problem(&name)?;
            Some((name, reason))
        };
        self.to_shut(observed).into_iter().filter_map(heard).collect()
    }

    fn to_shut(&self, observed: &Observed) -> Taps {
        let bridge = &self.base.bridge;
        let datapath = observed.bridges.get(&bridge.name).map(|held| &*held.datapath);
        if datapath.unwrap_or(bridge.datapath.as_str()) != Datapath::Netdev.as_str() {
            return Taps::new();
        }
        let ours = links(observed).filter(|link| tap::is_tap(link));
        ours.map(|link| (link.name.clone(), link.index)).collect()
    }
}
