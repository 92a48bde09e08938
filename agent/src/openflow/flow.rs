//! Flows and meters as values.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use trunkline_proto::VlanId;

use super::field::{Field, Match, VLAN_PRESENT};

/// Port numbers with a meaning of their own.
pub mod port {
    /// Forward as a learning switch would, by the ports' VLAN settings.
    pub const NORMAL: u32 = 0xffff_fffa;
    /// The bridge's own device in the host.
    pub const LOCAL: u32 = 0xffff_fffe;
    /// Highest number of an ordinary port in Open vSwitch.
    pub const MAX: u32 = 0xfeff;
}

/// The mark on each of our flows: the upper half is always the same, the lower half says what the flow is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

impl Cookie {
    /// `TRNK`.
    pub const OURS: u64 = 0x5452_4e4b_0000_0000;
    /// The half that marks a flow as ours.
    pub const MASK: u64 = 0xffff_ffff_0000_0000;

    /// Ours, with a purpose.
    #[must_use]
    pub fn ours(purpose: u32) -> Self {
        Self(Self::OURS | u64::from(purpose))
    }

    /// True on a flow of ours.
    #[must_use]
    pub fn is_ours(self) -> bool {
        self.0 & Self::MASK == Self::OURS
    }

    /// The lower half.
    #[must_use]
    pub fn purpose(self) -> u32 {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// One thing that is done to a frame.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Out of a port, whatever that port's VLAN settings are; see [`port`] for `NORMAL`.
    Output(u32),
    /// Puts an empty 802.1Q tag on.
    PushVlan,
    /// Takes the outer tag off.
    PopVlan,
    /// Sets a whole field.
    SetField(Field, u64),
    /// Goes through another table, then on with the next action.
    Resubmit(u8),
    /// One that we do not know, as on the wire; only strangers' flows have it.
    Other(Vec<u8>),
}

/// What is done to a frame that matches. Empty: it is dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actions {
    /// Meter that the frame must pass first.
    pub meter: Option<u32>,
    /// In this order.
    pub apply: Vec<Action>,
    /// Then on in this table.
    pub goto: Option<u8>,
    /// Instructions that we do not know, as on the wire; only strangers' flows have them.
    pub others: Vec<Vec<u8>>,
}

impl Actions {
    /// Nothing: the frame is dropped.
    #[must_use]
    pub fn drop() -> Self {
        Self::default()
    }

    /// As a learning switch would.
    #[must_use]
    pub fn normal() -> Self {
        Self::drop().then(Action::Output(port::NORMAL))
    }

    /// On in another table.
    #[must_use]
    pub fn goto(table: u8) -> Self {
        Self::drop().then_goto(table)
    }

    /// Then on in another table.
    #[must_use]
    pub fn then_goto(mut self, table: u8) -> Self {
        self.goto = Some(table);
        self
    }

    /// One action more.
    #[must_use]
    pub fn then(mut self, action: Action) -> Self {
        // Most have one, and there are tens of thousands of them.
        self.apply.reserve_exact(1);
        self.apply.push(action);
        self
    }

    /// Out of a port with a VLAN's tag.
    #[must_use]
    pub fn then_tagged(self, vlan: VlanId, port: u32) -> Self {
        self.then(Action::PushVlan)
            .then(Action::SetField(Field::VlanVid, u64::from(vlan.get() | VLAN_PRESENT)))
            .then(Action::Output(port))
    }

    /// Only as fast as a meter lets it, if there is one.
    #[must_use]
    pub fn metered(mut self, meter: impl Into<Option<u32>>) -> Self {
        self.meter = meter.into();
        self
    }

    /// True when frames end here.
    #[must_use]
    pub fn is_drop(&self) -> bool {
        self.apply.is_empty() && self.goto.is_none() && self.others.is_empty()
    }
}

/// What makes a flow the same flow: a table holds one of each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Table, 0 to 254.
    pub table: u8,
    /// The highest that matches wins.
    pub priority: u16,
    /// Which frames.
    pub matches: Match,
}

/// A flow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Where and for which frames.
    pub rule: Rule,
    /// Whose, and what for.
    pub cookie: Cookie,
    /// What is done.
    pub actions: Actions,
}

impl Flow {
    /// A flow of ours.
    #[must_use]
    pub fn new(table: u8, priority: u16, cookie: Cookie, matches: Match, actions: Actions) -> Self {
        Self {
            rule: Rule {
                table,
                priority,
                matches,
            },
            cookie,
            actions,
        }
    }
}

/// What a flow has seen since it was added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A limit in frames a second; what is above it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meter {
    /// Frames a second.
    pub rate: u32,
    /// Frames that may come at once.
    pub burst: u32,
}

impl Meter {
    /// Our meters: a meter carries no cookie, so a range of numbers is ours.
    pub const OURS: u32 = 0x5400_0000;
    /// The part of a meter's number that says whose it is.
    pub const MASK: u32 = 0xff00_0000;

    /// True for a meter of ours.
    #[must_use]
    pub fn is_ours(id: u32) -> bool {
        id & Self::MASK == Self::OURS
    }
}

/// What a meter has seen since it was added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeterCounters {
    /// Frames that came to it.
    pub packets: u64,
    /// Frames that were over the limit.
    pub dropped: u64,
}

