//! A node that is only a stream: it takes what it is given and says so. It makes nothing true.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use trunkline_certs::Role;
use trunkline_integration::LabError;
use trunkline_proto::client::Client;
use trunkline_proto::wire::{self, controller_message::Message as Down, node_message::Message as Up};

use crate::controller::{Controller, other};

const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What a node keeps between its sessions.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    role: Role,
    name: String,
    cluster_id: String,
    term: u64,
    generation: u64,
    digest: Vec<u8>,
    resources: BTreeMap<(i32, String), Vec<u8>>,
}

impl Held {
    /// Of a node that never held anything.
    pub(crate) fn nothing(role: Role, name: &str) -> Self {
        Self {
            role,
            name: name.to_owned(),
            cluster_id: String::new(),
            term: 0,
            generation: 0,
            digest: vec![0; 16],
            resources: BTreeMap::new(),
        }
    }

    fn hello(&self) -> wire::Hello {
        let role = match self.role {
            Role::Netnode => wire::NodeRole::Netnode,
            _ => wire::NodeRole::Worker,
        };
        wire::Hello {
            node: self.name.clone(),
            role: role.into(),
            cluster_id: self.cluster_id.clone(),
            term: self.term,
            generation: self.generation,
            digest: self.digest.clone(),
            instance_id: self.name.clone(),
            facts: Some(wire::NodeFacts::default()),
            traceparent: String::new(),
        }
    }

    fn take(&mut self, part: wire::Update) {
        for key in part.removals {
            self.resources.remove(&(key.kind, key.name));
        }
        for resource in part.upserts {
            self.resources.insert((resource.kind, resource.name), resource.hash);
        }
        if part.last {
            self.cluster_id = part.cluster_id;
            (self.term, self.generation, self.digest) = (part.term, part.generation, part.digest);
        }
    }

    fn inventory(&self) -> wire::Inventory {
        let held = self.resources.iter().map(|((kind, name), hash)| wire::Held {
            key: Some(wire::ResourceKey {
                kind: *kind,
                name: name.clone(),
            }),
            hash: hash.clone(),
        });
        wire::Inventory {
            held: held.collect(),
            last: true,
        }
    }
}

/// A session.
pub(crate) struct Node {
    /// What it holds.
    pub(crate) held: Held,
    /// Resources that it was sent, removals that it was asked for, and inventories.
    pub(crate) operations: u64,
    out: mpsc::Sender<wire::NodeMessage>,
    inbound: Streaming<wire::ControllerMessage>,
    _client: Client,
}

impl Node {
    /// Says hello and is welcomed.
    pub(crate) async fn connect(controller: &Controller, held: Held) -> Result<Self, LabError> {
        let client = controller.client(held.role, &held.name, &controller.endpoint())?;
        let (out, outbound) = mpsc::channel(8);
        let hello = Up::Hello(held.hello());
        // The receiver is ours still.
        let _ = out.send(wire::NodeMessage { message: Some(hello) }).await;
        let opened = client.node().sync(ReceiverStream::new(outbound)).await;
        let mut node = Self {
            held,
            operations: 0,
            out,
            inbound: opened.map_err(other)?.into_inner(),
            _client: client,
        };
        match node.next().await? {
            Down::Welcome(_) => Ok(node),
            said => Err(LabError::Other(format!("no welcome but {said:?}"))),
        }
    }

    /// Takes what comes until the controller has nothing to say but that it lives, and each node then holds what it should: a
    /// heartbeat comes after whatever was to be sent at once.
    pub(crate) async fn settle(&mut self) -> Result<(), LabError> {
        loop {
            if let Down::Heartbeat(_) = self.serve().await? {
                return Ok(());
            }
        }
    }

    /// Takes the next message, and answers it.
    pub(crate) async fn serve(&mut self) -> Result<Down, LabError> {
        let message = self.next().await?;
        match &message {
            Down::Update(part) => {
                self.operations += part.upserts.len() as u64 + part.removals.len() as u64;
                self.held.take(part.clone());
                if part.last {
                    let (term, generation) = (part.term, part.generation);
                    let ack = wire::Ack {
                        term,
                        generation,
                        ..wire::Ack::default()
                    };
                    self.say(Up::Ack(ack)).await?;
                }
            }
            Down::InventoryRequest(_) => {
                self.operations += 1;
                self.say(Up::Inventory(self.held.inventory())).await?;
            }
            Down::Heartbeat(_) => self.say(Up::Heartbeat(wire::Heartbeat {})).await?,
            Down::Welcome(_) | Down::Confirm(_) | Down::Receipt(_) => {}
        }
        Ok(message)
    }

    async fn next(&mut self) -> Result<Down, LabError> {
        let message = tokio::time::timeout(ANSWER_LIMIT, self.inbound.message()).await;
        let message = message.map_err(|_| LabError::Other("the controller says nothing".to_owned()))?;
        let message = message.map_err(other)?.and_then(|message| message.message);
        message.ok_or_else(|| LabError::Other("the controller ended the session".to_owned()))
    }

    async fn say(&self, up: Up) -> Result<(), LabError> {
        let said = self.out.send(wire::NodeMessage { message: Some(up) }).await;
        said.map_err(|_| LabError::Other("the session is over".to_owned()))
    }
}
