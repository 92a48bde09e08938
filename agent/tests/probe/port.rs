//! The probe's port: what it is like, and what may become of it.

use super::*;

#[test]
fn a_restart_of_the_switch_daemon_heals() {
    proven(|w1, w2| {
        w1.on(Ovs::kill_vswitchd);
        w2.until_degraded("vlan 110 does not pass w1 -> w2");
        w1.on(|ovs| ovs.start_vswitchd());
        println!("healed after {:?}", w2.until_ready().max(w1.until_ready()));
        w1.on(|_| run("ip", &["link", "set", PORT, "down"]));
        until("the port to be up again", || {
            let shown = w1.on(|_| run("ip", &["link", "show", PORT]));
            if shown.contains(",UP") { Ok(()) } else { Err(shown) }
        });
        w2.until_ready();
        // The port is as it was made.
        let shown = w1.on(|_| run("ip", &["-d", "addr", "show", PORT]));
        assert!(!shown.contains("inet"), "{shown}");
    });
}

#[test]
fn the_port_carries_what_the_uplink_does_and_goes_with_the_last_probe() {
    proven(|w1, _| {
        let mac = Mac::of_probe(&"w1".parse().unwrap()).to_string();
        let get =
            |table: &'static str, column: &'static str| w1.on(move |ovs| ovs.vsctl(&["get", table, PORT, column]));
        assert_eq!(get("port", "vlan_mode"), "trunk");
        assert_eq!(
            get("port", "trunks"),
            "[4095]",
            "flows lead past it, NORMAL floods nothing there"
        );
        assert_eq!(get("interface", "mac_in_use"), format!("\"{mac}\""));
        assert_eq!(get("interface", "mtu_request"), "1500");
        assert_eq!(get("interface", "ofport"), get("interface", "ofport_request"));
        let shown = w1.on(|_| run("ip", &["addr", "show", PORT]));
        assert!(shown.contains(",UP") && !shown.contains("inet"), "{shown}");

        w1.update(&[port(1001, 110), trunk(&[110]), flows(110)]);
        until_port_gone(w1, 2);
    });
}

fn until_port_gone(site: &Site, generation: u64) {
    until("the port to go", || {
        let ports = site.on(|ovs| ovs.vsctl(&["list-ports", "br-int"]));
        let clean = site.seen.lock().unwrap().clean_generation;
        let devices = site.on(|_| run("ip", &["-br", "link"]));
        if clean == generation && !ports.contains(PORT) && !devices.contains(PORT) {
            Ok(())
        } else {
            Err((clean, ports, devices))
        }
    });
}

#[test]
fn a_device_whose_port_went_while_the_switch_daemon_was_dead_is_in_nobodys_way() {
    proven(|w1, w2| {
        w1.on(|ovs| {
            ovs.kill_vswitchd();
            ovs.vsctl(&["--no-wait", "del-port", "br-int", PORT]);
            // The agent has no turn meanwhile.
            assert!(run("ip", &["-br", "link"]).contains(PORT));
        });
        w2.until_degraded("vlan 110 does not pass w1 -> w2");
        w1.on(|ovs| ovs.start_vswitchd());
        w1.until_ready();
        w2.until_ready();
    });
}

#[test]
fn a_strangers_device_of_the_ports_name_is_not_touched() {
    stage(|w1, w2| {
        w1.on(|_| run("ip", &["link", "add", PORT, "type", "bridge"]));
        w1.update(&with_probe(1001, "w2"));
        w2.update(&with_probe(1002, "w1"));
        until("the reason", || match w1.probe() {
            (Some(State::Failed), reason) if reason.contains("was not made by this program") => Ok(()),
            other => Err(other),
        });
        // Its siblings go on.
        until("the port of the guest", || match w1.seen("port tap_1001_eth1") {
            Some(seen) if seen.state == State::Ready => Ok(()),
            other => Err(other.map(|seen| seen.reason)),
        });
        assert!(w1.on(|_| run("ip", &["-d", "link", "show", PORT])).contains("bridge"));
        w1.on(|_| run("ip", &["link", "del", PORT]));
        w1.until_ready();
        w2.until_ready();
    });
}

/// Not by a look of its own: those are ten minutes apart here.
#[test]
fn whatever_somebody_does_to_the_port_is_put_right_at_once_and_told_of_and_it_proves_again() {
    proven_that_looks(Duration::from_secs(600), |w1, w2| {
        type Break = fn(&mut Ovs);
        let table: [(Break, &str); 6] = [
            (
                |_| drop(run("ip", &["link", "del", PORT])),
                "tlprobe0: its device was gone",
            ),
            (
                |_| drop(run("ip", &["link", "set", PORT, "down"])),
                "tlprobe0: its device was down",
            ),
            (
                |ovs| drop(ovs.vsctl(&["del-port", "br-int", PORT])),
                "tlprobe0: the switch port was gone",
            ),
            (
                |ovs| drop(ovs.vsctl(&["set", "port", PORT, "trunks=110,111"])),
                "tlprobe0: switch port's VLAN list had 110, 111 too much",
            ),
            (
                |ovs| drop(ovs.vsctl(&["clear", "port", PORT, "trunks"])),
                "tlprobe0: switch port's VLAN list was empty, which means every VLAN",
            ),
            (
                |ovs| drop(ovs.vsctl(&["set", "port", PORT, "tag=110"])),
                "tlprobe0: switch port had tag 110, not none",
            ),
        ];
        for (break_it, words) in table {
            let began = Instant::now();
            w1.on(break_it);
            let key = "probe probe_vlan110";
            until(words, || {
                let seen = w1.seen.lock().unwrap();
                if seen.is_repaired(key, words) {
                    Ok(())
                } else {
                    Err(seen.repairs.clone())
                }
            });
            println!("{words}: {:?}", began.elapsed());
            // Frames that were sent and heard after that.
            let heard = |site: &Site| site.facts().paths[0].last_seen_ms;
            let before = [heard(w1), heard(w2)];
            until("frames both ways", || {
                let now = [heard(w1), heard(w2)];
                if now[0] > before[0] && now[1] > before[1] {
                    Ok(())
                } else {
                    Err(now)
                }
            });
            w1.until_ready();
            w2.until_ready();
            assert_eq!(w1.on(|ovs| ovs.vsctl(&["get", "port", PORT, "trunks"])), "[4095]");
        }
        assert_eq!(w1.seen.lock().unwrap().repairs.len(), 6, "each once");
    });
}
