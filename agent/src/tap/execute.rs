//! Carries out a plan of TAPs, in batches. Makes no choices.

use std::collections::BTreeMap;

use futures::future::join_all;
use trunkline_proto::daemon::failpoint;

use super::{ALIAS, Correction, Plan};
use crate::netlink::{Error, Handle, LinkChange, TapRequest};

/// First half: makes and corrects. Returns the failures by name; their siblings are done.
pub async fn create_and_correct(plan: &Plan, netlink: &Handle) -> BTreeMap<String, Error> {
    let Plan {
        create,
        correct,
        remove: _,
        conflicts: _,
    } = plan;
    let requests: Vec<TapRequest> = create
        .iter()
        .map(|tap| TapRequest {
            name: tap.name.clone(),
            alias: ALIAS.to_owned(),
            mtu: tap.mtu,
        })
        .collect();
    failpoint::reach("tap.before-batch");
    let created = netlink.create_taps(&requests).await;
    let created = requests.into_iter().map(|request| request.name).zip(created);

    let corrections = correct.iter().map(|Correction { index, tap }| async move {
        let change = LinkChange {
            mtu: Some(tap.mtu),
            up: Some(true),
            ..LinkChange::default()
        };
        (tap.name.clone(), netlink.change(*index, &change).await)
    });
    let corrected = join_all(corrections).await;
    failpoint::reach("tap.after-batch");

    created
        .chain(corrected)
        .filter_map(|(name, result)| Some((name, result.err()?)))
        .collect()
}

/// Second half: removes. To be called when the ports have left the switch.
///
/// # Errors
/// As [`Handle::delete_many`].
pub async fn remove(plan: &Plan, netlink: &Handle) -> Result<(), Error> {
    let indexes: Vec<u32> = plan.remove.iter().map(|(_, index)| *index).collect();
    failpoint::reach("tap.before-removal");
    let removed = netlink.delete_many(&indexes).await;
    failpoint::reach("tap.after-removal");
    removed
}
