//! A controller that answers what a test told it to, behind real mutual TLS.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use trunkline_certs::{
    Bundle, Role,
    authority::{Authority, Leaf},
    server_config,
};
use trunkline_proto::wire::{
    self, event_service_server::EventService, explain_service_server::ExplainService,
    fleet_service_server::FleetService, slice_service_server::SliceService, watch_service_server::WatchService,
};

type Answer<T> = Result<Response<T>, Status>;
type Flow<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the controller is to say, and what it was asked.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) slices: Vec<wire::Slice>,
    /// What is deployed of those whose draft differs.
    pub(crate) deployed: Vec<wire::Slice>,
    pub(crate) nodes: Vec<wire::Node>,
    pub(crate) status: wire::GetStatusResponse,
    pub(crate) events: Vec<wire::Event>,
    /// What is between any two.
    pub(crate) explained: wire::ExplainResponse,
    pub(crate) revisions: Vec<wire::Deployment>,
    pub(crate) apply: wire::ApplySlicesResponse,
    /// What every mutation fails with.
    pub(crate) refuse: Option<Status>,
    /// UNAVAILABLE for this many mutations first, each of which was done all the same.
    pub(crate) lose_answers: usize,
    /// One status stream each: a stream ends when another one is to come, and stays open otherwise.
    pub(crate) watches: VecDeque<Vec<wire::GetStatusResponse>>,
    /// When no stream is left: refuse for good, so that a watch ends.
    pub(crate) end_watches: bool,
    /// (what, request id, traceparent) of every mutation.
    pub(crate) asked: Vec<(String, String, String)>,
    pub(crate) applied: Vec<wire::ApplySlicesRequest>,
    pub(crate) links: Vec<wire::LinkSpec>,
    pub(crate) vms: Vec<wire::VmSpec>,
    /// Of every node.
    pub(crate) orphans: Vec<wire::Orphan>,
    pub(crate) held: Option<wire::HeldRemovals>,
}

#[derive(Clone, Default)]
struct Controller(Arc<Mutex<Script>>);

/// A running controller with bundles for people.
pub(crate) struct Fake {
    script: Arc<Mutex<Script>>,
    pub(crate) address: SocketAddr,
    pub(crate) directory: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(crate) async fn start(script: Script) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(&directory.path().join("ca"), "trunkline.test").unwrap();
        let issue = |role, name: &str, ips: &[&str]| {
            let leaf = Leaf {
                role,
                name: name.to_owned(),
                dns: vec![],
                ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
                days: 1,
            };
            authority.issue(&leaf, &directory.path().join(name)).unwrap();
        };
        issue(Role::Controller, "controller", &["127.0.0.1"]);
        issue(Role::Operator, "alice", &[]);
        let other = Authority::create(&directory.path().join("other-ca"), "trunkline.test").unwrap();
        let stranger = Leaf {
            role: Role::Operator,
            name: "mallory".to_owned(),
            dns: vec![],
            ips: vec![],
            days: 1,
        };
        other.issue(&stranger, &directory.path().join("mallory")).unwrap();

        let bundle = Bundle::load(&directory.path().join("controller")).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&bundle).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let controller = Controller(Arc::new(Mutex::new(script)));
        let script = controller.0.clone();
        let server = tonic::transport::Server::builder()
            .add_service(wire::slice_service_server::SliceServiceServer::new(controller.clone()))
            .add_service(wire::fleet_service_server::FleetServiceServer::new(controller.clone()))
            .add_service(wire::watch_service_server::WatchServiceServer::new(controller.clone()))
            .add_service(wire::explain_service_server::ExplainServiceServer::new(
                controller.clone(),
            ))
            .add_service(wire::event_service_server::EventServiceServer::new(controller))
            .serve_with_incoming(incoming(listener, acceptor));
        let server = tokio::spawn(async move { server.await.unwrap() });
        Self {
            script,
            address,
            directory,
            server,
        }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

/// Connections that shook hands; the others are dropped.
fn incoming(listener: TcpListener, acceptor: TlsAcceptor) -> impl Stream<Item = std::io::Result<TlsStream<TcpStream>>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = sender.send(Ok(stream)).await;
                }
            });
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

