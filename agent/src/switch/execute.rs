//! The plan as one transaction, then the two devices that need a hand. Makes no choices.

use std::time::Duration;

use trunkline_proto::daemon::failpoint;

use super::{Addition, BridgeStep, Modification, Plan, PortColumns, Removal};
use crate::netlink::{self, shield};
use crate::ovsdb::{self, Row, Transaction, named_uuid, uuid_set};

/// Name, within the transaction, of a bridge that it makes.
const NEW_BRIDGE: &str = "bridge";
/// How long a device that ovs-vswitchd makes may take to appear after it said that it had acted.
const DEVICE_LIMIT: Duration = Duration::from_secs(2);

/// Why the switch could not be seen or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no connection to the database: nothing is known.
    #[error("Open vSwitch is not reachable, so its state is unknown")]
    Unknown,
    /// The database failed or refused.
    #[error("Open vSwitch's ports could not be set")]
    Ovsdb(#[from] ovsdb::Error),
    /// The kernel failed or refused.
    #[error("a device of the switch could not be read or set")]
    Netlink(#[from] netlink::Error),
}

/// Carries out a plan. All ports change together or not at all.
///
/// # Errors
/// [`Error::Ovsdb`]: see [`ovsdb::Client::commit`] for what is known then.
pub async fn execute(
    plan: &Plan,
    ovs: &ovsdb::Client,
    netlink: &netlink::Handle,
    trace: Option<&str>,
    limit: Duration,
) -> Result<(), Error> {
    let Plan {
        quiet_local,
        raise_uplink,
        ..
    } = plan;
    if let Some(transaction) = transaction(plan, trace) {
        failpoint::reach("ovsdb.before-transaction");
        ovs.commit(transaction, limit).await?;
        failpoint::reach("ovsdb.after-transaction");
    }
    if let Some(local) = quiet_local {
        quiet(netlink, local).await?;
    }
    if let Some(uplink) = raise_uplink {
        raise(netlink, uplink).await?;
    }
    Ok(())
}

/// Asks ovs-vswitchd for a sign of life: without one, what the database says of ports is the past.
///
/// # Errors
/// [`ovsdb::Error::NotApplied`] when it does not act.
pub async fn prove_alive(ovs: &ovsdb::Client, limit: Duration) -> Result<(), ovsdb::Error> {
    ovs.commit(Transaction::new(), limit).await.map(|_| ())
}

async fn quiet(netlink: &netlink::Handle, device: &str) -> Result<(), Error> {
    let Some(link) = appeared(netlink, device).await? else {
        return Ok(());
    };
    netlink.set_down(link.index).await?;
    shield(device)?;
    Ok(())
}

async fn raise(netlink: &netlink::Handle, device: &str) -> Result<(), Error> {
    // An adopted bond is no device of the kernel: its members are its operator's.
    let Some(link) = netlink.link(device).await? else {
        return Ok(());
    };
    shield(device)?;
    netlink.set_up(link.index).await?;
    Ok(())
}

async fn appeared(netlink: &netlink::Handle, device: &str) -> Result<Option<netlink::Link>, Error> {
    let deadline = tokio::time::Instant::now() + DEVICE_LIMIT;
    loop {
        let link = netlink.link(device).await?;
        if link.is_some() || tokio::time::Instant::now() >= deadline {
            return Ok(link);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The transaction of a plan; `None` when the database has nothing to do.
#[must_use]
pub fn transaction(plan: &Plan, trace: Option<&str>) -> Option<Transaction> {
    let Plan {
        bridge,
        remove,
        modify,
        add,
        quiet_local: _,
        raise_uplink: _,
        conflicts: _,
    } = plan;
    if matches!(bridge, BridgeStep::Keep(_)) && remove.is_empty() && modify.is_empty() && add.is_empty() {
        return None;
    }
    let mut tx = Transaction::new();
    tx.comment(&format!(
        "trunkline: remove {}, change {}, add {}{}",
        remove.len(),
        modify.len(),
        add.len(),
        trace.map(|trace| format!("; trace {trace}")).unwrap_or_default()
    ));
    for removal in remove {
        put_removal(&mut tx, removal);
    }
    for modification in modify {
        put_modification(&mut tx, modification);
    }
    let names: Vec<String> = add
        .iter()
        .enumerate()
        .map(|(at, addition)| put_addition(&mut tx, at, addition))
        .collect();
    put_bridge(&mut tx, bridge, &names);
    Some(tx)
}

fn put_removal(tx: &mut Transaction, removal: &Removal) {
    let Removal { name, id, bridge } = removal;
    // Guard: the id still is the port that was looked at.
    tx.require("Port", *id, Row::new().set("name", name.as_str()));
    tx.remove_references("Bridge", *bridge, "ports", &[*id]);
}

fn put_modification(tx: &mut Transaction, modification: &Modification) {
    let Modification {
        name: _,
        id,
        interfaces,
        before,
        after,
    } = modification;
    let port = port_row(after, Some(before));
    if !port.is_empty() {
        tx.update("Port", *id, port);
    }
    let row = interface_row(after, Some(before));
    if !row.is_empty() {
        for interface in interfaces {
            tx.update("Interface", *interface, row.clone());
        }
    }
}

/// Returns the name that the new port has within the transaction.
fn put_addition(tx: &mut Transaction, at: usize, addition: &Addition) -> String {
    let Addition { name, columns } = addition;
    let (interface, port) = (format!("interface{at}"), format!("port{at}"));
    put_port(tx, name, columns, &interface, &port);
    port
}

fn put_port(tx: &mut Transaction, name: &str, columns: &PortColumns, interface: &str, port: &str) {
    tx.insert("Interface", interface, interface_row(columns, None).set("name", name));
    let row = port_row(columns, None)
        .set("name", name)
        .set("interfaces", named_uuid(interface));
    tx.insert("Port", port, row);
}

fn put_bridge(tx: &mut Transaction, step: &BridgeStep, ports: &[String]) {
    match step {
        BridgeStep::Keep(id) => {
            if !ports.is_empty() {
                tx.add_references("Bridge", *id, "ports", ports);
            }
        }
        BridgeStep::Update {
            id,
            datapath,
            fail_mode,
            external_ids,
        } => {
            let row = Row::new()
                .set("datapath_type", datapath.as_str())
                .set("fail_mode", fail_mode.as_str())
                .set_map("external_ids", external_ids);
            tx.update("Bridge", *id, row);
            if !ports.is_empty() {
                tx.add_references("Bridge", *id, "ports", ports);
            }
        }
        BridgeStep::Create {
            name,
            datapath,
            fail_mode,
            external_ids,
            local,
        } => {
            put_port(tx, name, local, "local_interface", "local_port");
            let members = ports.iter().map(String::as_str).chain(["local_port"]).map(named_uuid);
            let row = Row::new()
                .set("name", name.as_str())
                .set("datapath_type", datapath.as_str())
                .set("fail_mode", fail_mode.as_str())
                .set_map("external_ids", external_ids)
                .set("ports", uuid_set(members));
            tx.insert("Bridge", NEW_BRIDGE, row);
            tx.add_references_to_only_row("Open_vSwitch", "bridges", &[NEW_BRIDGE.to_owned()]);
        }
    }
}

/// The columns of a port that differ from `before`; all that are not at their default without one.
fn port_row(after: &PortColumns, before: Option<&PortColumns>) -> Row {
    let PortColumns {
        vlan_mode,
        tag,
        trunks,
        protected,
        external_ids,
        interface: _,
    } = after;
    let default = PortColumns::default();
    let before = before.unwrap_or(&default);
    let mut row = Row::new();
    if *vlan_mode != before.vlan_mode {
        row = row.set_optional("vlan_mode", vlan_mode.as_deref());
    }
    if *tag != before.tag {
        row = row.set_optional("tag", *tag);
    }
    if *trunks != before.trunks {
        row = row.set_integers("trunks", trunks.iter().copied());
    }
    if *protected != before.protected {
        row = row.set("protected", *protected);
    }
    if *external_ids != before.external_ids {
        row = row.set_map("external_ids", external_ids);
    }
    row
}

/// As [`port_row`], for the interface.
fn interface_row(after: &PortColumns, before: Option<&PortColumns>) -> Row {
    let super::InterfaceColumns {
        kind,
        mac,
        mtu_request,
        ofport_request,
        external_ids,
    } = &after.interface;
    let default = super::InterfaceColumns::default();
    let before = before.map_or(&default, |before| &before.interface);
    let mut row = Row::new();
    if *kind != before.kind {
        row = row.set("type", kind.as_str());
    }
    if *mac != before.mac {
        row = row.set_optional("mac", mac.as_deref());
    }
    if *mtu_request != before.mtu_request {
        row = row.set_optional("mtu_request", *mtu_request);
    }
    if *ofport_request != before.ofport_request {
        row = row.set_optional("ofport_request", *ofport_request);
    }
    if *external_ids != before.external_ids {
        row = row.set_map("external_ids", external_ids);
    }
    row
}
