//! Desired TAPs against the kernel's devices. Pure.

use std::collections::BTreeMap;

use itertools::{EitherOrBoth, Itertools};
use trunkline_proto::resource::Port;

use super::is_tap;
use crate::netlink::Link;

/// A TAP that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap<Name = String> {
    /// Its name.
    pub name: Name,
    /// Bytes of payload.
    pub mtu: u32,
}

impl<'a> From<&'a Port> for Tap<&'a str> {
    fn from(port: &'a Port) -> Self {
        Self {
            name: port.tap.as_str(),
            mtu: u32::from(port.mtu),
        }
    }
}

impl From<Tap<&str>> for Tap {
    fn from(Tap { name, mtu }: Tap<&str>) -> Self {
        let name = name.to_owned();
        Self { name, mtu }
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
pub fn plan<'a, 'b>(
    desired: impl IntoIterator<Item = Tap<&'a str>>,
    observed: impl IntoIterator<Item = &'b Link>,
) -> Plan {
    // Both are mostly in order already.
    let desired = desired.into_iter().sorted_unstable_by(|a, b| a.name.cmp(b.name));
    let links = observed.into_iter().sorted_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut plan = Plan::default();
    for side in desired.merge_join_by(links, |tap, link| tap.name.cmp(&link.name)) {
        match side {
            EitherOrBoth::Left(tap) => plan.create.push(tap.into()),
            EitherOrBoth::Both(tap, link) if !is_tap(link) => {
                let reason = format!(
                    "a device {} that was not made by Trunkline is there; remove or rename it",
                    tap.name
                );
                plan.conflicts.insert(tap.name.to_owned(), reason);
            }
            EitherOrBoth::Both(tap, link) if link.mtu != tap.mtu || !link.up => {
                let (index, tap) = (link.index, tap.into());
                plan.correct.push(Correction { index, tap });
            }
            EitherOrBoth::Right(link) if is_tap(link) => plan.remove.push((link.name.clone(), link.index)),
            EitherOrBoth::Both(..) | EitherOrBoth::Right(_) => {}
        }
    }
    plan
}
