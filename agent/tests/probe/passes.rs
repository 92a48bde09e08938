//! What passes between two workers, and what does not.

use super::*;

#[test]
fn two_workers_prove_a_vlan_to_each_other_and_what_breaks_it_is_named() {
    stage(|w1, w2| {
        w1.update(&with_probe(1001, "w2"));
        w2.update(&with_probe(1002, "w1"));
        println!("ready: w1 {:?}, w2 {:?}", w1.until_ready(), w2.until_ready());
        until("round trip and the other end's word", || {
            let path = w1.facts().paths.remove(0);
            let right = path.largest == 1500 && path.largest_heard == 1500 && path.round_trip_us > 0;
            if right { Ok(()) } else { Err(path) }
        });

        drop_vlan(None);
        let took = w1.until_degraded("vlan 110 does not pass w2 -> w1");
        w2.until_degraded("vlan 110 does not pass w1 -> w2");
        println!("dropped: named after {took:?}");
        heal();
        println!("healed after {:?}", w1.until_ready().max(w2.until_ready()));

        drop_vlan(Some("w1"));
        let took = w2.until_degraded("vlan 110 does not pass w1 -> w2");
        println!("one way: named after {took:?}");
        assert_eq!(w1.probe(), (Some(State::Ready), String::new()));
        heal();
        w2.until_ready();

        mtu_between("1400");
        let took = w2.until_degraded("vlan 110 does not pass w1 -> w2 at 1500 bytes (passes at 1400)");
        w1.until_degraded("vlan 110 does not pass w2 -> w1 at 1500 bytes (passes at 1400)");
        println!("mtu: named after {took:?}");
        mtu_between("1500");
        w1.until_ready();
        w2.until_ready();
    });
}

#[test]
fn two_hundred_vlans_are_proved_and_the_one_that_is_dropped_is_named() {
    stage(|w1, w2| {
        let vlans: Vec<u32> = (101..301).collect();
        let all = |guest, peer| {
            let mut all = vec![port(guest, 110), trunk(&vlans)];
            all.extend(vlans.iter().map(|vlan| flows(*vlan)));
            all.extend(vlans.iter().map(|vlan| probe(*vlan, &[peer])));
            all
        };
        let began = Instant::now();
        w1.update(&all(1001, "w2"));
        w2.update(&all(1002, "w1"));
        let count = |site: &Site| {
            let seen = site.seen.lock().unwrap();
            let ready = seen
                .items
                .values()
                .filter(|seen| seen.state == State::Ready && matches!(seen.facts, Some(Facts::Probe(_))));
            ready.count()
        };
        until("all to be ready", || match (count(w1), count(w2)) {
            (200, 200) => Ok(()),
            other => Err(other),
        });
        println!("200 ready after {:?}", began.elapsed());
        drop_vlan(None);
        let took = w1.until_degraded("vlan 110 does not pass w2 -> w1");
        w2.until_degraded("vlan 110 does not pass w1 -> w2");
        println!("dropped: named after {took:?}");
        assert_eq!((count(w1), count(w2)), (199, 199));
    });
}
