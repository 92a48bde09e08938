//! The probe that makes sure of a connection: one call of grpc.health.v1, which every role may make.

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::Service;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// An empty service name asks for the server as a whole.
#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Succeeds when the controller answers, whatever it answers: it has looked at our certificate then.
pub(super) async fn probe(service: Service) -> Result<(), Status> {
    let mut grpc = Grpc::new(service);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<CheckRequest, CheckResponse>::default();
    let path = PathAndQuery::from_static(CHECK);
    match grpc.unary(Request::new(CheckRequest::default()), path, codec).await {
        Ok(_) => Ok(()),
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::NotFound) => Ok(()),
        Err(status) => Err(status),
    }
}
