//! Messages to bytes and back.

use super::Error;
use super::Fragments;
use super::field::{Field, Masked, Match};
use super::flow::{Action, Actions, Cookie, Counters, Flow, Meter, MeterCounters, Rule};
use super::wire::{Message, Reader, Writer, kind, length, padding};

/// Any port, group, table or buffer.
const ANY: u32 = 0xffff_ffff;
const ALL_TABLES: u8 = 0xff;
/// Who made Open vSwitch's own actions.
const NICIRA_VENDOR: u32 = 0x2320;
/// Number of the resubmit action that names a table.
const RESUBMIT_TABLE: u16 = 14;
/// "The port it came from" where a port has 16 bits.
const IN_PORT_16: u16 = 0xfff8;
/// EtherType of a VLAN tag.
const TAG: u16 = 0x8100;
/// Commits all or nothing, in order.
const ATOMIC_ORDERED: u16 = 3;
/// A meter in packets a second, with a burst, with counters.
const METER_FLAGS: u16 = 2 | 4 | 8;
/// A band that drops.
const BAND_DROP: u16 = 1;

/// Kinds of multipart requests.
pub(super) mod part {
    pub(in super::super) const FLOWS: u16 = 1;
    pub(in super::super) const METERS: u16 = 9;
    pub(in super::super) const METER_CONFIG: u16 = 10;
    pub(in super::super) const FLOW_MONITOR: u16 = 16;
}

/// What is done with a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlowCommand {
    /// Adds it, in the place of one with the same rule.
    Add,
    /// Changes the actions of the one with this rule.
    #[cfg_attr(not(test), allow(dead_code, reason = "an add replaces, and takes the cookie along"))]
    ModifyStrict,
    /// Deletes the one with this rule, if its cookie is ours.
    DeleteStrict,
}

/// What is done with a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MeterCommand {
    Add,
    Modify,
    Delete,
}

/// What is done with a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BundleCommand {
    Open,
    Commit,
    Discard,
}

pub(super) fn hello() -> Message {
    let mut body = Writer::default();
    // One element, the bitmap of versions: 1.4 is bit 5.
    body.u16(1).u16(8).u32(1 << super::wire::VERSION);
    Message::new(kind::HELLO, body.0)
}

pub(super) fn barrier() -> Message {
    Message::new(kind::BARRIER_REQUEST, Vec::new())
}

/// A switch's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Config {
    flags: u16,
    /// How much of a frame that is sent to us comes along; kept as the switch says.
    miss_send_length: u16,
}

impl Config {
    pub(super) fn fragments(self) -> Fragments {
        Fragments::of_flags(self.flags)
    }

    /// The same with another way to look at fragments.
    pub(super) fn with(self, fragments: Fragments) -> Self {
        let flags = self.flags & !Fragments::MASK | fragments.flags();
        Self { flags, ..self }
    }
}

pub(super) fn config_request() -> Message {
    Message::new(kind::CONFIG_REQUEST, Vec::new())
}

pub(super) fn set_config(config: Config) -> Message {
    let mut body = Writer::default();
    body.u16(config.flags).u16(config.miss_send_length);
    Message::new(kind::SET_CONFIG, body.0)
}

pub(super) fn get_config(body: &[u8]) -> Result<Config, Error> {
    let mut body = Reader(body);
    Ok(Config {
        flags: body.u16()?,
        miss_send_length: body.u16()?,
    })
}

pub(super) fn flow_mod(command: FlowCommand, flow: &Flow) -> Result<Message, Error> {
    let Flow {
        rule: Rule {
            table,
            priority,
            matches,
        },
        cookie,
        actions,
    } = flow;
    let (number, mask) = match command {
        FlowCommand::Add => (0, 0),
        FlowCommand::ModifyStrict => (2, Cookie::MASK),
        FlowCommand::DeleteStrict => (4, Cookie::MASK),
    };
    let mut body = Writer::default();
    // Cookie and its mask, table, command, no timeouts, priority, no buffer, any port, any group, no flags, no importance.
    body.u64(cookie.0)
        .u64(mask)
        .u8(*table)
        .u8(number)
        .zeros(4)
        .u16(*priority);
    body.u32(ANY).u32(ANY).u32(ANY).zeros(4);
    put_match(&mut body, matches)?;
    if command != FlowCommand::DeleteStrict {
        put_actions(&mut body, actions)?;
    }
    Ok(Message::new(kind::FLOW_MOD, body.0))
}

