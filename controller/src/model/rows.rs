//! The durable form of a [`Cluster`]: one row per object, so that a change writes what it changed and no value grows with the
//! fleet.
//!
//! ```text
//!   meta                       counters
//!   slice/shop                 head: owner, pool, deployed number, how many rows belong to it
//!   vm/shop/web                a draft's VM          link/shop/web-eth1--db-eth1    a draft's link
//!   frozen/shop/00000003       head of a revision    frozen/shop/00000003/0000      up to 25 of its VMs and links
//!   node/w1                    a node                departure/00000000000000000042/shop
//! ```
//!
//! Values are JSON: an export can be read as it is. A set of rows from which one is missing is refused, not repaired.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use trunkline_proto::Name;

use super::{Cluster, Departure, Frozen, Link, Meta, NodeRecord, Pool, Position, SharedMap, Slice, Timestamp, Vm};
use crate::parallel;
pub use crate::store::Batch;

/// VMs or links in one row of a revision. A link of 241 ends is about 10 KB.
const PART: usize = 25;

/// Why rows are not a cluster.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// A value that is no such object.
    #[error("row {key:?} cannot be read")]
    Value {
        /// Its key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A key that this version does not know.
    #[error("row {0:?} is not known to this version")]
    Key(String),
    /// Rows that belong together are not all there.
    #[error("the rows of {0} are not complete")]
    Incomplete(String),
}

#[derive(Serialize, Deserialize)]
struct SliceRow {
    uid: u64,
    owner: String,
    created: Timestamp,
    revision: u64,
    pool: Pool,
    deployed: Option<u32>,
    next_number: u32,
    vms: usize,
    links: usize,
    revisions: usize,
}

#[derive(Serialize, Deserialize)]
struct FrozenRow {
    position: Position,
    at: Timestamp,
    by: String,
    vms: usize,
    links: usize,
}

#[derive(Serialize)]
struct PartRef<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vms: Vec<&'a Vm>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<&'a Link>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    vms: Vec<Vm>,
    #[serde(default)]
    links: Vec<Link>,
}

/// What turns `old`'s rows into `new`'s.
pub fn diff(old: &Cluster, new: &Cluster) -> Batch {
    let mut batch = Batch::default();
    if old.meta != new.meta {
        put(&mut batch, "meta".into(), &new.meta);
    }
    for (_, before, slice) in old.slices.differences(&new.slices) {
        match (before, slice) {
            (Some(before), Some(slice)) if Arc::ptr_eq(before, slice) => {}
            (before, Some(slice)) => diff_slice(before.map(AsRef::as_ref), slice, &mut batch),
            (Some(gone), None) => batch.deletes.extend(slice_rows(gone).into_iter().map(|(key, _)| key)),
            (None, None) => {}
        }
    }
    for (name, before, record) in old.nodes.differences(&new.nodes) {
        match record {
            Some(record) if before != Some(record) => put(&mut batch, node_key(name), record),
            Some(_) => {}
            None => batch.deletes.push(node_key(name)),
        }
    }
    diff_map(&old.departures, &new.departures, departure_key, &mut batch);
    batch
}

/// Every row of a cluster.
pub fn all(cluster: &Cluster) -> Vec<(String, Vec<u8>)> {
    each(cluster).flatten().collect()
}

/// The same, some at a time: all of them together are as large as the state itself.
pub fn each(cluster: &Cluster) -> impl Iterator<Item = Vec<(String, Vec<u8>)>> {
    let slices = cluster.slices.values().map(|slice| slice_rows(slice));
    let nodes = cluster.nodes.iter().map(|(name, record)| {
        let mut batch = Batch::default();
        put(&mut batch, node_key(name), record);
        batch.puts
    });
    std::iter::once(rest(cluster)).chain(slices).chain(nodes)
}

/// What belongs to no slice and no node.
fn rest(cluster: &Cluster) -> Vec<(String, Vec<u8>)> {
    let mut batch = Batch::default();
    put(&mut batch, "meta".into(), &cluster.meta);
    diff_map(&BTreeMap::new(), &cluster.departures, departure_key, &mut batch);
    batch.puts
}

/// A cluster from all its rows.
pub fn load<'a>(rows: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Result<Cluster, RowError> {
    let rows: Vec<_> = rows.into_iter().collect();
    let mut loader = Loader::default();
    for object in parallel::map(&rows, rows.len(), |(key, value)| Object::decode(key, value)) {
        loader.take(object?);
    }
    loader.finish()
}

fn node_key(name: &Name) -> String {
    format!("node/{name}")
}

fn departure_key((revision, slice): &(u64, Name)) -> String {
    format!("departure/{revision:020}/{slice}")
}

fn diff_map<K: Ord, V: PartialEq + Serialize>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    key: impl Fn(&K) -> String,
    batch: &mut Batch,
) {
    for (k, v) in new {
        if old.get(k) != Some(v) {
            put(batch, key(k), v);
        }
    }
    batch
        .deletes
        .extend(old.keys().filter(|k| !new.contains_key(k)).map(key));
}

