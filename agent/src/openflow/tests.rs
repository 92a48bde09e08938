#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use trunkline_proto::VlanId;

use super::codec::{self, BundleCommand, FlowCommand, MeterCommand};
use super::wire::{Framer, Message, Reader, Writer};
use super::*;

fn flow() -> Flow {
    let matches = Match::any()
        .in_port(3)
        .masked(Field::EthDst, 1_u64 << 40, 1 << 40)
        .eth_type(0x800)
        .vlan(VlanId::INTERNET)
        .is(Field::IpProto, 17_u8)
        .is(Field::UdpSrc, 67_u16);
    let actions = Actions::goto(4)
        .metered(Meter::OURS | 1)
        .then(Action::SetField(Field::Reg0, 400))
        .then(Action::PopVlan)
        .then_tagged(VlanId::INTERNET, 9)
        .then(Action::Resubmit(2));
    Flow::new(1, 500, Cookie::ours(7), matches, actions)
}

fn hex(message: &Message) -> String {
    let bytes = message.bytes(0x0102_0304).unwrap();
    let line = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    bytes.chunks(8).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_match_is_the_same_in_whatever_order_its_fields_were_named() {
    let one = Match::any().in_port(3).eth_type(0x800).is(Field::Reg0, 7_u32);
    let other = Match::any()
        .is(Field::Reg0, 7_u32)
        .eth_type(0x806)
        .in_port(3)
        .eth_type(0x800);
    assert_eq!(one, other);
    assert_eq!(one.cmp(&other), std::cmp::Ordering::Equal);
    let fields: Vec<Field> = other.fields().map(|(field, _, _)| field).collect();
    assert_eq!(fields, [Field::InPort, Field::Reg0, Field::EthType]);
}

#[test]
fn the_bytes_of_each_message_are_as_recorded() {
    let meter = Meter { rate: 1000, burst: 500 };
    let config = codec::get_config(&[0, 4, 0, 128]).unwrap();
    let messages = [
        ("hello", codec::hello()),
        ("barrier", codec::barrier()),
        ("flow_add", codec::flow_mod(FlowCommand::Add, &flow()).unwrap()),
        (
            "flow_modify_strict",
            codec::flow_mod(FlowCommand::ModifyStrict, &flow()).unwrap(),
        ),
        (
            "flow_delete_strict",
            codec::flow_mod(FlowCommand::DeleteStrict, &flow()).unwrap(),
        ),
        ("meter_add", codec::meter_mod(MeterCommand::Add, Meter::OURS | 1, meter)),
        (
            "meter_modify",
            codec::meter_mod(MeterCommand::Modify, Meter::OURS | 1, meter),
        ),
        (
            "meter_delete",
            codec::meter_mod(MeterCommand::Delete, Meter::OURS | 1, meter),
        ),
        ("bundle_open", codec::bundle(BundleCommand::Open, 1)),
        (
            "bundle_add",
            codec::bundle_add(1, &codec::barrier(), 0x0102_0304).unwrap(),
        ),
        ("bundle_commit", codec::bundle(BundleCommand::Commit, 1)),
        ("bundle_discard", codec::bundle(BundleCommand::Discard, 1)),
        (
            "flows_request",
            codec::flows_request(Cookie::OURS, Cookie::MASK).unwrap(),
        ),
        ("meter_config_request", codec::meters_request(codec::part::METER_CONFIG)),
        ("meter_counters_request", codec::meters_request(codec::part::METERS)),
        ("monitor_request", codec::monitor_request().unwrap()),
        ("config_request", codec::config_request()),
        ("set_config", codec::set_config(config.with(Fragments::Matched))),
    ];
    let text: Vec<String> = messages
        .iter()
        .map(|(name, message)| format!("{name}\n{}", hex(message)))
        .collect();
    insta::assert_snapshot!(text.join("\n\n"));
}

/// An answer to a flow request that holds one flow, as the switch would write it.
fn answer(flow: &Flow) -> Vec<u8> {
    let request = codec::flow_mod(FlowCommand::Add, flow).unwrap();
    // In a flow_mod the match begins after 40 bytes, and the instructions follow.
    let tail = &request.body[40..];
    let mut entry = Writer::default();
    entry
        .u16(u16::try_from(48 + tail.len()).unwrap())
        .u8(flow.rule.table)
        .u8(0);
    entry
        .zeros(8)
        .u16(flow.rule.priority)
        .zeros(10)
        .u64(flow.cookie.0)
        .u64(5)
        .u64(600)
        .raw(tail);
    entry.0
}

#[test]
fn only_the_way_to_look_at_fragments_changes_in_a_configuration() {
    for flags in 0..8 {
        let config = codec::get_config(&[0, flags, 1, 44]).unwrap();
        let set = codec::set_config(config.with(Fragments::Matched));
        assert_eq!(set.body, [0, flags & 4 | 3, 1, 44]);
        let same = codec::set_config(config.with(config.fragments()));
        assert_eq!(same.body, [0, flags, 1, 44], "{}", config.fragments());
    }
    assert!(matches!(codec::get_config(&[0, 3, 0]), Err(Error::Protocol(_))));
}

#[test]
fn a_flow_is_read_back_as_it_was_written() {
    let flow = flow();
    let read = codec::get_flows(Reader(&answer(&flow))).unwrap();
    let seen = Counters { packets: 5, bytes: 600 };
    assert_eq!(read, [(flow, seen)]);
}

#[test]
fn text_is_as_ovs_ofctl_writes_it() {
    assert_eq!(
        flow().to_string(),
        "cookie=0x54524e4b00000007,table=1,priority=500,in_port=3,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,\
         dl_type=0x800,dl_vlan=400,nw_proto=17,udp_src=67 actions=meter:1409286145,set_field:400->reg0,pop_vlan,\
         push_vlan:0x8100,set_field:4496->vlan_vid,output:9,resubmit(,2),goto_table:4"
    );
}

#[test]
fn messages_are_cut_apart_wherever_the_bytes_break() {
    let all = [codec::hello().bytes(1).unwrap(), codec::barrier().bytes(2).unwrap()].concat();
    for cut in 0..all.len() {
        let mut framer = Framer::default();
        framer.push(&all[..cut]);
        let mut found = framer.drain().unwrap();
        framer.push(&all[cut..]);
        found.extend(framer.drain().unwrap());
        assert_eq!(
            found.iter().map(|message| message.xid).collect::<Vec<_>>(),
            [1, 2],
            "{cut}"
        );
    }
}

#[test]
fn a_message_shorter_than_its_header_is_an_error() {
    let mut framer = Framer::default();
    framer.push(&[5, 0, 0, 4, 0, 0, 0, 0]);
    assert!(matches!(framer.drain(), Err(Error::Protocol(_))));
}

fn told(event: u16, flow: &Flow) -> Vec<u8> {
    let modification = codec::flow_mod(codec::FlowCommand::Add, flow).unwrap().body;
    // Match and instructions are written alike, behind the 40 bytes that come before them there.
    let mut update = Writer::default();
    update.u16(u16::try_from(24 + modification.len() - 40).unwrap());
    update
        .u16(event)
        .u8(flow.rule.table)
        .zeros(5)
        .u16(flow.rule.priority)
        .zeros(4);
    update.u64(flow.cookie.0).raw(&modification[40..]);
    update.0
}

#[test]
fn what_the_bridge_tells_of_a_flow_is_that_flow() {
    let matches = Match::any().in_port(7).tagged();
    let flow = Flow::new(1, 500, Cookie::ours(9), matches, Actions::normal().metered(Some(3)));
    for event in [0, 1, 3] {
        let updates = codec::get_updates(Reader(&told(event, &flow))).unwrap();
        assert_eq!(updates, [codec::Update::There(flow.clone())]);
    }
    let updates = codec::get_updates(Reader(&told(2, &flow))).unwrap();
    assert_eq!(updates, [codec::Update::Gone(flow.rule.clone())]);
    let short = |event: u16| {
        let mut update = Writer::default();
        update.u16(8).u16(event).u32(0);
        codec::get_updates(Reader(&update.0)).unwrap()
    };
    assert_eq!(short(4), [codec::Update::Ours(0)]);
    assert_eq!(
        (short(5), short(6)),
        (vec![codec::Update::Paused], vec![codec::Update::Resumed])
    );
}

#[tokio::test]
async fn a_mirror_shows_nothing_before_it_is_whole_and_waits_while_the_bridge_is_behind() {
    let flow = |priority| Flow::new(1, priority, Cookie::ours(9), Match::any(), Actions::drop());
    let mirror = super::mirror::Mirror::default();
    mirror.take(vec![codec::Update::There(flow(1)), codec::Update::There(flow(2))]);
    assert!(mirror.flows().await.is_err());
    mirror.whole();
    assert_eq!(mirror.flows().await.unwrap().len(), 2);

    mirror.take(vec![codec::Update::Paused]);
    let waiting = tokio::spawn({
        let mirror = mirror.clone();
        async move { mirror.flows().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    mirror.take(vec![codec::Update::Gone(flow(1).rule), codec::Update::Resumed]);
    let flows = waiting.await.unwrap().unwrap();
    assert_eq!(flows.keys().collect::<Vec<_>>(), [&flow(2).rule]);

    mirror.clear();
    assert!(mirror.flows().await.is_err());
}

#[test]
fn sets_side_by_side_show_every_rule_once() {
    let flow = |priority, cookie| Flow::new(1, priority, Cookie::ours(cookie), Match::any(), Actions::drop());
    let left: FlowSet = [flow(1, 1), flow(2, 1)].into_iter().collect();
    let right: FlowSet = [flow(2, 2), flow(3, 2)].into_iter().collect();
    let seen: Vec<_> = super::beside(&left.flows, &right.flows)
        .map(|(rule, here, there)| (rule.priority, here.map(|h| h.0.purpose()), there.map(|t| t.0.purpose())))
        .collect();
    assert_eq!(seen, [(1, Some(1), None), (2, Some(1), Some(2)), (3, None, Some(2))]);
}

fn matches() -> impl Strategy<Value = Match> {
    (1_u32..4, proptest::option::of(1_u32..4)).prop_map(|(number, vlan)| {
        let matches = Match::any().in_port(number);
        match vlan {
            Some(vlan) => matches.vlan(VlanId::try_from(vlan).unwrap()),
            None => matches,
        }
    })
}

fn flows(cookies: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = FlowSet> {
    let actions = prop_oneof![
        Just(Actions::drop()),
        Just(Actions::normal()),
        (1_u8..5).prop_map(Actions::goto)
    ];
    let flow =
        (0_u8..3, 1_u16..3, cookies, matches(), actions).prop_map(|(table, priority, cookie, matches, actions)| {
            Flow::new(table, priority, Cookie(cookie), matches, actions)
        });
    let base = prop_oneof![Just(Meter::OURS), Just(0)];
    let meter = (base, 1_u32..4, 1_u32..3).prop_map(|(base, id, rate)| (base | id, Meter { rate, burst: 1 }));
    (
        proptest::collection::vec(flow, 0..12),
        proptest::collection::btree_map(0..8_usize, meter, 0..4),
    )
        .prop_map(|(flows, meters)| {
            let mut set: FlowSet = flows.into_iter().collect();
            set.meters = meters.into_values().collect();
            set
        })
}

/// What a plan would make of a bridge. Panics where the plan touches what is not ours.
fn apply(plan: &Plan, world: &mut FlowSet) {
    for flow in &plan.remove {
        let (cookie, _) = std::sync::Arc::make_mut(&mut world.flows)
            .remove(&flow.rule)
            .expect("a removed flow exists");
        assert!(cookie.is_ours());
    }
    for flow in &plan.add {
        let held = world.insert(flow.clone());
        assert!(held.is_none_or(|(cookie, _)| cookie.is_ours()));
    }
    world.meters.extend(plan.add_meters.iter().chain(&plan.modify_meters));
    for id in &plan.remove_meters {
        assert!(Meter::is_ours(*id));
        world.meters.remove(id).expect("a removed meter exists");
    }
}

fn strangers(set: &FlowSet) -> (Vec<Flow>, Vec<(u32, Meter)>) {
    let flows = set.iter().filter(|flow| !flow.cookie.is_ours()).collect();
    let meters = set
        .meters
        .iter()
        .filter(|(id, _)| !Meter::is_ours(**id))
        .map(|(id, meter)| (*id, *meter));
    (flows, meters.collect())
}

proptest! {
    #[test]
    fn a_plan_carried_out_leaves_nothing_to_do_and_strangers_as_they_were(
        desired in flows((1_u64..4).prop_map(|purpose| Cookie::OURS | purpose)),
        world in flows(prop_oneof![Just(0_u64), Just(7), Just(Cookie::OURS | 1), Just(Cookie::OURS | 2)]),
    ) {
        let mut desired = desired;
        desired.meters.retain(|id, _| Meter::is_ours(*id));
        let mut after = world.clone();
        let first = plan(&desired, &world);
        apply(&first, &mut after);
        prop_assert_eq!(strangers(&world), strangers(&after));
        let again = plan(&desired, &after);
        prop_assert!(again.is_empty(), "{:?}", again);
        // What is desired is there, but for where a stranger sits.
        let missing: Vec<Rule> = desired.iter().map(|flow| flow.rule).filter(|rule| after.flows.get(rule) != desired.flows.get(rule)).collect();
        let held: Vec<Rule> = again.conflicts.iter().map(|flow| flow.rule.clone()).collect();
        prop_assert_eq!(missing, held);
        prop_assert_eq!(again.strangers, strangers(&world).0);
    }

    #[test]
    fn no_bytes_from_the_switch_make_us_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = codec::get_flows(Reader(&bytes));
        let _ = codec::get_meter_config(Reader(&bytes));
        let _ = codec::get_meter_counters(Reader(&bytes));
        let _ = codec::get_updates(Reader(&bytes));
        let _ = codec::get_part(&bytes).map(|_| ());
        let mut framer = Framer::default();
        framer.push(&bytes);
        let _ = framer.drain();
    }

    #[test]
    fn a_flow_with_a_wrong_byte_makes_nobody_panic(at in 0_usize..200, value in any::<u8>()) {
        let mut bytes = answer(&flow());
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = codec::get_flows(Reader(&bytes));
    }
}