pub(super) fn meter_mod(command: MeterCommand, id: u32, meter: Meter) -> Message {
    let number = match command {
        MeterCommand::Add => 0,
        MeterCommand::Modify => 1,
        MeterCommand::Delete => 2,
    };
    let mut body = Writer::default();
    body.u16(number).u16(METER_FLAGS).u32(id);
    if command != MeterCommand::Delete {
        body.u16(BAND_DROP).u16(16).u32(meter.rate).u32(meter.burst).zeros(4);
    }
    Message::new(kind::METER_MOD, body.0)
}

pub(super) fn bundle(command: BundleCommand, id: u32) -> Message {
    let number = match command {
        BundleCommand::Open => 0,
        BundleCommand::Commit => 4,
        BundleCommand::Discard => 6,
    };
    let mut body = Writer::default();
    body.u32(id).u16(number).u16(ATOMIC_ORDERED);
    Message::new(kind::BUNDLE_CONTROL, body.0)
}

/// A message inside a bundle; both carry the same transaction id.
pub(super) fn bundle_add(id: u32, message: &Message, xid: u32) -> Result<Message, Error> {
    let mut body = Writer::default();
    body.u32(id).zeros(2).u16(ATOMIC_ORDERED).raw(&message.bytes(xid)?);
    Ok(Message::new(kind::BUNDLE_ADD, body.0))
}

fn multipart(kind_of_part: u16, body: &Writer) -> Message {
    let mut whole = Writer::default();
    whole.u16(kind_of_part).zeros(6).raw(&body.0);
    Message::new(kind::MULTIPART_REQUEST, whole.0)
}

/// Asks for all flows whose cookie agrees with `cookie` in `mask`.
pub(super) fn flows_request(cookie: u64, mask: u64) -> Result<Message, Error> {
    let mut body = Writer::default();
    body.u8(ALL_TABLES)
        .zeros(3)
        .u32(ANY)
        .u32(ANY)
        .zeros(4)
        .u64(cookie)
        .u64(mask);
    put_match(&mut body, &Match::any())?;
    Ok(multipart(part::FLOWS, &body))
}

/// Asks for all meters' settings or counters.
pub(super) fn meters_request(kind_of_part: u16) -> Message {
    let mut body = Writer::default();
    body.u32(ANY).zeros(4);
    multipart(kind_of_part, &body)
}

/// Asks to be told of each flow that is there, and that is added, removed or changed from now on, with its instructions. Of changes of our
/// own it tells only the number of one for each bundle: Open vSwitch refuses to tell more.
pub(super) fn monitor_request() -> Result<Message, Error> {
    const INITIAL_ADDED_REMOVED_MODIFIED: u16 = 1 | 2 | 4 | 8;
    const INSTRUCTIONS: u16 = 16;
    let mut body = Writer::default();
    body.u32(1)
        .u32(ANY)
        .u32(ANY)
        .u16(INITIAL_ADDED_REMOVED_MODIFIED | INSTRUCTIONS)
        .u8(ALL_TABLES)
        .u8(0);
    put_match(&mut body, &Match::any())?;
    Ok(multipart(part::FLOW_MONITOR, &body))
}

fn put_number(to: &mut Writer, value: u64, bytes: u8) {
    let all = u128::from(value).to_be_bytes();
    to.raw(
        all.get(all.len().saturating_sub(usize::from(bytes))..)
            .unwrap_or_default(),
    );
}

fn put_field(to: &mut Writer, field: Field, Masked { value, mask }: Masked) {
    let (class, number) = field.code();
    let masked = mask != field.whole();
    let size = field.length() * if masked { 2 } else { 1 };
    to.u16(class).u8(number << 1 | u8::from(masked)).u8(size);
    put_number(to, value, field.length());
    if masked {
        put_number(to, mask, field.length());
    }
}

fn put_match(to: &mut Writer, matches: &Match) -> Result<(), Error> {
    let mut fields = Writer::default();
    for (field, value, mask) in matches.fields() {
        put_field(&mut fields, field, Masked { value, mask });
    }
    for other in &matches.others {
        fields.raw(other);
    }
    let size = 4 + fields.0.len();
    to.u16(1).u16(length(size)?).raw(&fields.0).zeros(padding(size));
    Ok(())
}

fn put_actions(to: &mut Writer, actions: &Actions) -> Result<(), Error> {
    let Actions {
        meter,
        apply,
        goto,
        others,
    } = actions;
    if let Some(meter) = meter {
        to.u16(6).u16(8).u32(*meter);
    }
    if !apply.is_empty() {
        let mut list = Writer::default();
        apply.iter().try_for_each(|action| put_action(&mut list, action))?;
        to.u16(4).u16(length(8 + list.0.len())?).zeros(4).raw(&list.0);
    }
    for other in others {
        to.raw(other);
    }
    if let Some(table) = goto {
        to.u16(1).u16(8).u8(*table).zeros(3);
    }
    Ok(())
}

