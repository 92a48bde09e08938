//! Faults between the hosts, seen by real frames: what each one drops, and that it drops nothing else.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use trunkline_integration::attacks::{Burst, inject};
use trunkline_integration::lab::{Fault, Lab, Options, PartedFrom};
use trunkline_integration::wait::until;

const LIMIT: Duration = Duration::from_secs(20);
const HOSTS: [&str; 4] = ["ctl", "nn", "w1", "w2"];
const MARK: &[u8; 8] = b"lab-test";
const ETHERNET: usize = 14;

/// Which way a frame goes: the network, and the VLAN where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wire {
    Management,
    Trunk(Option<u16>),
}

/// A frame that somebody sends, for everybody.
#[derive(Debug, Clone, Copy)]
struct Frame {
    from: &'static str,
    wire: Wire,
    payload: usize,
}

const SMALL: usize = 100;

fn small(from: &'static str, wire: Wire) -> Frame {
    Frame {
        from,
        wire,
        payload: SMALL,
    }
}

/// A raw socket on every interface of each host that is on a network.
struct Ears<'a> {
    lab: &'a Lab,
    sockets: Vec<(&'static str, OwnedFd)>,
    sent: u32,
    heard: BTreeSet<(u32, &'static str)>,
}

impl<'a> Ears<'a> {
    fn open(lab: &'a Lab) -> Self {
        let open = || -> nix::Result<OwnedFd> {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20))?;
            Ok(socket)
        };
        let sockets = HOSTS.map(|name| (name, lab.host(name).unwrap().run(open).unwrap().unwrap()));
        Self {
            lab,
            sockets: sockets.into(),
            sent: 0,
            heard: BTreeSet::new(),
        }
    }

    fn send(&mut self, frame: Frame) -> u32 {
        self.sent += 1;
        let number = self.sent;
        // To nobody that is there, so that it goes everywhere.
        let mut bytes = vec![2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1];
        let interface = match frame.wire {
            Wire::Management => "mgmt0",
            Wire::Trunk(vlan) => {
                if let Some(vlan) = vlan {
                    bytes.extend([0x81, 0x00]);
                    bytes.extend(vlan.to_be_bytes());
                }
                "trunk0"
            }
        };
        bytes.extend([0x88, 0xb6]);
        let header = bytes.len();
        bytes.extend(MARK);
        bytes.extend(number.to_be_bytes());
        bytes.resize(header + frame.payload, 0);
        let burst = Burst::one(interface, bytes);
        let host = self.lab.host(frame.from).unwrap();
        host.run(move || inject::send(&[burst])).unwrap().unwrap();
        number
    }

    fn listen(&mut self) {
        let mut bytes = [0; 10_000];
        for (host, socket) in &self.sockets {
            while let Ok((length, Some(from))) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut bytes) {
                let payload = bytes[..length].get(ETHERNET..).unwrap_or_default();
                let ours = from.as_ref().sll_pkttype == libc::PACKET_OUTGOING;
                if let Some(number) = payload.strip_prefix(MARK).filter(|_| !ours) {
                    self.heard
                        .insert((u32::from_be_bytes(number[..4].try_into().unwrap()), host));
                }
            }
        }
    }

    /// Who hears each frame while the fault stands.
    fn hear(&mut self, fault: &Fault, frames: &[Frame]) -> Vec<Vec<&'static str>> {
        let id = self.lab.fault(fault.clone()).unwrap();
        let numbers: Vec<u32> = frames.iter().map(|frame| self.send(*frame)).collect();
        let standing = self.lab.faults().unwrap();
        assert_eq!((standing.len(), standing[0].id, &standing[0].fault), (1, id, fault));
        assert!(standing[0].dropped > 0, "{fault} dropped nothing");
        assert_eq!(self.lab.heal(Some(id)).unwrap(), standing);
        // When the last frame, sent after the fault, has come everywhere, nothing that came before it is on its way.
        for wire in [Wire::Management, Wire::Trunk(None)] {
            for from in ["w1", "nn"] {
                let last = self.send(small(from, wire));
                let whole = |host: &&str| *host != from && (wire == Wire::Management || *host != "ctl");
                until("a frame after the fault", LIMIT, || {
                    self.listen();
                    let deaf = HOSTS
                        .iter()
                        .filter(|host| whole(host) && !self.heard.contains(&(last, **host)));
                    match deaf.copied().collect::<Vec<_>>() {
                        none if none.is_empty() => Ok(()),
                        some => Err(format!("{some:?} did not hear it")),
                    }
                })
                .unwrap();
            }
        }
        let heard_by = |number: &u32| {
            HOSTS
                .into_iter()
                .filter(|host| self.heard.contains(&(*number, *host)))
                .collect()
        };
        numbers.iter().map(heard_by).collect()
    }
}

fn text(host: &str) -> String {
    host.to_owned()
}

