//! How many connections each guest may have open at once, so that none uses up what the host can keep of all.
//!
//! A table of its own, `inet trunkline-connections`: the kernel counts in the elements of a set, so what is open would be forgotten
//! with each change of the other table, which comes with each guest. This one changes with the configuration only. It is asked after
//! the other one: whoever may not get out at all does not come here. Only what opens a connection is refused; a connection that is
//! open goes on.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde_json::Value;
use trunkline_agent::netlink;
use trunkline_proto::resource::Nat;

use super::way::Way;
use crate::Fingerprint;
use crate::nft::{self, Error, MARK_CHAIN, Nft, Noted, State};

/// The table's name; its family is `inet`.
pub const TABLE: &str = "trunkline-connections";
/// How long a guest that was refused is named in the status.
const REMEMBERED: &str = "1m";
/// Guests named in a reason; the others are counted.
const NAMED: usize = 3;

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The table.
    pub table: State,
    /// Guests that were refused a connection of late.
    pub refused: BTreeSet<Ipv4Addr>,
    /// Sets in which the kernel remembers them.
    pub memories: BTreeSet<String>,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is right, or somebody else's.
    Keep,
    /// Load this batch.
    Replace(String),
    /// Delete it.
    Delete,
}

/// A batch that writes the table; none without NAT.
pub fn render<'a>(way: &Way, nats: impl IntoIterator<Item = &'a Nat>) -> Option<String> {
    let Way {
        uplink,
        denied: _,
        allowed: _,
        connections,
    } = way;
    let mut nats = nats.into_iter().peekable();
    nats.peek()?;
    let (mut text, mut rules) = (nft::replace(TABLE), String::new());
    for Nat {
        vlan,
        subnet: _,
        gateway_port,
    } in nats
    {
        // As many as the largest subnet has addresses, many times over: a set that is full would let everybody pass.
        let _ = write!(
            text,
            "\tcounter refused_vlan{vlan} {{\n\t}}\n\
             \tset open_vlan{vlan} {{\n\t\ttype ipv4_addr\n\t\tsize 65536\n\t\tflags dynamic\n\t}}\n\
             \tset refused_vlan{vlan} {{\n\t\ttype ipv4_addr\n\t\tsize 65536\n\t\tflags dynamic,timeout\n\t\ttimeout {REMEMBERED}\n\t}}\n"
        );
        let _ = writeln!(
            rules,
            "\t\tiifname \"{gateway_port}\" oifname \"{uplink}\" ct state new \
             add @open_vlan{vlan} {{ ip saddr ct count over {connections} }} \
             update @refused_vlan{vlan} {{ ip saddr }} counter name refused_vlan{vlan} drop"
        );
    }
    let _ = write!(
        text,
        "\tchain {MARK_CHAIN} {{\n\t}}\n\
         \tchain forward {{\n\t\ttype filter hook forward priority filter + 1; policy accept;\n{rules}\t}}\n}}\n"
    );
    Some(text)
}

/// Compares.
pub fn plan(wanted: Option<String>, seen: &Seen, noted: Noted) -> Step {
    let found = seen.table.fingerprint();
    match wanted {
        _ if seen.table == State::Foreign => Step::Keep,
        Some(batch) if noted.stands(Fingerprint::of(&batch), found) => Step::Keep,
        Some(batch) => Step::Replace(batch),
        None if found.is_some() => Step::Delete,
        None => Step::Keep,
    }
}

/// Who was refused, for a reason.
pub fn complaint(refused: &BTreeSet<Ipv4Addr>, connections: u32) -> Option<String> {
    let mut names: Vec<String> = refused.iter().take(NAMED).map(Ipv4Addr::to_string).collect();
    if names.is_empty() {
        return None;
    }
    if let Some(more @ 1..) = refused.len().checked_sub(NAMED) {
        names.push(format!("{more} more"));
    }
    Some(format!(
        "{} had {connections} connections open within the last minute and got no more; nat.connections_per_guest is the limit",
        names.join(", ")
    ))
}

/// Looks.
pub(super) async fn look() -> Result<Seen, Error> {
    let nft = Nft::default();
    look_among(&nft, &nft.list(&["tables"]).await?).await
}

