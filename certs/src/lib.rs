//! Who is who in Trunkline.
//!
//! Every program and every person holds a *bundle*: a directory with a certificate, its key and the certificate of the
//! authority that signed it. The certificate carries one URI, `spiffe://<trust domain>/<role>/<name>`, and that is the whole of
//! who its holder is; the rest of the system asks for [`Identity`] and nothing else.
//!
//! ```text
//!   directory -> Bundle (checked) -> server_config / client_config (TLS 1.3, both sides authenticated)
//!                    ^
//!                    `- Reloader: reads again when the files change, keeps the old one when the new one is bad
//! ```
//!
//! Enter at [`Bundle::load`], or at [`Reloader`] in a program that runs for long. No task runs here and nothing is async. The
//! feature `authority` adds [`authority`], which makes certificates, and the program `trunkline-certs`.

#[cfg(feature = "authority")]
pub mod authority;
mod bundle;
mod certificate;
mod explain;
mod identity;
mod reload;
mod tls;
mod verify;

pub use bundle::{Bundle, BundleError, CA_FILE, CERT_FILE, KEY_FILE};
pub use certificate::{Certificate, CertificateError, format_time};
pub use explain::explain;
pub use identity::{Identity, IdentityError, Role};
pub use reload::{Loaded, Reloader};
pub use tls::{TlsError, client_config, server_config};
