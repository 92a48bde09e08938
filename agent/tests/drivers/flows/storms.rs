//! Limits.

use super::*;

#[test]
fn storms_are_cut_and_seen_and_honest_traffic_is_not() {
    alone(|| async {
        let limits = StormLimits { group: 50, unknown: 20 };
        let network = network(limits);
        let mut rig = Rig::start(&network).await;
        let before = rig.bridge.client.meter_counters().await.unwrap();
        let a = mac("a").octets();
        let kinds = [
            (Storm::Group, frame(ALL, a, IPV4, &[]), 50),
            (Storm::Unknown, frame([2, 0, 0, 0, 0, 7], a, IPV4, &[]), 20),
        ];
        for (storm, sent, rate) in kinds {
            let begin = Instant::now();
            let first = rig.next;
            let mut all = Vec::new();
            for _ in 0..20 {
                for _ in 0..100 {
                    rig.write("a", &sent);
                }
                all.extend(rig.round().await);
            }
            let at_g = all.iter().filter(|(name, _, id)| name == "g" && *id >= first).count();
            let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap() + 1;
            println!("{storm:?}: {at_g} of 2000 passed in {:?}", begin.elapsed());
            assert!(
                (1..=rate * (seconds + 1)).contains(&at_g),
                "{storm:?}: {at_g} in {seconds} s"
            );
        }
        // Two thousand frames to a known end: none is lost.
        let known = frame(mac("b").octets(), a, 0x9998, &[]);
        let first = rig.next;
        let mut all = Vec::new();
        for _ in 0..40 {
            for _ in 0..50 {
                rig.write("a", &known);
            }
            all.extend(rig.round().await);
        }
        let at_b = all.iter().filter(|(name, _, id)| name == "b" && *id >= first).count();
        assert_eq!(at_b, 2000 + 80, "2000 frames and 80 sentinels");

        let now = rig.bridge.client.meter_counters().await.unwrap();
        let bites = flows::bites(&network, &before, &now);
        let bitten: Vec<(u32, Storm)> = bites.iter().map(|bite| (bite.port, bite.storm)).collect();
        assert_eq!(
            bitten,
            [(number("a"), Storm::Group), (number("a"), Storm::Unknown)],
            "{bites:?}"
        );
        assert!(bites.iter().all(|bite| bite.dropped > 1000), "{bites:?}");
    });
}
