//! Identities: a role and a name in a trust domain, written as a URI in the certificate.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest name of a holder, in bytes.
const NAME_MAX: usize = 32;
/// Longest trust domain, in bytes: that of a DNS name.
const TRUST_DOMAIN_MAX: usize = 253;
const SCHEME: &str = "spiffe://";

/// What a holder of a certificate may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The controller: the only role that serves.
    Controller,
    /// A host that runs virtual machines.
    Worker,
    /// A host with gateways, DHCP and NAT.
    Netnode,
    /// A person or program that changes things.
    Operator,
    /// A person or program that only reads.
    Viewer,
}

/// Who holds a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    trust_domain: String,
    role: Role,
    name: String,
}

/// A text that is no identity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Not of the form `spiffe://<trust domain>/<role>/<name>`.
    #[error("`{0}` is not of the form spiffe://<trust domain>/<role>/<name>")]
    Form(String),
    /// The trust domain is not a lower-case DNS name.
    #[error("trust domain `{0}` must be 1 to 253 of a-z 0-9 - . and start and end with a letter or digit")]
    TrustDomain(String),
    /// No such role.
    #[error("role `{0}` is none of controller, worker, netnode, operator, viewer")]
    Role(String),
    /// The name does not fit.
    #[error("name `{0}` must be 1 to 32 of a-z 0-9 - . and start and end with a letter or digit")]
    Name(String),
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [
        Role::Controller,
        Role::Worker,
        Role::Netnode,
        Role::Operator,
        Role::Viewer,
    ];

    /// The role as it stands in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Controller => "controller",
            Role::Worker => "worker",
            Role::Netnode => "netnode",
            Role::Operator => "operator",
            Role::Viewer => "viewer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| IdentityError::Role(shorten(text)))
    }
}

impl Identity {
    /// An identity from its parts.
    ///
    /// # Errors
    /// The trust domain or the name does not fit.
    pub fn new(trust_domain: &str, role: Role, name: &str) -> Result<Self, IdentityError> {
        if !is_label(trust_domain, TRUST_DOMAIN_MAX) {
            return Err(IdentityError::TrustDomain(shorten(trust_domain)));
        }
        if !is_label(name, NAME_MAX) {
            return Err(IdentityError::Name(shorten(name)));
        }
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            role,
            name: name.to_owned(),
        })
    }

    /// Reads `spiffe://<trust domain>/<role>/<name>`; nothing is trimmed, decoded or folded.
    ///
    /// # Errors
    /// The text is anything else.
    pub fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form(shorten(uri));
        let path = uri.strip_prefix(SCHEME).ok_or_else(form)?;
        let mut parts = path.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(trust_domain), Some(role), Some(name), None) => Self::new(trust_domain, role.parse()?, name),
            _ => Err(form()),
        }
    }

    /// The URI as it stands in the certificate.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}/{}", self.trust_domain, self.role, self.name)
    }

    /// The cluster's trust domain, `trunkline.local`.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// What the holder may do.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The holder's name, unique within its role.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// `worker/w1`, as events and logs write it.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

/// True for 1 to `max` of `a-z 0-9 - .` with a letter or digit at both ends and no empty part between dots.
pub(crate) fn is_label(text: &str, max: usize) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    text.len() <= max
        && bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes.iter().all(|&c| plain(c) || c == b'-' || c == b'.')
        && !text.contains("..")
}

/// Keeps hostile text short and printable in an error.
fn shorten(text: &str) -> String {
    const SHOWN: usize = 64;
    let mut short: String = text.chars().take(SHOWN).flat_map(char::escape_default).collect();
    if text.chars().count() > SHOWN {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn uri_and_identity_are_one() {
        for role in Role::ALL {
            let identity = Identity::new("trunkline.local", role, "w-1.rack2").unwrap();
            assert_eq!(Identity::from_uri(&identity.uri()).unwrap(), identity);
        }
    }

    #[test]
    fn identity_reads_as_role_and_name() {
        let identity = Identity::from_uri("spiffe://trunkline.local/worker/w1").unwrap();
        assert_eq!(identity.to_string(), "worker/w1");
        assert_eq!(identity.trust_domain(), "trunkline.local");
    }

    #[test]
    fn anything_but_the_exact_form_is_refused() {
        let long = format!("spiffe://t/worker/{}", "a".repeat(33));
        for uri in [
            "",
            "spiffe://",
            "http://t/worker/w1",
            "SPIFFE://t/worker/w1",
            "spiffe://t/worker",
            "spiffe://t/worker/",
            "spiffe://t/worker/w1/",
            "spiffe://t/worker/w1/x",
            "spiffe:///worker/w1",
            "spiffe://t:1/worker/w1",
            "spiffe://u@t/worker/w1",
            "spiffe://T/worker/w1",
            "spiffe://t/Worker/w1",
            "spiffe://t/root/w1",
            "spiffe://t/worker/..",
            "spiffe://t/worker/a..b",
            "spiffe://t/worker/-w1",
            "spiffe://t/worker/w1.",
            "spiffe://t/worker/w 1",
            "spiffe://t/worker/w%31",
            "spiffe://t/worker/w1?x",
            "spiffe://t/worker/w1\n",
            "spiffe://t/worker/w\0",
            "spiffe://t/worker/\u{0430}bc",
            &long,
        ] {
            assert!(Identity::from_uri(uri).is_err(), "{uri:?} was taken");
        }
    }

    #[test]
    fn an_error_never_repeats_a_long_or_unprintable_text() {
        let error = Identity::from_uri(&"\n".repeat(70_000)).unwrap_err().to_string();
        assert!(error.len() < 400 && !error.contains('\n'), "{error}");
    }
}
