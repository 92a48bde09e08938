//! The probe's frame: what it says, and how it is signed. Pure.
//!
//! ```text
//!   to (6) from (6) 8100 VLAN (2) 88b5 | header (100) | signature (16) | zeros, up to the size that is tried
//! ```
//!
//! All numbers are big-endian. The signature is HMAC-SHA256 over the header under the VLAN's key, cut to its first half. The
//! kernel takes the tag off before we see a frame, so the VLAN is in the header too.

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use trunkline_proto::{
    Mac, Name, VlanId,
    resource::{Probe, ProbeKey},
};

/// EtherType for local experiments (IEEE 802, clause 9.2.4), as the flows know it.
pub const ETHERTYPE: u16 = 0x88b5;
/// Payload of the smallest frame: header and signature.
pub const SMALL: u16 = Probe::SMALL;
/// Bytes before the payload of a frame that has no tag any more.
pub const ETHERNET: usize = 14;

const TAGGED: u16 = 0x8100;
const HEADER: usize = 100;
const SIGNATURE: usize = 16;
const VERSION: u8 = 1;

/// A node's name as frames carry it: the first eight bytes of its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 8]);

impl NodeId {
    /// That of a name.
    #[must_use]
    pub fn of(name: &Name) -> Self {
        let digest: [u8; 32] = Sha256::digest(name.as_str().as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Self([a, b, c, d, e, f, g, h])
    }
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ends a beat: as large as the link's MTU.
    Full,
    /// Within a beat: as large as is known to pass, when that is less.
    Known,
    /// Opens a beat, and so closes the one before.
    Small,
    /// One size of a round of the search for the largest.
    Search,
    /// Closes a round, and asks for the answer.
    Ask,
    /// The answer: its echo says what came of the round.
    Answer,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Full,
        Self::Known,
        Self::Small,
        Self::Search,
        Self::Ask,
        Self::Answer,
    ];

    fn number(self) -> u8 {
        match self {
            Self::Full => 0,
            Self::Known => 1,
            Self::Small => 2,
            Self::Search => 3,
            Self::Ask => 4,
            Self::Answer => 5,
        }
    }
}

/// What one node says to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// What it is for.
    pub kind: Kind,
    /// Its VLAN.
    pub vlan: VlanId,
    /// Which key it is signed with.
    pub key: u32,
    /// Who says it.
    pub sender: NodeId,
    /// To whom.
    pub receiver: NodeId,
    /// One life of the sender's program.
    pub instance: u64,
    /// Rises with every frame of the instance to this receiver on this VLAN; begins with 1.
    pub sequence: u64,
    /// The sender's clock, in microseconds since its program began.
    pub clock_us: u64,
    /// Bytes of payload.
    pub size: u16,
    /// How often the sender announces itself.
    pub period_ms: u32,
    /// Number of the announcement that it belongs to.
    pub beat: u32,
    /// Round of the search that it belongs to; 0: none.
    pub round: u32,
    /// What the sender got last; an instance of 0: nothing.
    pub echo: Echo,
}

/// What the sender of a frame got last from its receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Echo {
    /// The receiver's instance; 0: nothing was got.
    pub instance: u64,
    /// Newest sequence.
    pub sequence: u64,
    /// The clock in it.
    pub clock_us: u64,
    /// How long ago it came.
    pub age_us: u32,
    /// Largest payload within the last periods.
    pub largest: u16,
    /// Largest payload of the last beat.
    pub beat_largest: u16,
    /// The last round of a search; 0: none.
    pub round: u32,
    /// Largest payload of that round.
    pub round_largest: u16,
}

/// Why bytes are no frame of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not for us, or no probe's frame at all: nobody's fault.
    #[error("another sort of frame")]
    Foreign,
    /// Shorter than it says, or than any.
    #[error("cut off")]
    Truncated,
    /// Of another version, or with a field that cannot be.
    #[error("not understood")]
    Field,
}

