//! TLS errors in words that an operator can act on.

use rustls::{AlertDescription, CertificateError, Error, OtherError};

/// What a failed handshake means. rustls' own words are exact, but name neither side nor remedy.
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => certificate(why),
        Error::NoCertificatesPresented => "the other side showed no certificate".to_owned(),
        Error::AlertReceived(alert) => refused(*alert),
        Error::InvalidMessage(_) => "the other side does not speak TLS".to_owned(),
        other => other.to_string(),
    }
}

fn certificate(why: &CertificateError) -> String {
    use CertificateError as C;
    match why {
        C::Other(OtherError(ours)) => ours.to_string(),
        // The same issuer's name with another key is what an authority made anew looks like.
        C::UnknownIssuer | C::BadSignature => {
            "the other side's certificate is not signed by our authority (ca.pem)".to_owned()
        }
        C::Expired | C::ExpiredContext { .. } => "the other side's certificate has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "the other side's certificate is not valid yet: compare the clocks".to_owned()
        }
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "the other side's certificate is not meant for this side of a connection".to_owned()
        }
        other => format!("the other side's certificate is refused: {other}"),
    }
}

fn refused(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::UnknownCA | A::DecryptError => {
            "the other side refused our certificate: it trusts another authority".to_owned()
        }
        A::CertificateRequired => "the other side asked for a certificate and we showed none".to_owned(),
        A::CertificateExpired => "the other side refused our certificate: it has expired".to_owned(),
        A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate | A::AccessDenied => {
            "the other side refused our certificate; its log says why".to_owned()
        }
        A::ProtocolVersion => "the other side does not speak TLS 1.3".to_owned(),
        other => format!("the other side ended the handshake: {other:?}"),
    }
}
