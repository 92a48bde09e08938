//! Frames through the real ovs-vswitchd with the compiled flows: who hears what.
//!
//! Each port is a TAP whose other side is this test. After each frame two sentinels go from `a` to `b`: when the second has come,
//! ovs-vswitchd has been round all its ports, so what has not come till then was dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use nix::libc;
use trunkline_agent::flows::{
    self, Guest, Network, Policy, Segment, ServiceAddress, Storm, StormLimits, Uplink, compile,
};
use trunkline_proto::{Mac, VlanId};

use super::openflow::Bridge;
use super::stand::{LIMIT, alone, run};

/// Ports by name: OpenFlow number and VLAN. `a b g` on an open link, `c d` on a secured one, `e f` on VLAN 400, `x y` isolated.
const PORTS: [(&str, u32, u32); 9] = [
    ("a", 10, 110),
    ("b", 11, 110),
    ("g", 12, 110),
    ("c", 13, 120),
    ("d", 14, 120),
    ("e", 15, 400),
    ("f", 16, 400),
    ("x", 17, 0),
    ("y", 18, 0),
];
const UPLINK: &str = "up";
const ALL: [u8; 6] = [0xff; 6];
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

#[allow(unsafe_code)]
mod tun {
    use super::{File, libc};
    use std::os::fd::AsRawFd;

    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);

    pub(super) fn attach(file: &File, name: &str) {
        let mut ifr_name = [0; libc::IFNAMSIZ];
        for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let [low, high, ..] = (libc::IFF_TAP | libc::IFF_NO_PI).to_le_bytes();
        let ifr_ifru = libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::from_le_bytes([low, high]),
        };
        let request = libc::ifreq { ifr_name, ifr_ifru };
        // SAFETY: TUNSETIFF reads one `ifreq` and keeps no pointer to it.
        unsafe { set_interface(file.as_raw_fd(), &raw const request) }.unwrap();
    }
}

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

fn number(name: &str) -> u32 {
    PORTS.iter().find(|port| port.0 == name).unwrap().1
}

fn mac(name: &str) -> Mac {
    Mac::try_from([0x52, 0x54, 0, 0, 0, u8::try_from(number(name)).unwrap()]).unwrap()
}

fn ip(name: &str) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(number(name)).unwrap())
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn network(limits: StormLimits) -> Network {
    let guest = |(name, number, id): &(&str, u32, u32)| {
        let guest = Guest {
            vlan: VlanId::try_from(*id).ok(),
            mac: mac(name),
            addresses: BTreeSet::from([ip(name)]),
            limits,
        };
        (*number, guest)
    };
    let segment = |id: u32, policy| {
        let services = [
            (Mac::of_gateway(vlan(id)), GATEWAY, false),
            (Mac::of_dhcp(vlan(id)), Ipv4Addr::new(10, 0, 0, 254), true),
        ];
        let service = |(mac, address, dhcp)| ServiceAddress { mac, address, dhcp };
        let known = PORTS
            .iter()
            .filter(|port| port.2 == id)
            .map(|port| mac(port.0))
            .collect();
        let services = services.into_iter().map(service).collect();
        (
            vlan(id),
            Segment {
                policy,
                services,
                known,
            },
        )
    };
    Network {
        uplink: Some(Uplink {
            port: 1,
            vlans: [110, 120, 400].map(vlan).into(),
        }),
        guests: PORTS.iter().map(guest).collect(),
        segments: [
            segment(110, Policy::Open),
            segment(120, Policy::Secured),
            segment(400, Policy::Open),
        ]
        .into(),
        ..Network::default()
    }
}

/// Who heard a frame: port and tag.
type Heard = BTreeSet<(String, Option<u16>)>;

struct Rig {
    bridge: Bridge,
    taps: BTreeMap<&'static str, File>,
    next: u64,
}

