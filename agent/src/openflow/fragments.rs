//! What a match sees of a fragment.

use std::fmt;

/// How a bridge looks at the fragments of a packet. It is one setting for all its flows, and `ovs-ofctl set-frags` changes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fragments {
    /// All of them have 0 for ports and ICMP types, the first one too.
    #[default]
    Hidden,
    /// None passes.
    Dropped,
    /// Put together before the match. Open vSwitch knows the word, and no datapath of its own can do it.
    Reassembled,
    /// The first one has what stands in it, later ones have 0.
    Matched,
}

impl Fragments {
    /// The bits of a switch's configuration.
    pub(super) fn of_flags(flags: u16) -> Self {
        match flags & Self::MASK {
            0 => Self::Hidden,
            1 => Self::Dropped,
            2 => Self::Reassembled,
            _ => Self::Matched,
        }
    }

    pub(super) fn flags(self) -> u16 {
        match self {
            Self::Hidden => 0,
            Self::Dropped => 1,
            Self::Reassembled => 2,
            Self::Matched => 3,
        }
    }

    pub(super) const MASK: u16 = 3;
}

/// As `ovs-ofctl` says it.
impl fmt::Display for Fragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hidden => "normal",
            Self::Dropped => "drop",
            Self::Reassembled => "reassemble",
            Self::Matched => "nx-match",
        })
    }
}
