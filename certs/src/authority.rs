//! The certificate authority: makes the certificates that everything else believes.
//!
//! ```text
//!   ca.pem      its certificate, copied into every bundle
//!   ca.key      its key, 0600; whoever has it can be anybody
//!   issued.txt  serial, last second of validity and holder of every certificate, a line each
//! ```
//!
//! Keys are ECDSA P-256. A controller's certificate is for serving only, everybody else's for calling only, so neither can be used in
//! the other's place even by a program that does not look at the role.

mod files;
mod sign;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use files::FileError;

use crate::bundle::{CA_FILE, CERT_FILE, KEY_FILE};
use crate::certificate::{Certificate, format_time};
use crate::identity::{Identity, IdentityError, Role};

/// The authority's key.
pub const CA_KEY_FILE: &str = "ca.key";
/// The journal of what was issued.
pub const ISSUED_FILE: &str = "issued.txt";
/// Validity of a holder's certificate when nothing else is asked for.
pub const DEFAULT_DAYS: u32 = 365;
/// Longest validity that may be asked for: nobody remembers to renew after that.
pub const MAX_DAYS: u32 = 1825;

/// An authority that can sign.
pub struct Authority {
    dir: PathBuf,
    ca_pem: String,
    trust_domain: String,
    not_after: i64,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// What the holder may do.
    pub role: Role,
    /// The holder's name.
    pub name: String,
    /// DNS names that a controller is called by.
    pub dns: Vec<String>,
    /// Addresses that a controller is called by.
    pub ips: Vec<IpAddr>,
    /// Validity in days, 1 to [`MAX_DAYS`].
    pub days: u32,
}

/// Something an authority could not or would not do.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// Files.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is one already.
    #[error("{} holds an authority already; a new one would make every certificate of the old one worthless", .0.display())]
    Exists(PathBuf),
    /// Another bundle is in the way.
    #[error("{} is there already; `--replace` renews the bundle in it", .0.display())]
    BundleExists(PathBuf),
    /// `--replace` would turn one holder into another.
    #[error("{} is not a bundle of {identity}, so it is not replaced", path.display())]
    NotTheSame {
        /// The directory.
        path: PathBuf,
        /// Who was to be issued.
        identity: Identity,
    },
    /// The trust domain, or the holder's name, does not fit.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A controller must be found by some name.
    #[error("a controller needs the names that others call it by: give at least one --dns or --ip")]
    NoNames,
    /// Only a controller is called.
    #[error("only a controller has --dns and --ip; a {0} is not called by anybody")]
    Names(Role),
    /// Not a DNS name.
    #[error("`{0}` is no DNS name: labels of letters, digits and -, joined by dots")]
    Dns(String),
    /// Validity out of bounds.
    #[error("{0} days: a certificate is valid for 1 to {MAX_DAYS} days")]
    Days(u32),
    /// It would outlive the authority.
    #[error("the authority itself ends on {}, before the certificate would: give fewer --days, or make a new authority", format_time(*.0))]
    Outlives(i64),
    /// ca.pem or ca.key is not what it should be.
    #[error("{} is not usable: {what}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// ca.pem is not PEM.
    #[error("{} is not usable", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// Signing failed.
    #[error("the certificate could not be made")]
    Sign(#[from] rcgen::Error),
    /// No random numbers.
    #[error("the system gave no random numbers for a serial")]
    Random,
}