impl Controller {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    /// Notes a mutation, and answers it as the script says.
    fn mutate<M, T>(
        &self,
        request: &Request<M>,
        what: String,
        id: &str,
        answer: impl FnOnce(&mut Script) -> T,
    ) -> Answer<T> {
        let traceparent = request
            .metadata()
            .get("traceparent")
            .map(|v| v.to_str().unwrap().to_owned());
        let mut script = self.script();
        script
            .asked
            .push((what, id.to_owned(), traceparent.unwrap_or_default()));
        if let Some(status) = &script.refuse {
            return Err(status.clone());
        }
        let answer = answer(&mut script);
        if script.lose_answers > 0 {
            script.lose_answers -= 1;
            return Err(Status::unavailable("the answer was lost"));
        }
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl SliceService for Controller {
    async fn apply_slices(&self, request: Request<wire::ApplySlicesRequest>) -> Answer<wire::ApplySlicesResponse> {
        let m = request.get_ref().clone();
        self.mutate(&request, "apply".to_owned(), &m.request_id.clone(), |s| {
            s.applied.push(m);
            s.apply.clone()
        })
    }

    async fn get_slice(&self, request: Request<wire::GetSliceRequest>) -> Answer<wire::Slice> {
        let wire::GetSliceRequest { name, deployed, .. } = request.into_inner();
        let script = self.script();
        let of = if deployed { &script.deployed } else { &script.slices };
        let found = of.iter().find(|s| s.name == name).cloned();
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("there is no slice {name}")))
    }

    async fn list_slices(&self, request: Request<wire::ListSlicesRequest>) -> Answer<wire::ListSlicesResponse> {
        // A page each, so that paging is used.
        let at: usize = request.into_inner().page_token.parse().unwrap_or(0);
        let slices = &self.script().slices;
        let next = if at + 1 < slices.len() {
            (at + 1).to_string()
        } else {
            String::new()
        };
        Ok(Response::new(wire::ListSlicesResponse {
            slices: slices.get(at).cloned().into_iter().collect(),
            next_page_token: next,
            revision: 1,
        }))
    }

    async fn delete_slice(&self, request: Request<wire::DeleteSliceRequest>) -> Answer<wire::DeleteSliceResponse> {
        let m = request.get_ref();
        self.mutate(&request, format!("delete {}", m.name), &m.request_id, |_| {
            wire::DeleteSliceResponse {
                revision: 9,
                term: 1,
                generation: 6,
            }
        })
    }

    async fn add_vm(&self, request: Request<wire::AddVmRequest>) -> Answer<wire::AddVmResponse> {
        let m = request.get_ref().clone();
        self.mutate(&request, format!("add vm to {}", m.slice), &m.request_id.clone(), |s| {
            s.vms.extend(m.vm);
            wire::AddVmResponse {
                revision: 9,
                vm: s.slices[0].vms.first().cloned(),
            }
        })
    }

    async fn remove_vm(&self, request: Request<wire::RemoveVmRequest>) -> Answer<wire::RemoveVmResponse> {
        let m = request.get_ref();
        let what = format!("remove vm {}/{}", m.slice, m.name);
        self.mutate(&request, what, &m.request_id, |_| wire::RemoveVmResponse {
            revision: 9,
        })
    }

    async fn move_vm(&self, request: Request<wire::MoveVmRequest>) -> Answer<wire::MoveVmResponse> {
        let m = request.get_ref();
        let what = format!(
            "move vm {}/{} to {} at {}",
            m.slice, m.name, m.worker, m.expected_revision
        );
        self.mutate(&request, what, &m.request_id, |_| wire::MoveVmResponse {
            revision: 9,
            vm: None,
        })
    }

    async fn add_link(&self, request: Request<wire::AddLinkRequest>) -> Answer<wire::AddLinkResponse> {
        let m = request.get_ref().clone();
        self.mutate(
            &request,
            format!("add link to {}", m.slice),
            &m.request_id.clone(),
            |s| {
                s.links.extend(m.link);
                wire::AddLinkResponse {
                    revision: 9,
                    link: s.slices[0].links.first().cloned(),
                }
            },
        )
    }

    async fn remove_link(&self, request: Request<wire::RemoveLinkRequest>) -> Answer<wire::RemoveLinkResponse> {
        let m = request.get_ref();
        let what = format!("remove link {}/{}", m.slice, m.name);
        self.mutate(&request, what, &m.request_id, |_| wire::RemoveLinkResponse {
            revision: 9,
        })
    }

