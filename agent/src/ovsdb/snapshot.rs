//! The mirrored tables, typed. A snapshot is immutable: a change makes a new one that shares the rows that did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Error;
use super::value::Column;

/// Declares a row type from its columns; the database's column name is the field's unless `as` gives another.
macro_rules! row {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $kind:ty $(as $column:literal)?,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $kind,)* }

        impl $name {
            const COLUMNS: &[&str] = &[$(row!(@column $field $($column)?),)*];

            fn absorb(&mut self, difference: &Map<String, Value>) -> Result<(), Error> {
                $(if let Some(value) = difference.get(row!(@column $field $($column)?)) {
                    self.$field.absorb(value)?;
                })*
                Ok(())
            }
        }
    };
    (@column $field:ident) => { stringify!($field) };
    (@column $field:ident $column:literal) => { $column };
}

row! {
    /// The one row of table `Open_vSwitch`.
    Root {
        /// Bridges.
        bridges: BTreeSet<Uuid>,
        /// Configuration that ovs-vswitchd has acted on.
        cur_cfg: i64,
        /// Configuration that was last asked for.
        next_cfg: i64,
        /// Version of Open vSwitch as its start script wrote it down; none where it was started otherwise.
        ovs_version: Option<String>,
        /// Datapaths that it can drive: `system`, `netdev`.
        datapath_types: BTreeSet<String>,
    }
}

row! {
    /// A row of table `Bridge`.
    Bridge {
        /// Its name.
        name: String,
        /// `netdev`, `system`, or empty for the default, which is `system`.
        datapath_type: String,
        /// `standalone`, `secure` or none.
        fail_mode: Option<String>,
        /// Its ports.
        ports: BTreeSet<Uuid>,
        /// Marks.
        external_ids: BTreeMap<String, String>,
    }
}

row! {
    /// A row of table `Port`.
    Port {
        /// Its name, unique in the whole database.
        name: String,
        /// Its interfaces; more than one is a bond.
        interfaces: BTreeSet<Uuid>,
        /// `access`, `trunk`, ... or none.
        vlan_mode: Option<String>,
        /// Access VLAN.
        tag: Option<i64>,
        /// VLANs of a trunk; empty means all.
        trunks: BTreeSet<i64>,
        /// A protected port exchanges no frames with another protected one of the same bridge.
        protected: bool,
        /// Marks.
        external_ids: BTreeMap<String, String>,
    }
}

row! {
    /// A row of table `Interface`.
    Interface {
        /// Its name, unique in the whole database.
        name: String,
        /// Empty or `system` for a network device that exists already, `internal` for one that ovs-vswitchd makes.
        kind: String as "type",
        /// MAC that was asked for.
        mac: Option<String>,
        /// MAC that it has.
        mac_in_use: Option<String>,
        /// MTU that it has.
        mtu: Option<i64>,
        /// MTU that was asked for.
        mtu_request: Option<i64>,
        /// OpenFlow port; none before ovs-vswitchd has looked at it, -1 when it could not take it.
        ofport: Option<i64>,
        /// OpenFlow port that was asked for.
        ofport_request: Option<i64>,
        /// Why ovs-vswitchd could not take it.
        error: Option<String>,
        /// The kernel's index of the device.
        ifindex: Option<i64>,
        /// Marks.
        external_ids: BTreeMap<String, String>,
    }
}

/// All that is known of Open vSwitch at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Table `Open_vSwitch`.
    pub root: Root,
    /// Table `Bridge`.
    pub bridges: BTreeMap<Uuid, Arc<Bridge>>,
    /// Table `Port`.
    pub ports: BTreeMap<Uuid, Arc<Port>>,
    /// Table `Interface`.
    pub interfaces: BTreeMap<Uuid, Arc<Interface>>,
}

impl Snapshot {
    /// A bridge by name.
    #[must_use]
    pub fn bridge(&self, name: &str) -> Option<(Uuid, &Arc<Bridge>)> {
        self.bridges
            .iter()
            .find(|(_, bridge)| bridge.name == name)
            .map(|(id, bridge)| (*id, bridge))
    }

