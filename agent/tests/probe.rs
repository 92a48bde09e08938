//! Two workers in namespaces of their own, joined by a bridge that a test can break, prove their VLANs to each other. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, unreachable_pub)]
#[path = "drivers/stand.rs"]
mod stand;
mod support;

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{libc, unistd::gettid};
use stand::{Ovs, alone, run};
use support::*;
use tokio_util::sync::CancellationToken;
use trunkline_agent::{node, probe::PORT, worker};
use trunkline_proto::{
    Mac,
    resource::{Envelope, Facts, Observation, State},
    wire::{ProbeFacts, node_message::Message as FromNode},
};

/// Longest wait for what takes less than five seconds on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(30);

type Work = Box<dyn FnOnce(&mut Ovs) + Send>;

enum Command {
    Update(Vec<Envelope>),
    Work(Work),
}

/// A worker on a host of its own, driven from outside.
struct Site {
    name: &'static str,
    commands: Option<tokio::sync::mpsc::UnboundedSender<Command>>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    /// Its uplink `up0` is joined to the port `name` of the bridge between.
    fn start(name: &'static str) -> Self {
        let (commands, receiver) = tokio::sync::mpsc::unbounded_channel();
        let seen = Arc::<Mutex<Seen>>::default();
        let (here, thread_id) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let board = seen.clone();
        let thread = std::thread::spawn(move || {
            alone(async || {
                here.send(gettid()).unwrap();
                may_go.recv().unwrap();
                live(name, receiver, board).await;
            });
        });
        let namespace = format!("/proc/{}/task/{}/ns/net", std::process::id(), thread_id.recv().unwrap());
        run("ip", &["link", "add", name, "type", "veth", "peer", "name", "up0"]);
        for device in [name, "up0"] {
            run(
                "ethtool",
                &["-K", device, "tx", "off", "rx", "off", "txvlan", "off", "rxvlan", "off"],
            );
        }
        run("ip", &["link", "set", "up0", "netns", &namespace]);
        run("ip", &["link", "set", name, "master", "between", "up"]);
        go.send(()).unwrap();
        Self {
            name,
            commands: Some(commands),
            seen,
            thread: Some(thread),
        }
    }

    fn update(&self, all: &[Envelope]) {
        let commands = self.commands.as_ref().unwrap();
        commands.send(Command::Update(all.to_vec())).ok().unwrap();
    }

    /// Does something on its host, beside its agent.
    fn on<T: Send + 'static>(&self, work: impl FnOnce(&mut Ovs) -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        let work: Work = Box::new(move |ovs| answer.send(work(ovs)).unwrap());
        self.commands.as_ref().unwrap().send(Command::Work(work)).ok().unwrap();
        answered.recv().unwrap()
    }

    fn seen(&self, key: &str) -> Option<Observation> {
        self.seen.lock().unwrap().items.get(key).cloned()
    }

    fn probe(&self) -> (Option<State>, String) {
        let seen = self.seen("probe probe_vlan110");
        (
            seen.as_ref().map(|seen| seen.state),
            seen.map(|seen| seen.reason).unwrap_or_default(),
        )
    }

    fn facts(&self) -> ProbeFacts {
        match self.seen("probe probe_vlan110").and_then(|seen| seen.facts) {
            Some(Facts::Probe(facts)) => facts,
            other => panic!("{}: {other:?}", self.name),
        }
    }

    fn until_degraded(&self, words: &str) -> Duration {
        until(&format!("{}: {words}", self.name), || {
            let probe = self.probe();
            if probe == (Some(State::Degraded), words.to_owned()) {
                Ok(())
            } else {
                Err(probe)
            }
        })
    }

    fn until_ready(&self) -> Duration {
        until(&format!("{} to be ready", self.name), || match self.probe() {
            (Some(State::Ready), _) => Ok(()),
            other => Err(other),
        })
    }

    /// Packets that the flows have dropped as forged probe frames.
    fn dropped_probes(&self) -> u64 {
        let dump = |_: &mut Ovs| {
            run(
                "ovs-ofctl",
                &["-O", "OpenFlow14", "dump-flows", "unix:/run/openvswitch/br-int.mgmt"],
            )
        };
        let flows = self.on(dump);
        let line = flows
            .lines()
            .find(|line| line.contains("table=1,") && line.contains("dl_type=0x88b5"));
        let packets = line.and_then(|line| line.split("n_packets=").nth(1)).unwrap();
        packets.split(',').next().unwrap().parse().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.commands = None;
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// The host's own thread.
async fn live(name: &str, mut commands: tokio::sync::mpsc::UnboundedReceiver<Command>, seen: Arc<Mutex<Seen>>) {
    run("ip", &["link", "set", "lo", "up"]);
    let mut ovs = Ovs::start().await;
    let pki = Pki::new();
    let mut controller = Controller::start(&pki).await;
    let state = tempfile::tempdir().unwrap();
    let mut config = config_of(name, &pki, controller.address, state.path());
    config.switch.socket = ovs.socket();
    config.switch.uplink = Some("up0".to_owned());
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let validate = worker::validate(&config);
    let task = tokio::spawn(async move {
        let build = |cx: &node::NodeContext| Ok(worker::Worker::build(cx)?.alive_every(Duration::from_secs(1)));
        node::serve(worker::PROGRAM, config, validate, build, token, || {}).await
    });
    let agent = Node::spawn(task, cancel);
    let mut session = controller.session().await;
    session.hello().await;
    session.welcome().await;
    let (mut generation, mut held) = (0, Vec::new());
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => break,
                Some(Command::Update(all)) => {
                    session.update(update(generation, generation + 1, &held, &all)).await;
                    (generation, held) = (generation + 1, all);
                }
                // In between the agent has a turn; what takes long is not done here.
                Some(Command::Work(work)) => work(&mut ovs),
            },
            message = session.try_next() => match message {
                Some(FromNode::Report(report)) => seen.lock().unwrap().take(report),
                Some(FromNode::Ack(_)) => {}
                other => panic!("{name}: {other:?}"),
            },
        }
    }
    agent.stop().await;
}

