//! nftables by the kernel's own messages, for the little that is asked of it in each pass: the number of the rules, elements of a set,
//! chains of one family, and batches that make and remove chains. Starting `nft`, which reads all that there is before it does anything, costs many times the
//! work itself.
//!
//! Everything here is for the calling thread's namespace, and answered on the spot.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};

use super::Error;
use super::handle::io_error;

/// `NFPROTO_INET` and `NFPROTO_NETDEV`.
const INET: u8 = 1;
const NETDEV: u8 = 5;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// Types of messages, of the kernel's enumeration `nf_tables_msg_types`.
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DEL_CHAIN: u16 = 5;
const DEL_RULE: u16 = 8;
const GET_ELEMENTS: u16 = 13;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;
/// Types that every netlink has, and those around a batch.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// Attributes.
const TABLE_NAME: u16 = 1;
const GENERATION: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_USE: u16 = 6;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const HOOK_DEVICES: u16 = 4;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
/// Bits of an attribute's type that say how it is made.
const NESTED: u16 = 0x8000;
const KIND: u16 = 0x3fff;
/// `NF_NETDEV_INGRESS`.
const INGRESS: u32 = 0;
/// `NF_DROP`.
const DROP: u32 = 0;

/// `struct nlmsghdr`, and with it `struct nfgenmsg`.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;
/// Answers come in datagrams of at most 32 KiB.
const DATAGRAM: usize = 1 << 15;
/// A batch is one datagram: that of thousands of chains must fit.
const BATCH: usize = 16 << 20;
/// Seconds that the kernel may take: it waits for other writers.
const LIMIT: i64 = 10;
/// A list that the kernel marks as interrupted is read again this often.
const ATTEMPTS: usize = 8;

/// A chain of the family `netdev`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Devices at whose ingress it hangs.
    pub ingress_of: Vec<String>,
    /// It drops what no rule has a word on.
    pub drops: bool,
    /// How many rules it has.
    pub rules: u32,
}

