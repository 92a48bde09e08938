//! `events`.

use std::time::Duration;

use jiff::Timestamp;
use trunkline_proto::{
    client::ApiError,
    wire::{EventFilter, FollowEventsRequest, ListEventsRequest},
};

use crate::{
    args::Events,
    console::Format,
    failure::Failure,
    session::{Session, call},
    view::event::{EventView, event_line},
    wait::passes,
};

/// Largest page that the controller gives.
const PAGE: u32 = 1000;
/// Pause before a lost stream is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(session: &Session, args: &Events) -> Result<(), Failure> {
    let now = Timestamp::now();
    let filter = filter(args, now);
    if args.follow {
        follow(session, filter).await
    } else {
        list(session, filter).await
    }
}

fn filter(args: &Events, now: Timestamp) -> EventFilter {
    // Following shows what is new, unless somebody asks for what was.
    let since = args.since.or(args.follow.then_some(Duration::ZERO));
    let since = since.map(|ago| now.checked_sub(ago).unwrap_or(Timestamp::MIN));
    EventFilter {
        slice: args.slice.clone().unwrap_or_default(),
        node: args.node.clone().unwrap_or_default(),
        vlan: args.vlan.unwrap_or(0),
        since: since.map(|t| prost_types::Timestamp {
            seconds: t.as_second(),
            nanos: t.subsec_nanosecond(),
        }),
    }
}

async fn list(session: &Session, filter: EventFilter) -> Result<(), Failure> {
    let mut views = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListEventsRequest {
            filter: Some(filter.clone()),
            page_size: PAGE,
            page_token: page_token.clone(),
        };
        let page = call!(session, events.list_events(request))?;
        views.extend(page.events.iter().map(EventView::from));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if views.is_empty() && !filter.slice.is_empty() {
        // A slice that is deleted still has events; one that has none must exist.
        session.slice(&filter.slice).await?;
    }
    if views.is_empty() && session.console.format == Format::Table {
        session.console.note("no events");
    }
    session.console.show(&views, || {
        views
            .iter()
            .map(|event| event_line(session.console.paint, event))
            .collect()
    })
}

/// Each event once, across restarts of the controller, until somebody ends it.
async fn follow(session: &Session, filter: EventFilter) -> Result<(), Failure> {
    let console = &session.console;
    let mut after_sequence = 0;
    let mut lost = false;
    loop {
        let request = FollowEventsRequest {
            filter: Some(filter.clone()),
            after_sequence,
        };
        let ended = match session.client.events().follow_events(session.request(request)).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(event)) => {
                            after_sequence = event.sequence;
                            lost = false;
                            let view = EventView::from(&event);
                            console.show_next(&view, || event_line(console.paint, &view))?;
                        }
                        Ok(None) => break tonic::Status::unavailable("the controller ended the stream"),
                        Err(status) => break status,
                    }
                }
            }
        };
        if !passes(&ended) {
            return Err(ended.into());
        }
        if !std::mem::replace(&mut lost, true) {
            console.note(format!(
                "lost the controller, trying again: {}",
                ApiError::from(ended).message
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
