//! Flows against the real ovs-vswitchd, with `ovs-ofctl` as the other pair of eyes.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};
use trunkline_agent::openflow::{
    Action, Actions, Client, Cookie, Error, Field, Flow, FlowSet, Fragments, Match, Meter, execute, plan, port,
};
use trunkline_proto::{Mac, VlanId};

use super::stand::{LIMIT, Ovs, alone, eventually, run};

const MGMT: &str = "/run/openvswitch/br-int.mgmt";

/// The reference client on our bridge.
pub(crate) fn ofctl(command: &str, args: &[&str]) -> String {
    let target = format!("unix:{MGMT}");
    let mut all = vec!["-O", "OpenFlow14", command, target.as_str()];
    all.extend(args);
    run("ovs-ofctl", &all)
}

fn add_as_stranger(flows: &str) {
    let mut child = Command::new("ovs-ofctl")
        .args(["-O", "OpenFlow14", "add-flows", &format!("unix:{MGMT}"), "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(flows.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{flows}");
}

pub(crate) struct Bridge {
    pub(crate) ovs: Ovs,
    pub(crate) client: Client,
    _cancel: DropGuard,
}

impl Bridge {
    pub(crate) async fn start() -> Self {
        let ovs = Ovs::start().await;
        ovs.vsctl(&[
            "add-br",
            "br-int",
            "--",
            "set",
            "bridge",
            "br-int",
            "datapath_type=netdev",
            "fail_mode=secure",
        ]);
        let cancel = CancellationToken::new();
        let client = Client::start(MGMT, cancel.clone());
        client.ready(LIMIT).await.unwrap();
        Self {
            ovs,
            client,
            _cancel: cancel.drop_guard(),
        }
    }

    /// One pass: look, plan, act, look again.
    pub(crate) async fn apply(&self, desired: &FlowSet) {
        let observed = self.client.table().await.unwrap().set;
        execute(&plan(desired, &observed), &self.client).await.unwrap();
        let observed = self.client.table().await.unwrap().set;
        let again = plan(desired, &observed);
        assert!(again.is_empty(), "{again:#?}");
    }
}

fn mac(last: u8) -> Mac {
    Mac::try_from([0x52, 0x54, 0, 0, 0, last]).unwrap()
}

fn drop_from(number: u32) -> Flow {
    let matches = Match::any().in_port(number);
    Flow::new(0, 100, Cookie::ours(number), matches, Actions::drop())
}

/// Each field and each action once.
fn everything() -> FlowSet {
    let udp = Match::any().eth_type(0x800).is(Field::IpProto, 17_u8);
    let tcp = Match::any().eth_type(0x800).is(Field::IpProto, 6_u8);
    let arp = Match::any().eth_type(0x806).is(Field::ArpOp, 1_u16);
    let icmp6 = |kind: u8| {
        let icmp = Match::any().eth_type(0x86dd).is(Field::IpProto, 58_u8);
        icmp.is(Field::Icmpv6Type, kind).is(Field::Icmpv6Code, 0_u8)
    };
    let internet = VlanId::INTERNET;
    let matches = [
        Match::any().in_port(1).tagged(),
        Match::any().in_port(port::LOCAL).vlan(internet).is(Field::Reg0, 7_u32),
        Match::any().from_mac(mac(1)).to_mac(mac(2)),
        Match::any().masked(Field::EthDst, 1_u64 << 40, 1 << 40),
        udp.clone().is(Field::UdpSrc, 67_u16).is(Field::UdpDst, 68_u16),
        udp.clone().masked(Field::IpFrag, 1_u64, 1),
        tcp.is(Field::TcpSrc, 1_u16).is(Field::TcpDst, 2_u16),
        udp.ip(Field::Ipv4Src, "10.0.0.1".parse().unwrap())
            .masked(Field::Ipv4Dst, 0x0a00_0000_u32, 0xff00_0000),
        arp.ip(Field::ArpSpa, "10.0.0.1".parse().unwrap())
            .ip(Field::ArpTpa, "10.0.0.2".parse().unwrap())
            .is(Field::ArpSha, 0x5254_0000_0001_u64),
        Match::any()
            .eth_type(0x800)
            .is(Field::IpProto, 1_u8)
            .is(Field::IcmpType, 5_u8),
        Match::any()
            .eth_type(0x86dd)
            .is(Field::IpProto, 58_u8)
            .is(Field::Icmpv6Type, 134_u8),
        icmp6(135).is(Field::NdSll, 0x5254_0000_0001_u64),
        icmp6(136).is(Field::NdTll, 0_u8).is(Field::NdTarget, 0_u8),
        Match::any().eth_type(0x88b5),
        Match::any(),
    ];
    let actions = [
        Actions::drop(),
        Actions::normal().metered(Meter::OURS | 2),
        Actions::goto(9).then(Action::SetField(Field::Reg0, 400)),
        Actions::drop().then_tagged(internet, 3),
        Actions::drop()
            .then(Action::PopVlan)
            .then(Action::Output(4))
            .then(Action::Output(port::LOCAL)),
        Actions::drop()
            .then(Action::Resubmit(8))
            .then(Action::SetField(Field::EthSrc, 0x5254_0000_0009)),
    ];
    let mut set = FlowSet::default();
    for (priority, matches) in (10_u16..).zip(matches) {
        for (table, actions) in (0_u8..).zip(actions.iter()) {
            // A tag can be taken off only where there is one.
            let tagged = matches.get(Field::VlanVid).is_some();
            if tagged || !actions.apply.contains(&Action::PopVlan) {
                let cookie = Cookie::ours(u32::from(priority));
                set.insert(Flow::new(table, priority, cookie, matches.clone(), actions.clone()));
            }
        }
    }
    set.meters.insert(Meter::OURS | 2, Meter { rate: 100, burst: 50 });
    set
}

#[test]
fn what_we_add_others_read_as_meant_and_what_others_add_we_read_the_same() {
    alone(|| async {
        let bridge = Bridge::start().await;
        let desired = everything();
        bridge.apply(&desired).await;
        let theirs = ofctl("dump-flows", &["--no-stats", "--no-names", "table=0"]);
        let mut lines: Vec<&str> = theirs.lines().map(str::trim).collect();
        lines.sort_unstable();
        insta::assert_snapshot!("as_ovs_ofctl_reads_it", lines.join("\n"));
        assert!(ofctl("dump-meters", &[]).contains("rate=100 burst_size=50"));

        // Their text of all our flows, and our own text too, written by them, is read by us as the same flows.
        let theirs = ofctl("dump-flows", &["--no-stats", "--no-names"]);
        let ours: Vec<String> = desired.iter().map(|flow| flow.to_string()).collect();
        for text in [theirs, ours.join("\n")] {
            ofctl("del-flows", &[]);
            add_as_stranger(&text);
            let read = bridge.client.table().await.unwrap().set;
            assert_eq!(read.to_string(), desired.to_string());
            assert_eq!(read, desired);
        }
    });
}

#[test]
fn one_bad_flow_and_nothing_of_the_bundle_is_applied() {
    alone(|| async {
        let bridge = Bridge::start().await;
        let kept: FlowSet = [drop_from(1)].into_iter().collect();
        bridge.apply(&kept).await;
        // A field that needs another; a goto that leads backwards; an action on a meter that is not there.
        let bad = [
            (
                Match::any().is(Field::UdpSrc, 67_u16),
                Actions::drop(),
                "needs another field",
            ),
            (Match::any(), Actions::goto(1), "goto leads"),
            (
                Match::any(),
                Actions::normal().metered(Meter::OURS | 77),
                "no such meter",
            ),
        ];
        for (matches, actions, words) in bad {
            let bad = Flow::new(3, 1, Cookie::ours(9), matches, actions);
            let error = bridge
                .client
                .commit(&[drop_from(1)], &[drop_from(2), bad, drop_from(3)])
                .await
                .unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error}");
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.to_string().contains("table=3"), "{error}");
            assert_eq!(bridge.client.table().await.unwrap().set, kept, "{words}");
        }
        // The connection is of use afterwards.
        bridge.client.commit(&[], &[drop_from(2)]).await.unwrap();
    });
}

