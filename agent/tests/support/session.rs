//! One node's stream, in the test's hands.

use super::*;

/// One stream, in the test's hands.
pub struct Session {
    pub(super) incoming: Streaming<NodeMessage>,
    pub(super) outgoing: mpsc::Sender<Result<ControllerMessage, Status>>,
}

impl Session {
    /// Counts heartbeats until there were so many.
    pub async fn heartbeats(&mut self, count: usize) {
        let mut seen = 0;
        while seen < count {
            let message = timeout(SOON, self.incoming.message())
                .await
                .expect("no message came in time");
            let message = message.unwrap().expect("the node ended the stream").message;
            seen += usize::from(matches!(message, Some(FromNode::Heartbeat(_))));
            self.send(ToNode::Heartbeat(trunkline_proto::wire::Heartbeat {})).await;
        }
    }

    /// The next message that is no heartbeat; `None` when the node has ended the stream.
    pub async fn try_next(&mut self) -> Option<FromNode> {
        self.try_next_within(SOON).await
    }

    async fn try_next_within(&mut self, limit: Duration) -> Option<FromNode> {
        loop {
            let message = timeout(limit, self.incoming.message())
                .await
                .expect("no message came in time");
            match message {
                Ok(Some(NodeMessage {
                    message: Some(FromNode::Heartbeat(_)),
                })) => {}
                Ok(Some(NodeMessage { message })) => return Some(message.expect("an empty message")),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    pub async fn next(&mut self) -> FromNode {
        self.try_next().await.expect("the node ended the stream")
    }

    pub async fn hello(&mut self) -> Hello {
        match self.next().await {
            FromNode::Hello(hello) => hello,
            other => panic!("hello expected, got {other:?}"),
        }
    }

    /// The next Ack; reports before it are dropped.
    pub async fn ack(&mut self) -> Ack {
        loop {
            match self.next().await {
                FromNode::Ack(ack) => return ack,
                FromNode::Report(_) => {}
                other => panic!("ack expected, got {other:?}"),
            }
        }
    }

    pub async fn report(&mut self) -> Report {
        match self.next().await {
            FromNode::Report(report) => report,
            other => panic!("report expected, got {other:?}"),
        }
    }

    /// Collects reports until `enough` says so of the newest state of each resource.
    pub async fn reports_until(&mut self, enough: impl FnMut(&Seen) -> bool) -> Seen {
        self.reports_within(SOON, enough).await
    }

    pub async fn reports_within(&mut self, limit: Duration, mut enough: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = Seen::default();
        let collected = timeout(limit, async {
            while !enough(&seen) {
                match self.try_next_within(limit * 2).await {
                    Some(FromNode::Report(report)) => seen.take(report),
                    Some(FromNode::Ack(_)) => {}
                    other => panic!("report expected, got {other:?}"),
                }
            }
        });
        if collected.await.is_err() {
            panic!("not seen in time; this was: {seen:#?}");
        }
        seen
    }

    pub async fn send(&self, message: ToNode) {
        let message = ControllerMessage { message: Some(message) };
        self.outgoing.send(Ok(message)).await.expect("the node is gone");
    }

    pub async fn welcome(&self) {
        self.welcome_with(CLUSTER, 60_000).await;
    }

    pub async fn welcome_with(&self, cluster: &str, heartbeat_ms: u32) {
        self.send(ToNode::Welcome(Welcome {
            cluster_id: cluster.to_owned(),
            term: 1,
            heartbeat_ms,
        }))
        .await;
    }

    pub async fn ask_inventory(&self) {
        self.send(ToNode::InventoryRequest(InventoryRequest {})).await;
    }

    pub async fn update(&self, update: Update) {
        self.send(ToNode::Update(update)).await;
    }

    /// `leftovers`: as they were told.
    pub async fn confirm(&self, term: u64, generation: u64, leftovers: &str) {
        let leftovers = leftovers.to_owned();
        self.send(ToNode::Confirm(Confirm {
            term,
            generation,
            leftovers,
        }))
        .await;
    }

    /// True when the node ends the stream before it acknowledges anything.
    pub async fn ends_without_ack(&mut self) -> bool {
        loop {
            match self.try_next().await {
                None => return true,
                Some(FromNode::Ack(_)) => return false,
                Some(_) => {}
            }
        }
    }
}

/// The newest of each resource, by key.
#[derive(Debug, Default)]
pub struct Seen {
    pub items: BTreeMap<String, trunkline_proto::resource::Observation>,
    pub complete: bool,
    pub clean_generation: u64,
    pub reports: usize,
    /// Key and words.
    pub repairs: Vec<(String, String)>,
    /// Seconds since 1970 of the last one.
    pub repaired_at: Option<(i64, i32)>,
    /// Of the last report that asked for one.
    pub receipt: u64,
    /// Kind and name, as told last.
    pub orphans: Option<Vec<String>>,
    /// As told last.
    pub held_removals: Option<HeldRemovals>,
}

impl Seen {
    pub fn take(&mut self, report: Report) {
        self.reports += 1;
        self.complete |= report.complete;
        self.receipt = self.receipt.max(report.receipt);
        self.clean_generation = self.clean_generation.max(report.clean_generation);
        for repair in report.repairs {
            self.repaired_at = repair.at.map(|at| (at.seconds, at.nanos));
            assert!(repair.at.is_some());
            let key = Key::try_from(repair.key.unwrap()).unwrap();
            self.repairs.push((key.to_string(), repair.what));
        }
        if let Some(Orphans { orphans }) = report.orphans {
            assert!(orphans.iter().all(|orphan| orphan.since.is_some()));
            self.orphans = Some(orphans.into_iter().map(|o| format!("{} {}", o.kind, o.name)).collect());
        }
        self.held_removals = report.held_removals.or(self.held_removals.take());
        for item in report.items {
            let observation: trunkline_proto::resource::Observation = item.try_into().unwrap();
            self.items.insert(observation.key.to_string(), observation);
        }
    }

    pub fn is_repaired(&self, key: &str, what: &str) -> bool {
        self.repairs.iter().any(|(of, words)| of == key && words.contains(what))
    }

    pub fn state(&self, key: &str) -> Option<State> {
        self.items.get(key).map(|o| o.state)
    }

    pub fn is_ready(&self, envelope: &Envelope) -> bool {
        self.items
            .get(&envelope.key.to_string())
            .is_some_and(|o| o.hash == envelope.hash && o.state == State::Ready)
    }
}
