//! A guest: a namespace on a switch port that nobody marked, with a small DHCP client.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use trunkline_agent::netns;
use trunkline_proto::Mac;

use super::{Lab, run, succeeds};

/// A namespace with one interface, which has its name.
#[derive(Clone)]
pub struct Guest {
    pub name: String,
    pub mac: Mac,
}

/// What a DHCP server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub address: Ipv4Addr,
    pub options: BTreeMap<u8, Vec<u8>>,
}

pub const DISCOVER: u8 = 1;
pub const REQUEST: u8 = 3;
pub const DECLINE: u8 = 4;
pub const RELEASE: u8 = 7;
pub const INFORM: u8 = 8;
/// No sort of DHCP message: plain BOOTP, from before there was any.
pub const BOOTP: u8 = 0;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// What a guest says to a DHCP server: BOOTREQUEST over Ethernet, answered by broadcast, unless something is said to differ.
#[derive(Debug, Clone)]
pub struct Message {
    pub kind: u8,
    pub chaddr: Mac,
    /// Sorts of operation and hardware, and the length of its address.
    pub head: [u8; 3],
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub requested: Option<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
    pub client_id: Option<Vec<u8>>,
}

impl Message {
    pub fn new(kind: u8, chaddr: Mac) -> Self {
        Self {
            kind,
            chaddr,
            head: [1, 1, 6],
            ciaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            requested: None,
            server: None,
            client_id: None,
        }
    }

    /// The answer to an offer.
    pub fn request(chaddr: Mac, offer: &Answer) -> Self {
        Self {
            requested: Some(offer.address),
            server: offer.address_option(54),
            ..Self::new(REQUEST, chaddr)
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut message = self.head.to_vec();
        message.extend([0, 0x74, 0x72, 0x75, 0x6e, 0, 0, 0x80, 0]);
        message.extend(self.ciaddr.octets());
        message.extend([0; 8]);
        message.extend(self.giaddr.octets());
        message.extend(self.chaddr.octets());
        message.resize(236, 0);
        message.extend(COOKIE);
        if self.kind != BOOTP {
            message.extend([53, 1, self.kind]);
        }
        message.extend([55, 6, 1, 3, 6, 12, 26, 51]);
        for (code, address) in [(50, self.requested), (54, self.server)] {
            if let Some(address) = address {
                message.extend([code, 4]);
                message.extend(address.octets());
            }
        }
        if let Some(id) = &self.client_id {
            message.extend([61, u8::try_from(id.len()).unwrap()]);
            message.extend(id);
        }
        message.push(255);
        message.resize(300, 0);
        message
    }
}

impl Guest {
    /// Plugs one in.
    pub fn plug(lab: &Lab, name: &str, vlan: u32, mac: &str) -> Self {
        let (tag, mac_column) = (format!("tag={vlan}"), format!("mac=\"{mac}\""));
        lab.vsctl(&[
            "add-port",
            "br-int",
            name,
            &tag,
            "--",
            "set",
            "Interface",
            name,
            "type=internal",
            &mac_column,
        ]);
        run(&["ip", "netns", "add", name]);
        run(&["ip", "link", "set", name, "netns", name]);
        run(&[
            "ip",
            "netns",
            "exec",
            name,
            "sysctl",
            "-qw",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
        ]);
        run(&["ip", "-n", name, "link", "set", name, "up"]);
        Self {
            name: name.to_owned(),
            mac: mac.parse().unwrap(),
        }
    }

    /// The same port, with another MAC inside DHCP messages.
    pub fn with_mac(&self, mac: &str) -> Self {
        Self {
            mac: mac.parse().unwrap(),
            ..self.clone()
        }
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `work` as the guest.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        netns::on_thread_in(Some(&self.path()), work).await.unwrap()
    }

    /// DISCOVER and REQUEST; `None` when nobody answers.
    pub async fn lease(&self) -> Option<Answer> {
        let offer = self.ask(Message::new(DISCOVER, self.mac)).await?;
        self.ask(Message::request(self.mac, &offer)).await
    }

    /// Says something to the DHCP server and hears its answer, if one comes.
    pub async fn ask(&self, message: Message) -> Option<Answer> {
        let device = self.name.clone();
        self.run(move || Client::open(&device).ask(&message)).await
    }

    /// Says something to the DHCP server.
    pub async fn say(&self, message: Message) {
        let device = self.name.clone();
        self.run(move || Client::open(&device).say(&message)).await;
    }

