//! What to do about the table, forwarding and old connections. Pure.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use trunkline_proto::resource::{Facts, Nat, State};
use trunkline_proto::{VlanId, wire};

use super::limits;
use super::observe::{Observed, Readback, Record, Served, Table};
use super::render::{Counter, Filter};
use crate::Fingerprint;
use crate::nft::{self, TABLE};

/// What to do, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Forwarding is given back before the filter goes, and switched on after it stands.
    pub forwarding: ForwardingStep,
    /// The table that limits connections; it stands before anybody is let through.
    pub limits: limits::Step,
    /// The table.
    pub table: TableStep,
    /// Addresses that are no longer served, or that another guest has now, in as few blocks as they make: their connections are
    /// ended.
    pub forget: Vec<Ipv4Net>,
    /// Who is served once the table stands.
    pub served: Served,
    /// A stranger has our table's name; nothing is done then.
    pub conflict: Option<String>,
}

/// What to do about the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableStep {
    /// It is right.
    Keep,
    /// Replace it in one batch.
    Replace {
        /// The batch.
        batch: String,
        /// Names this content, whatever its counters say.
        rendered: Fingerprint,
    },
    /// Delete it.
    Delete,
}

/// The value of `net.ipv4.ip_forward`, and what it was before us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarding {
    /// It is on.
    pub on: bool,
    /// We switched NAT on when it had this value; `None` when we have nothing to give back.
    pub before: Option<bool>,
}

/// What to do about forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardingStep {
    /// Nothing.
    Keep,
    /// Switch it on; when `record` is set, note that value first.
    Enable {
        /// The value to note as the earlier one.
        record: Option<bool>,
    },
    /// It was on before us: note that, so that it is never switched off.
    RecordOn,
    /// Set it back to what it was (`false`: off) and forget the note.
    Restore {
        /// Switch it off.
        off: bool,
    },
}

impl Plan {
    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let Self {
            forwarding,
            limits,
            table,
            forget,
            served: _,
            conflict: _,
        } = self;
        *forwarding == ForwardingStep::Keep
            && *limits == limits::Step::Keep
            && *table == TableStep::Keep
            && forget.is_empty()
    }
}

/// Compares.
pub fn plan(filter: &Filter, observed: &Observed) -> Plan {
    let served = Served {
        subnets: filter.nats().map(|nat| nat.subnet).collect(),
        users: filter.users().collect(),
    };
    let limits = limits::render(filter.way(), filter.nats());
    let theirs = match (&observed.table, observed.limits.table) {
        (Table::Foreign(family), _) => Some((*family, TABLE)),
        (_, nft::State::Foreign) if limits.is_some() => Some(("inet", limits::TABLE)),
        _ => None,
    };
    if let Some((family, theirs)) = theirs {
        return Plan {
            forwarding: ForwardingStep::Keep,
            limits: limits::Step::Keep,
            table: TableStep::Keep,
            forget: Vec::new(),
            served,
            conflict: Some(format!(
                "the nftables table {family} {theirs} is there and was not made by this program; rename or delete it"
            )),
        };
    }
    Plan {
        forwarding: forwarding(!served.subnets.is_empty(), observed.forwarding),
        limits: limits::plan(limits, &observed.limits, observed.record.limits),
        table: table(filter, &observed.table, &observed.record),
        forget: forget(&observed.record.served, &served),
        served,
        conflict: None,
    }
}

/// An open connection is not looked at again by NAT, so the next one to have the address would hear its replies.
fn forget(before: &Served, now: &Served) -> Vec<Ipv4Net> {
    let subnets = before.subnets.difference(&now.subnets).map(|subnet| subnet.net());
    let users = before.users.difference(&now.users).map(|user| user.address.into());
    Ipv4Net::aggregate(&subnets.chain(users).collect())
}

fn forwarding(wanted: bool, Forwarding { on, before }: Forwarding) -> ForwardingStep {
    match (wanted, on, before) {
        (true, false, Some(_)) => ForwardingStep::Enable { record: None },
        (true, false, None) => ForwardingStep::Enable { record: Some(false) },
        (true, true, None) => ForwardingStep::RecordOn,
        (true, true, Some(_)) | (false, _, None) => ForwardingStep::Keep,
        // Somebody else switched it off meanwhile, or it was on before us: only the note goes.
        (false, on, Some(before)) => ForwardingStep::Restore { off: on && !before },
    }
}

