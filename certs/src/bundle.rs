//! A bundle: the directory that makes a program or person somebody.
//!
//! ```text
//!   ca.pem    the authority's certificate
//!   cert.pem  the holder's certificate, then any between it and the authority
//!   key.pem   the holder's key, 0600
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::certificate::{Certificate, CertificateError, format_time};
use crate::identity::Identity;
use crate::verify;

/// File of the authority's certificate.
pub const CA_FILE: &str = "ca.pem";
/// File of the holder's certificate.
pub const CERT_FILE: &str = "cert.pem";
/// File of the holder's key.
pub const KEY_FILE: &str = "key.pem";
/// Far above any bundle; keeps a wrong path from being read whole.
const FILE_MAX: u64 = 256 * 1024;

/// A bundle that was read and found right: the key fits, the authority signed it, it is valid now.
pub struct Bundle {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: Arc<RootCertStore>,
    certificate: Certificate,
}

/// A bundle that cannot be used. Every text says what to do.
#[derive(Debug, Error)]
pub enum BundleError {
    /// A file is missing or unreadable.
    #[error("cannot read {}: is this the directory that `trunkline-certs issue --out` made?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of absurd size.
    #[error("{} is too large for a certificate or a key: is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Others can read the key.
    #[error("{path} has mode {mode:04o}, so others may read the key: run `chmod 600 {path}`, and issue it anew if somebody did", path = path.display())]
    KeyExposed {
        /// The key.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// No PEM of the right kind.
    #[error("{} holds no {what} in PEM: issue the bundle again", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// Why.
        #[source]
        source: Option<pem::Error>,
    },
    /// The certificate says nobody, or cannot be read.
    #[error("{} is no certificate of ours: issue it with `trunkline-certs issue`", path.display())]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// Key and certificate are of two pairs.
    #[error("the key does not fit the certificate in {}: copy cert.pem and key.pem from the same `trunkline-certs issue`", dir.display())]
    KeyMismatch {
        /// The bundle.
        dir: PathBuf,
        /// Why.
        #[source]
        source: Box<rustls::Error>,
    },
    /// Past its end.
    #[error("the certificate of {identity} expired on {}: issue a new one with `trunkline-certs issue --replace`", format_time(*.not_after))]
    Expired {
        /// Holder.
        identity: Identity,
        /// Its end, Unix time.
        not_after: i64,
    },
    /// Before its beginning.
    #[error("the certificate of {identity} is valid only from {}: is this machine's clock right?", format_time(*.not_before))]
    NotYetValid {
        /// Holder.
        identity: Identity,
        /// Its beginning, Unix time.
        not_before: i64,
    },
    /// The authority did not sign it, or not for this use.
    #[error("the certificate of {identity} does not stand up to ca.pem in {}: take ca.pem and cert.pem from the same authority", dir.display())]
    Chain {
        /// The bundle.
        dir: PathBuf,
        /// Holder.
        identity: Identity,
        /// Why.
        #[source]
        source: Box<rustls::Error>,
    },
}

impl Bundle {
    /// Reads and checks the bundle in `dir`.
    ///
    /// # Errors
    /// Anything about it is not right; see [`BundleError`].
    pub fn load(dir: &Path) -> Result<Self, BundleError> {
        refuse_exposed(&dir.join(KEY_FILE))?;
        let bundle = Self::read(dir)?;
        CertifiedKey::from_der(bundle.chain.clone(), bundle.key.clone_key(), &verify::provider()).map_err(
            |source| BundleError::KeyMismatch {
                dir: dir.to_owned(),
                source: Box::new(source),
            },
        )?;
        refuse_out_of_time(&bundle.certificate, UnixTime::now())?;
        verify::own_chain(&bundle.chain, &bundle.certificate, &bundle.roots).map_err(|source| BundleError::Chain {
            dir: dir.to_owned(),
            identity: bundle.certificate.identity.clone(),
            source: source.into(),
        })?;
        Ok(bundle)
    }

    /// Reads the three files; whether they fit each other is not looked at.
    fn read(dir: &Path) -> Result<Self, BundleError> {
        let (ca_path, cert_path, key_path) = (dir.join(CA_FILE), dir.join(CERT_FILE), dir.join(KEY_FILE));
        let chain = certificates(&cert_path)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&ca_path)?);
        let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?).map_err(|source| BundleError::Pem {
            path: key_path,
            what: "private key",
            source: Some(source),
        })?;
        let certificate = Certificate::from_der(&chain[0]).map_err(|source| BundleError::Certificate {
            path: cert_path,
            source,
        })?;
        Ok(Self {
            chain,
            key,
            roots: Arc::new(roots),
            certificate,
        })
    }

    /// For certificates that are wrong on purpose.
    #[cfg(all(test, feature = "authority"))]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn read_unchecked(dir: &Path) -> Self {
        Self::read(dir).unwrap()
    }

    /// Who holds it.
    pub fn identity(&self) -> &Identity {
        &self.certificate.identity
    }

    /// Facts of the holder's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Last second of the certificate's validity.
    pub fn not_after(&self) -> SystemTime {
        self.certificate.expires()
    }

    /// Last second of the certificate's validity, Unix time.
    pub fn not_after_unix(&self) -> i64 {
        self.certificate.not_after
    }
}

/// Never prints the key.
impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BundleError> {
    let wrap = |source| BundleError::Read {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(wrap)?.len() > FILE_MAX {
        return Err(BundleError::TooLarge { path: path.to_owned() });
    }
    fs::read(path).map_err(wrap)
}

/// All certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    let pem = |source| BundleError::Pem {
        path: path.to_owned(),
        what: "certificate",
        source,
    };
    let found = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| pem(Some(source)))?;
    if found.is_empty() { Err(pem(None)) } else { Ok(found) }
}

fn refuse_exposed(path: &Path) -> Result<(), BundleError> {
    let metadata = fs::metadata(path).map_err(|source| BundleError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(BundleError::KeyExposed {
            path: path.to_owned(),
            mode,
        })
    }
}

/// rustls says the same less clearly, so it is looked at first.
fn refuse_out_of_time(certificate: &Certificate, now: UnixTime) -> Result<(), BundleError> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let Certificate {
        not_before, not_after, ..
    } = *certificate;
    let identity = || certificate.identity.clone();
    if now > not_after {
        return Err(BundleError::Expired {
            identity: identity(),
            not_after,
        });
    }
    if now < not_before {
        return Err(BundleError::NotYetValid {
            identity: identity(),
            not_before,
        });
    }
    Ok(())
}
