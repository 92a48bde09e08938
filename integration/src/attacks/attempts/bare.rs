//! Frames that say nothing: tags, what belongs to a cable, and floods.

use super::{FLOOD, Making, PROBE, TRICKLE, UNHEARD, UNKNOWN, VLANS};
use crate::attacks::frame::{BROADCAST, arp_request, ethernet, mark, tagged};
use crate::attacks::what::What;

impl Making<'_> {
    pub(super) fn tags(&mut self, what: What) {
        let own = self.from.vlan.unwrap_or(1);
        match what {
            What::EveryTag => self.sweep("tags 1 to 4095", &[(0x8100, 1)], 1, VLANS),
            What::DoubleTags => {
                self.sweep("own VLAN, then 0 to 4095", &[(0x8100, own), (0x8100, 0)], 0, VLANS);
                self.sweep(
                    "a provider's tag, then 0 to 4095",
                    &[(0x88a8, own), (0x8100, 0)],
                    0,
                    VLANS,
                );
            }
            What::ZeroThenTag => self.sweep("0, then 0 to 4095", &[(0x8100, 0), (0x8100, 0)], 0, VLANS),
            _ => {
                let mac = self.from.mac;
                self.add("tag 0", |id| {
                    tagged(&ethernet(BROADCAST, mac, UNKNOWN, &mark(id)), &[(0x8100, 0)])
                });
            }
        }
    }

    pub(super) fn bare(&mut self, what: What) {
        let mac = self.from.mac;
        let cable = |last| [0x01, 0x80, 0xc2, 0, 0, last];
        match what {
            What::Stp => self.add("bridges", |id| {
                let hello = [&[0x42, 0x42, 0x03, 0, 0, 0, 0, 0][..], &[0; 31], &mark(id)].concat();
                let length = u16::try_from(hello.len()).unwrap_or_default();
                ethernet(cable(0), mac, length, &hello)
            }),
            What::Lldp => self.add("neighbours", |id| ethernet(cable(0x0e), mac, 0x88cc, &mark(id))),
            What::Pause => self.add("the other end", |id| {
                let stop = [&[0, 1, 0xff, 0xff][..], &mark(id)].concat();
                ethernet(cable(1), mac, 0x8808, &stop)
            }),
            What::Probe => {
                // Where the fleet's own probes go to, and by broadcast.
                let group = [0x01, 0, 0x5e, 0, 0, 0x99];
                self.add("the probes' group", |id| ethernet(group, mac, PROBE, &mark(id)));
                self.add("everybody", |id| ethernet(BROADCAST, mac, PROBE, &mark(id)))
            }
            _ => self.add("everybody", |id| ethernet(BROADCAST, mac, UNKNOWN, &mark(id))),
        };
    }

    pub(super) fn many(&mut self, what: What) {
        let (own, gateway) = (self.from.own(), self.from.gateway.1);
        let (to, count) = match what {
            What::Trickle => (BROADCAST, TRICKLE),
            What::FloodUnknown => (UNHEARD, FLOOD),
            _ => (BROADCAST, FLOOD),
        };
        let frame = |id| match what {
            What::FloodArp => arp_request(own, gateway, id),
            _ => ethernet(to, own.0, UNKNOWN, &mark(id)),
        };
        self.add(format!("{count} frames"), frame).burst.count = count;
    }
}