    async fn deploy_slice(&self, request: Request<wire::DeploySliceRequest>) -> Answer<wire::DeploySliceResponse> {
        let m = request.get_ref();
        let what = match m.expected_revision {
            0 => format!("deploy {}", m.name),
            at => format!("deploy {} at {at}", m.name),
        };
        self.mutate(&request, what, &m.request_id, |_| wire::DeploySliceResponse {
            revision: 9,
            number: 3,
            term: 1,
            generation: 5,
        })
    }

    async fn undeploy_slice(
        &self,
        request: Request<wire::UndeploySliceRequest>,
    ) -> Answer<wire::UndeploySliceResponse> {
        let m = request.get_ref();
        self.mutate(&request, format!("undeploy {}", m.name), &m.request_id, |_| {
            wire::UndeploySliceResponse {
                revision: 9,
                term: 1,
                generation: 6,
            }
        })
    }

    async fn rollback_slice(
        &self,
        request: Request<wire::RollbackSliceRequest>,
    ) -> Answer<wire::RollbackSliceResponse> {
        let m = request.get_ref();
        let what = format!("rollback {} to {}", m.name, m.number);
        self.mutate(&request, what, &m.request_id, |_| wire::RollbackSliceResponse {
            revision: 9,
            number: 4,
            term: 1,
            generation: 7,
            renumbered: vec!["link web-eth1--db-eth1: VLAN 110 is taken, 111 is new".to_owned()],
        })
    }

    async fn list_revisions(&self, _: Request<wire::ListRevisionsRequest>) -> Answer<wire::ListRevisionsResponse> {
        Ok(Response::new(wire::ListRevisionsResponse {
            revisions: self.script().revisions.clone(),
            next_page_token: String::new(),
        }))
    }

    async fn get_status(&self, _: Request<wire::GetStatusRequest>) -> Answer<wire::GetStatusResponse> {
        Ok(Response::new(self.script().status.clone()))
    }
}

#[tonic::async_trait]
impl FleetService for Controller {
    async fn cordon_node(&self, request: Request<wire::CordonNodeRequest>) -> Answer<wire::CordonNodeResponse> {
        let m = request.get_ref();
        let what = format!("cordon {} {}", m.name, m.cordoned);
        self.mutate(&request, what, &m.request_id, |_| wire::CordonNodeResponse {
            revision: 9,
        })
    }

    async fn drain_node(&self, request: Request<wire::DrainNodeRequest>) -> Answer<wire::DrainNodeResponse> {
        let m = request.get_ref().clone();
        let what = format!("drain {} onto {:?}", m.name, m.onto);
        let moved = wire::MovedVm {
            slice: "shop".to_owned(),
            vm: "web".to_owned(),
            from: m.name,
            to: if m.onto.is_empty() { "w3".to_owned() } else { m.onto },
        };
        self.mutate(&request, what, &request.get_ref().request_id, |_| {
            wire::DrainNodeResponse {
                revision: 9,
                moved: vec![moved],
                term: 1,
                generation: 5,
            }
        })
    }

    async fn declare_node_gone(
        &self,
        request: Request<wire::DeclareNodeGoneRequest>,
    ) -> Answer<wire::DeclareNodeGoneResponse> {
        let m = request.get_ref();
        self.mutate(&request, format!("gone {}", m.name), &m.request_id, |_| {
            wire::DeclareNodeGoneResponse { revision: 9 }
        })
    }

    async fn confirm_removals(
        &self,
        request: Request<wire::ConfirmRemovalsRequest>,
    ) -> Answer<wire::ConfirmRemovalsResponse> {
        let m = request.get_ref();
        let what = format!(
            "confirm {} at {}/{} with leftovers {}",
            m.name, m.term, m.generation, m.leftovers
        );
        self.mutate(&request, what, &m.request_id, |s| wire::ConfirmRemovalsResponse {
            confirmed: s.held.as_ref().map_or(0, |held| held.total),
        })
    }

    async fn list_nodes(&self, _: Request<wire::ListNodesRequest>) -> Answer<wire::ListNodesResponse> {
        Ok(Response::new(wire::ListNodesResponse {
            nodes: self.script().nodes.clone(),
            next_page_token: String::new(),
        }))
    }