/// How long it took until a condition held.
fn until<E: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<(), E>) -> Duration {
    let began = Instant::now();
    loop {
        match look() {
            Ok(()) => return began.elapsed(),
            Err(seen) if began.elapsed() > PATIENCE => panic!("{what}: {seen:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Two workers and the bridge between them.
fn stage(test: impl FnOnce(&Site, &Site)) {
    alone(async || {
        run("ip", &["link", "add", "between", "type", "bridge"]);
        run("ip", &["link", "set", "between", "up"]);
        run("nft", &["add", "table", "bridge", "fault"]);
        run(
            "nft",
            &[
                "add",
                "chain",
                "bridge",
                "fault",
                "forward",
                "{ type filter hook forward priority 0; }",
            ],
        );
        let (w1, w2) = (Site::start("w1"), Site::start("w2"));
        test(&w1, &w2);
    });
}

/// Everything that a worker with one guest on VLAN 110 has.
fn with_probe(guest: u32, peer: &str) -> Vec<Envelope> {
    vec![port(guest, 110), trunk(&[110]), flows(110), probe(110, &[peer])]
}

fn proven(test: impl FnOnce(&Site, &Site)) {
    stage(|w1, w2| {
        w1.update(&with_probe(1001, "w2"));
        w2.update(&with_probe(1002, "w1"));
        w1.until_ready();
        w2.until_ready();
        test(w1, w2);
    });
}

/// Drops frames of VLAN 110, all or those that come in by one port of the bridge.
fn drop_vlan(from: Option<&str>) {
    let mut rule = vec!["add", "rule", "bridge", "fault", "forward"];
    rule.extend(from.into_iter().flat_map(|port| ["iifname", port]));
    rule.extend(["vlan", "id", "110", "drop"]);
    run("nft", &rule);
}

/// Both ports: what a bridge has taken the tag of it lets out with four bytes more.
fn mtu_between(mtu: &str) {
    for device in ["w1", "w2"] {
        run("ip", &["link", "set", device, "mtu", mtu]);
    }
}

fn heal() {
    run("nft", &["flush", "chain", "bridge", "fault", "forward"]);
}

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

/// A guest behind a worker's TAP.
fn guest(site: &Site, tap: &'static str) -> File {
    site.on(move |_| {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = file.open("/dev/net/tun").unwrap();
        tun::attach(&file, tap);
        file
    })
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
