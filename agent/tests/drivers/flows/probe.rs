//! Probe frames.

use super::*;

const KIND: u16 = 0x88b5;

#[test]
fn probe_frames_pass_between_uplink_and_probe_with_their_tag_and_nowhere_else() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let own = [2, 0, 0, 0, 0, 1];
        let probe = frame(ALL, own, KIND, &[]);
        for id in [110, 120, 400] {
            let (in_, out) = (format!("p/{id}"), format!("up/{id}"));
            rig.expect("a probe from afar", UPLINK, &tagged(id, &probe), &[&in_])
                .await;
            rig.expect("a probe of ours", "p", &tagged(id, &probe), &[&out]).await;
        }
        for from in [UPLINK, "p"] {
            rig.expect("a VLAN that is not carried", from, &tagged(140, &probe), &[])
                .await;
            rig.expect("a probe without a tag", from, &probe, &[]).await;
            rig.expect("with a priority tag", from, &tagged(0, &probe), &[]).await;
        }
        for guest in ["a", "c", "e", "x"] {
            let forged = frame(ALL, mac(guest).octets(), KIND, &[]);
            rig.expect("a probe of a guest", guest, &forged, &[]).await;
            rig.expect("a probe of a guest, tagged", guest, &tagged(110, &forged), &[])
                .await;
        }
        // The probe's port sends nothing else, and nothing is flooded to it.
        let other = frame(ALL, own, IPV4, &[]);
        rig.expect("no probe", "p", &tagged(110, &other), &[]).await;
        rig.expect("no probe, without a tag", "p", &other, &[]).await;
        rig.expect("a broadcast from afar", UPLINK, &tagged(110, &other), &["a", "b", "g"])
            .await;
        let to_all = frame(ALL, mac("a").octets(), IPV4, &[]);
        rig.expect("a guest's broadcast", "a", &to_all, &["b", "g", "up/110"])
            .await;
    });
}
