//! Which TAPs are shut for the host's own stack: those of ours, while the bridge has the userspace datapath.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::watch;

use super::{Worker, links};
use crate::{
    ingress::{self, Ingress, Taps},
    netlink,
    node::NodeContext,
    switch::{BridgeSpec, Datapath, Observed},
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
    pub(super) fn shut_ingress(&mut self, observed: &Observed) -> BTreeMap<String, &'static str> {
        let taps = to_shut(&self.base.bridge, observed);
        self.ingress.settle(&taps)
    }

    /// TAPs whose frames the host's stack hears, and why.
    pub(super) fn heard(&self, observed: &Observed) -> BTreeMap<String, String> {
        let heard = |(name, _): (String, u32)| {
            let reason = self.ingress.problem(&name)?;
            Some((name, reason))
        };
        to_shut(&self.base.bridge, observed)
            .into_iter()
            .filter_map(heard)
            .collect()
    }
}

/// None on the kernel's datapath: there a chain would stop the switch.
fn to_shut(bridge: &BridgeSpec, observed: &Observed) -> Taps {
    let datapath = observed.bridges.get(&bridge.name).map(|held| &*held.datapath);
    if datapath.unwrap_or(bridge.datapath.as_str()) != Datapath::Netdev.as_str() {
        return Taps::new();
    }
    let ours = links(observed).filter(|link| tap::is_tap(link));
    ours.map(|link| (link.name.clone(), link.index)).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        netlink::Link,
        switch::{Device, FailMode, ObservedBridge},
    };

    #[test]
    fn our_taps_are_shut_on_the_userspace_datapath_only() {
        let device = |name: &str, alias: &str| {
            let link = Link {
                index: 7,
                name: name.to_owned(),
                kind: Some("tun".to_owned()),
                alias: Some(alias.to_owned()),
                ..Link::default()
            };
            let device = Device {
                link,
                ..Device::default()
            };
            (name.to_owned(), device)
        };
        let bridge = |datapath| BridgeSpec {
            name: "br-int".to_owned(),
            datapath,
            adopt: true,
            fail_mode: FailMode::Secure,
        };
        let observed = |held: Option<&str>| {
            let held = held.map(|datapath| ObservedBridge {
                id: Uuid::nil(),
                datapath: datapath.to_owned(),
                fail_mode: "secure".to_owned(),
                external_ids: BTreeMap::new(),
            });
            Observed {
                bridges: held.map(|held| ("br-int".to_owned(), held)).into_iter().collect(),
                devices: [device("tap_1_eth1", tap::ALIAS), device("tap_2_eth1", "theirs")].into(),
                ..Observed::default()
            }
        };
        let shut = Taps::from([("tap_1_eth1".to_owned(), 7)]);
        assert_eq!(to_shut(&bridge(Datapath::Netdev), &observed(None)), shut);
        assert_eq!(to_shut(&bridge(Datapath::System), &observed(None)), Taps::new());
        // An adopted bridge keeps its datapath, whatever a new one would have.
        assert_eq!(to_shut(&bridge(Datapath::System), &observed(Some("netdev"))), shut);
        assert_eq!(
            to_shut(&bridge(Datapath::Netdev), &observed(Some("system"))),
            Taps::new()
        );
    }
}