#[test]
fn strangers_flows_and_meters_are_kept_and_named() {
    alone(|| async {
        let bridge = Bridge::start().await;
        ofctl("add-meter", &["meter=5,pktps,band=type=drop,rate=9"]);
        add_as_stranger(
            "table=0,priority=100,in_port=1 actions=NORMAL\n\
             table=7,cookie=0x1,ct_state=+trk,ip actions=meter:5,ct(commit),note:01.02,output:5",
        );
        let before = ofctl("dump-flows", &["--no-stats"]);
        let desired: FlowSet = [drop_from(1), drop_from(2)].into_iter().collect();
        let observed = bridge.client.table().await.unwrap().set;
        let planned = plan(&desired, &observed);
        assert_eq!(
            (planned.conflicts.len(), planned.strangers.len()),
            (1, 2),
            "{planned:#?}"
        );
        execute(&planned, &bridge.client).await.unwrap();
        bridge.apply(&FlowSet::default()).await;
        assert_eq!(ofctl("dump-flows", &["--no-stats"]), before);
        assert!(ofctl("dump-meters", &[]).contains("meter=5 "));

        // Even what is named in a delete stays, unless its cookie is ours.
        bridge.client.commit(&[drop_from(1)], &[]).await.unwrap();
        assert_eq!(ofctl("dump-flows", &["--no-stats"]), before);
    });
}