fn diff_slice(old: Option<&Slice>, new: &Slice, batch: &mut Batch) {
    let (vms, links, revisions) = match old {
        Some(old) => (old.vms.clone(), old.links.clone(), old.revisions.clone()),
        None => Default::default(),
    };
    let s = &new.name;
    put(batch, format!("slice/{s}"), &slice_row(new));
    diff_shared(&vms, &new.vms, |n| format!("vm/{s}/{n}"), batch);
    diff_shared(&links, &new.links, |n| format!("link/{s}/{n}"), batch);
    for (number, frozen) in &new.revisions {
        if revisions.get(number) != Some(frozen) {
            batch.puts.extend(frozen_rows(s, frozen));
        }
    }
    for (number, frozen) in &revisions {
        if !new.revisions.contains_key(number) {
            batch
                .deletes
                .extend(frozen_rows(s, frozen).into_iter().map(|(key, _)| key));
        }
    }
}

fn diff_shared<V: PartialEq + Serialize>(
    old: &BTreeMap<Name, Arc<V>>,
    new: &BTreeMap<Name, Arc<V>>,
    key: impl Fn(&Name) -> String,
    batch: &mut Batch,
) {
    for (name, value) in new {
        if old.get(name) != Some(value) {
            put(batch, key(name), value.as_ref());
        }
    }
    batch
        .deletes
        .extend(old.keys().filter(|n| !new.contains_key(n)).map(key));
}

fn slice_rows(slice: &Slice) -> Vec<(String, Vec<u8>)> {
    let mut batch = Batch::default();
    diff_slice(None, slice, &mut batch);
    batch.puts
}

fn slice_row(slice: &Slice) -> SliceRow {
    let Slice {
        name: _,
        uid,
        owner,
        created,
        revision,
        pool,
        vms,
        links,
        deployed,
        next_number,
        revisions,
    } = slice;
    SliceRow {
        uid: *uid,
        owner: owner.clone(),
        created: *created,
        revision: *revision,
        pool: pool.clone(),
        deployed: *deployed,
        next_number: *next_number,
        vms: vms.len(),
        links: links.len(),
        revisions: revisions.len(),
    }
}

fn frozen_rows(slice: &Name, frozen: &Frozen) -> Vec<(String, Vec<u8>)> {
    let Frozen {
        number,
        position,
        at,
        by,
        vms,
        links,
    } = frozen;
    let head = format!("frozen/{slice}/{number:08}");
    let mut batch = Batch::default();
    let row = FrozenRow {
        position: *position,
        at: *at,
        by: by.clone(),
        vms: vms.len(),
        links: links.len(),
    };
    put(&mut batch, head.clone(), &row);
    let (vms, links): (Vec<&Vm>, Vec<&Link>) = (
        vms.values().map(AsRef::as_ref).collect(),
        links.values().map(AsRef::as_ref).collect(),
    );
    let vm_parts = vms.chunks(PART).map(|c| PartRef {
        vms: c.to_vec(),
        links: vec![],
    });
    let link_parts = links.chunks(PART).map(|c| PartRef {
        vms: vec![],
        links: c.to_vec(),
    });
    for (i, part) in vm_parts.chain(link_parts).enumerate() {
        put(&mut batch, format!("{head}/{i:04}"), &part);
    }
    batch.puts
}

fn put(batch: &mut Batch, key: String, value: &impl Serialize) {
    // Rows are plain structs with text keys: writing them to memory cannot fail. An empty value would be refused on load.
    batch.puts.push((key, serde_json::to_vec(value).unwrap_or_default()));
}

#[derive(Default)]
struct Loader {
    meta: Option<Meta>,
    slices: BTreeMap<Name, SliceRow>,
    vms: BTreeMap<Name, BTreeMap<Name, Arc<Vm>>>,
    links: BTreeMap<Name, BTreeMap<Name, Arc<Link>>>,
    frozen: BTreeMap<Name, BTreeMap<u32, FrozenRow>>,
    parts: BTreeMap<(Name, u32), Vec<Part>>,
    nodes: BTreeMap<Name, NodeRecord>,
    departures: BTreeMap<(u64, Name), Departure>,
}

/// One row, decoded.
enum Object {
    Meta(Box<Meta>),
    Slice(Name, SliceRow),
    Vm(Name, Name, Arc<Vm>),
    Link(Name, Name, Arc<Link>),
    Frozen(Name, u32, FrozenRow),
    Part(Name, u32, Part),
    Node(Name, Box<NodeRecord>),
    Departure((u64, Name), Departure),
}

