//! Names a content, to tell one version of a file from another.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The first half of SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Of a content.
    pub fn of(content: impl AsRef<[u8]>) -> Self {
        let mut half = [0; 16];
        half.iter_mut()
            .zip(Sha256::digest(content))
            .for_each(|(to, from)| *to = from);
        Self(half)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, hex::FromHexError> {
        let mut half = [0; 16];
        hex::decode_to_slice(text, &mut half)?;
        Ok(Self(half))
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        hex::encode(fingerprint.0)
    }
}