fn table(filter: &Filter, table: &Table, record: &Record) -> TableStep {
    let (seen, counters) = match table {
        Table::Absent | Table::Foreign(_) if filter.is_empty() => return TableStep::Keep,
        Table::Absent | Table::Foreign(_) => (None, BTreeMap::new()),
        Table::Ours(_) if filter.is_empty() => return TableStep::Delete,
        Table::Ours(Readback {
            fingerprint, counters, ..
        }) => (Some(*fingerprint), counters.clone()),
    };
    let rendered = rendered(filter);
    if record.noted.stands(rendered, seen) {
        TableStep::Keep
    } else {
        TableStep::Replace {
            batch: filter.render(&counters),
            rendered,
        }
    }
}

/// Names a table's content without its counters.
fn rendered(filter: &Filter) -> Fingerprint {
    Fingerprint::of(filter.render(&BTreeMap::new()))
}

/// How far a NAT is true, from what was read back. `gateway` says what is wrong with its gateway, if anything.
pub fn judge(nat: &Nat, filter: &Filter, observed: &Observed, gateway: Option<&str>) -> (State, String, Facts) {
    let counter = counter(nat.vlan, &observed.table);
    let facts = Facts::Nat(wire::NatFacts {
        uplink: observed.uplink.name.clone(),
        packets: counter.packets,
        bytes: counter.bytes,
        forwarding: observed.forwarding.on,
    });
    let (state, reason) = verdict(filter, observed, gateway);
    (state, reason, facts)
}

fn counter(vlan: VlanId, table: &Table) -> Counter {
    match table {
        Table::Ours(readback) => readback.counters.get(&vlan).copied().unwrap_or_default(),
        Table::Absent | Table::Foreign(_) => Counter::default(),
    }
}

fn verdict(filter: &Filter, observed: &Observed, gateway: Option<&str>) -> (State, String) {
    let Observed {
        table: _,
        record: _,
        forwarding,
        uplink,
        limits,
        dropping,
    } = observed;
    let plan = plan(filter, observed);
    let name = &uplink.name;
    if let Some(conflict) = plan.conflict {
        return (State::Failed, conflict);
    }
    if plan.table != TableStep::Keep {
        return (
            State::Failed,
            format!("the nftables tables inet and arp {TABLE} are not what they should be"),
        );
    }
    if plan.limits != limits::Step::Keep {
        return (
            State::Failed,
            format!("the nftables table inet {} is not what it should be", limits::TABLE),
        );
    }
    if !forwarding.on {
        return (State::Failed, "net.ipv4.ip_forward is 0".to_owned());
    }
    if !uplink.exists {
        return (
            State::Failed,
            format!("the uplink {name} does not exist; set nat.uplink to the interface that leads to the internet"),
        );
    }
    if !uplink.up {
        return (State::Failed, format!("the uplink {name} is down"));
    }
    if !dropping.is_empty() {
        let chains: Vec<String> = dropping.iter().map(|chain| format!("\"{chain}\"")).collect();
        return (
            State::Degraded,
            format!(
                "forwarded packets are dropped by a foreign nftables chain: {}; accept traffic from and to the \
                 gateway port by its name there",
                chains.join(", ")
            ),
        );
    }
    if !uplink.default_route && uplink.beside.is_empty() {
        // The kernel takes the routes away with the last address.
        return (
            State::Degraded,
            format!("the uplink {name} has no address and there is no default route through it: guests reach nobody"),
        );
    }
    if !uplink.default_route {
        return (
            State::Degraded,
            format!("there is no default route through {name}: guests reach no further than its own network"),
        );
    }
    let refused = limits::complaint(&limits.refused, filter.way().connections);
    match (gateway, refused) {
        (Some(reason), _) => (State::Degraded, format!("its gateway is not ready: {reason}")),
        (None, Some(refused)) => (State::Degraded, refused),
        (None, None) => (State::Ready, String::new()),
    }
}

#[cfg(test)]
mod tests;
