//! The topology file: slices, their VMs and the links between them, in YAML (or JSON, which is a subset).
//!
//! ```yaml
//! slices:
//!   - name: shop
//!     vlan_pool_size: 20            # optional: VLANs kept for the slice
//!     vms:
//!       - name: web
//!         worker: w1                # optional: placed automatically
//!         internet_enabled: true    # optional: false
//!         data_interfaces_count: 2  # optional: 0; eth1 and eth2 here, eth0 is always there
//!         interfaces:               # optional: what is not to be derived
//!           - { name: eth1, mac: "02:00:00:00:00:01", address: 10.64.110.20 }
//!       - { name: db, data_interfaces_count: 2 }
//!       - { name: cache, data_interfaces_count: 1 }
//!     links:
//!       - [web.eth1, db.eth1]       # two or more ends; everything else is derived
//!       - name: backend
//!         ends: [web.eth2, db.eth2, cache.eth1]
//!         vlan: 110                 # optional, as all that follows
//!         subnet: 10.64.110.0/24
//!         dhcp: false
//!         mtu: 1500
//!         port_security: true       # guests send with their own addresses only
//!         protected: true           # three ends or more: they reach the gateway, not each other
//! ```
//!
//! ```text
//!   bytes --tree--> nodes with places --shape--> what was written, each value with its place
//!                                                    |--check--> rules across values (duplicates, unknown ends, overlaps)
//!                                                    `--build--> wire::SliceSpec, and where each field stands in the file
//! ```
//!
//! Every mistake is found in one go, with line, column and what to write instead. The controller checks again, with what only it
//! knows (workers, pools, other slices); [`Topology::wrong`] maps its field violations back to the same places.

mod build;
mod check;
mod file;
mod mistake;
mod read;
mod shape;
mod suggest;
mod tree;

use std::{collections::HashMap, ops::Range};

use trunkline_proto::wire::SliceSpec;

pub use file::{InterfaceFile, LinkFile, SliceFile, TopologyFile, VmFile};
pub use mistake::{Mistake, Wrong};

/// Largest file that is read, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// Fields whose values depend on what the controller has already.
const KNOWN_BY_CONTROLLER: [&str; 7] = [
    "worker",
    "vlan",
    "subnet",
    "mac",
    "address",
    "vlan_pool_size",
    "internet_enabled",
];

/// Where something stands in the file, in bytes.
pub type Place = Range<usize>;

/// A file without mistakes of its own.
#[derive(Debug)]
pub struct Topology {
    /// What to ask the controller for.
    pub slices: Vec<SliceSpec>,
    file: String,
    text: String,
    /// By field of `ApplySlicesRequest`: `slices[0].vms[2].name`.
    places: HashMap<String, Place>,
}

impl Topology {
    /// Reads a file; `file` is its name, for messages.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Wrong> {
        Self::parse_further(file, bytes).map_err(|parts| parts.0)
    }

    /// The same. Where only values are wrong, the rest comes along, to ask the controller what it finds wrong with that
    /// ([`Topology::more`]); it must not be applied.
    pub fn parse_further(file: &str, bytes: &[u8]) -> Result<Self, Box<(Wrong, Option<Self>)>> {
        let wrong = |text: &str, mistakes| Box::new((Wrong::new(file, text, mistakes), None));
        if bytes.len() > MAX_BYTES {
            let mistake = Mistake::new(
                0..0,
                "the file is larger than 4 MiB",
                "split it: each slice can be applied alone",
            );
            return Err(wrong("", vec![mistake]));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| Box::new((not_utf8(file, bytes, e.valid_up_to()), None)))?;
        let root = tree::parse(text).map_err(|mistakes| wrong(text, mistakes))?;
        let mut reader = read::Reader::default();
        let written = shape::slices(&root, &mut reader);
        let read::Reader {
            mut mistakes,
            places,
            left_out,
        } = reader;
        check::all(&written, &mut mistakes);
        let topology = Self {
            slices: build::slices(&written),
            file: file.to_owned(),
            text: text.to_owned(),
            places,
        };
        if mistakes.is_empty() {
            return Ok(topology);
        }
        let rest = (!left_out && !topology.slices.is_empty()).then_some(topology);
        Err(Box::new((Wrong::new(file, text, mistakes), rest)))
    }

    /// `wrong` with those of the controller's violations that only it can know, where the file has no mistake already. What is
    /// wrong was left out of what it was asked for, so what it says of names and ends is not to be relied on.
    #[must_use]
    pub fn more<'a>(&self, wrong: Wrong, violations: impl IntoIterator<Item = (&'a str, &'a str)>) -> Wrong {
        let mut mistakes = wrong.mistakes().to_vec();
        for (field, description) in violations {
            let last = field.rsplit('.').next().unwrap_or_default();
            let Some(place) = self.places.get(field).filter(|_| KNOWN_BY_CONTROLLER.contains(&last)) else {
                continue;
            };
            if mistakes.iter().all(|m| m.place.start != place.start) {
                let (what, instead) = split(description);
                mistakes.push(Mistake::new(place.clone(), what, instead));
            }
        }
        Wrong::new(&self.file, &self.text, mistakes)
    }

    /// The controller's violations, (field, description) each, as mistakes of the file; `None` when none of them speaks of a
    /// field that is in it.
    pub fn wrong<'a>(&self, violations: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Wrong> {
        let mut found = false;
        let mistake = |(field, description)| {
            let place = self.place(field);
            found |= place.is_some();
            let (what, instead) = split(description);
            Mistake::new(place.unwrap_or(0..0), what, instead)
        };
        let mistakes = violations.into_iter().map(mistake).collect();
        found.then(|| Wrong::new(&self.file, &self.text, mistakes))
    }

    /// Where a field stands; where the thing that it belongs to stands when it was left out.
    fn place(&self, field: &str) -> Option<Place> {
        let mut field = field;
        loop {
            if let Some(place) = self.places.get(field) {
                return Some(place.clone());
            }
            field = &field[..field.rfind(['.', '['])?];
        }
    }
}

/// `"x" is not a name: write ...` or `there is no eth3; raise ...` into what is wrong and what to do.
fn split(description: &str) -> (&str, &str) {
    let at = [": ", "; "].iter().filter_map(|mark| description.find(mark)).min();
    at.map_or((description, ""), |at| (&description[..at], &description[at + 2..]))
}

/// Points at the first byte that is not UTF-8, in the text with such bytes replaced.
fn not_utf8(file: &str, bytes: &[u8], good: usize) -> Wrong {
    let text = String::from_utf8_lossy(bytes);
    let mistake = Mistake::new(good..good, "this byte is not UTF-8", "save the file in UTF-8");
    Wrong::new(file, &text, vec![mistake])
}

#[cfg(test)]
mod tests;