impl Object {
    fn decode(key: &str, bytes: &[u8]) -> Result<Self, RowError> {
        let unknown = || RowError::Key(key.to_owned());
        let name = |text: &str| text.parse::<Name>().map_err(|_| unknown());
        let number = |text: &str| text.parse::<u32>().map_err(|_| unknown());
        let path: Vec<&str> = key.split('/').collect();
        Ok(match path[..] {
            ["meta"] => Self::Meta(Box::new(value(key, bytes)?)),
            ["slice", slice] => Self::Slice(name(slice)?, value(key, bytes)?),
            ["vm", slice, vm] => Self::Vm(name(slice)?, name(vm)?, Arc::new(value(key, bytes)?)),
            ["link", slice, link] => Self::Link(name(slice)?, name(link)?, Arc::new(value(key, bytes)?)),
            ["frozen", slice, n] => Self::Frozen(name(slice)?, number(n)?, value(key, bytes)?),
            ["frozen", slice, n, _part] => Self::Part(name(slice)?, number(n)?, value(key, bytes)?),
            ["node", node] => Self::Node(name(node)?, Box::new(value(key, bytes)?)),
            ["departure", revision, slice] => {
                let revision = revision.parse().map_err(|_| unknown())?;
                Self::Departure((revision, name(slice)?), value(key, bytes)?)
            }
            _ => return Err(unknown()),
        })
    }
}

impl Loader {
    fn take(&mut self, object: Object) {
        match object {
            Object::Meta(meta) => self.meta = Some(*meta),
            Object::Slice(name, slice) => drop(self.slices.insert(name, slice)),
            Object::Vm(slice, name, vm) => drop(self.vms.entry(slice).or_default().insert(name, vm)),
            Object::Link(slice, name, link) => drop(self.links.entry(slice).or_default().insert(name, link)),
            Object::Frozen(slice, number, head) => drop(self.frozen.entry(slice).or_default().insert(number, head)),
            Object::Part(slice, number, part) => self.parts.entry((slice, number)).or_default().push(part),
            Object::Node(name, record) => drop(self.nodes.insert(name, *record)),
            Object::Departure(key, departure) => drop(self.departures.insert(key, departure)),
        }
    }

    fn finish(mut self) -> Result<Cluster, RowError> {
        let meta = self
            .meta
            .take()
            .ok_or_else(|| RowError::Incomplete("the cluster".into()))?;
        let mut slices = SharedMap::new();
        for (name, row) in std::mem::take(&mut self.slices) {
            slices.insert(name.clone(), Arc::new(self.slice(name, row)?));
        }
        if let Some(name) = self
            .vms
            .keys()
            .chain(self.links.keys())
            .chain(self.frozen.keys())
            .next()
        {
            return Err(RowError::Incomplete(format!("slice {name}")));
        }
        if let Some((name, number)) = self.parts.keys().next() {
            return Err(RowError::Incomplete(format!("revision {number} of slice {name}")));
        }
        Ok(Cluster {
            meta,
            slices,
            nodes: self.nodes.into_iter().collect(),
            departures: self.departures,
        })
    }

    fn slice(&mut self, name: Name, row: SliceRow) -> Result<Slice, RowError> {
        let mut revisions = BTreeMap::new();
        for (number, head) in self.frozen.remove(&name).unwrap_or_default() {
            revisions.insert(number, Arc::new(self.frozen(&name, number, head)?));
        }
        let slice = Slice {
            uid: row.uid,
            owner: row.owner,
            created: row.created,
            revision: row.revision,
            pool: row.pool,
            vms: self.vms.remove(&name).unwrap_or_default(),
            links: self.links.remove(&name).unwrap_or_default(),
            deployed: row.deployed,
            next_number: row.next_number,
            revisions,
            name,
        };
        let whole = slice.vms.len() == row.vms
            && slice.links.len() == row.links
            && slice.revisions.len() == row.revisions
            && slice.deployed.is_some() == slice.deployed().is_some();
        if whole {
            Ok(slice)
        } else {
            Err(RowError::Incomplete(format!("slice {}", slice.name)))
        }
    }

    fn frozen(&mut self, slice: &Name, number: u32, head: FrozenRow) -> Result<Frozen, RowError> {
        let (mut vms, mut links) = (BTreeMap::new(), BTreeMap::new());
        for part in self.parts.remove(&(slice.clone(), number)).unwrap_or_default() {
            vms.extend(part.vms.into_iter().map(|vm| (vm.name.clone(), Arc::new(vm))));
            links.extend(part.links.into_iter().map(|link| (link.name.clone(), Arc::new(link))));
        }
        if vms.len() != head.vms || links.len() != head.links {
            return Err(RowError::Incomplete(format!("revision {number} of slice {slice}")));
        }
        Ok(Frozen {
            number,
            position: head.position,
            at: head.at,
            by: head.by,
            vms,
            links,
        })
    }
}

fn value<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, RowError> {
    serde_json::from_slice(bytes).map_err(|source| RowError::Value {
        key: key.to_owned(),
        source,
    })
}