#[test]
fn each_fault_drops_what_it_says_and_nothing_else() {
    let lab = Lab::start(&Options {
        daemons: false,
        ..Options::default()
    })
    .unwrap();
    let mut ears = Ears::open(&lab);
    let (tagged, other, untagged) = (Wire::Trunk(Some(110)), Wire::Trunk(Some(111)), Wire::Trunk(None));
    let sized = |from, payload| Frame {
        from,
        wire: tagged,
        payload,
    };

    let vlan_drop = Fault::VlanDrop {
        vlan: 110,
        host: text("w1"),
    };
    let frames = [
        small("w1", tagged),
        small("w2", tagged),
        small("w1", other),
        small("w1", untagged),
    ];
    let heard = ears.hear(&vlan_drop, &frames);
    assert_eq!(heard, [vec![], vec!["nn"], vec!["nn", "w2"], vec!["nn", "w2"]]);

    let one_way = |vlan| Fault::OneWay {
        from: text("w1"),
        to: text("w2"),
        vlan,
    };
    let frames = [
        small("w1", tagged),
        small("w2", tagged),
        small("w1", other),
        small("w1", Wire::Management),
    ];
    let heard = ears.hear(&one_way(Some(110)), &frames);
    let all = ["ctl", "nn", "w2"];
    assert_eq!(heard, [vec!["nn"], vec!["nn", "w1"], vec!["nn", "w2"], all.to_vec()]);
    let heard = ears.hear(&one_way(None), &frames);
    assert_eq!(heard, [vec!["nn"], vec!["nn", "w1"], vec!["nn"], all.to_vec()]);

    // To the byte, whether there is a tag or not.
    let mtu = Fault::Mtu {
        host: text("w2"),
        size: 1400,
    };
    let frames = [
        sized("w1", 1400),
        sized("w1", 1401),
        sized("w2", 1400),
        sized("w2", 1401),
        Frame {
            from: "w1",
            wire: untagged,
            payload: 1401,
        },
        sized("nn", 9000),
    ];
    let heard = ears.hear(&mtu, &frames);
    let expected = [
        vec!["nn", "w2"],
        vec!["nn"],
        vec!["nn", "w1"],
        vec![],
        vec!["nn"],
        vec!["w1"],
    ];
    assert_eq!(heard, expected);

    let partition = |from, one_way| Fault::Partition {
        host: text("w1"),
        from,
        one_way,
    };
    let frames = [
        small("w1", Wire::Management),
        small("ctl", Wire::Management),
        small("w1", tagged),
        small("w2", tagged),
    ];
    let trunk = || [vec!["nn", "w2"], vec!["nn", "w1"]];
    let heard = ears.hear(&partition(PartedFrom::Controller, false), &frames);
    assert_eq!(heard[..2], [vec!["nn", "w2"], vec!["nn", "w2"]]);
    assert_eq!(heard[2..], trunk());
    let heard = ears.hear(&partition(PartedFrom::Controller, true), &frames);
    assert_eq!(heard[..2], [vec!["nn", "w2"], vec!["nn", "w1", "w2"]]);
    assert_eq!(heard[2..], trunk());
    let heard = ears.hear(&partition(PartedFrom::All, false), &frames);
    assert_eq!(heard, [vec![], vec!["nn", "w2"], vec![], vec!["nn"]]);
    let heard = ears.hear(&partition(PartedFrom::All, true), &frames);
    assert_eq!(heard, [vec![], vec!["nn", "w1", "w2"], vec![], vec!["nn", "w1"]]);
}

#[test]
fn faults_stand_beside_each_other_until_they_are_healed() {
    let lab = Lab::start(&Options {
        workers: 1,
        daemons: false,
        ..Options::default()
    })
    .unwrap();
    let drop = |vlan| Fault::VlanDrop { vlan, host: text("w1") };
    assert_eq!(lab.faults().unwrap(), []);
    assert_eq!(lab.heal(None).unwrap(), [], "nothing to heal is as good");
    let (first, second) = (lab.fault(drop(110)).unwrap(), lab.fault(drop(111)).unwrap());
    assert_eq!(lab.fault(drop(110)).unwrap(), first, "made once");
    let error = lab.heal(Some(99)).unwrap_err().to_string();
    assert_eq!(error, format!("there is no fault 99; there are: {first} {second}"));
    let error = lab.fault(drop(4095)).unwrap_err().to_string();
    assert_eq!(error, "there is no VLAN 4095: 1 to 4094 are");
    lab.heal(Some(first)).unwrap();
    let left: Vec<u32> = lab.faults().unwrap().iter().map(|standing| standing.id).collect();
    assert_eq!(left, [second]);
    let third = lab.fault(drop(110)).unwrap();
    assert!(third > second, "a number is never used again");
    assert_eq!(lab.heal(None).unwrap().len(), 2);
    assert_eq!(lab.faults().unwrap(), []);
    let error = lab.heal(Some(first)).unwrap_err().to_string();
    assert_eq!(error, format!("there is no fault {first}; none stands"));
}
