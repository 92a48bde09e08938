//! Puts frames together. Pure.

use std::time::Duration;

use trunkline_proto::{Mac, VlanId};

use super::{
    frame::{Announcement, Kind, NodeId, Signer},
    inbound::Inbound,
    outbound::Outbound,
};

/// Everything of a frame that is the same for all that go to one peer.
pub struct Voice<'a> {
    /// The VLAN.
    pub vlan: VlanId,
    /// Payload that must pass.
    pub mtu: u16,
    /// The key in use.
    pub signer: &'a Signer,
    /// Who speaks.
    pub me: NodeId,
    /// MAC of the one who speaks.
    pub mac: Mac,
    /// To whom.
    pub to: NodeId,
    /// This life of the program.
    pub instance: u64,
    /// How often it speaks.
    pub period_ms: u32,
}

impl Voice<'_> {
    /// The next frame of a pair, whole: of a size and a round of the search, to the peer's MAC.
    #[must_use]
    pub fn say(
        &self,
        kind: Kind,
        (size, round): (u16, u32),
        to: Mac,
        (inbound, outbound): (&Inbound, &mut Outbound),
        now: Duration,
    ) -> Vec<u8> {
        let announcement = Announcement {
            kind,
            vlan: self.vlan,
            key: self.signer.id,
            sender: self.me,
            receiver: self.to,
            instance: self.instance,
            sequence: outbound.next_sequence(),
            clock_us: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            size,
            period_ms: self.period_ms,
            beat: outbound.beat(),
            round,
            echo: inbound.echo(now),
        };
        announcement.frame(self.signer, to, self.mac)
    }
}
