//! What the keys of probe frames are made from, and when they change.

use std::{fmt, time::Duration};

use ring::hmac;
use serde::{Deserialize, Serialize};
use trunkline_proto::{VlanId, resource::ProbeKey};

use super::{Meta, Timestamp};

/// Keys are in use for this long. Nodes are given the one before and the next as well, so one that is cut off is understood for as long
/// again.
const ROTATION: Duration = Duration::from_secs(24 * 60 * 60);

/// The secret of a cluster's probes. It is in the database and in the export, for a restore needs it, and is shown nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProbeSecret([u8; 32]);

impl ProbeSecret {
    /// From 32 random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The key of one VLAN: whoever has it can make frames of that VLAN only.
    pub(crate) fn key(&self, vlan: VlanId, id: u32) -> ProbeKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(b"probe");
        context.update(&vlan.get().to_be_bytes());
        context.update(&id.to_be_bytes());
        let mut secret = [0; 32];
        secret.copy_from_slice(context.sign().as_ref());
        ProbeKey { id, secret }
    }
}

impl fmt::Debug for ProbeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeSecret")
    }
}

impl From<ProbeSecret> for String {
    fn from(secret: ProbeSecret) -> Self {
        hex::encode(secret.0)
    }
}

impl TryFrom<String> for ProbeSecret {
    type Error = &'static str;

    /// The text is not part of the error: it may end in a log.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut secret = [0; 32];
        match hex::decode_to_slice(text, &mut secret) {
            Ok(()) => Ok(Self(secret)),
            Err(_) => Err("the secret of the probes is not 32 bytes in hex"),
        }
    }
}

impl Meta {
    /// From now on there are probes, under keys made from this secret.
    pub fn probe_with(&mut self, secret: ProbeSecret, now: Timestamp) {
        self.probe_secret = Some(secret);
        self.probe_epoch = 1;
        self.probe_rotated = now;
    }

    /// Changes the keys when it is time to. A time of the last change that lies far ahead is from a clock that was wrong.
    pub(crate) fn rotate(&mut self, now: Timestamp) {
        let wrong = self.probe_rotated > now.after(ROTATION);
        if self.probe_secret.is_some() && (wrong || self.rotation_due().is_some_and(|due| due <= now)) {
            self.probe_epoch = self.probe_epoch.saturating_add(1);
            self.probe_rotated = now;
        }
    }

    pub(super) fn rotation_due(&self) -> Option<Timestamp> {
        self.probe_secret.as_ref()?;
        Some(self.probe_rotated.after(ROTATION))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn vlan(id: u32) -> VlanId {
        VlanId::try_from(id).unwrap()
    }

    #[test]
    fn a_key_is_of_one_vlan_and_one_epoch_and_always_the_same() {
        let secret = ProbeSecret::new([7; 32]);
        let key = secret.key(vlan(110), 1);
        assert_eq!(key, secret.key(vlan(110), 1));
        let others = [secret.key(vlan(110), 2), secret.key(vlan(111), 1)];
        assert!(others.iter().all(|other| other.secret != key.secret));
        assert_ne!(ProbeSecret::new([8; 32]).key(vlan(110), 1).secret, key.secret);
        // HMAC-SHA256(07 * 32, "probe" | 006e | 00000001), as `openssl dgst -mac HMAC` has it.
        assert_eq!(
            hex::encode(key.secret),
            "41cfd043841efc86850e3dd82ff8e3a1682850bd2b4aad0fb483851c3f774e04"
        );
    }

    #[test]
    fn the_secret_is_stored_as_hex_and_shown_nowhere() {
        let secret = ProbeSecret::new([0xab; 32]);
        let stored = serde_json::to_string(&secret).unwrap();
        assert_eq!(stored, format!("\"{}\"", "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<ProbeSecret>(&stored).unwrap(), secret);
        let mut cluster = crate::model::Cluster::new("x");
        cluster.meta.probe_with(secret, Timestamp::default());
        let shown = format!("{cluster:?}");
        assert!(!shown.contains("abab") && !shown.contains("171, 171"), "{shown}");
        let wrong = serde_json::from_str::<ProbeSecret>("\"c0ffee\"").unwrap_err();
        assert!(!wrong.to_string().contains("c0ffee"), "{wrong}");
    }

    #[test]
    fn keys_change_once_a_day_also_after_a_clock_was_wrong() {
        let day = |n: u64| Timestamp::default().after(ROTATION * u32::try_from(n).unwrap());
        let mut meta = crate::model::Cluster::new("x").meta;
        meta.rotate(day(9));
        assert_eq!((meta.probe_epoch, meta.rotation_due()), (0, None), "there is no secret");
        meta.probe_with(ProbeSecret::new([1; 32]), day(10));
        meta.rotate(day(10).after(Duration::from_secs(3600)));
        assert_eq!((meta.probe_epoch, meta.rotation_due()), (1, Some(day(11))));
        meta.rotate(day(14));
        assert_eq!((meta.probe_epoch, meta.rotation_due()), (2, Some(day(15))));
        meta.rotate(day(12));
        assert_eq!(meta.probe_epoch, 3);
        meta.rotate(day(12));
        assert_eq!(meta.probe_epoch, 3);
    }
}
