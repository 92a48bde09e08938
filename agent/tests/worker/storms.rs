//! Limits that bite, as the report tells of them.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;

/// Counters are looked at every ten seconds, and a limit bites between two looks.
const LOOKS: Duration = Duration::from_secs(60);
const FLOWS: &str = "flows flows_vlan110";

#[test]
fn a_storm_degrades_its_vlan_by_name_and_its_end_makes_it_ready_again() {
    alone(async || {
        let mut host = Host::new().await;
        let limits = |vlan| flows_limited(vlan, Some(50), Some(20));
        let all = [
            port(1001, 110),
            port(1002, 110),
            port(1003, 111),
            trunk(&[110, 111]),
            limits(110),
            limits(111),
        ];
        let (agent, mut session) = host.with(&all).await;

        // To all, to nobody, and from a third guest as little as its limit allows.
        let mut quiet = tun::tap("tap_1003_eth1");
        quiet.write_all(&[[0xff; 12], [0x9; 12]].concat()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let senders = [("tap_1001_eth1", [0xff; 6]), ("tap_1002_eth1", [2, 0, 0, 0, 0, 7])].map(|(name, to)| {
            let (mut tap, stop) = (tun::tap(name), stop.clone());
            let frame = [&to[..], &[2, 0, 0, 0, 0, 1], &[0; 60]].concat();
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    for _ in 0..50 {
                        let _ = tap.write(&frame);
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                // Held to the end: without its virtual machine a TAP has no carrier.
                tap
            })
        });
        let seen = session
            .reports_within(LOOKS, |s| {
                s.items
                    .get(FLOWS)
                    .is_some_and(|o| matches!(&o.facts, Some(Facts::Flows(facts)) if facts.storms.len() == 2))
            })
            .await;
        let flows = &seen.items[FLOWS];
        assert_eq!(flows.state, State::Degraded);
        let words = "tap_1001_eth1 and 1 more sends more to all, or to nobody, than its limit allows: ";
        assert!(flows.reason.starts_with(words), "{}", flows.reason);
        let Some(Facts::Flows(facts)) = &flows.facts else {
            panic!("no facts")
        };
        let named: Vec<_> = facts
            .storms
            .iter()
            .map(|storm| (&*storm.port, storm.dropped > 0))
            .collect();
        assert_eq!(named, [("tap_1001_eth1", true), ("tap_1002_eth1", true)]);
        assert_ne!(seen.state("flows flows_vlan111"), Some(State::Degraded));

        stop.store(true, Ordering::SeqCst);
        session.reports_within(LOOKS, |s| s.is_ready(&all[4])).await;
        for sender in senders {
            drop(sender.await.unwrap());
        }
        agent.stop().await;
    });
}
