//! A connection to the controller, and the reads that several commands need.

use tonic::{Request, metadata::MetadataValue};
use trunkline_proto::{
    client::{Client, ClientConfig, new_request_id},
    daemon::telemetry,
    wire,
};

use crate::{args::Global, console::Console, failure::Failure};

/// Largest page that the controller gives.
const PAGE: u32 = 1000;

/// A command's connection.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) console: Console,
    /// W3C trace context for when nobody traces here: the controller and the nodes then still trace under one id.
    traceparent: String,
}

/// Calls a method by a clone of the message for each attempt. For reads and for what carries a `request_id` only.
macro_rules! call {
    ($session:expr, $service:ident.$method:ident($message:expr)) => {{
        let (session, message) = (&*$session, $message);
        let attempt = || {
            let (mut service, request) = (session.client.$service(), session.request(message.clone()));
            async move { service.$method(request).await }
        };
        let answer = trunkline_proto::client::retry(attempt).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err($crate::failure::Failure::from)
    }};
}
pub(crate) use call;

impl Session {
    /// Connects, and makes sure that the controller takes our certificate.
    pub(crate) async fn open(global: &Global, console: &Console) -> Result<Self, Failure> {
        let Some(bundle) = &global.bundle else {
            return Err(Failure::Usage {
                what: "no certificate bundle is given".to_owned(),
                instead: "--bundle (or TRUNKLINE_BUNDLE) names the directory that `trunkline-certs issue` made for you"
                    .to_owned(),
            });
        };
        let mut config = ClientConfig::new(&global.controller, bundle);
        config.server_name.clone_from(&global.server_name);
        Ok(Self {
            client: Client::connect(config).await?,
            console: console.clone(),
            traceparent: new_traceparent(),
        })
    }

    /// A request with a trace context; that of the current span, if there is one, takes its place in the client.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Ok(value) = MetadataValue::try_from(&self.traceparent)
            && telemetry::current_traceparent().is_empty()
        {
            request.metadata_mut().insert("traceparent", value);
        }
        request
    }

    /// One slice, with its draft.
    pub(crate) async fn slice(&self, name: &str) -> Result<wire::Slice, Failure> {
        let request = wire::GetSliceRequest {
            name: name.to_owned(),
            ..wire::GetSliceRequest::default()
        };
        call!(self, slices.get_slice(request))
    }

    /// One slice, as it is deployed.
    pub(crate) async fn deployed_slice(&self, name: &str) -> Result<wire::Slice, Failure> {
        let request = wire::GetSliceRequest {
            name: name.to_owned(),
            deployed: true,
            ..wire::GetSliceRequest::default()
        };
        call!(self, slices.get_slice(request))
    }

    /// All slices, or the named one.
    pub(crate) async fn slices(&self, only: Option<&str>) -> Result<Vec<wire::Slice>, Failure> {
        if let Some(name) = only {
            return Ok(vec![self.slice(name).await?]);
        }
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = call!(
                self,
                slices.list_slices(wire::ListSlicesRequest {
                    page_size: PAGE,
                    page_token: page_token.clone()
                })
            )?;
            all.extend(page.slices);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }

    /// All nodes.
    pub(crate) async fn nodes(&self) -> Result<Vec<wire::Node>, Failure> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = call!(
                self,
                fleet.list_nodes(wire::ListNodesRequest {
                    page_size: PAGE,
                    page_token: page_token.clone()
                })
            )?;
            all.extend(page.nodes);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }
}

/// A new trace, `00-<trace>-<span>-01`: a UUID's random bits are as good as any.
fn new_traceparent() -> String {
    let hex = |id: String| id.replace('-', "");
    let (trace, span) = (hex(new_request_id()), hex(new_request_id()));
    format!("00-{trace}-{}-01", span.get(..16).unwrap_or("0000000000000001"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_has_the_form_that_w3c_gives_it() {
        let text = new_traceparent();
        let parts: Vec<_> = text.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2], "{text}");
        assert!(text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()));
    }
}