#[test]
fn flows_that_somebody_deletes_are_noticed_by_event_and_our_own_changes_are_not() {
    alone(|| async {
        let bridge = Bridge::start().await;
        let mut changes = bridge.client.changes();
        changes.mark_unchanged();
        let desired: FlowSet = (1..50).map(drop_from).collect();
        bridge.apply(&desired).await;
        assert!(!changes.has_changed().unwrap(), "our own change woke us");

        ofctl("del-flows", &["table=0,in_port=7"]);
        tokio::time::timeout(LIMIT, changes.changed()).await.unwrap().unwrap();
        let observed = bridge.client.table().await.unwrap().set;
        assert_eq!(plan(&desired, &observed).add, [drop_from(7)]);

        add_as_stranger("table=0,priority=200,in_port=8 actions=NORMAL");
        tokio::time::timeout(LIMIT, changes.changed()).await.unwrap().unwrap();
        let observed = bridge.client.table().await.unwrap().set;
        assert_eq!(plan(&desired, &observed).strangers.len(), 1);
    });
}

#[test]
fn a_restart_of_vswitchd_loses_the_flows_is_noticed_and_they_come_back() {
    alone(|| async {
        let mut bridge = Bridge::start().await;
        let desired = everything();
        bridge.apply(&desired).await;
        let mut changes = bridge.client.changes();
        changes.mark_unchanged();
        bridge.ovs.kill_vswitchd();
        tokio::time::timeout(LIMIT, changes.changed()).await.unwrap().unwrap();
        eventually("unknown", async || {
            (!bridge.client.is_connected()).then_some(()).ok_or(())
        })
        .await;
        let error = bridge.client.table().await.unwrap_err();
        assert!(matches!(error, Error::NotConnected { .. }), "{error}");

        bridge.ovs.start_vswitchd();
        bridge.client.ready(LIMIT).await.unwrap();
        let observed = bridge.client.table().await.unwrap().set;
        assert!(observed.flows.is_empty() && observed.meters.is_empty(), "{observed}");
        bridge.apply(&desired).await;
    });
}