fn put_action(to: &mut Writer, action: &Action) -> Result<(), Error> {
    match action {
        Action::Output(port) => to.u16(0).u16(16).u32(*port).zeros(8),
        Action::PushVlan => to.u16(17).u16(8).u16(TAG).zeros(2),
        Action::PopVlan => to.u16(18).u16(8).zeros(4),
        Action::SetField(field, value) => {
            let mut set = Writer::default();
            let mask = field.whole();
            put_field(&mut set, *field, Masked { value: *value, mask });
            let size = 4 + set.0.len();
            let pad = padding(size);
            to.u16(25).u16(length(size + pad)?).raw(&set.0).zeros(pad)
        }
        Action::Resubmit(table) => to
            .u16(0xffff)
            .u16(16)
            .u32(NICIRA_VENDOR)
            .u16(RESUBMIT_TABLE)
            .u16(IN_PORT_16)
            .u8(*table)
            .zeros(3),
        Action::Other(bytes) => to.raw(bytes),
    };
    Ok(())
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// One field of a match: known, or whole as it came.
fn get_field(from: &mut Reader<'_>) -> Result<Result<(Field, Masked), Vec<u8>>, Error> {
    let whole = from.0;
    let class = from.u16()?;
    let code = from.u8()?;
    let size = from.u8()?;
    let payload = from.take(usize::from(size))?;
    let raw = whole.get(..4 + payload.len()).unwrap_or_default().to_vec();
    let masked = code & 1 == 1;
    let known = Field::of_code(class, code >> 1).filter(|field| {
        let values = if masked { 2 } else { 1 };
        // A field of more than 64 bits is known only where its value fits into them.
        let beyond = usize::from(field.length().saturating_sub(8));
        let fits = beyond == 0 || !masked && payload.iter().take(beyond).all(|byte| *byte == 0);
        size == field.length() * values && fits
    });
    let Some(field) = known else { return Ok(Err(raw)) };
    let (value, mask) = payload.split_at(usize::from(field.length()));
    let mask = if masked {
        number(mask) & field.whole()
    } else {
        field.whole()
    };
    let value = number(value);
    Ok(Ok((field, Masked { value, mask })))
}

fn get_match(from: &mut Reader<'_>) -> Result<Match, Error> {
    let mut ahead = Reader(from.0);
    let kind_of_match = ahead.u16()?;
    let size = usize::from(ahead.u16()?);
    if kind_of_match != 1 || size < 4 {
        return Err(Error::Protocol(format!(
            "a match of type {kind_of_match} and {size} bytes"
        )));
    }
    let mut fields = from.part(size)?;
    from.take(padding(size))?;
    fields.take(4)?;
    let mut matches = Match::any();
    while !fields.is_empty() {
        match get_field(&mut fields)? {
            Ok((field, wanted)) => matches.put(field, wanted),
            Err(raw) => matches.others.push(raw),
        }
    }
    Ok(matches)
}

fn get_actions(from: &mut Reader<'_>) -> Result<Actions, Error> {
    let mut actions = Actions::drop();
    while !from.is_empty() {
        let mut instruction = from.sized(2, 8)?;
        let raw = instruction.0.to_vec();
        let kind_of_instruction = instruction.u16()?;
        instruction.u16()?;
        match kind_of_instruction {
            1 => actions.goto = Some(instruction.u8()?),
            4 => {
                instruction.u32()?;
                while !instruction.is_empty() {
                    actions.apply.push(get_action(&mut instruction)?);
                }
            }
            6 => actions.meter = Some(instruction.u32()?),
            _ => actions.others.push(raw),
        }
    }
    Ok(actions)
}

fn get_action(from: &mut Reader<'_>) -> Result<Action, Error> {
    let mut action = from.sized(2, 8)?;
    let raw = action.0.to_vec();
    let kind_of_action = action.u16()?;
    action.u16()?;
    let known = match kind_of_action {
        0 => Some(Action::Output(action.u32()?)),
        17 if action.u16()? == TAG => Some(Action::PushVlan),
        18 => Some(Action::PopVlan),
        25 => match get_field(&mut action)? {
            Ok((field, Masked { value, mask })) if mask == field.whole() => Some(Action::SetField(field, value)),
            _ => None,
        },
        0xffff => get_resubmit(action),
        _ => None,
    };
    Ok(known.unwrap_or(Action::Other(raw)))
}

fn get_resubmit(mut action: Reader<'_>) -> Option<Action> {
    let wanted = (NICIRA_VENDOR, RESUBMIT_TABLE, IN_PORT_16);
    let found = (action.u32().ok()?, action.u16().ok()?, action.u16().ok()?);
    if found != wanted {
        return None;
    }
    action.u8().ok().map(Action::Resubmit)
}

/// A part of a multipart answer.
pub(super) struct Part<'a> {
    pub(super) kind: u16,
    pub(super) more: bool,
    pub(super) body: Reader<'a>,
}

