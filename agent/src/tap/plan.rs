//! Desired TAPs against the kernel's devices. Pure.

use std::collections::BTreeMap;

use trunkline_proto::resource::Port;

use super::is_tap;
use crate::netlink::Link;

/// A TAP that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// Its name.
    pub name: String,
    /// Bytes of payload.
    pub mtu: u32,
}

impl From<&Port> for Tap {
    fn from(port: &Port) -> Self {
        Self {
            name: port.tap.to_string(),
            mtu: u32::from(port.mtu),
        }
    }
}

/// A TAP of ours with a wrong MTU, or down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// Its index.
    pub index: u32,
    /// As it shall be; always up.
    pub tap: Tap,
}

/// What has to be done. Unlike elsewhere removals come last: a TAP leaves after its port has left the switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To make.
    pub create: Vec<Tap>,
    /// To set right.
    pub correct: Vec<Correction>,
    /// To remove: name and index.
    pub remove: Vec<(String, u32)>,
    /// Wanted TAPs that cannot be had, with the reason; their siblings go on.
    pub conflicts: BTreeMap<String, String>,
}

impl Plan {
    /// True when everything that can be had is as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            create,
            correct,
            remove,
            conflicts: _,
        } = self;
        create.is_empty() && correct.is_empty() && remove.is_empty()
    }
}

/// Plans the way from the devices that are there to those that are wanted.
#[must_use]
pub fn plan<'a>(desired: impl IntoIterator<Item = Tap>, observed: impl IntoIterator<Item = &'a Link>) -> Plan {
    let mut links: BTreeMap<&str, &Link> = observed.into_iter().map(|link| (link.name.as_str(), link)).collect();
    let mut plan = Plan::default();
    for tap in desired {
        match links.remove(tap.name.as_str()) {
            None => plan.create.push(tap),
            Some(link) if !is_tap(link) => {
                let reason = format!(
                    "a device {} that was not made by Trunkline is there; remove or rename it",
                    tap.name
                );
                plan.conflicts.insert(tap.name, reason);
            }
            Some(link) if link.mtu != tap.mtu || !link.up => {
                plan.correct.push(Correction { index: link.index, tap });
            }
            Some(_) => {}
        }
    }
    let unwanted = links.into_values().filter(|link| is_tap(link));
    plan.remove = unwanted.map(|link| (link.name.clone(), link.index)).collect();
    plan
}
