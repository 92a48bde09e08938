//! State of one connection: which answer belongs to which request.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Error;
use super::codec::{self, Update, part};
use super::error::reason;
use super::mirror::Mirror;
use super::wire::{Incoming, Message, VERSION, kind};

/// Messages that are sent in one go. The exchange ends with the answer to the last one, or with an error about it.
pub(super) struct Exchange {
    pub(super) messages: Vec<Planned>,
    /// Transaction id of the first message of an earlier exchange whose errors may come only now: a bundle's at its commit.
    pub(super) since: Option<u32>,
    /// Without an answer till then the connection ends.
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Answer, Error>>,
}

/// A message, by itself or in the bundle of this number; then also what it does.
pub(super) enum Planned {
    Plain(Message),
    InBundle(u32, Message, Update),
}

#[derive(Default)]
pub(super) struct Answer {
    /// Transaction id of the first message.
    pub(super) first: u32,
    /// Bodies of the answers to the last message, multipart ones in their order.
    pub(super) bodies: Vec<Vec<u8>>,
    /// Errors: index of the message (counted from `since` where that is given), type, code.
    pub(super) errors: Vec<(usize, u16, u16)>,
}

/// What a message meant for those outside.
pub(super) enum Event {
    Nothing,
    /// The switch has agreed to tell of changes: the connection is of use.
    Watching,
    /// Somebody else changed a flow.
    Changed,
}

pub(super) struct Pending {
    /// Errors about messages from this transaction id on are its.
    pub(super) since: u32,
    answer: Answer,
    deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Answer, Error>>,
}

/// Transaction id of the flow monitor's request; its updates come with 0.
pub(super) const MONITOR: u32 = 1;

/// State of one connection. Its pending exchanges end with it: their senders are dropped.
pub(super) struct Session {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    /// By the last message's transaction id.
    pending: HashMap<u32, Pending>,
    next_xid: u32,
    mirror: Mirror,
    /// What the messages of a bundle do, by transaction id.
    changes: BTreeMap<u32, Update>,
    pub(super) watching: bool,
}

impl Session {
    pub(super) fn new(outgoing: mpsc::UnboundedSender<Vec<u8>>, mirror: Mirror) -> Self {
        mirror.clear();
        Self {
            outgoing,
            mirror,
            changes: BTreeMap::new(),
            pending: HashMap::new(),
            next_xid: MONITOR + 1,
            watching: false,
        }
    }

    pub(super) fn send(&self, message: &Message, xid: u32) -> Result<(), Error> {
        self.outgoing
            .send(message.bytes(xid)?)
            .map_err(|_| Error::ConnectionLost)
    }

    /// Until when an answer must have come.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    pub(super) fn forward(&mut self, exchange: Exchange) -> Result<(), Error> {
        let Exchange {
            messages,
            since,
            deadline,
            reply,
        } = exchange;
        // Nobody waits any more: what they asked for must not be done behind their back.
        if reply.is_closed() {
            return Ok(());
        }
        // Far below the end there is room for any exchange.
        if self.next_xid > u32::MAX / 2 {
            self.next_xid = MONITOR + 1;
        }
        let first = self.next_xid;
        if messages.iter().any(|message| matches!(message, Planned::InBundle(..))) {
            // One bundle at a time: what an earlier one has not done by now it never will.
            self.changes.clear();
        }
        for message in messages {
            let xid = self.next_xid;
            self.next_xid += 1;
            match message {
                Planned::Plain(message) => self.send(&message, xid)?,
                Planned::InBundle(bundle, message, change) => {
                    self.changes.insert(xid, change);
                    self.send(&codec::bundle_add(bundle, &message, xid)?, xid)?;
                }
            }
        }
        let answer = Answer {
            first,
            ..Answer::default()
        };
        let since = since.unwrap_or(first);
        let pending = Pending {
            since,
            answer,
            deadline,
            reply,
        };
        self.pending.insert(self.next_xid - 1, pending);
        Ok(())
    }

    pub(super) fn handle(&mut self, message: Incoming) -> Result<Event, Error> {
        let Incoming {
            version,
            kind,
            xid,
            body,
        } = message;
        match kind {
            kind::HELLO => return self.hello(version),
            kind::ECHO_REQUEST => self.send(&Message::new(kind::ECHO_REPLY, body), xid)?,
            kind::ERROR => self.error(xid, &body)?,
            kind::MULTIPART_REPLY => return self.multipart(xid, body),
            _ => self.last_answer(xid, body),
        }
        Ok(Event::Nothing)
    }

    fn hello(&mut self, version: u8) -> Result<Event, Error> {
        // A bridge that may speak 1.4 says it, or a higher version, in the header; one that may not is found by its error.
        if version < VERSION {
            return Err(Error::Version(format!("it offers wire version {version} at most")));
        }
        self.send(&codec::monitor_request()?, MONITOR)?;
        Ok(Event::Nothing)
    }

    fn error(&mut self, xid: u32, body: &[u8]) -> Result<(), Error> {
        let (kind, code) = codec::get_error(body)?;
        if kind == 0 {
            return Err(Error::Version(reason(kind, code)));
        }
        if xid == MONITOR {
            return Err(Error::Protocol(format!(
                "it does not tell of changes: {}",
                reason(kind, code)
            )));
        }
        let of = |(last, pending): &(&u32, &mut Pending)| (pending.since..=**last).contains(&xid);
        // A commit's range goes back over its bundle, and requests of others may lie in between.
        let nearest = self
            .pending
            .iter_mut()
            .filter(of)
            .max_by_key(|(_, pending)| pending.since);
        let Some((last, pending)) = nearest else {
            return Ok(());
        };
        let index = usize::try_from(xid - pending.since).unwrap_or(usize::MAX);
        pending.answer.errors.push((index, kind, code));
        let last = *last;
        if xid == last {
            self.finish(last);
        }
        Ok(())
    }

    fn multipart(&mut self, xid: u32, body: Vec<u8>) -> Result<Event, Error> {
        let found = codec::get_part(&body)?;
        if found.kind == part::FLOW_MONITOR {
            let (mut updates, mut foreign) = (Vec::new(), false);
            for update in codec::get_updates(found.body)? {
                match update {
                    // One stands for all: a bundle is carried out as a whole, in order.
                    Update::Ours(one) if self.changes.contains_key(&one) => {
                        updates.extend(std::mem::take(&mut self.changes).into_values());
                    }
                    Update::Ours(_) => {}
                    update => {
                        foreign = true;
                        updates.push(update);
                    }
                }
            }
            self.mirror.take(updates);
            if xid == MONITOR && !self.watching {
                self.watching = !found.more;
                if self.watching {
                    self.mirror.whole();
                }
                return Ok(if self.watching { Event::Watching } else { Event::Nothing });
            }
            return Ok(if foreign { Event::Changed } else { Event::Nothing });
        }
        let more = found.more;
        if let Some(pending) = self.pending.get_mut(&xid) {
            pending.answer.bodies.push(body);
            if !more {
                self.finish(xid);
            }
        }
        Ok(Event::Nothing)
    }

    fn last_answer(&mut self, xid: u32, body: Vec<u8>) {
        if let Some(pending) = self.pending.get_mut(&xid) {
            pending.answer.bodies.push(body);
            self.finish(xid);
        }
    }

    fn finish(&mut self, xid: u32) {
        if let Some(Pending { answer, reply, .. }) = self.pending.remove(&xid) {
            // Nobody waits any more.
            let _ = reply.send(Ok(answer));
        }
    }
}