pub(super) fn get_part(body: &[u8]) -> Result<Part<'_>, Error> {
    let mut body = Reader(body);
    let kind = body.u16()?;
    let more = body.u16()? & 1 == 1;
    body.u32()?;
    Ok(Part { kind, more, body })
}

pub(super) fn get_flows(mut from: Reader<'_>) -> Result<Vec<(Flow, Counters)>, Error> {
    let mut flows = Vec::new();
    while !from.is_empty() {
        let mut entry = from.sized(0, 56)?;
        entry.u16()?;
        let table = entry.u8()?;
        // Padding and the time since it was added.
        entry.take(9)?;
        let priority = entry.u16()?;
        // Timeouts, flags, importance, padding.
        entry.take(10)?;
        let cookie = Cookie(entry.u64()?);
        let counters = Counters {
            packets: entry.u64()?,
            bytes: entry.u64()?,
        };
        let matches = get_match(&mut entry)?;
        let actions = get_actions(&mut entry)?;
        flows.push((Flow::new(table, priority, cookie, matches, actions), counters));
    }
    Ok(flows)
}

/// Meters' settings; one that is not of our form comes with a rate of 0.
pub(super) fn get_meter_config(mut from: Reader<'_>) -> Result<Vec<(u32, Meter)>, Error> {
    let mut meters = Vec::new();
    while !from.is_empty() {
        let mut entry = from.sized(0, 8)?;
        entry.u16()?;
        let flags = entry.u16()?;
        let id = entry.u32()?;
        let band = (entry.0.len() == 16 && flags == METER_FLAGS).then_some(entry);
        let mut meter = Meter { rate: 0, burst: 0 };
        if let Some(mut band) = band {
            let form = (band.u16()?, band.u16()?);
            if form == (BAND_DROP, 16) {
                (meter.rate, meter.burst) = (band.u32()?, band.u32()?);
            }
        }
        meters.push((id, meter));
    }
    Ok(meters)
}

pub(super) fn get_meter_counters(mut from: Reader<'_>) -> Result<Vec<(u32, MeterCounters)>, Error> {
    let mut meters = Vec::new();
    while !from.is_empty() {
        let mut entry = from.sized(4, 40)?;
        let id = entry.u32()?;
        // Length, padding, number of flows.
        entry.take(12)?;
        let packets = entry.u64()?;
        // Bytes and duration.
        entry.take(16)?;
        let mut dropped = 0_u64;
        while !entry.is_empty() {
            dropped = dropped.saturating_add(entry.u64()?);
            entry.u64()?;
        }
        meters.push((id, MeterCounters { packets, dropped }));
    }
    Ok(meters)
}

/// What the flow monitor tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Update {
    /// A flow is there, or is now so.
    There(Flow),
    /// There is none of this rule any more.
    Gone(Rule),
    /// A change of ours was made; of a bundle the transaction id of one of its messages.
    Ours(u32),
    /// It will tell no changes for a while.
    Paused,
    /// It has told what it did not tell in the meantime.
    Resumed,
}

pub(super) fn get_updates(mut from: Reader<'_>) -> Result<Vec<Update>, Error> {
    // Events: initial 0, added 1, removed 2, modified 3, a change of our own in short 4, paused 5, resumed 6.
    let mut updates = Vec::new();
    while !from.is_empty() {
        let mut update = from.sized(0, 4)?;
        update.u16()?;
        match update.u16()? {
            event @ 0..=3 => {
                let table = update.u8()?;
                // Reason and timeouts.
                update.take(5)?;
                let priority = update.u16()?;
                update.take(4)?;
                let cookie = Cookie(update.u64()?);
                let matches = get_match(&mut update)?;
                updates.push(if event == 2 {
                    Update::Gone(Rule {
                        table,
                        priority,
                        matches,
                    })
                } else {
                    let actions = get_actions(&mut update)?;
                    Update::There(Flow::new(table, priority, cookie, matches, actions))
                });
            }
            4 => updates.push(Update::Ours(update.u32()?)),
            5 => updates.push(Update::Paused),
            6 => updates.push(Update::Resumed),
            _ => {}
        }
    }
    Ok(updates)
}

/// An error message's type, code and the beginning of what it answers.
pub(super) fn get_error(body: &[u8]) -> Result<(u16, u16), Error> {
    let mut body = Reader(body);
    Ok((body.u16()?, body.u16()?))
}