impl Rig {
    async fn start(network: &Network) -> Self {
        let bridge = Bridge::start().await;
        let names = PORTS.map(|port| port.0);
        let taps = names
            .into_iter()
            .chain([UPLINK])
            .map(|name| (name, tap(name)))
            .collect();
        let mut args: Vec<String> = Vec::new();
        let mut add = |name: &str, number: u32, settings: &[String]| {
            args.extend(["--", "add-port", "br-int", name, "--", "set", "port", name].map(str::to_owned));
            args.extend_from_slice(settings);
            let request = format!("ofport_request={number}");
            args.extend(["--", "set", "interface", name, &request].map(str::to_owned));
        };
        for (name, number, id) in PORTS {
            let protected = format!("protected={}", id == 0);
            add(
                name,
                number,
                &["vlan_mode=access".to_owned(), format!("tag={id}"), protected],
            );
        }
        add(
            UPLINK,
            1,
            &["vlan_mode=trunk".to_owned(), "trunks=110,120,400".to_owned()],
        );
        bridge.ovs.vsctl(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut rig = Self { bridge, taps, next: 1 };
        // Without flows nothing passes: the bridge is secure.
        let heard = rig.heard_within(&frame(ALL, mac("a").octets(), IPV4, &[]), "a", 200);
        assert_eq!(heard, Heard::new());
        rig.bridge.apply(&compile(network)).await;
        // The switch learns where b is.
        rig.hear("b", &frame(mac("a").octets(), mac("b").octets(), IPV4, &[]))
            .await;
        rig
    }

    fn write(&mut self, from: &str, frame: &[u8]) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut frame = frame.to_vec();
        // Behind what the headers say: padding to everybody but us.
        frame.extend_from_slice(&MAGIC.to_be_bytes());
        frame.extend_from_slice(&id.to_be_bytes());
        self.taps.get_mut(from).unwrap().write_all(&frame).unwrap();
        id
    }

    /// All frames of ours that have come: port, tag, id.
    fn read(&mut self) -> Vec<(String, Option<u16>, u64)> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 4096];
        for (name, tap) in &mut self.taps {
            loop {
                match tap.read(&mut buffer) {
                    Ok(size) => all.extend(parse(name, &buffer[..size])),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{name}: {error}"),
                }
            }
        }
        all
    }

    fn heard_within(&mut self, frame: &[u8], from: &str, milliseconds: u64) -> Heard {
        let id = self.write(from, frame);
        let deadline = Instant::now() + std::time::Duration::from_millis(milliseconds);
        let mut heard = Heard::new();
        while Instant::now() < deadline {
            let came = self.read().into_iter().filter(|came| came.2 == id);
            heard.extend(came.map(|(name, tag, _)| (name, tag)));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        heard
    }

    /// Waits until ovs-vswitchd has been round all ports; gives all that came.
    async fn round(&mut self) -> Vec<(String, Option<u16>, u64)> {
        let mut all = Vec::new();
        for _ in 0..2 {
            let sentinel = self.write("a", &frame(mac("b").octets(), mac("a").octets(), 0x9999, &[]));
            let deadline = Instant::now() + LIMIT;
            while !all.iter().any(|(_, _, id)| *id == sentinel) {
                assert!(Instant::now() < deadline, "the sentinel did not come");
                all.extend(self.read());
                tokio::task::yield_now().await;
            }
        }
        all
    }

    /// Who hears a frame.
    async fn hear(&mut self, from: &str, frame: &[u8]) -> Heard {
        let id = self.write(from, frame);
        let all = self.round().await;
        all.into_iter()
            .filter(|came| came.2 == id)
            .map(|(name, tag, _)| (name, tag))
            .collect()
    }

    async fn expect(&mut self, rule: &str, from: &str, frame: &[u8], wanted: &[&str]) {
        let heard = self.hear(from, frame).await;
        let heard: Vec<String> = heard
            .into_iter()
            .map(|(name, tag)| tag.map_or(name.clone(), |tag| format!("{name}/{tag}")))
            .collect();
        assert_eq!(heard, wanted, "{rule} (from {from})");
        println!(
            "{from:>2}  {rule:<60} {}",
            if wanted.is_empty() {
                "-".to_owned()
            } else {
                wanted.join(" ")
            }
        );
    }
}

const MAGIC: u64 = 0x7472_756e_6b6c_696e;

fn parse(name: &str, frame: &[u8]) -> Option<(String, Option<u16>, u64)> {
    let at = frame.len().checked_sub(16)?;
    let magic = u64::from_be_bytes(frame[at..at + 8].try_into().unwrap());
    let id = u64::from_be_bytes(frame[at + 8..].try_into().unwrap());
    let tagged = frame[12..14] == [0x81, 0];
    let tag = tagged.then(|| u16::from_be_bytes([frame[14] & 0xf, frame[15]]));
    (magic == MAGIC).then(|| (name.to_owned(), tag, id))
}

/// A TAP whose other side we hold.
fn tap(name: &str) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .unwrap();
    tun::attach(&file, name);
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    run("ip", &["link", "set", "dev", name, "txqueuelen", "10000", "up"]);
    file
}

fn frame(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to.as_slice(), &from, &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn tagged(id: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &id.to_be_bytes(), &frame[12..]].concat()
}