    /// Another guest has this port from now on.
    pub fn becomes(&self, mac: &str) -> Self {
        run(&["ip", "-n", &self.name, "link", "set", &self.name, "address", mac]);
        self.with_mac(mac)
    }

    /// Takes the lease's address and router for its own.
    pub fn configure(&self, answer: &Answer) {
        let address = format!("{}/24", answer.address);
        run(&["ip", "-n", &self.name, "addr", "replace", &address, "dev", &self.name]);
        if let Some(router) = answer.address_option(3) {
            run(&[
                "ip",
                "-n",
                &self.name,
                "route",
                "replace",
                "default",
                "via",
                &router.to_string(),
            ]);
        }
    }

    pub fn pings(&self, address: &str) -> bool {
        succeeds(&["ip", "netns", "exec", &self.name, "ping", "-c1", "-W2", address])
    }

    pub async fn connect(&self, to: &str) -> Option<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        self.run(move || TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok())
            .await
    }
}

impl Answer {
    pub fn address_option(&self, code: u8) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.options.get(&code)?.as_slice().try_into().ok()?;
        Some(bytes.into())
    }
}

/// Sends as any program does, and hears every frame: an answer comes to an address that the guest does not have yet.
struct Client {
    sender: UdpSocket,
    ear: Ear,
}

impl Client {
    fn open(device: &str) -> Self {
        // A child of ours that is not another program yet holds our last socket a moment longer.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        let sender = loop {
            match UdpSocket::bind("0.0.0.0:68") {
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && std::time::Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                bound => break bound.unwrap(),
            }
        };
        sender.set_broadcast(true).unwrap();
        setsockopt(&sender, sockopt::BindToDevice, &device.into()).unwrap();
        let ear = Ear::open();
        Self { sender, ear }
    }

    fn say(&self, message: &Message) {
        self.sender.send_to(&message.bytes(), "255.255.255.255:67").unwrap();
    }

    /// Three attempts, as guests do.
    fn ask(&self, message: &Message) -> Option<Answer> {
        (0..3).find_map(|_| {
            self.say(message);
            parse(&self.ear.next(Duration::from_secs(1))?)
        })
    }
}

/// Hears what DHCP servers say, whomever they say it to.
pub struct Ear(OwnedFd);

impl Ear {
    /// In the namespace of the thread.
    pub fn open() -> Self {
        let ear = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        );
        Self(ear.unwrap())
    }

    /// The next answer of a server, without what it travels in.
    pub fn next(&self, within: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + within;
        let mut buffer = [0; 2048];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // Without any time it would wait for ever.
            let wait = TimeVal::microseconds(i64::try_from(left.as_micros()).unwrap().max(1000));
            setsockopt(&self.0, sockopt::ReceiveTimeout, &wait).unwrap();
            let frame = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => &buffer[..length],
                Err(_) if left.is_zero() => return None,
                Err(_) => continue,
            };
            let is_answer = frame.get(12..15) == Some(&[8, 0, 0x45])
                && frame.get(23) == Some(&17)
                && frame.get(34..38) == Some(&[0, 67, 0, 68])
                && frame.get(42) == Some(&2);
            if is_answer {
                return Some(frame[42..].to_vec());
            }
        }
    }
}

fn parse(message: &[u8]) -> Option<Answer> {
    let address: [u8; 4] = message.get(16..20)?.try_into().ok()?;
    let mut rest = message.get(236..)?.strip_prefix(&COOKIE)?;
    let mut options = BTreeMap::new();
    while let [code, length, tail @ ..] = rest {
        if *code == 255 {
            break;
        }
        let (value, tail) = tail.split_at_checked(usize::from(*length))?;
        options.insert(*code, value.to_vec());
        rest = tail;
    }
    // DHCPNAK says no.
    (options.get(&53)? != &[6]).then_some(Answer {
        address: address.into(),
        options,
    })
}

/// A server on the internet that says to each who calls by which address it came, and then repeats what it hears.
pub async fn internet_server() {
    let listener = netns::on_thread_in(Some(Path::new("/run/netns/internet")), || {
        TcpListener::bind("198.51.100.1:80").unwrap()
    });
    let listener = listener.await.unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            std::thread::spawn(move || {
                writeln!(stream, "{}", from.ip()).unwrap();
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Reads a line, if one comes in time.
pub fn read_line(stream: &mut TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        if byte == *b"\n" {
            return String::from_utf8(line).ok();
        }
        line.extend(byte);
    }
    None
}
