//! Hashes of resources, and the digest of a set of them.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::{Invalid, resource::Key};

/// Version of one resource: the first half of SHA-256 over its encoded spec. Made by the controller only; a node compares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 16]);

impl Hash {
    /// Hash of an encoded spec.
    pub fn of(spec: &[u8]) -> Self {
        Self(half(Sha256::digest(spec).into()))
    }

    /// Its 16 bytes.
    pub(crate) fn octets(self) -> [u8; 16] {
        self.0
    }

    /// As it goes on the wire.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = Invalid;

    fn try_from(bytes: &[u8]) -> Result<Self, Invalid> {
        let hash = bytes.try_into().map_err(|_| {
            Invalid::new(
                hex::encode(bytes),
                "the hash of a resource",
                "send 16 bytes as the controller made them",
            )
        })?;
        Ok(Self(hash))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Digest of a set of (key, hash): the sum, modulo 2^128, of one hash per member. Equal sets have equal digests in whatever
/// order they were built, and adding or taking away one member costs the same however large the set is.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(u128);

impl Digest {
    /// Digest of the whole set.
    pub fn of<'a>(members: impl IntoIterator<Item = (&'a Key, Hash)>) -> Self {
        let mut digest = Self::default();
        for (key, hash) in members {
            digest.add(key, hash);
        }
        digest
    }

    /// A member joins.
    pub fn add(&mut self, key: &Key, hash: Hash) {
        self.0 = self.0.wrapping_add(member(key, hash));
    }

    /// A member leaves. It must have been in.
    pub fn remove(&mut self, key: &Key, hash: Hash) {
        self.0 = self.0.wrapping_sub(member(key, hash));
    }

    /// As it goes on the wire: 16 bytes, most significant first.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = Invalid;

    fn try_from(bytes: &[u8]) -> Result<Self, Invalid> {
        let sum = bytes
            .try_into()
            .map_err(|_| Invalid::new(hex::encode(bytes), "a digest", "send 16 bytes"))?;
        Ok(Self(u128::from_be_bytes(sum)))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

fn member(key: &Key, hash: Hash) -> u128 {
    let mut sum = Sha256::new();
    sum.update(key.kind.number().to_be_bytes());
    sum.update(key.name.as_str().as_bytes());
    sum.update([0]);
    sum.update(hash.0);
    u128::from_be_bytes(half(sum.finalize().into()))
}

fn half(whole: [u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| whole[i])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resource::Kind;

    fn key(kind: Kind, name: &str) -> Key {
        Key {
            kind,
            name: name.parse().unwrap(),
        }
    }

    proptest! {
        #[test]
        fn a_digest_kept_step_by_step_equals_one_made_whole(names in proptest::collection::btree_set("[a-z]{1,8}", 1..20)) {
            let members: Vec<_> = names.iter().map(|n| (key(Kind::Port, n), Hash::of(n.as_bytes()))).collect();
            let mut kept = Digest::default();
            for (key, hash) in members.iter().rev() { kept.add(key, *hash); }
            prop_assert_eq!(kept, Digest::of(members.iter().map(|(k, h)| (k, *h))));
            kept.remove(&members[0].0, members[0].1);
            prop_assert_eq!(kept, Digest::of(members[1..].iter().map(|(k, h)| (k, *h))));
        }
    }

    #[test]
    fn kind_name_and_hash_all_count() {
        let hash = Hash::of(b"x");
        let one = Digest::of([(&key(Kind::Port, "a"), hash)]);
        assert_ne!(one, Digest::of([(&key(Kind::Gateway, "a"), hash)]));
        assert_ne!(one, Digest::of([(&key(Kind::Port, "b"), hash)]));
        assert_ne!(one, Digest::of([(&key(Kind::Port, "a"), Hash::of(b"y"))]));
    }
}
