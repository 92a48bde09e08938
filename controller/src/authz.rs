//! Who may call what.
//!
//! One table, [`RULES`], from the full path of a gRPC method to the roles that may call it. A method that is not in the table is denied
//! to everybody, so a new one is closed until somebody decides. What a role may do *within* a method (a node reports for itself only) is the
//! handler's to check, with [`identity`].

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::future::Either;
use http::{Request, Response};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service};
use trunkline_certs::{Identity, Role};

use crate::listener::PeerInfo;

/// `domain` of the google.rpc ErrorInfo.
const DOMAIN: &str = "trunkline";
/// `reason` when the caller's role may not call the method.
pub const REASON_ROLE: &str = "ROLE_NOT_ALLOWED";
/// `reason` when nobody may call it.
pub const REASON_UNLISTED: &str = "METHOD_NOT_LISTED";

const NODES: &[Role] = &[Role::Worker, Role::Netnode];
const READERS: &[Role] = &[Role::Operator, Role::Viewer];
const OPERATORS: &[Role] = &[Role::Operator];
const EVERYBODY: &[Role] = &Role::ALL;

/// Full path of each method, and the roles that may call it.
pub const RULES: &[(&str, &[Role])] = &[
    // The way between controller and node.
    ("/trunkline.v1.NodeService/Sync", NODES),
    // Slices: reads.
    ("/trunkline.v1.SliceService/GetSlice", READERS),
    ("/trunkline.v1.SliceService/ListSlices", READERS),
    ("/trunkline.v1.SliceService/ListRevisions", READERS),
    ("/trunkline.v1.SliceService/GetStatus", READERS),
    // Slices: changes.
    ("/trunkline.v1.SliceService/ApplySlices", OPERATORS),
    ("/trunkline.v1.SliceService/DeleteSlice", OPERATORS),
    ("/trunkline.v1.SliceService/AddVm", OPERATORS),
    ("/trunkline.v1.SliceService/RemoveVm", OPERATORS),
    ("/trunkline.v1.SliceService/MoveVm", OPERATORS),
    ("/trunkline.v1.SliceService/AddLink", OPERATORS),
    ("/trunkline.v1.SliceService/RemoveLink", OPERATORS),
    ("/trunkline.v1.SliceService/DeploySlice", OPERATORS),
    ("/trunkline.v1.SliceService/UndeploySlice", OPERATORS),
    ("/trunkline.v1.SliceService/RollbackSlice", OPERATORS),
    // Nodes.
    ("/trunkline.v1.FleetService/ListNodes", READERS),
    ("/trunkline.v1.FleetService/GetNode", READERS),
    ("/trunkline.v1.FleetService/RemoveNode", OPERATORS),
    ("/trunkline.v1.FleetService/CordonNode", OPERATORS),
    ("/trunkline.v1.FleetService/DrainNode", OPERATORS),
    ("/trunkline.v1.FleetService/DeclareNodeGone", OPERATORS),
    ("/trunkline.v1.FleetService/ConfirmRemovals", OPERATORS),
    // What stops a frame.
    ("/trunkline.v1.ExplainService/Explain", READERS),
    // Watching, and the journal.
    ("/trunkline.v1.WatchService/WatchSlices", READERS),
    ("/trunkline.v1.WatchService/WatchStatus", READERS),
    ("/trunkline.v1.EventService/ListEvents", READERS),
    ("/trunkline.v1.EventService/FollowEvents", READERS),
    // Health is asked by whoever connects.
    ("/grpc.health.v1.Health/Check", EVERYBODY),
    ("/grpc.health.v1.Health/List", EVERYBODY),
    ("/grpc.health.v1.Health/Watch", EVERYBODY),
    // Reflection, both versions in use.
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", READERS),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        READERS,
    ),
];

/// Checks each request against [`RULES`] and puts the caller's [`Identity`] into its extensions.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuthzLayer;

/// The service that [`AuthzLayer`] makes.
#[derive(Clone, Debug)]
pub struct Authz<S> {
    inner: S,
}

/// Who calls.
///
/// # Errors
/// UNAUTHENTICATED when the request did not come through the front door, which is a fault of ours.
pub fn identity<T>(request: &tonic::Request<T>) -> Result<&Identity, Status> {
    request.extensions().get().ok_or_else(unauthenticated)
}

/// Who calls, from where, and how long its certificate lasts.
///
/// # Errors
/// As [`identity`].
pub fn peer<T>(request: &tonic::Request<T>) -> Result<&PeerInfo, Status> {
    request.extensions().get().ok_or_else(unauthenticated)
}

/// Whether `identity` may call the method at `path`.
///
/// # Errors
/// PERMISSION_DENIED with an ErrorInfo that names the roles it takes.
pub fn check(identity: &Identity, path: &str) -> Result<(), Status> {
    let Some((_, allowed)) = RULES.iter().find(|(method, _)| *method == path) else {
        return Err(denied(
            REASON_UNLISTED,
            "there is no such method that anybody may call".to_owned(),
            identity,
            &[],
        ));
    };
    if allowed.contains(&identity.role()) {
        return Ok(());
    }
    let message = format!("{identity} may not call {path}: it takes the role {}", or(allowed));
    Err(denied(REASON_ROLE, message, identity, allowed))
}

impl<S> Layer<S> for AuthzLayer {
    type Service = Authz<S>;

    fn layer(&self, inner: S) -> Authz<S> {
        Authz { inner }
    }
}

impl<S, In, Out> Service<Request<In>> for Authz<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    Out: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<In>) -> Self::Future {
        match admit(&request) {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                Either::Right(self.inner.call(request))
            }
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

fn admit<T>(request: &Request<T>) -> Result<Identity, Status> {
    let peer: &PeerInfo = request.extensions().get().ok_or_else(unauthenticated)?;
    check(&peer.identity, request.uri().path())?;
    Ok(peer.identity.clone())
}

fn unauthenticated() -> Status {
    Status::unauthenticated("the connection has no identity")
}

fn denied(reason: &str, message: String, identity: &Identity, allowed: &[Role]) -> Status {
    let metadata = [
        ("role".to_owned(), identity.role().to_string()),
        ("allowed".to_owned(), list(allowed, ",")),
    ];
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(Code::PermissionDenied, message, details)
}

fn or(roles: &[Role]) -> String {
    list(roles, " or ")
}

fn list(roles: &[Role], between: &str) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests;