/// The number of nftables' ruleset: another one after each change of it, whoever makes it. What the kernel itself puts into sets and
/// counters is no change. `None` where the kernel tells of none.
///
/// # Errors
/// [`Error::Io`] when the kernel cannot be asked.
pub fn rules_generation() -> Result<Option<u32>, Error> {
    const WHAT: &str = "ask for the number of nftables' rules";
    let mut number = None;
    let asked = ask(
        WHAT,
        &message(GET_GENERATION, NLM_F_REQUEST, 1, 0, &[]),
        |kind, body| {
            let found = attributes(body).find(|(attribute, _)| *attribute == GENERATION);
            number = found
                .filter(|_| kind == NEW_GENERATION)
                .and_then(|(_, content)| integer(content));
            true
        },
    );
    match asked {
        Ok(_) => Ok(number),
        // A kernel without nftables.
        Err(Error::Kernel { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether there is a table of this name in the family `netdev`, and all chains of that family.
///
/// # Errors
/// As the kernel says.
pub fn netdev_chains(table: &str) -> Result<(bool, Vec<Chain>), Error> {
    const WHAT: &str = "list nftables' chains";
    let request = message(
        GET_TABLE,
        NLM_F_REQUEST,
        1,
        NETDEV,
        &attribute(TABLE_NAME, &text(table)),
    );
    let there = match ask(WHAT, &request, |_, _| true) {
        Ok(_) => true,
        Err(error) if error.errno() == Some(Errno::ENOENT) => false,
        Err(error) => return Err(error),
    };
    let request = message(GET_CHAIN, NLM_F_REQUEST | NLM_F_DUMP, 1, NETDEV, &[]);
    for _ in 0..ATTEMPTS {
        let mut chains = Vec::new();
        let consistent = ask(WHAT, &request, |_, body| {
            chains.push(Chain::read(body));
            false
        })?;
        if consistent {
            return Ok((there, chains));
        }
    }
    Err(Error::Unstable(WHAT))
}

/// The keys of a set's elements, in a table of the family `inet`; none when there is no such set.
///
/// # Errors
/// As the kernel says.
pub fn set_elements(table: &str, set: &str) -> Result<Vec<Vec<u8>>, Error> {
    const WHAT: &str = "list the elements of an nftables set";
    let mut content = attribute(ELEMENTS_TABLE, &text(table));
    content.extend(attribute(ELEMENTS_SET, &text(set)));
    let request = message(GET_ELEMENTS, NLM_F_REQUEST | NLM_F_DUMP, 1, INET, &content);
    let mut keys = Vec::new();
    let asked = ask(WHAT, &request, |_, body| {
        let lists = attributes(body).filter(|(kind, _)| *kind == ELEMENTS);
        let elements = lists.flat_map(|(_, list)| attributes(list));
        let key = |(_, element)| Some(within(within(element, ELEMENT_KEY)?, DATA_VALUE)?.to_vec());
        keys.extend(elements.filter_map(key));
        false
    });
    match asked {
        // Torn by elements that come and go: what was read is a look like any other.
        Ok(_) => Ok(keys),
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Chain {
    fn read(body: &[u8]) -> Self {
        let mut chain = Self::default();
        // A chain that hangs nowhere has no policy.
        let (mut ingress, mut policy) = (false, None);
        for (kind, content) in attributes(body) {
            match kind {
                CHAIN_TABLE => chain.table = name(content),
                CHAIN_NAME => chain.name = name(content),
                CHAIN_POLICY => policy = integer(content),
                CHAIN_USE => chain.rules = integer(content).unwrap_or(u32::MAX),
                CHAIN_HOOK => {
                    for (kind, content) in attributes(content) {
                        match kind {
                            HOOK_NUMBER => ingress = integer(content) == Some(INGRESS),
                            // Older kernels tell of one device in one way, newer ones of each in another, too.
                            HOOK_DEVICE => chain.ingress_of.push(name(content)),
                            HOOK_DEVICES => chain
                                .ingress_of
                                .extend(attributes(content).map(|(_, device)| name(device))),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if !ingress {
            chain.ingress_of.clear();
        }
        chain.drops = policy == Some(DROP);
        chain
    }
}

/// Changes of one table of the family `netdev`: all of them or none.
#[derive(Debug)]
pub struct Batch {
    table: String,
    messages: Vec<u8>,
    /// Where the last change begins, and its flags.
    last: usize,
    last_flags: u16,
    count: u32,
}

impl Batch {
    /// Of this table.
    #[must_use]
    pub fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            messages: around(BATCH_BEGIN, 0),
            last: usize::MAX - 8,
            last_flags: 0,
            count: 0,
        }
    }

    /// Makes the table, if there is none.
    pub fn add_table(&mut self) {
        self.push(NEW_TABLE, NLM_F_CREATE, &attribute(TABLE_NAME, &text(&self.table)));
    }

    /// Deletes the table with all its chains.
    pub fn delete_table(&mut self) {
        self.push(DEL_TABLE, 0, &attribute(TABLE_NAME, &text(&self.table)));
    }

    /// Makes a chain that hangs nowhere; one that is there stays as it is.
    pub fn add_chain(&mut self, chain: &str) {
        self.push(NEW_CHAIN, NLM_F_CREATE, &self.chain(chain));
    }

    /// Makes a chain that drops whatever comes in by this device.
    pub fn add_drop(&mut self, chain: &str, device: &str) {
        let mut hook = attribute(HOOK_NUMBER, &INGRESS.to_be_bytes());
        hook.extend(attribute(HOOK_PRIORITY, &0_u32.to_be_bytes()));
        hook.extend(attribute(HOOK_DEVICE, &text(device)));
        let mut content = self.chain(chain);
        content.extend(attribute(CHAIN_HOOK | NESTED, &hook));
        content.extend(attribute(CHAIN_POLICY, &DROP.to_be_bytes()));
        content.extend(attribute(CHAIN_TYPE, &text("filter")));
        self.push(NEW_CHAIN, NLM_F_CREATE, &content);
    }

    /// Deletes a chain and its rules.
    pub fn delete_chain(&mut self, chain: &str) {
        let mut rules = attribute(RULE_TABLE, &text(&self.table));
        rules.extend(attribute(RULE_CHAIN, &text(chain)));
        self.push(DEL_RULE, 0, &rules);
        self.push(DEL_CHAIN, 0, &self.chain(chain));
    }

    /// Carries it out.
    ///
    /// # Errors
    /// As the kernel says; nothing was changed then.
    pub fn commit(mut self) -> Result<(), Error> {
        const WHAT: &str = "change nftables' chains";
        // The answers come in the order of the messages, errors and what was asked for: so the last one's is the last.
        let Some(flags) = self.messages.get_mut(self.last + 6..self.last + 8) else {
            return Ok(());
        };
        flags.copy_from_slice(&(self.last_flags | NLM_F_ACK).to_ne_bytes());
        self.messages.extend(around(BATCH_END, self.count + 1));
        let socket = open(WHAT)?;
        // Without room for it a large batch is refused as a whole.
        setsockopt(&socket, sockopt::SndBufForce, &BATCH).map_err(failed(WHAT))?;
        send(socket.as_raw_fd(), &self.messages, MsgFlags::empty()).map_err(failed(WHAT))?;
        let mut refused = None;
        read(WHAT, &socket, |sequence, kind, _, body| {
            let code = (kind == ERROR).then(|| code(body)).flatten();
            refused = refused.or(code.filter(|code| *code != 0));
            // The whole is refused by the number of its beginning.
            code.is_some() && (sequence == self.count || sequence == 0)
        })?;
        match refused {
            None => Ok(()),
            Some(code) => Err(kernel(WHAT, code)),
        }
    }

    fn chain(&self, chain: &str) -> Vec<u8> {
        let mut content = attribute(CHAIN_TABLE, &text(&self.table));
        content.extend(attribute(CHAIN_NAME, &text(chain)));
        content
    }

    fn push(&mut self, kind: u16, flags: u16, content: &[u8]) {
        self.count += 1;
        (self.last, self.last_flags) = (self.messages.len(), NLM_F_REQUEST | flags);
        self.messages
            .extend(message(kind, self.last_flags, self.count, NETDEV, content));
    }
}

fn open(what: &'static str) -> Result<OwnedFd, Error> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map_err(failed(what))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(LIMIT)).map_err(failed(what))?;
    Ok(socket)
}

/// One request. `take` gets type and body of each answer, and says true at the last one, unless the kernel itself does. False when the
/// kernel says that the answers do not fit together.
fn ask(what: &'static str, request: &[u8], mut take: impl FnMut(u16, &[u8]) -> bool) -> Result<bool, Error> {
    let socket = open(what)?;
    send(socket.as_raw_fd(), request, MsgFlags::empty()).map_err(failed(what))?;
    let (mut consistent, mut refused) = (true, None);
    read(what, &socket, |_, kind, flags, body| {
        consistent &= flags & NLM_F_DUMP_INTR == 0;
        match kind {
            ERROR => refused = code(body).filter(|code| *code != 0),
            DONE => {}
            _ => return take(kind & 0xff, body.get(HEADERS - HEADER..).unwrap_or_default()),
        }
        true
    })?;
    match refused {
        None => Ok(consistent),
        Some(code) => Err(kernel(what, code)),
    }
}

/// Hands over each message: number, type, flags, body; until `take` says true.
fn read(what: &'static str, socket: &OwnedFd, mut take: impl FnMut(u32, u16, u16, &[u8]) -> bool) -> Result<(), Error> {
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let length = recv(socket.as_raw_fd(), &mut datagram, MsgFlags::empty()).map_err(failed(what))?;
        let mut rest = datagram.get(..length).unwrap_or_default();
        while let Some(length) = word(rest, 0).and_then(|length| usize::try_from(length).ok()) {
            let (Some(kind), Some(flags), Some(sequence)) = (half(rest, 4), half(rest, 6), word(rest, 8)) else {
                break;
            };
            if take(sequence, kind, flags, rest.get(HEADER..length).unwrap_or_default()) {
                return Ok(());
            }
            rest = rest.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn failed(what: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| io_error(what, errno.into())
}

fn kernel(what: &'static str, code: i32) -> Error {
    Error::Kernel {
        what: what.to_owned(),
        errno: Errno::from_raw(code.saturating_neg()),
    }
}

/// Of an error, which is also how the kernel says yes.
fn code(body: &[u8]) -> Option<i32> {
    word(body, 0).map(u32::cast_signed)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A whole message.
fn message(kind: u16, flags: u16, sequence: u32, family: u8, content: &[u8]) -> Vec<u8> {
    framed(SUBSYSTEM << 8 | kind, flags, sequence, [family, 0, 0, 0], content)
}

/// Beginning and end of a batch, which is that of one subsystem.
fn around(kind: u16, sequence: u32) -> Vec<u8> {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    framed(kind, NLM_F_REQUEST, sequence, [0, 0, high, low], &[])
}

fn framed(kind: u16, flags: u16, sequence: u32, second: [u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS + content.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(second);
    message.extend(content);
    message
}

fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    // Names have at most 255 bytes.
    let length = u16::try_from(4 + content.len()).unwrap_or(u16::MAX);
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(content);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// Type and content of each.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & KIND, content))
    })
}

/// The content of the first attribute of a type.
fn within(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, content)| content)
}

/// Ends with a zero.
fn text(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

fn name(content: &[u8]) -> String {
    let content = content.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(content).into_owned()
}

/// In network byte order.
fn integer(content: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(content.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_read_with_its_devices_and_rules() {
        let hook = |number: u32, more: Vec<u8>| {
            let mut hook = attribute(HOOK_NUMBER, &number.to_be_bytes());
            hook.extend(more);
            attribute(CHAIN_HOOK | NESTED, &hook)
        };
        let chain = |more: &[Vec<u8>]| {
            let mut body = attribute(CHAIN_TABLE, &text("t"));
            body.extend(attribute(CHAIN_NAME, &text("tap_1_eth1")));
            more.iter().for_each(|part| body.extend(part));
            Chain::read(&body)
        };
        let drop = attribute(CHAIN_POLICY, &DROP.to_be_bytes());
        let devices = attribute(HOOK_DEVICES | NESTED, &attribute(1, &text("tap_1_eth1")));
        let shut = chain(&[hook(INGRESS, devices.clone()), drop.clone()]);
        assert_eq!((shut.table.as_str(), shut.name.as_str()), ("t", "tap_1_eth1"));
        assert_eq!(
            (shut.ingress_of, shut.drops, shut.rules),
            (vec!["tap_1_eth1".to_owned()], true, 0)
        );
        let old = chain(&[hook(INGRESS, attribute(HOOK_DEVICE, &text("tap_1_eth1"))), drop.clone()]);
        assert_eq!(old.ingress_of, ["tap_1_eth1"]);
        let open = chain(&[
            hook(INGRESS, devices.clone()),
            attribute(CHAIN_POLICY, &1_u32.to_be_bytes()),
        ]);
        assert!(!open.drops);
        let egress = chain(&[hook(1, devices), drop, attribute(CHAIN_USE, &2_u32.to_be_bytes())]);
        assert_eq!((egress.ingress_of.len(), egress.rules), (0, 2));
        assert!(!chain(&[]).drops, "it hangs nowhere");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut written = attribute(1, b"abc");
        written.extend(attribute(2 | NESTED, &[1, 2, 3, 4]));
        let read: Vec<_> = attributes(&written).collect();
        assert_eq!(read, [(1, &b"abc"[..]), (2, &[1, 2, 3, 4][..])]);
        assert_eq!(attributes(&[1, 0, 0]).count(), 0);
        assert_eq!(attributes(&[3, 0, 0, 0]).count(), 0, "a length that cannot be");
    }
}
