//! What we read of a certificate: who holds it, how long it lasts, which addresses it stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::identity::{Identity, IdentityError};

/// The facts of one certificate.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Who holds it.
    pub identity: Identity,
    /// First second of its validity, Unix time.
    pub not_before: i64,
    /// Last second of its validity, Unix time.
    pub not_after: i64,
    /// DNS names of the server.
    pub dns: Vec<String>,
    /// Addresses of the server.
    pub ips: Vec<IpAddr>,
    /// Serial number in hexadecimal.
    pub serial: String,
}

/// A certificate that we cannot use.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// Not PEM.
    #[error("no certificate in PEM")]
    Pem(#[source] pem::Error),
    /// Not DER, or not X.509.
    #[error("not a readable X.509 certificate")]
    Unreadable,
    /// None or several URIs.
    #[error("has {0} URIs as alternative names; exactly one must say who holds it")]
    Uris(usize),
    /// The URI names nobody.
    #[error("its URI names nobody")]
    Identity(#[source] IdentityError),
}

impl Certificate {
    /// Reads a certificate in DER. Signature and validity are not looked at.
    ///
    /// # Errors
    /// It is unreadable, or does not carry exactly one URI with an identity.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| CertificateError::Unreadable)?;
        if !rest.is_empty() {
            return Err(CertificateError::Unreadable);
        }
        let names = x509
            .subject_alternative_name()
            .map_err(|_| CertificateError::Unreadable)?;
        let (mut uris, mut dns, mut ips) = (Vec::new(), Vec::new(), Vec::new());
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => ips.push(address(bytes).ok_or(CertificateError::Unreadable)?),
                _ => {}
            }
        }
        let [uri] = uris[..] else {
            return Err(CertificateError::Uris(uris.len()));
        };
        Ok(Self {
            identity: Identity::from_uri(uri).map_err(CertificateError::Identity)?,
            not_before: x509.validity().not_before.timestamp(),
            not_after: x509.validity().not_after.timestamp(),
            dns,
            ips,
            serial: x509.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// There is none, or it is not one of ours.
    pub fn from_pem_file(path: &Path) -> Result<Self, CertificateError> {
        let der = CertificateDer::from_pem_file(path).map_err(CertificateError::Pem)?;
        Self::from_der(&der)
    }

    /// Last second of its validity.
    pub fn expires(&self) -> SystemTime {
        let seconds = u64::try_from(self.not_after).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }
}

/// A Unix time for people, in UTC.
pub fn format_time(unix: i64) -> String {
    ASN1Time::from_timestamp(unix)
        .ok()
        .and_then(|time| time.to_rfc2822().ok())
        .unwrap_or_else(|| format!("second {unix}"))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|sixteen| Ipv6Addr::from(sixteen).into())
}
