//! A node that is only a session: it holds what it is told and says what the test wants.

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use trunkline_certs::Role;
use trunkline_proto::{
    Digest, Hash,
    client::Client,
    resource::Key,
    wire::{self, controller_message::Message as Down, node_message::Message as Up},
};

use super::{Controller, DEADLINE};

/// What survives a session.
#[derive(Debug, Clone)]
pub struct Disk {
    pub name: String,
    pub role: Role,
    pub instance: String,
    pub cluster_id: String,
    pub term: u64,
    pub generation: u64,
    pub held: BTreeMap<Key, wire::Resource>,
}

impl Disk {
    pub fn worker(name: &str) -> Self {
        Self::new(name, Role::Worker)
    }

    pub fn netnode(name: &str) -> Self {
        Self::new(name, Role::Netnode)
    }

    fn new(name: &str, role: Role) -> Self {
        Self {
            name: name.into(),
            role,
            instance: format!("{name}-1"),
            cluster_id: String::new(),
            term: 0,
            generation: 0,
            held: BTreeMap::new(),
        }
    }

    pub fn digest(&self) -> Digest {
        let hash = |resource: &wire::Resource| Hash::try_from(&resource.hash[..]).unwrap();
        Digest::of(self.held.iter().map(|(key, resource)| (key, hash(resource))))
    }

    pub fn hello(&self) -> wire::Hello {
        let role = if self.role == Role::Netnode {
            wire::NodeRole::Netnode
        } else {
            wire::NodeRole::Worker
        };
        wire::Hello {
            node: self.name.clone(),
            role: role.into(),
            cluster_id: self.cluster_id.clone(),
            term: self.term,
            generation: self.generation,
            digest: self.digest().to_vec(),
            instance_id: self.instance.clone(),
            facts: Some(wire::NodeFacts {
                version: "test".into(),
                ..wire::NodeFacts::default()
            }),
            traceparent: String::new(),
        }
    }
}

pub struct Node {
    pub disk: Disk,
    out: mpsc::Sender<wire::NodeMessage>,
    inbound: Streaming<wire::ControllerMessage>,
    beats: JoinHandle<()>,
    _client: Client,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

impl Node {
    /// Says hello, or what the controller answered instead of a welcome.
    pub async fn connect(controller: &Controller, disk: Disk) -> Result<Self, Status> {
        let hello = disk.hello();
        Self::connect_saying(controller, disk, hello).await
    }

    pub async fn connect_saying(controller: &Controller, disk: Disk, hello: wire::Hello) -> Result<Self, Status> {
        let client = controller.client(disk.role, &disk.name).await;
        let (out, outbound) = mpsc::channel(64);
        out.send(message(Up::Hello(hello))).await.unwrap();
        let mut inbound = client.node().sync(ReceiverStream::new(outbound)).await?.into_inner();
        let first = timeout(DEADLINE, inbound.message())
            .await
            .expect("no answer to hello")?;
        let Some(Down::Welcome(welcome)) = first.and_then(|m| m.message) else {
            panic!("no welcome")
        };
        let beats = tokio::spawn(beat(
            out.clone(),
            Duration::from_millis(u64::from(welcome.heartbeat_ms)),
        ));
        Ok(Self {
            disk,
            out,
            inbound,
            beats,
            _client: client,
        })
    }

    /// Connects and takes whatever it is given at the start.
    pub async fn up(controller: &Controller, disk: Disk) -> Self {
        let mut node = Self::connect(controller, disk).await.unwrap();
        node.take().await;
        node
    }

    pub async fn send(&self, up: Up) {
        self.out.send(message(up)).await.expect("the session is open");
    }

    /// Stops saying that it lives.
    pub fn fall_silent(&self) {
        self.beats.abort();
    }

    /// The next message that is no heartbeat.
    pub async fn next(&mut self) -> Result<Option<Down>, Status> {
        let next = async {
            loop {
                match self.inbound.message().await?.and_then(|m| m.message) {
                    Some(Down::Heartbeat(_)) => {}
                    other => return Ok(other),
                }
            }
        };
        timeout(DEADLINE, next).await.expect("the controller says nothing")
    }

