//! VLAN ids.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// An IEEE 802.1Q VLAN id that may carry frames: 1 to 4094. 0 means "priority tag only" and 4095 is reserved by the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct VlanId(u16);

impl VlanId {
    /// The VLAN of internet access, shared by all slices (seed system: "Internet access (VLAN 400)").
    pub const INTERNET: Self = Self(400);
    /// Lowest id.
    pub const MIN: Self = Self(1);
    /// Highest id.
    pub const MAX: Self = Self(4094);

    /// The id as a number, 1 to 4094.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The next higher id, if there is one.
    pub fn next(self) -> Option<Self> {
        (self < Self::MAX).then(|| Self(self.0 + 1))
    }
}

impl TryFrom<u32> for VlanId {
    type Error = Invalid;

    fn try_from(id: u32) -> Result<Self, Invalid> {
        match u16::try_from(id) {
            Ok(id @ 1..=4094) => Ok(Self(id)),
            _ => Err(Invalid::new(
                id.to_string(),
                "a VLAN id",
                "write a number from 1 to 4094",
            )),
        }
    }
}

impl From<VlanId> for u32 {
    fn from(id: VlanId) -> u32 {
        u32::from(id.0)
    }
}

impl FromStr for VlanId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let id: u32 = text
            .parse()
            .map_err(|_| Invalid::new(text, "a VLAN id", "write a number from 1 to 4094"))?;
        Self::try_from(id)
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_that_may_carry_frames_exist() {
        for bad in [0, 4095, 5000, u32::MAX] {
            assert!(VlanId::try_from(bad).is_err(), "{bad}");
        }
        assert_eq!(VlanId::try_from(1).unwrap(), VlanId::MIN);
        assert_eq!(VlanId::MAX.next(), None);
        assert_eq!(
            VlanId::try_from(5000).unwrap_err().to_string(),
            "\"5000\" is not a VLAN id: write a number from 1 to 4094"
        );
    }
}
