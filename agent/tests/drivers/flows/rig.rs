//! A bridge with ports whose other side is the test.

use super::*;

/// Who heard a frame: port and tag.
pub(super) type Heard = BTreeSet<(String, Option<u16>)>;

pub(super) struct Rig {
    pub(super) bridge: Bridge,
    pub(super) taps: BTreeMap<&'static str, File>,
    pub(super) next: u64,
}

impl Rig {
    pub(super) async fn start(network: &Network) -> Self {
        let bridge = Bridge::start().await;
        let names = PORTS.map(|port| port.0);
        let taps = names
            .into_iter()
            .chain([UPLINK, PROBE.0])
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
        // A trunk that carries nothing.
        add(
            PROBE.0,
            PROBE.1,
            &["vlan_mode=trunk".to_owned(), "trunks=4095".to_owned()],
        );
        bridge.ovs.vsctl(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut rig = Self { bridge, taps, next: 1 };
        // Without flows nothing passes: the bridge is secure.
        let heard = rig.heard_within(&frame(ALL, mac("a").octets(), IPV4, &[]), "a", 200);
        assert_eq!(heard, Heard::new());
        rig.bridge.client.match_fragments().await.unwrap();
        rig.bridge.apply(&compile(network)).await;
        // The switch learns where b is.
        rig.hear("b", &frame(mac("a").octets(), mac("b").octets(), IPV4, &[]))
            .await;
        // The datapath remembers what it did with such a frame before there were flows, until ovs-vswitchd has gone over it.
        let again = frame(mac("b").octets(), mac("a").octets(), IPV4, &[]);
        let deadline = Instant::now() + LIMIT;
        while rig.hear("a", &again).await.is_empty() {
            assert!(Instant::now() < deadline, "the drop of the time before is still there");
        }
        rig
    }

    pub(super) fn write(&mut self, from: &str, frame: &[u8]) -> u64 {
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
    pub(super) fn read(&mut self) -> Vec<(String, Option<u16>, u64)> {
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

    pub(super) fn heard_within(&mut self, frame: &[u8], from: &str, milliseconds: u64) -> Heard {
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
    pub(super) async fn round(&mut self) -> Vec<(String, Option<u16>, u64)> {
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
    pub(super) async fn hear(&mut self, from: &str, frame: &[u8]) -> Heard {
        let id = self.write(from, frame);
        let all = self.round().await;
        all.into_iter()
            .filter(|came| came.2 == id)
            .map(|(name, tag, _)| (name, tag))
            .collect()
    }

    pub(super) async fn expect(&mut self, rule: &str, from: &str, frame: &[u8], wanted: &[&str]) {
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