    /// The next message, which must be a heartbeat.
    pub async fn expect_heartbeat(&mut self) {
        let next = timeout(DEADLINE, self.inbound.message())
            .await
            .expect("not even a heartbeat")
            .unwrap();
        match next.and_then(|m| m.message) {
            Some(Down::Heartbeat(_)) => {}
            other => panic!("{other:?} came"),
        }
    }

    /// Nothing but heartbeats come, of which three are waited for.
    pub async fn expect_nothing(&mut self) {
        for _ in 0..3 {
            self.expect_heartbeat().await;
        }
    }

    pub async fn update(&mut self) -> wire::Update {
        let mut whole = wire::Update::default();
        loop {
            match self.next().await.expect("the session is open") {
                Some(Down::Update(part)) => {
                    let wire::Update {
                        upserts,
                        removals,
                        last,
                        ..
                    } = part.clone();
                    let (mut all_upserts, mut all_removals) = (whole.upserts, whole.removals);
                    all_upserts.extend(upserts);
                    all_removals.extend(removals);
                    whole = wire::Update {
                        upserts: all_upserts,
                        removals: all_removals,
                        ..part
                    };
                    if last {
                        return whole;
                    }
                }
                Some(Down::InventoryRequest(_)) => self.send_inventory().await,
                other => panic!("{other:?} came instead of an update"),
            }
        }
    }

    async fn send_inventory(&self) {
        let entry = |(key, resource): (&Key, &wire::Resource)| wire::Held {
            key: Some(key.into()),
            hash: resource.hash.clone(),
        };
        let held = self.disk.held.iter().map(entry).collect();
        self.send(Up::Inventory(wire::Inventory { held, last: true })).await;
    }

    /// Makes an update its own, as a node's inbox does.
    pub fn apply(&mut self, update: &wire::Update) {
        assert_eq!(
            update.base_generation, self.disk.generation,
            "the base is what the node said last"
        );
        for key in &update.removals {
            let key = Key::try_from(key.clone()).unwrap();
            assert!(self.disk.held.remove(&key).is_some(), "{key} was never held");
        }
        for resource in &update.upserts {
            let key = wire::ResourceKey {
                kind: resource.kind,
                name: resource.name.clone(),
            };
            let old = self.disk.held.insert(Key::try_from(key).unwrap(), resource.clone());
            assert!(
                old.is_none_or(|old| old.hash != resource.hash),
                "{} was sent again unchanged",
                resource.name
            );
        }
        self.disk.cluster_id = update.cluster_id.clone();
        assert!(
            (update.term, update.generation) > (self.disk.term, self.disk.generation),
            "order only rises"
        );
        (self.disk.term, self.disk.generation) = (update.term, update.generation);
        assert_eq!(self.disk.digest().to_vec(), update.digest, "the digest comes out");
    }

    pub async fn ack(&self, refused: Vec<wire::Refusal>) {
        let (term, generation) = (self.disk.term, self.disk.generation);
        self.send(Up::Ack(wire::Ack {
            term,
            generation,
            refused,
            held_removals: 0,
        }))
        .await;
    }

    /// Takes the next update and acknowledges it.
    pub async fn take(&mut self) -> wire::Update {
        let update = self.update().await;
        self.apply(&update);
        self.ack(Vec::new()).await;
        update
    }

    /// Says that everything is as it should be, and nothing else is left.
    pub async fn report_ready(&self) {
        let items = self.disk.held.iter().map(|(key, resource)| wire::Observation {
            key: Some(key.into()),
            hash: resource.hash.clone(),
            state: wire::State::Ready.into(),
            ..wire::Observation::default()
        });
        let (clean_term, clean_generation) = (self.disk.term, self.disk.generation);
        self.send(Up::Report(wire::Report {
            items: items.collect(),
            complete: true,
            clean_term,
            clean_generation,
            seen_term: clean_term,
            seen_generation: clean_generation,
            ..wire::Report::default()
        }))
        .await;
    }
}

async fn beat(out: mpsc::Sender<wire::NodeMessage>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if out.send(message(Up::Heartbeat(wire::Heartbeat {}))).await.is_err() {
            return;
        }
    }
}

fn message(up: Up) -> wire::NodeMessage {
    wire::NodeMessage { message: Some(up) }
}
