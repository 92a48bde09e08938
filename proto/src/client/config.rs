//! Where the controller is and who we are.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use rustls::pki_types::ServerName;
use thiserror::Error;

/// How to reach the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// `https://host:port`; nothing else is taken.
    pub endpoint: String,
    /// Directory of our certificate bundle.
    pub bundle: PathBuf,
    /// Name to look for in the controller's certificate, when it is not the endpoint's host: behind a port forward, say.
    pub server_name: Option<String>,
    /// Longest wait for TCP and TLS together.
    pub connect_timeout: Duration,
    /// Longest wait for a call's answer; of a stream, for its beginning.
    pub request_timeout: Duration,
}

/// An endpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// Plain text.
    #[error("endpoint `{0}` is without TLS, which the controller does not speak: write https://")]
    Plaintext(String),
    /// Anything else.
    #[error("endpoint `{0}` is not of the form https://host:port")]
    Form(String),
    /// The name to look for is none.
    #[error("server name `{0}` is neither a DNS name nor an address")]
    ServerName(String),
}

/// An endpoint taken apart.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) name: ServerName<'static>,
    /// As the request names it.
    pub(super) origin: Uri,
}

impl ClientConfig {
    /// The usual timeouts, and the endpoint's host as the server's name.
    pub fn new(endpoint: impl Into<String>, bundle: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.into(),
            bundle: bundle.into(),
            server_name: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }

    pub(super) fn target(&self) -> Result<Target, EndpointError> {
        let form = || EndpointError::Form(self.endpoint.clone());
        let uri: Uri = self.endpoint.parse().map_err(|_| form())?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") => return Err(EndpointError::Plaintext(self.endpoint.clone())),
            _ => return Err(form()),
        }
        let authority = uri.authority().ok_or_else(form)?;
        let port = authority.port_u16().ok_or_else(form)?;
        // http takes user@host too; we have no use for a user.
        if authority.as_str().contains('@') || uri.path() != "/" || uri.query().is_some() {
            return Err(form());
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = self.server_name.clone().unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name.clone()).map_err(|_| EndpointError::ServerName(name))?;
        Ok(Target {
            host,
            port,
            name,
            origin: uri,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(endpoint: &str) -> Result<Target, EndpointError> {
        ClientConfig::new(endpoint, "x").target()
    }

    #[test]
    fn host_port_and_name_come_from_the_endpoint() {
        let named = target("https://controller.example.org:7443").unwrap();
        assert_eq!((named.host.as_str(), named.port), ("controller.example.org", 7443));
        assert_eq!(named.name.to_str(), "controller.example.org");
        let six = target("https://[::1]:7443/").unwrap();
        assert_eq!((six.host.as_str(), six.name.to_str().as_ref()), ("::1", "::1"));
    }

    #[test]
    fn plaintext_is_refused_and_says_so() {
        let error = target("http://localhost:7443").unwrap_err();
        assert!(error.to_string().contains("write https://"), "{error}");
    }

    #[test]
    fn anything_but_https_host_and_port_is_refused() {
        for endpoint in [
            "",
            "localhost:7443",
            "https://localhost",
            "https://:7443",
            "https://h:7443/x",
            "https://u@h:7443",
            "ftp://h:1",
            "https://h:7443?x",
            "https://h:70000",
            "https://h h:1",
        ] {
            assert!(target(endpoint).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn the_server_name_may_be_given() {
        let mut config = ClientConfig::new("https://127.0.0.1:7443", "x");
        config.server_name = Some("controller".to_owned());
        assert_eq!(config.target().unwrap().name.to_str(), "controller");
        config.server_name = Some("no name".to_owned());
        assert!(matches!(config.target(), Err(EndpointError::ServerName(_))));
    }
}
