//! The controller's journal, read to its end in each quiet period: its numbers have no gap, and it tells of every intent that was
//! answered and of everything that was changed by hand.

use std::time::Duration;

use tokio_stream::StreamExt;
use trunkline_proto::wire::{Event, FollowEventsRequest};

use super::ledger::Told;
use crate::LabError;
use crate::api::Api;

/// A stream that says nothing for so long has come to its end for now.
const SILENCE: Duration = Duration::from_millis(400);
/// Until a stream begins, on a loaded machine.
const BEGIN: Duration = Duration::from_secs(20);

/// How far it was read.
#[derive(Debug, Default)]
pub(super) struct Journal {
    last: u64,
    /// Events that were read in all.
    pub(super) read: usize,
}

impl Journal {
    /// What is new; an error when a number is missing.
    pub(super) fn new_events(&mut self, api: &Api) -> Result<Vec<Event>, String> {
        let events = api.block_on(follow(api, self.last)).map_err(|error| error.chain())?;
        for event in &events {
            if event.sequence != self.last + 1 {
                return Err(format!("the journal goes from {} to {}", self.last, event.sequence));
            }
            self.last = event.sequence;
        }
        self.read += events.len();
        Ok(events)
    }

    /// An export came back: its journal ends where the export was written.
    pub(super) fn restored(&mut self) {
        self.last = 0;
    }
}

async fn follow(api: &Api, after_sequence: u64) -> Result<Vec<Event>, LabError> {
    let failed = |words: String| LabError::Other(format!("the journal cannot be read: {words}"));
    let request = FollowEventsRequest {
        filter: None,
        after_sequence,
    };
    let mut client = api.client().events();
    let answer = tokio::time::timeout(BEGIN, client.follow_events(request)).await;
    let answer = answer.map_err(|_| failed(format!("nothing within {BEGIN:?}")))?;
    let mut stream = answer
        .map_err(|status| failed(status.message().to_owned()))?
        .into_inner();
    let mut events = Vec::new();
    loop {
        match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(event))) => events.push(event),
            Ok(Some(Err(status))) => return Err(failed(status.message().to_owned())),
            Ok(None) | Err(_) => return Ok(events),
        }
    }
}

/// Intents that were answered and that no event tells of.
pub(super) fn untold(told: &[Told], events: &[Event]) -> Vec<String> {
    let tells = |told: &Told| {
        let of_it =
            |event: &&Event| event.revision == told.revision && event.r#type == told.kind && event.slice == told.slice;
        events.iter().any(|event| of_it(&event))
    };
    let lost = told.iter().filter(|told| !tells(told));
    lost.map(|told| format!("the journal does not tell of {told:?}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_without_its_event_is_named() {
        let told = |revision| Told {
            slice: "blue".to_owned(),
            kind: "slice.deployed",
            revision,
        };
        let event = Event {
            r#type: "slice.deployed".to_owned(),
            slice: "blue".to_owned(),
            revision: 4,
            ..Event::default()
        };
        let lost = untold(&[told(4), told(5)], &[event]);
        assert_eq!(lost.len(), 1);
        assert!(lost[0].contains("revision: 5"), "{}", lost[0]);
    }
}