impl Authority {
    /// Makes a new authority in `dir`, which must not exist or be empty: all of it or nothing.
    ///
    /// # Errors
    /// `dir` is in use, or the trust domain is no lower-case DNS name.
    pub fn create(dir: &Path, trust_domain: &str) -> Result<Self, AuthorityError> {
        // A name is needed to check a trust domain; which one does not matter.
        Identity::new(trust_domain, Role::Controller, "x")?;
        if dir.join(CA_FILE).exists() || dir.join(CA_KEY_FILE).exists() {
            return Err(AuthorityError::Exists(dir.to_owned()));
        }
        let (certificate, key) = sign::root(trust_domain, SystemTime::now())?;
        let (ca_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        files::create_dir(dir, &[(CA_FILE, &ca_pem), (CA_KEY_FILE, &key_pem), (ISSUED_FILE, "")])?;
        Self::open(dir)
    }

    /// Opens the authority in `dir`.
    ///
    /// # Errors
    /// It is not there, or its files are not right.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let (ca_path, key_path) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
        let ca_pem = files::read(&ca_path)?;
        let broken = |path: &Path, what| AuthorityError::Broken {
            path: path.to_owned(),
            what,
        };

        let key = KeyPair::from_pem(&files::read(&key_path)?)
            .map_err(|_| broken(&key_path, "it holds no private key in PEM"))?;
        let der = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|source| AuthorityError::Pem {
            path: ca_path.clone(),
            source,
        })?;
        let (_, x509) = X509Certificate::from_der(&der).map_err(|_| broken(&ca_path, "it holds no certificate"))?;
        if x509.public_key().raw != key.subject_public_key_info() {
            return Err(broken(&key_path, "it does not fit ca.pem"));
        }
        let trust_domain = sign::trust_domain(&x509).ok_or_else(|| broken(&ca_path, "it names no trust domain"))?;
        let not_after = x509.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self {
            dir: dir.to_owned(),
            ca_pem,
            trust_domain,
            not_after,
            issuer,
        })
    }

    /// The trust domain that it signs for.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Last second of the authority's own validity, Unix time.
    pub fn not_after_unix(&self) -> i64 {
        self.not_after
    }

    /// Issues a certificate with a new key as a bundle in `out`, which must not exist or be empty.
    ///
    /// # Errors
    /// The leaf is not right, or `out` is in use.
    pub fn issue(&self, leaf: &Leaf, out: &Path) -> Result<Certificate, AuthorityError> {
        if out.join(CERT_FILE).exists() || out.join(KEY_FILE).exists() {
            return Err(AuthorityError::BundleExists(out.to_owned()));
        }
        self.write(leaf, |files| files::create_dir(out, files))
    }

    /// Issues a certificate with a new key in place of the bundle in `out`, of the same holder. A running program takes it into use.
    ///
    /// # Errors
    /// The leaf is not right, or `out` holds no bundle of the same holder.
    pub fn renew(&self, leaf: &Leaf, out: &Path) -> Result<Certificate, AuthorityError> {
        let identity = Identity::new(&self.trust_domain, leaf.role, &leaf.name)?;
        let old = files::read(&out.join(CERT_FILE))?;
        let same = CertificateDer::from_pem_slice(old.as_bytes())
            .ok()
            .and_then(|der| Certificate::from_der(&der).ok())
            .is_some_and(|certificate| certificate.identity == identity);
        if !same {
            return Err(AuthorityError::NotTheSame {
                path: out.to_owned(),
                identity,
            });
        }
        self.write(leaf, |files| files::replace(out, files))
    }

    fn write(
        &self,
        leaf: &Leaf,
        put: impl FnOnce(&[(&str, &str)]) -> Result<(), FileError>,
    ) -> Result<Certificate, AuthorityError> {
        let now = SystemTime::now();
        let identity = self.check(leaf, now)?;
        let signed = sign::leaf(&self.issuer, &identity, leaf, now)?;
        let facts = Certificate::from_der(signed.certificate.der()).map_err(|_| AuthorityError::Broken {
            path: self.dir.clone(),
            what: "it signed an unreadable certificate",
        })?;
        let (cert_pem, key_pem) = (signed.certificate.pem(), signed.key.serialize_pem());
        // Journalled first: a certificate that nobody has is harmless, one that nobody knows of is not.
        let line = format!("{} {} {}\n", facts.serial, facts.not_after, facts.identity.uri());
        files::append(&self.dir.join(ISSUED_FILE), &line)?;
        put(&[(CA_FILE, &self.ca_pem), (KEY_FILE, &key_pem), (CERT_FILE, &cert_pem)])?;
        Ok(facts)
    }

    fn check(&self, leaf: &Leaf, now: SystemTime) -> Result<Identity, AuthorityError> {
        let identity = Identity::new(&self.trust_domain, leaf.role, &leaf.name)?;
        let named = !leaf.dns.is_empty() || !leaf.ips.is_empty();
        match leaf.role {
            Role::Controller if !named => return Err(AuthorityError::NoNames),
            Role::Controller => {}
            other if named => return Err(AuthorityError::Names(other)),
            _ => {}
        }
        if let Some(bad) = leaf.dns.iter().find(|name| !is_dns(name)) {
            return Err(AuthorityError::Dns(bad.escape_default().take(64).collect()));
        }
        if !(1..=MAX_DAYS).contains(&leaf.days) {
            return Err(AuthorityError::Days(leaf.days));
        }
        if sign::unix(now) + sign::days(leaf.days) > self.not_after {
            return Err(AuthorityError::Outlives(self.not_after));
        }
        Ok(identity)
    }
}

/// Never prints the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("dir", &self.dir)
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

fn is_dns(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
impl Authority {
    /// Signs what `issue` would not: any usage, any trust domain, as if at another time.
    pub(crate) fn issue_odd(
        &self,
        identity: &Identity,
        leaf: &Leaf,
        usage: rcgen::ExtendedKeyUsagePurpose,
        now: SystemTime,
        out: &Path,
    ) -> Result<(), AuthorityError> {
        let signed = sign::leaf_for(&self.issuer, identity, leaf, usage, now)?;
        let (cert_pem, key_pem) = (signed.certificate.pem(), signed.key.serialize_pem());
        Ok(files::create_dir(
            out,
            &[(CA_FILE, &self.ca_pem), (KEY_FILE, &key_pem), (CERT_FILE, &cert_pem)],
        )?)
    }
}

#[cfg(test)]
mod tests;