/// The same, with the list of all tables at hand.
pub(super) async fn look_among(nft: &Nft, tables: &Value) -> Result<Seen, Error> {
    Ok(match nft.table_among(tables, "inet", TABLE).await? {
        nft::Table::Absent => Seen::default(),
        nft::Table::Foreign => Seen {
            table: State::Foreign,
            ..Seen::default()
        },
        nft::Table::Ours(answer) => read(answer),
    })
}

/// The elements of its sets are the kernel's, not ours.
fn read(mut answer: Value) -> Seen {
    let (mut refused, mut memories) = (BTreeSet::new(), BTreeSet::new());
    for set in answer["nftables"].as_array_mut().into_iter().flatten() {
        let Some(set) = set.get_mut("set").and_then(Value::as_object_mut) else {
            continue;
        };
        let elements = set.shift_remove("elem");
        if let Some(name) = set["name"].as_str().filter(|name| name.starts_with("refused_")) {
            memories.insert(name.to_owned());
            let addresses = elements.iter().filter_map(Value::as_array).flatten();
            refused.extend(addresses.filter_map(address));
        }
    }
    Seen {
        table: State::Ours(nft::fingerprint(&answer)),
        refused,
        memories,
    }
}

impl Seen {
    /// Looks again at what the kernel remembers; no rule has changed since.
    pub(super) fn remember(&mut self) -> Result<(), netlink::Error> {
        self.refused.clear();
        for set in &self.memories {
            let keys = netlink::nft::set_elements(TABLE, set)?;
            let addresses = keys.into_iter().filter_map(|key| <[u8; 4]>::try_from(key).ok());
            self.refused.extend(addresses.map(Ipv4Addr::from));
        }
        Ok(())
    }
}

/// Of an element, which is an object when it has a time limit.
fn address(element: &Value) -> Option<Ipv4Addr> {
    let text = element.as_str().or_else(|| element["elem"]["val"].as_str());
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{nat, way};

    #[test]
    fn the_limits_render_as_in_the_golden_file() {
        assert_eq!(
            render(&way(), &[nat()]).as_deref(),
            Some(include_str!("golden/connections.nft"))
        );
        assert_eq!(render(&way(), &[]), None);
    }

    #[test]
    fn what_the_kernel_counts_is_no_difference_and_who_was_refused_is_read() {
        let table = |open: Value, refused: Value| {
            read(json!({"nftables": [
                {"set": {"name": "open_vlan400", "elem": open}},
                {"set": {"name": "refused_vlan400", "elem": refused}},
            ]}))
        };
        let none = table(json!([]), json!([]));
        let one = table(
            json!([{"elem": {"val": "10.60.7.11", "ct count": {"val": 4096, "inv": true}}}]),
            json!([{"elem": {"val": "10.60.7.10", "timeout": 60, "expires": 12}}, "10.60.7.12"]),
        );
        assert_eq!(none.table, one.table);
        let expected = ["10.60.7.10", "10.60.7.12"].map(|text| text.parse().ok());
        assert_eq!(one.refused, expected.into_iter().flatten().collect());
    }

    #[test]
    fn many_that_were_refused_are_counted() {
        let all: BTreeSet<Ipv4Addr> = (10..15).map(|host| Ipv4Addr::new(10, 60, 7, host)).collect();
        assert_eq!(complaint(&BTreeSet::new(), 16), None);
        let text = complaint(&all, 16).unwrap_or_default();
        assert!(
            text.starts_with("10.60.7.10, 10.60.7.11, 10.60.7.12, 2 more had 16 "),
            "{text}"
        );
    }

    #[test]
    fn a_table_is_written_once_and_a_strangers_is_left_alone() {
        let batch = || Some("batch".to_owned());
        let named = Some(Fingerprint::of("batch"));
        let noted = Noted {
            rendered: named,
            readback: named,
        };
        let seen = |table| Seen {
            table,
            ..Seen::default()
        };
        let ours = seen(State::Ours(Fingerprint::of("batch")));
        assert_eq!(plan(batch(), &ours, noted), Step::Keep);
        assert_eq!(
            plan(batch(), &ours, Noted::default()),
            Step::Replace("batch".to_owned())
        );
        assert_eq!(
            plan(batch(), &seen(State::Absent), noted),
            Step::Replace("batch".to_owned())
        );
        assert_eq!(plan(None, &ours, noted), Step::Delete);
        assert_eq!(plan(None, &seen(State::Absent), noted), Step::Keep);
        assert_eq!(plan(batch(), &seen(State::Foreign), noted), Step::Keep);
    }
}