fn arp(to: [u8; 6], from: [u8; 6], operation: u8, sender: ([u8; 6], Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let payload = [&head[..], &sender.0, &sender.1.octets(), &[0; 6], &target.octets()].concat();
    frame(to, from, ARP, &payload)
}

/// IPv4 with a correct header; `rest` is what comes behind it.
fn ipv4(to: [u8; 6], from: [u8; 6], addresses: (Ipv4Addr, Ipv4Addr), protocol: u8, more: bool, rest: &[u8]) -> Vec<u8> {
    let size = u16::try_from(20 + rest.len()).unwrap().to_be_bytes();
    let fragment = if more { 0x20 } else { 0 };
    let mut head = [&[0x45, 0], &size[..], &[0, 1, fragment, 0, 64, protocol, 0, 0]].concat();
    head.extend(addresses.0.octets());
    head.extend(addresses.1.octets());
    let sum: u32 = head
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    head[10..12].copy_from_slice(&check.to_be_bytes());
    frame(to, from, IPV4, &[&head[..], rest].concat())
}

fn udp(ports: (u16, u16)) -> Vec<u8> {
    [
        &ports.0.to_be_bytes()[..],
        &ports.1.to_be_bytes(),
        &16_u16.to_be_bytes(),
        &[0; 10],
    ]
    .concat()
}

fn ipv6(to: [u8; 6], from: [u8; 6], next: u8, rest: &[u8]) -> Vec<u8> {
    let size = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let target = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    frame(
        to,
        from,
        IPV6,
        &[&[0x60, 0, 0, 0], &size[..], &[next, 255], &source, &target, rest].concat(),
    )
}

const NOWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const EVERYWHERE: Ipv4Addr = Ipv4Addr::BROADCAST;
const IPV6_ALL: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

#[test]
fn on_an_open_link_the_vlan_is_the_border_and_control_frames_stay_out() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let (a, b, c) = (mac("a").octets(), mac("b").octets(), mac("c").octets());
        rig.expect("unicast to a known end", "a", &frame(b, a, IPV4, &[]), &["b"])
            .await;
        rig.expect("broadcast", "a", &frame(ALL, a, IPV4, &[]), &["b", "g", "up/110"])
            .await;
        rig.expect(
            "a MAC of another slice",
            "a",
            &frame(c, a, IPV4, &[]),
            &["b", "g", "up/110"],
        )
        .await;
        rig.expect(
            "another source MAC",
            "a",
            &frame(b, [2, 0, 0, 0, 0, 9], IPV4, &[]),
            &["b"],
        )
        .await;
        rig.expect("a group source MAC", "a", &frame(b, [3, 0, 0, 0, 0, 9], IPV4, &[]), &[])
            .await;
        let offer = ipv4(ALL, a, (ip("a"), EVERYWHERE), 17, false, &udp((67, 68)));
        rig.expect("a DHCP server of the lab", "a", &offer, &["b", "g", "up/110"])
            .await;
        let advertisement = ipv6(IPV6_ALL, a, 58, &[134, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect(
            "a router advertisement of the lab",
            "a",
            &advertisement,
            &["b", "g", "up/110"],
        )
        .await;
        for (what, to, kind) in [
            ("spanning tree", [1, 0x80, 0xc2, 0, 0, 0], 0x0027),
            ("pause", [1, 0x80, 0xc2, 0, 0, 1], 0x8808),
            ("pause to an end", b, 0x8808),
            ("LLDP", [1, 0x80, 0xc2, 0, 0, 0xe], 0x88cc),
            ("probe", ALL, 0x88b5),
            ("probe to an end", b, 0x88b5),
        ] {
            rig.expect(what, "a", &frame(to, a, kind, &[]), &[]).await;
            rig.expect(
                what,
                UPLINK,
                &tagged(110, &frame(to, [2, 0, 0, 0, 0, 1], kind, &[])),
                &[],
            )
            .await;
        }
        let one = frame(ALL, [2, 0, 0, 0, 0, 1], IPV4, &[]);
        rig.expect("broadcast", UPLINK, &tagged(110, &one), &["a", "b", "g"])
            .await;
        rig.expect("broadcast, VLAN not carried", UPLINK, &tagged(140, &one), &[])
            .await;
        rig.expect("broadcast without a tag", UPLINK, &one, &[]).await;
    });
}

