//! Guests and probe frames.

use super::*;

/// A guest behind a worker's TAP.
fn guest(site: &Site, tap: &'static str) -> File {
    site.on(move |_| tun::tap(tap))
}

fn heard(guest: &mut File) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut frame = [0; 2048];
    loop {
        match guest.read(&mut frame) {
            Ok(length) => all.push(frame[..length].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_guest_sees_no_probe_frame_and_can_forge_none() {
    proven(|w1, w2| {
        let (mut one, mut two) = (guest(w1, "tap_1001_eth1"), guest(w2, "tap_1002_eth1"));
        let mac = |node: &str| Mac::of_probe(&node.parse().unwrap()).octets();
        let forged = |tag: bool| {
            let mut frame = [mac("w2"), mac("w1")].concat();
            if tag {
                frame.extend([0x81, 0, 0, 110]);
            }
            frame.extend([0x88, 0xb5]);
            frame.resize(200, 0);
            frame
        };
        let before = w1.dropped_probes();
        one.write_all(&forged(false)).unwrap();
        until("the forged frame to be dropped", || {
            let dropped = w1.dropped_probes();
            if dropped == before + 1 { Ok(()) } else { Err(dropped) }
        });
        one.write_all(&forged(true)).unwrap();
        // An honest one that everybody hears, after which all earlier ones have come too.
        let mut broadcast = vec![0xff; 6];
        broadcast.extend([0x52, 0x54, 0, 3, 0xe9, 1, 0x88, 0xb6]);
        broadcast.resize(100, 0x55);
        let mut all = Vec::new();
        let last = w2.facts().paths[0].last_seen_ms;
        until("the guests' own frame, and more probe frames", || {
            one.write_all(&broadcast).unwrap();
            all.extend(heard(&mut two));
            all.extend(heard(&mut one));
            let came = all.iter().any(|frame| frame[12..14] == [0x88, 0xb6]);
            if came && w2.facts().paths[0].last_seen_ms > last {
                Ok(())
            } else {
                Err(all.len())
            }
        });
        let probes = all
            .iter()
            .filter(|frame| frame.windows(2).take(18).any(|two| two == [0x88, 0xb5]));
        assert_eq!(probes.count(), 0);
        assert_eq!(w2.probe(), (Some(State::Ready), String::new()));
    });
}