/// A key ready to sign with.
#[derive(Clone)]
pub struct Signer {
    /// Its number.
    pub id: u32,
    state: Hmac<Sha256>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Signer {
    /// From a key of the plan. `None` never happens: HMAC takes keys of every length.
    #[must_use]
    pub fn new(key: &ProbeKey) -> Option<Self> {
        let state = Hmac::new_from_slice(&key.secret).ok()?;
        Some(Self { id: key.id, state })
    }

    fn sign(&self, header: &[u8]) -> [u8; SIGNATURE] {
        let whole: [u8; 32] = self.state.clone().chain_update(header).finalize().into_bytes().into();
        let mut half = [0; SIGNATURE];
        half.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        half
    }

    /// True when a payload was signed with this key. Takes as long for a wrong one as for a right one.
    #[must_use]
    pub fn verifies(&self, payload: &[u8]) -> bool {
        let (Some(header), Some(signature)) = (payload.get(..HEADER), payload.get(HEADER..HEADER + SIGNATURE)) else {
            return false;
        };
        self.state
            .clone()
            .chain_update(header)
            .verify_truncated_left(signature)
            .is_ok()
    }
}

impl Announcement {
    /// The whole frame, signed.
    #[must_use]
    pub fn frame(&self, signer: &Signer, to: Mac, from: Mac) -> Vec<u8> {
        let size = usize::from(self.size.max(SMALL));
        let mut frame = Vec::with_capacity(ETHERNET + 4 + size);
        frame.extend(to.octets());
        frame.extend(from.octets());
        frame.extend(TAGGED.to_be_bytes());
        frame.extend(self.vlan.get().to_be_bytes());
        frame.extend(ETHERTYPE.to_be_bytes());
        let header = self.header();
        frame.extend(&header);
        frame.extend(signer.sign(&header));
        frame.resize(ETHERNET + 4 + size, 0);
        frame
    }

    fn header(&self) -> Vec<u8> {
        let Self {
            kind,
            vlan,
            key,
            sender,
            receiver,
            instance,
            sequence,
            clock_us,
            size,
            period_ms,
            beat,
            round,
            echo,
        } = self;
        let mut out = Vec::with_capacity(HEADER);
        out.extend([VERSION, kind.number()]);
        out.extend(vlan.get().to_be_bytes());
        out.extend(key.to_be_bytes());
        out.extend(sender.0);
        out.extend(receiver.0);
        out.extend(instance.to_be_bytes());
        out.extend(sequence.to_be_bytes());
        out.extend(clock_us.to_be_bytes());
        out.extend(size.to_be_bytes());
        out.extend(period_ms.to_be_bytes());
        out.extend(beat.to_be_bytes());
        out.extend(round.to_be_bytes());
        out.extend(echo.instance.to_be_bytes());
        out.extend(echo.sequence.to_be_bytes());
        out.extend(echo.clock_us.to_be_bytes());
        out.extend(echo.age_us.to_be_bytes());
        out.extend(echo.largest.to_be_bytes());
        out.extend(echo.beat_largest.to_be_bytes());
        out.extend(echo.round.to_be_bytes());
        out.extend(echo.round_largest.to_be_bytes());
        out
    }

    /// Reads a payload. It is not believed yet: the key that it names must have signed it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(payload.get(..HEADER).ok_or(Malformed::Truncated)?);
        if input.u8()? != VERSION {
            return Err(Malformed::Field);
        }
        let kind = input.u8()?;
        let kind = Kind::ALL.into_iter().find(|known| known.number() == kind);
        let announcement = Self {
            kind: kind.ok_or(Malformed::Field)?,
            vlan: u32::from(input.u16()?).try_into().map_err(|_| Malformed::Field)?,
            key: input.u32()?,
            sender: NodeId(input.take()?),
            receiver: NodeId(input.take()?),
            instance: input.u64()?,
            sequence: input.u64()?,
            clock_us: input.u64()?,
            size: input.u16()?,
            period_ms: input.u32()?,
            beat: input.u32()?,
            round: input.u32()?,
            echo: Echo {
                instance: input.u64()?,
                sequence: input.u64()?,
                clock_us: input.u64()?,
                age_us: input.u32()?,
                largest: input.u16()?,
                beat_largest: input.u16()?,
                round: input.u32()?,
                round_largest: input.u16()?,
            },
        };
        if announcement.size < SMALL || announcement.instance == 0 || announcement.sequence == 0 {
            return Err(Malformed::Field);
        }
        // A switch may have padded it; it may not have been cut.
        if payload.len() < usize::from(announcement.size) {
            return Err(Malformed::Truncated);
        }
        Ok(announcement)
    }
}

/// The payload of a frame as a socket gives it, when it is a probe's and sent to `to`.
///
/// # Errors
/// [`Malformed::Foreign`] for every other frame; the interface hears those too.
pub fn payload(frame: &[u8], to: Mac) -> Result<&[u8], Malformed> {
    let (head, rest) = frame.split_at_checked(ETHERNET).ok_or(Malformed::Foreign)?;
    let ethertype = ETHERTYPE.to_be_bytes();
    if !head.starts_with(&to.octets()) || !head.ends_with(&ethertype) {
        return Err(Malformed::Foreign);
    }
    Ok(rest)
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_be_bytes)
    }
}