    /// A port by name, on whatever bridge.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<(Uuid, &Arc<Port>)> {
        self.ports
            .iter()
            .find(|(_, port)| port.name == name)
            .map(|(id, port)| (*id, port))
    }

    /// An interface by name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<(Uuid, &Arc<Interface>)> {
        self.interfaces
            .iter()
            .find(|(_, interface)| interface.name == name)
            .map(|(id, interface)| (*id, interface))
    }

    /// The bridge that holds a port.
    #[must_use]
    pub fn bridge_of(&self, port: Uuid) -> Option<(Uuid, &Arc<Bridge>)> {
        self.bridges
            .iter()
            .find(|(_, bridge)| bridge.ports.contains(&port))
            .map(|(id, bridge)| (*id, bridge))
    }

    /// What `monitor_cond` has to be asked for.
    pub(super) fn monitor_request() -> Value {
        json!({
            "Open_vSwitch": [{ "columns": Root::COLUMNS }],
            "Bridge": [{ "columns": Bridge::COLUMNS }],
            "Port": [{ "columns": Port::COLUMNS }],
            "Interface": [{ "columns": Interface::COLUMNS }],
        })
    }

    /// Takes the tables of a reply to `monitor_cond` or of an `update2` notification.
    pub(super) fn take(&mut self, tables: &Value) -> Result<(), Error> {
        let tables = object(tables, "tables")?;
        for (table, rows) in tables {
            for (id, change) in object(rows, "rows")? {
                let id: Uuid = id
                    .parse()
                    .map_err(|_| Error::Protocol(format!("row of table {table} has the id {id}")))?;
                match table.as_str() {
                    "Open_vSwitch" => self.take_root(change)?,
                    "Bridge" => take_row(&mut self.bridges, id, change, Bridge::absorb)?,
                    "Port" => take_row(&mut self.ports, id, change, Port::absorb)?,
                    "Interface" => take_row(&mut self.interfaces, id, change, Interface::absorb)?,
                    other => {
                        return Err(Error::Protocol(format!(
                            "update of table {other}, which was not asked for"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn take_root(&mut self, change: &Value) -> Result<(), Error> {
        let (kind, row) = change_of(change)?;
        match kind {
            "delete" => self.root = Root::default(),
            "modify" => self.root.absorb(object(row, "row")?)?,
            _ => {
                self.root = Root::default();
                self.root.absorb(object(row, "row")?)?;
            }
        }
        Ok(())
    }
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, Error> {
    value
        .as_object()
        .ok_or_else(|| Error::Protocol(format!("{what} expected, got {value}")))
}

/// A row's change is an object with one member: `initial`, `insert`, `modify` or `delete`.
fn change_of(change: &Value) -> Result<(&str, &Value), Error> {
    object(change, "change")?
        .iter()
        .next()
        .map(|(kind, row)| (kind.as_str(), row))
        .ok_or_else(|| Error::Protocol("a row's change is empty".to_owned()))
}

fn take_row<R: Default + Clone>(
    rows: &mut BTreeMap<Uuid, Arc<R>>,
    id: Uuid,
    change: &Value,
    absorb: fn(&mut R, &Map<String, Value>) -> Result<(), Error>,
) -> Result<(), Error> {
    let (kind, row) = change_of(change)?;
    match kind {
        "delete" => {
            rows.remove(&id);
        }
        "modify" => {
            let held = rows
                .get_mut(&id)
                .ok_or_else(|| Error::Protocol(format!("row {id} was modified but never seen")))?;
            absorb(Arc::make_mut(held), object(row, "row")?)?;
        }
        "initial" | "insert" => {
            let mut fresh = R::default();
            absorb(&mut fresh, object(row, "row")?)?;
            rows.insert(id, Arc::new(fresh));
        }
        other => return Err(Error::Protocol(format!("unknown kind of change {other}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const PORT: &str = "11111111-1111-4111-8111-111111111111";

    fn update(change: &Value) -> Value {
        json!({ "Port": { PORT: change } })
    }

    #[test]
    fn a_row_is_inserted_modified_and_deleted() {
        let mut snapshot = Snapshot::default();
        snapshot
            .take(&update(&json!({ "initial": { "name": "tap_1000_eth1", "tag": 110 } })))
            .unwrap();
        snapshot
            .take(&update(&json!({ "modify": { "tag": 111, "trunks": 4095 } })))
            .unwrap();
        let (_, port) = snapshot.port("tap_1000_eth1").unwrap();
        assert_eq!((port.tag, port.trunks.len(), port.protected), (Some(111), 1, false));
        snapshot.take(&update(&json!({ "delete": null }))).unwrap();
        assert!(snapshot.ports.is_empty());
    }

    #[test]
    fn an_older_snapshot_is_not_changed_by_a_later_update() {
        let mut snapshot = Snapshot::default();
        snapshot
            .take(&update(&json!({ "insert": { "name": "a", "tag": 1 } })))
            .unwrap();
        let before = snapshot.clone();
        snapshot.take(&update(&json!({ "modify": { "tag": 2 } }))).unwrap();
        assert_eq!(before.port("a").unwrap().1.tag, Some(1));
    }

    #[test]
    fn a_change_of_a_row_never_seen_is_an_error() {
        assert!(
            Snapshot::default()
                .take(&update(&json!({ "modify": { "tag": 1 } })))
                .is_err()
        );
    }

    #[test]
    fn the_column_of_an_interfaces_kind_is_called_type() {
        assert!(Interface::COLUMNS.contains(&"type"));
        assert!(!Interface::COLUMNS.contains(&"kind"));
    }
}
