//! What stands in a certificate, and the signing of it.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::{AuthorityError, Leaf};
use crate::identity::{Identity, Role, is_label};
use crate::verify::provider;

const DAY: i64 = 24 * 60 * 60;
/// The authority's own validity: ten years.
const CA_DAYS: u32 = 3650;
/// A certificate begins a little in the past: the clocks of a fleet differ.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
const SCHEME: &str = "spiffe://";

/// A certificate and its key.
pub(super) struct Signed {
    pub(super) certificate: rcgen::Certificate,
    pub(super) key: KeyPair,
}

/// The authority's own certificate. Its one URI, `spiffe://<trust domain>`, says what it signs for.
pub(super) fn root(trust_domain: &str, now: SystemTime) -> Result<(rcgen::Certificate, KeyPair), AuthorityError> {
    let mut params = validity(now, CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::OrganizationName, "Trunkline");
    params
        .distinguished_name
        .push(DnType::CommonName, short(&format!("Trunkline CA {trust_domain}")));
    params.subject_alt_names = vec![SanType::URI(format!("{SCHEME}{trust_domain}").try_into()?)];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((params.self_signed(&key)?, key))
}

/// A holder's certificate and new key.
pub(super) fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    identity: &Identity,
    leaf: &Leaf,
    now: SystemTime,
) -> Result<Signed, AuthorityError> {
    let usage = match leaf.role {
        Role::Controller => ExtendedKeyUsagePurpose::ServerAuth,
        Role::Worker | Role::Netnode | Role::Operator | Role::Viewer => ExtendedKeyUsagePurpose::ClientAuth,
    };
    leaf_for(issuer, identity, leaf, usage, now)
}

/// As [`leaf`], for any usage.
pub(super) fn leaf_for(
    issuer: &Issuer<'_, KeyPair>,
    identity: &Identity,
    leaf: &Leaf,
    usage: ExtendedKeyUsagePurpose,
    now: SystemTime,
) -> Result<Signed, AuthorityError> {
    let mut params = validity(now, leaf.days)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
        .distinguished_name
        .push(DnType::CommonName, short(&identity.to_string()));
    params.subject_alt_names.push(SanType::URI(identity.uri().try_into()?));
    for name in &leaf.dns {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.as_str().try_into()?));
    }
    params
        .subject_alt_names
        .extend(leaf.ips.iter().copied().map(SanType::IpAddress));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok(Signed { certificate, key })
}

/// The trust domain of an authority's certificate.
pub(super) fn trust_domain(x509: &X509Certificate<'_>) -> Option<String> {
    let names = x509.subject_alternative_name().ok()??;
    let [GeneralName::URI(uri)] = names.value.general_names[..] else {
        return None;
    };
    uri.strip_prefix(SCHEME)
        .filter(|domain| is_label(domain, 253))
        .map(str::to_owned)
}

/// Days in seconds.
pub(super) fn days(days: u32) -> i64 {
    i64::from(days) * DAY
}

/// Whole seconds since 1970.
pub(super) fn unix(time: SystemTime) -> i64 {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn validity(now: SystemTime, valid_days: u32) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    // The default name would be "rcgen self signed cert".
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + Duration::from_secs(u64::from(valid_days) * DAY.unsigned_abs())).into();
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// 127 random bits: unguessable, positive, and as long as browsers' rules ask for.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0u8; 16];
    provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| AuthorityError::Random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A common name holds 64 characters; nobody of ours reads it, so it may be cut.
fn short(name: &str) -> String {
    name.chars().take(64).collect()
}