#[test]
fn no_tag_of_a_guest_leads_anywhere() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        for from in ["a", "c", "e", "x"] {
            let to_all = frame(ALL, mac(from).octets(), IPV4, &[]);
            let first = rig.next;
            let mut all = Vec::new();
            for id in 0..=4095 {
                rig.write(from, &tagged(id, &to_all));
                if id % 100 == 0 {
                    all.extend(rig.round().await);
                }
            }
            for outer in [0, 110, 120, 400, 4095] {
                for inner in [0, 110, 120, 400] {
                    rig.write(from, &tagged(outer, &tagged(inner, &to_all)));
                    let mut provider = tagged(outer, &tagged(inner, &to_all));
                    provider[12..14].copy_from_slice(&[0x88, 0xa8]);
                    rig.write(from, &provider);
                }
            }
            all.extend(rig.round().await);
            // The sentinels are the only frames that came: a to b.
            all.retain(|(name, tag, id)| *id >= first && (name != "b" || tag.is_some()));
            assert_eq!(all, [], "from {from}");
        }
        let to_all = frame(ALL, mac("a").octets(), IPV4, &[]);
        rig.expect("the same without a tag", "a", &to_all, &["b", "g", "up/110"])
            .await;
    });
}

#[test]
fn on_a_secured_link_a_guest_is_only_itself() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let (c, d, other) = (mac("c").octets(), mac("d").octets(), [2, 0, 0, 0, 0, 9]);
        let all: &[&str] = &["d", "up/120"];
        let ask = |from, sender| arp(ALL, from, 1, sender, ip("d"));
        rig.expect("ARP as itself", "c", &ask(c, (c, ip("c"))), all).await;
        rig.expect("ARP probe", "c", &ask(c, (c, NOWHERE)), all).await;
        rig.expect("ARP with the gateway's address", "c", &ask(c, (c, GATEWAY)), &[])
            .await;
        rig.expect("ARP with another sender MAC", "c", &ask(c, (d, ip("c"))), &[])
            .await;
        rig.expect("ARP from another source MAC", "c", &ask(other, (other, ip("c"))), &[])
            .await;
        rig.expect("another source MAC", "c", &frame(d, other, 0x9999, &[]), &[])
            .await;
        let from = |source, rest: &[u8]| ipv4(ALL, c, (source, EVERYWHERE), 17, false, rest);
        rig.expect("IPv4 as itself", "c", &from(ip("c"), &udp((5000, 53))), all)
            .await;
        rig.expect("IPv4 of another guest", "c", &from(ip("d"), &udp((5000, 53))), &[])
            .await;
        rig.expect("a DHCP request", "c", &from(NOWHERE, &udp((68, 67))), all)
            .await;
        rig.expect(
            "from nowhere, but no DHCP request",
            "c",
            &from(NOWHERE, &udp((5000, 53))),
            &[],
        )
        .await;
        rig.expect("a DHCP reply", "c", &from(ip("c"), &udp((67, 68))), &[])
            .await;
        rig.expect(
            "a DHCP reply from another port",
            "c",
            &from(ip("c"), &udp((4000, 68))),
            &[],
        )
        .await;
        let hidden = ipv4(ALL, c, (ip("c"), EVERYWHERE), 17, true, &udp((67, 68)));
        rig.expect("a DHCP reply in fragments", "c", &hidden, &[]).await;
        let icmp = |kind: u8| ipv4(d, c, (ip("c"), ip("d")), 1, false, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        rig.hear("d", &frame(ALL, d, 0x9999, &[])).await;
        rig.expect("a ping", "c", &icmp(8), &["d"]).await;
        rig.expect("an ICMP redirect", "c", &icmp(5), &[]).await;
        let icmp6 = |kind: u8| ipv6(IPV6_ALL, c, 58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect("IPv6 neighbour solicitation", "c", &icmp6(135), all).await;
        rig.expect("a router advertisement", "c", &icmp6(134), &[]).await;
        rig.expect("an ICMPv6 redirect", "c", &icmp6(137), &[]).await;
        let behind = ipv6(IPV6_ALL, c, 60, &[58, 0, 1, 4, 0, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect("a router advertisement behind an option header", "c", &behind, &[])
            .await;
        let part = ipv6(IPV6_ALL, c, 44, &[58, 0, 0, 1, 0, 0, 0, 1, 134, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect("a router advertisement in fragments", "c", &part, &[]).await;
    });
}

#[test]
fn on_vlan_400_there_are_only_the_gateway_and_the_dhcp_server() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let (e, f) = (mac("e").octets(), mac("f").octets());
        let gateway = Mac::of_gateway(VlanId::INTERNET).octets();
        let dhcp = Mac::of_dhcp(VlanId::INTERNET).octets();
        let far = [0x52, 0x54, 0, 0, 9, 9];
        let out: &[&str] = &["up/400"];
        let server = Ipv4Addr::new(10, 0, 0, 254);
        let ping = |to, addresses| ipv4(to, e, addresses, 1, false, &[8, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect("to the gateway", "e", &ping(gateway, (ip("e"), GATEWAY)), out)
            .await;
        rig.expect(
            "to the gateway as another",
            "e",
            &ping(gateway, (ip("f"), GATEWAY)),
            &[],
        )
        .await;
        rig.expect("to a guest here", "e", &ping(f, (ip("e"), ip("f"))), &[])
            .await;
        rig.expect("to a guest elsewhere", "e", &ping(far, (ip("e"), ip("f"))), &[])
            .await;
        rig.expect("to all", "e", &ping(ALL, (ip("e"), EVERYWHERE)), &[]).await;
        let ask = |sender, target| arp(ALL, e, 1, (e, sender), target);
        rig.expect("who has the gateway", "e", &ask(ip("e"), GATEWAY), out)
            .await;
        rig.expect("who has another guest", "e", &ask(ip("e"), ip("f")), &[])
            .await;
        rig.expect("who has the gateway, as another", "e", &ask(ip("f"), GATEWAY), &[])
            .await;
        rig.expect("I am the gateway", "e", &arp(ALL, e, 2, (e, GATEWAY), GATEWAY), &[])
            .await;
        let discover = ipv4(ALL, e, (NOWHERE, EVERYWHERE), 17, false, &udp((68, 67)));
        rig.expect("DHCP discover", "e", &discover, out).await;
        let offer = ipv4(ALL, e, (ip("e"), EVERYWHERE), 17, false, &udp((67, 68)));
        rig.expect("DHCP offer by a guest", "e", &offer, &[]).await;
        let advertisement = ipv6(IPV6_ALL, e, 58, &[134, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect("router advertisement", "e", &advertisement, &[]).await;
        rig.expect("as the gateway's MAC", "e", &frame(dhcp, gateway, IPV4, &[]), &[])
            .await;

        let coming = |frame: Vec<u8>| tagged(400, &frame);
        rig.expect(
            "from the gateway",
            UPLINK,
            &coming(frame(e, gateway, IPV4, &[])),
            &["e"],
        )
        .await;
        rig.expect("from a guest elsewhere", UPLINK, &coming(frame(e, far, IPV4, &[])), &[])
            .await;
        let who = |target| coming(arp(ALL, gateway, 1, (gateway, GATEWAY), target));
        rig.expect("the gateway asks who has e", UPLINK, &who(ip("e")), &["e"])
            .await;
        rig.expect("the gateway asks who has nobody", UPLINK, &who(ip("a")), &[])
            .await;
        let far_asks = coming(arp(ALL, far, 1, (far, ip("g")), ip("e")));
        rig.expect("a guest elsewhere asks who has e", UPLINK, &far_asks, &[])
            .await;
        let reply = |from, source| coming(ipv4(ALL, from, (source, EVERYWHERE), 17, false, &udp((67, 68))));
        rig.expect("DHCP reply to all", UPLINK, &reply(dhcp, server), &["e", "f"])
            .await;
        rig.expect("DHCP reply by a guest elsewhere", UPLINK, &reply(far, server), &[])
            .await;
    });
}

#[test]
fn an_isolated_guest_reaches_nothing_and_nothing_reaches_it() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        // Even when somebody raised the bridge's own device.
        run("ip", &["link", "set", "dev", "br-int", "up"]);
        let local = rig.bridge.ovs.vsctl(&["get", "interface", "br-int", "mac_in_use"]);
        let local: Mac = local.trim_matches('"').parse().unwrap();
        for to in [ALL, mac("y").octets(), mac("a").octets(), local.octets(), IPV6_ALL] {
            let own = frame(to, mac("x").octets(), IPV4, &[]);
            rig.expect("anything", "x", &own, &[]).await;
        }
        rig.expect(
            "to an isolated guest",
            "a",
            &frame(mac("x").octets(), mac("a").octets(), IPV4, &[]),
            &["b", "g", "up/110"],
        )
        .await;
    });
}

#[test]
fn a_slice_that_learns_a_false_mac_poisons_itself_only() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let (c, d) = (mac("c").octets(), mac("d").octets());
        rig.hear("d", &frame(c, d, 0x9999, &[])).await;
        // On another VLAN somebody takes d's MAC.
        rig.hear("a", &frame(ALL, d, 0x9999, &[])).await;
        rig.expect("to the true one", "c", &frame(d, c, 0x9999, &[]), &["d"])
            .await;
    });
}

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
