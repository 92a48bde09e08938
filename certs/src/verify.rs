//! Checks of the other side's certificate: webpki's, and then who it is.
//!
//! A certificate of our authority is not enough. A server must be a controller, or any worker could stand in for it; a client must
//! be somebody of the same trust domain.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use thiserror::Error as ThisError;

use crate::certificate::Certificate;
use crate::identity::{Identity, Role};

/// Why a certificate of a right chain was refused.
#[derive(Debug, ThisError)]
pub(crate) enum PeerError {
    #[error("the certificate does not say who holds it")]
    Unknown(#[source] crate::CertificateError),
    #[error("the certificate of {0} is of trust domain `{1}`, ours is `{2}`")]
    TrustDomain(Identity, String, String),
    #[error("the server is {0}, not a controller")]
    NotController(Identity),
}

/// The one crypto provider.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Accepts only a controller of our trust domain, by the name it was called by.
#[derive(Debug)]
pub(crate) struct ControllerVerifier {
    inner: Arc<WebPkiServerVerifier>,
    trust_domain: String,
}

/// Accepts only somebody of our trust domain.
#[derive(Debug)]
pub(crate) struct MemberVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl ControllerVerifier {
    pub(crate) fn new(roots: Arc<RootCertStore>, trust_domain: &str) -> Result<Self, Error> {
        Ok(Self {
            inner: server_verifier(roots)?,
            trust_domain: trust_domain.to_owned(),
        })
    }
}

impl MemberVerifier {
    pub(crate) fn new(roots: Arc<RootCertStore>, trust_domain: &str) -> Result<Self, Error> {
        Ok(Self {
            inner: client_verifier(roots)?,
            trust_domain: trust_domain.to_owned(),
        })
    }
}

impl ServerCertVerifier for ControllerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let identity = member(end_entity, &self.trust_domain).map_err(refused)?;
        if identity.role() == Role::Controller {
            Ok(verified)
        } else {
            Err(refused(PeerError::NotController(identity)))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        member(end_entity, &self.trust_domain).map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Checks our own chain as the other side will: a server's by its first name, a client's for client use.
pub(crate) fn own_chain(
    chain: &[CertificateDer<'static>],
    certificate: &Certificate,
    roots: &Arc<RootCertStore>,
) -> Result<(), Error> {
    let Some((leaf, between)) = chain.split_first() else {
        return Err(Error::NoCertificatesPresented);
    };
    let now = UnixTime::now();
    if certificate.identity.role() != Role::Controller {
        return client_verifier(roots.clone())?
            .verify_client_cert(leaf, between, now)
            .map(drop);
    }
    let name = match (certificate.dns.first(), certificate.ips.first()) {
        (Some(dns), _) => ServerName::try_from(dns.clone()).map_err(|_| CertificateError::BadEncoding)?,
        (None, Some(ip)) => ServerName::from(*ip),
        (None, None) => return Err(CertificateError::NotValidForName.into()),
    };
    server_verifier(roots.clone())?
        .verify_server_cert(leaf, between, &name, &[], now)
        .map(drop)
}

fn member(end_entity: &[u8], trust_domain: &str) -> Result<Identity, PeerError> {
    let identity = Certificate::from_der(end_entity).map_err(PeerError::Unknown)?.identity;
    if identity.trust_domain() == trust_domain {
        return Ok(identity);
    }
    let theirs = identity.trust_domain().to_owned();
    Err(PeerError::TrustDomain(identity, theirs, trust_domain.to_owned()))
}

fn refused(error: PeerError) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

fn server_verifier(roots: Arc<RootCertStore>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|e| Error::General(e.to_string()))
}

fn client_verifier(roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|e| Error::General(e.to_string()))
}