    async fn get_node(&self, request: Request<wire::GetNodeRequest>) -> Answer<wire::GetNodeResponse> {
        let name = request.into_inner().name;
        let script = self.script();
        let node = script.nodes.iter().find(|n| n.name == name).cloned();
        let node = node.ok_or_else(|| Status::not_found(format!("there is no node {name}")))?;
        let all = script.status.slices.iter();
        let links = all.clone().flat_map(|s| &s.links).flat_map(|l| &l.resources);
        let vms = all.flat_map(|s| &s.vms).flat_map(|v| &v.resources);
        let key = wire::ResourceKey {
            kind: 42,
            name: "mirror1".to_owned(),
        };
        Ok(Response::new(wire::GetNodeResponse {
            node: Some(node),
            resources: links.chain(vms).filter(|r| r.node == name).cloned().collect(),
            refused: vec![wire::Refusal {
                key: Some(key),
                hash: vec![],
                reason: "kind 42 is not known to this version of the node's program; upgrade it".to_owned(),
            }],
            orphans: script.orphans.clone(),
            held_removals: script.held.clone(),
        }))
    }

    async fn remove_node(&self, request: Request<wire::RemoveNodeRequest>) -> Answer<wire::RemoveNodeResponse> {
        let m = request.get_ref();
        self.mutate(&request, format!("remove node {}", m.name), &m.request_id, |_| {
            wire::RemoveNodeResponse { revision: 9 }
        })
    }
}

#[tonic::async_trait]
impl WatchService for Controller {
    type WatchSlicesStream = Flow<wire::WatchSlicesResponse>;
    type WatchStatusStream = Flow<wire::WatchStatusResponse>;

    async fn watch_slices(&self, _: Request<wire::WatchSlicesRequest>) -> Answer<Self::WatchSlicesStream> {
        Err(Status::unimplemented("no command needs it"))
    }

    async fn watch_status(&self, _: Request<wire::WatchStatusRequest>) -> Answer<Self::WatchStatusStream> {
        let mut script = self.script();
        let (said, last) = match script.watches.pop_front() {
            Some(said) => (said, script.watches.is_empty() && !script.end_watches),
            None if script.end_watches => return Err(Status::permission_denied("that is enough for a test")),
            None => return Err(Status::unavailable("no stream is left")),
        };
        let said = said
            .into_iter()
            .map(|status| Ok(wire::WatchStatusResponse { status: Some(status) }));
        let said = tokio_stream::iter(said);
        Ok(Response::new(if last {
            Box::pin(said.chain(tokio_stream::pending()))
        } else {
            Box::pin(said)
        }))
    }
}

#[tonic::async_trait]
impl ExplainService for Controller {
    async fn explain(&self, request: Request<wire::ExplainRequest>) -> Answer<wire::ExplainResponse> {
        let wire::ExplainRequest { from, to } = request.into_inner();
        let script = self.script();
        match &script.refuse {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(wire::ExplainResponse {
                from: format!("shop/{from}"),
                to: if to == "internet" { to } else { format!("shop/{to}") },
                ..script.explained.clone()
            })),
        }
    }
}

#[tonic::async_trait]
impl EventService for Controller {
    type FollowEventsStream = Flow<wire::Event>;

    async fn list_events(&self, _: Request<wire::ListEventsRequest>) -> Answer<wire::ListEventsResponse> {
        Ok(Response::new(wire::ListEventsResponse {
            events: self.script().events.clone(),
            next_page_token: String::new(),
        }))
    }

    async fn follow_events(&self, request: Request<wire::FollowEventsRequest>) -> Answer<Self::FollowEventsStream> {
        // Two events, then the stream is lost; asked again from there, the rest.
        let after = request.into_inner().after_sequence;
        let events: Vec<_> = self
            .script()
            .events
            .iter()
            .filter(|e| e.sequence > after)
            .cloned()
            .collect();
        let lost = after == 0;
        let most = if lost { 2 } else { events.len() };
        let said = tokio_stream::iter(events.into_iter().take(most).map(Ok));
        let end: Flow<wire::Event> = match lost {
            true => Box::pin(tokio_stream::once(Err(Status::unavailable("the controller stops")))),
            false => Box::pin(tokio_stream::once(Err(Status::permission_denied(
                "that is enough for a test",
            )))),
        };
        Ok(Response::new(Box::pin(said.chain(end))))
    }
}
