//! Names: of slices, VMs, links and nodes; of a VM's interfaces; of ports and namespaces on the hosts.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Invalid, VlanId};

/// The name of a slice, VM, link or node: 1 to 32 of `a-z 0-9 -`, a letter first, no `-` at the end.
///
/// Names end up in host names, file paths and configuration files, so nothing else is let in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 32;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let good = text.len() <= Self::MAX_LEN
            && text.bytes().all(inner)
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new(
                text,
                "a name",
                "write 1 to 32 of a-z, 0-9 and -, a letter first and no - at the end",
            ))
        }
    }
}

/// A VM's number, unique in the cluster: 1000 to 16777215 (it fills 24 bits of a MAC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct VmId(u32);

impl VmId {
    /// First one given out.
    pub const MIN: u32 = 1000;
    /// Last one that fits a MAC.
    pub const MAX: u32 = 0xff_ffff;

    /// As a number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for VmId {
    type Error = Invalid;

    fn try_from(id: u32) -> Result<Self, Invalid> {
        if (Self::MIN..=Self::MAX).contains(&id) {
            Ok(Self(id))
        } else {
            Err(Invalid::new(id.to_string(), "a VM id", "ids run from 1000 to 16777215"))
        }
    }
}

impl From<VmId> for u32 {
    fn from(id: VmId) -> u32 {
        id.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A VM's interface: `eth0` (management), `eth1`, `eth2`, ... (data).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(u8);

impl InterfaceName {
    /// The management interface.
    pub const MANAGEMENT: Self = Self(0);
    /// Most data interfaces of one VM.
    pub const MAX_DATA: u8 = 16;

    /// `eth0` or a data interface; `index` is 0 to [`Self::MAX_DATA`].
    pub fn new(index: u8) -> Result<Self, Invalid> {
        if index <= Self::MAX_DATA {
            Ok(Self(index))
        } else {
            Err(Self::wrong(&format!("eth{index}")))
        }
    }

    /// 0 for `eth0`.
    pub fn index(self) -> u8 {
        self.0
    }

    fn wrong(text: &str) -> Invalid {
        Invalid::new(
            text,
            "an interface",
            "write eth0, or eth1 to eth16 for a data interface",
        )
    }
}

impl FromStr for InterfaceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.strip_prefix("eth").ok_or_else(|| Self::wrong(text))?;
        let index = digits.parse().map_err(|_| Self::wrong(text))?;
        let name = Self::new(index).map_err(|_| Self::wrong(text))?;
        // `eth01` and `eth+1` parse as numbers but name no interface.
        if name.to_string() == text {
            Ok(name)
        } else {
            Err(Self::wrong(text))
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eth{}", self.0)
    }
}

/// One end of a link: `web.eth1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    /// Name of the VM within the slice.
    pub vm: Name,
    /// Its interface.
    pub interface: InterfaceName,
}

impl FromStr for Endpoint {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |instead: String| Invalid::new(text, "an end of a link", instead);
        let (vm, interface) = text
            .split_once('.')
            .ok_or_else(|| wrong("write vm.interface, like web.eth1".into()))?;
        Ok(Self {
            vm: vm.parse().map_err(|e: Invalid| wrong(e.to_string()))?,
            interface: interface.parse().map_err(|e: Invalid| wrong(e.to_string()))?,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.vm, self.interface)
    }
}

/// The name of a network interface on a host. Linux holds 15 bytes (`IFNAMSIZ` in linux/if.h, less the closing NUL); a
/// longer one is refused, never cut.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortName(String);

impl PortName {
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 15;

    /// `tap_{vm_id}_{interface}`; refused when it does not fit.
    pub fn tap(vm: VmId, interface: InterfaceName) -> Result<Self, Invalid> {
        format!("tap_{vm}_{interface}").parse()
    }

    /// `gw_vlan{v}`.
    pub fn gateway(vlan: VlanId) -> Self {
        Self(format!("gw_vlan{vlan}"))
    }

    /// `dhcp_v{v}`.
    pub fn dhcp(vlan: VlanId) -> Self {
        Self(format!("dhcp_v{vlan}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PortName {
    type Err = Invalid;

    /// As the kernel's `dev_valid_name`, and printable ASCII only.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let good = (1..=Self::MAX_LEN).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
            && text != "."
            && text != "..";
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new(
                text,
                "an interface name",
                "write 1 to 15 printable characters without space, / and :",
            ))
        }
    }
}

/// `Display`, `TryFrom<String>` and `From<_> for String` of a type that is written as text.
macro_rules! textual {
    ($($type:ty),+) => {$(
        impl TryFrom<String> for $type {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )+};
}
textual!(Name, InterfaceName, Endpoint, PortName);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_let_nothing_dangerous_in() {
        for good in ["a", "web", "web-1", "a2345678901234567890123456789012"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        let long = "a".repeat(65_536);
        for bad in [
            "",
            "-web",
            "web-",
            "1web",
            "Web",
            "a/b",
            "..",
            ".",
            "a b",
            "a\n",
            "a\0",
            "wеb",
            "ｗeb",
            "a_b",
            "a.b",
            &long,
            "a23456789012345678901234567890123",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn port_names_follow_the_patterns_of_the_seed() {
        let vm = VmId::try_from(1002).unwrap();
        let vlan = VlanId::try_from(110).unwrap();
        assert_eq!(
            PortName::tap(vm, InterfaceName::new(1).unwrap()).unwrap().as_str(),
            "tap_1002_eth1"
        );
        assert_eq!(PortName::gateway(vlan).as_str(), "gw_vlan110");
        assert_eq!(PortName::dhcp(vlan).as_str(), "dhcp_v110");
    }

    #[test]
    fn a_port_name_that_does_not_fit_is_refused_not_cut() {
        let vm = VmId::try_from(VmId::MAX).unwrap();
        assert!(
            PortName::tap(vm, InterfaceName::MANAGEMENT).is_err(),
            "tap_16777215_eth0 has 17 bytes"
        );
        let most = VmId::try_from(999_999).unwrap();
        assert_eq!(
            PortName::tap(most, InterfaceName::new(9).unwrap())
                .unwrap()
                .as_str()
                .len(),
            15
        );
    }

    #[test]
    fn interfaces_have_one_spelling() {
        assert_eq!("eth16".parse::<InterfaceName>().unwrap().index(), 16);
        for bad in ["eth", "eth17", "eth01", "eth+1", "eth-1", "ens3", "eth1 ", "ETH1"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?}");
        }
        assert_eq!("web.eth1".parse::<Endpoint>().unwrap().to_string(), "web.eth1");
        for bad in ["web", "web.", ".eth1", "web.eth1.x", "web/eth1"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
        }
    }
}