#[test]
fn two_thousand_flows_are_one_bundle() {
    alone(|| async {
        let bridge = Bridge::start().await;
        let flow = |number: u32| {
            let matches = Match::any().in_port(1 + number % 50).is(Field::EthSrc, number);
            Flow::new(2, 100, Cookie::ours(number), matches, Actions::goto(3))
        };
        let desired: FlowSet = (0..2000).map(flow).collect();
        let begin = Instant::now();
        bridge
            .client
            .commit(&[], &desired.iter().collect::<Vec<_>>())
            .await
            .unwrap();
        let added = begin.elapsed();
        let table = bridge.client.table().await.unwrap();
        println!(
            "2000 flows: added in {added:?}, read back in {:?}",
            begin.elapsed() - added
        );
        assert_eq!(table.set, desired);
        assert!(added < Duration::from_secs(10), "{added:?}");
        bridge.apply(&FlowSet::default()).await;
    });
}

#[test]
fn a_bridge_that_may_not_speak_our_version_is_an_error_that_says_so() {
    alone(|| async {
        let bridge = Bridge::start().await;
        bridge.ovs.vsctl(&["set", "bridge", "br-int", "protocols=OpenFlow10"]);
        let cancel = CancellationToken::new();
        let client = Client::start(MGMT, cancel.clone());
        let _cancel = cancel.drop_guard();
        eventually("the version is refused", async || match client.table().await {
            Err(Error::Version(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        bridge.ovs.vsctl(&["clear", "bridge", "br-int", "protocols"]);
        client.ready(LIMIT).await.unwrap();
    });
}

#[test]
fn flows_may_come_before_their_port_and_a_change_of_the_failure_mode_is_noticed() {
    alone(|| async {
        let bridge = Bridge::start().await;
        // No port has this number yet.
        let desired: FlowSet = [drop_from(77)].into_iter().collect();
        bridge.apply(&desired).await;
        super::stand::veth("late");
        let request = ["--", "set", "interface", "late", "ofport_request=77"];
        bridge
            .ovs
            .vsctl(&[&["add-port", "br-int", "late"], &request[..]].concat());
        assert_eq!(bridge.ovs.vsctl(&["get", "interface", "late", "ofport"]), "77");
        assert_eq!(bridge.client.table().await.unwrap().set, desired);

        // Each such change loses all flows, and without `secure` the switch adds one of its own.
        for (mode, strangers) in [("standalone", 1), ("secure", 0)] {
            let mut changes = bridge.client.changes();
            changes.mark_unchanged();
            bridge
                .ovs
                .vsctl(&["set", "bridge", "br-int", &format!("fail_mode={mode}")]);
            tokio::time::timeout(LIMIT, changes.changed()).await.unwrap().unwrap();
            bridge.apply(&desired).await;
            let observed = bridge.client.table().await.unwrap().set;
            assert_eq!(plan(&desired, &observed).strangers.len(), strangers, "{mode}");
        }
    });
}

#[test]
fn fragments_are_shown_until_somebody_hides_them_or_vswitchd_begins_anew() {
    alone(|| async {
        let mut bridge = Bridge::start().await;
        let looks = async |bridge: &Bridge| bridge.client.table().await.unwrap().fragments;
        assert_eq!(looks(&bridge).await, Fragments::Hidden);
        bridge.client.match_fragments().await.unwrap();
        assert_eq!(looks(&bridge).await, Fragments::Matched);
        assert_eq!(ofctl("get-frags", &[]), "nx-match");
        for (hand, seen) in [("normal", Fragments::Hidden), ("drop", Fragments::Dropped)] {
            ofctl("set-frags", &[hand]);
            assert_eq!(looks(&bridge).await, seen);
            bridge.client.match_fragments().await.unwrap();
            assert_eq!(ofctl("get-frags", &[]), "nx-match");
        }

        let mut changes = bridge.client.changes();
        changes.mark_unchanged();
        bridge.ovs.kill_vswitchd();
        tokio::time::timeout(LIMIT, changes.changed()).await.unwrap().unwrap();
        bridge.ovs.start_vswitchd();
        bridge.client.ready(LIMIT).await.unwrap();
        assert_eq!(looks(&bridge).await, Fragments::Hidden);
        bridge.client.match_fragments().await.unwrap();
        assert_eq!(ofctl("get-frags", &[]), "nx-match");
    });
}