/// What a flow is besides its rule.
pub type Held = (Cookie, Actions);

/// Flows by what makes them the same.
pub type Rules = BTreeMap<Rule, Held>;

/// Two sets of flows side by side: each rule that is in one of them, with what it is in either. As quick as reading both.
pub fn beside<'a>(
    left: &'a Rules,
    right: &'a Rules,
) -> impl Iterator<Item = (&'a Rule, Option<&'a Held>, Option<&'a Held>)> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (Some((here, _)), Some((there, _))) => here.cmp(there),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let here = left.next_if(|_| order.is_le());
        let there = right.next_if(|_| order.is_ge());
        let (rule, _) = here.or(there)?;
        Some((rule, here.map(|(_, held)| held), there.map(|(_, held)| held)))
    })
}

/// All flows and meters of a bridge, or those that it should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowSet {
    /// By what makes them the same. Shared: there can be tens of thousands, and a copy is rarely changed.
    pub flows: Arc<Rules>,
    /// By number.
    pub meters: BTreeMap<u32, Meter>,
}

impl FlowSet {
    /// Puts a flow in; the one with the same rule, which it replaces, is returned.
    pub fn insert(&mut self, flow: Flow) -> Option<(Cookie, Actions)> {
        Arc::make_mut(&mut self.flows).insert(flow.rule, (flow.cookie, flow.actions))
    }

    /// Wants no more than a switch can have that refuses these meters: flows do without them, and one that is there already stays
    /// as it is.
    pub fn do_without<'a>(&mut self, refused: impl IntoIterator<Item = &'a u32>, there: &Self) {
        let mut missing = BTreeSet::new();
        for id in refused {
            match there.meters.get(id) {
                Some(held) => drop(self.meters.insert(*id, *held)),
                None => {
                    self.meters.remove(id);
                    missing.insert(*id);
                }
            }
        }
        if missing.is_empty() {
            return;
        }
        let unmetered = |(_, actions): &mut (Cookie, Actions)| actions.meter.take_if(|id| missing.contains(id));
        for held in Arc::make_mut(&mut self.flows).values_mut() {
            unmetered(held);
        }
    }

    /// The flows in order of table and priority.
    pub fn iter(&self) -> impl Iterator<Item = Flow> {
        self.flows.iter().map(|(rule, (cookie, actions))| Flow {
            rule: rule.clone(),
            cookie: *cookie,
            actions: actions.clone(),
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(port::NORMAL) => f.write_str("NORMAL"),
            Self::Output(port::LOCAL) => f.write_str("LOCAL"),
            Self::Output(port) => write!(f, "output:{port}"),
            Self::PushVlan => f.write_str("push_vlan:0x8100"),
            Self::PopVlan => f.write_str("pop_vlan"),
            Self::SetField(field, value) => {
                let text = match field {
                    Field::VlanVid => value.to_string(),
                    field => field.text(*value),
                };
                write!(f, "set_field:{text}->{}", field.name())
            }
            Self::Resubmit(table) => write!(f, "resubmit(,{table})"),
            Self::Other(bytes) => write!(f, "unknown({} bytes)", bytes.len()),
        }
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_drop() && self.meter.is_none() {
            return f.write_str("drop");
        }
        let mut parts: Vec<String> = self.meter.iter().map(|meter| format!("meter:{meter}")).collect();
        parts.extend(self.apply.iter().map(ToString::to_string));
        parts.extend(self.goto.iter().map(|table| format!("goto_table:{table}")));
        parts.extend(
            self.others
                .iter()
                .map(|other| format!("unknown({} bytes)", other.len())),
        );
        f.write_str(&parts.join(","))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table,
            priority,
            matches,
        } = self;
        let comma = if *matches == Match::any() { "" } else { "," };
        write!(f, "table={table},priority={priority}{comma}{matches}")
    }
}

/// As `ovs-ofctl add-flow` takes it.
impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, cookie, actions } = self;
        write!(f, "cookie={:#x},{rule} actions={actions}", cookie.0)
    }
}

/// For golden files: by table, the highest priority first.
impl fmt::Display for FlowSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, Meter { rate, burst }) in &self.meters {
            writeln!(
                f,
                "meter={id},pktps,burst,stats,band=type=drop,rate={rate},burst_size={burst}"
            )?;
        }
        let mut flows: Vec<Flow> = self.iter().collect();
        flows.sort_by_key(|flow| (flow.rule.table, u16::MAX - flow.rule.priority));
        for flow in flows {
            writeln!(f, "{flow}")?;
        }
        Ok(())
    }
}

impl Extend<Flow> for FlowSet {
    fn extend<T: IntoIterator<Item = Flow>>(&mut self, flows: T) {
        for flow in flows {
            self.insert(flow);
        }
    }
}

impl FromIterator<Flow> for FlowSet {
    fn from_iter<T: IntoIterator<Item = Flow>>(flows: T) -> Self {
        let flows = flows.into_iter().map(|flow| (flow.rule, (flow.cookie, flow.actions)));
        Self {
            flows: Arc::new(flows.collect()),
            meters: BTreeMap::new(),
        }
    }
}
