//! `EventService`: the journal.

use std::{pin::Pin, sync::Arc};

use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};

use tonic::{Request, Response, Status};
use trunkline_proto::{
    Invalid, Name, VlanId,
    daemon::Lifecycle,
    wire::{self, event_service_server::EventService},
};

use super::{call::Call, errors, page};
use crate::{core::Core, journal::Filter, model::Timestamp};

/// Entries read at a time for a follower.
const BATCH: usize = 100;

/// The service.
pub(super) struct Events {
    pub(super) core: Arc<Core>,
    pub(super) life: Lifecycle,
}

#[tonic::async_trait]
impl EventService for Events {
    type FollowEventsStream = Pin<Box<dyn Stream<Item = Result<wire::Event, Status>> + Send>>;

    async fn list_events(
        &self,
        request: Request<wire::ListEventsRequest>,
    ) -> Result<Response<wire::ListEventsResponse>, Status> {
        let call = Call::new("ListEvents", &request)?;
        call.run(&self.core, async {
            let wire::ListEventsRequest {
                filter,
                page_size,
                page_token,
            } = request.into_inner();
            let (filter, most) = (parse(filter)?, page::size(page_size)?);
            let after = match page::from_token(&page_token)?.map(|sequence| sequence.parse::<u64>()) {
                None => 0,
                Some(Ok(sequence)) => sequence,
                Some(Err(_)) => {
                    return Err(errors::field(
                        "page_token",
                        "send the next_page_token of the page before",
                    ));
                }
            };
            let (entries, next) = self.core.journal().read(&filter, after, most);
            let events = entries.iter().map(|entry| wire::Event::from(entry.as_ref())).collect();
            let next_page_token = next
                .map(|sequence| page::token(&sequence.to_string()))
                .unwrap_or_default();
            Ok(wire::ListEventsResponse {
                events,
                next_page_token,
            })
        })
        .await
    }

    async fn follow_events(
        &self,
        request: Request<wire::FollowEventsRequest>,
    ) -> Result<Response<Self::FollowEventsStream>, Status> {
        let call = Call::new("FollowEvents", &request)?;
        call.run(&self.core, async {
            let wire::FollowEventsRequest { filter, after_sequence } = request.into_inner();
            let filter = parse(filter)?;
            let (out, stream) = mpsc::channel(BATCH);
            self.life.spawn(follow(self.core.clone(), filter, after_sequence, out));
            Ok(Box::pin(ReceiverStream::new(stream)) as Self::FollowEventsStream)
        })
        .await
    }
}

/// A reader that is too slow for the journal's bound misses what was dropped, and sees it by the gap in the numbers.
async fn follow(core: Arc<Core>, filter: Filter, mut after: u64, out: mpsc::Sender<Result<wire::Event, Status>>) {
    let mut last = core.journal().watch();
    loop {
        let newest = *last.borrow_and_update();
        loop {
            let (entries, next) = core.journal().read(&filter, after, BATCH);
            for entry in entries {
                after = entry.sequence;
                let sent = tokio::select! {
                    sent = out.send(Ok(entry.as_ref().into())) => sent,
                    // Who does not read must not hold up our end.
                    () = core.stopping().cancelled() => return,
                };
                if sent.is_err() {
                    return;
                }
            }
            if next.is_none() {
                break;
            }
        }
        after = after.max(newest);
        // Every arm may be cancelled: a change that comes meanwhile is still unseen.
        tokio::select! {
            () = core.stopping().cancelled() => {
                let _ = out.try_send(Err(errors::of_core(crate::core::CoreError::Stopping)));
                return;
            }
            () = out.closed() => return,
            Ok(()) = last.changed() => {}
        }
    }
}

fn parse(filter: Option<wire::EventFilter>) -> Result<Filter, Status> {
    let wire::EventFilter {
        slice,
        node,
        vlan,
        since,
    } = filter.unwrap_or_default();
    for (field, name) in [("filter.slice", &slice), ("filter.node", &node)] {
        if !name.is_empty() {
            name.parse::<Name>()
                .map_err(|error: Invalid| errors::field(field, error.to_string()))?;
        }
    }
    if vlan != 0 {
        VlanId::try_from(vlan).map_err(|error| errors::field("filter.vlan", error.to_string()))?;
    }
    let since = since.map(|time| {
        let millis = time
            .seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(time.nanos) / 1_000_000);
        Timestamp::from_millis(millis)
    });
    Ok(Filter {
        slice,
        node,
        vlan,
        since,
    })
}
