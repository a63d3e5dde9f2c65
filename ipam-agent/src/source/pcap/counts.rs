//! What became of a capture's frames.

use ipam_common::{Evidence, Refusal};

/// Why a frame was not handed to the parser, or what it said not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Skipped {
    /// Its link is neither Ethernet nor a cooked capture of one.
    NotEthernet = 0,
    /// The capture doesn't describe its interface.
    Undescribed = 1,
    /// It has no time, or one that no capture is from: nothing can be judged by it.
    NoTime = 2,
    /// More interfaces, or VLANs on them, than are told apart.
    TooManySegments = 3,
    /// The host that captured passed it on, and it was heard coming in; or it answers by
    /// that host, who may do it for another.
    Outgoing = 4,
    /// ARP or Neighbor Discovery of which the capture has the front alone.
    Cut = 5,
}

impl Skipped {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 6] = [
        Self::NotEthernet,
        Self::Undescribed,
        Self::NoTime,
        Self::TooManySegments,
        Self::Outgoing,
        Self::Cut,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotEthernet => "not-ethernet",
            Self::Undescribed => "undescribed-interface",
            Self::NoTime => "no-time",
            Self::TooManySegments => "too-many-segments",
            Self::Outgoing => "outgoing",
            Self::Cut => "cut-short",
        }
    }
}

/// What became of a capture's frames. Each is one of: ARP, ND, refused, skipped, or another
/// protocol's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All frames.
    pub frames: u64,
    /// ARP that says something of an address.
    pub arp: u64,
    /// Neighbor Discovery that does.
    pub nd: u64,
    /// Frames that are more than a second older than one before them.
    pub late: u64,
    refused: [u64; Refusal::ALL.len()],
    skipped: [u64; Skipped::ALL.len()],
}

impl Counts {
    /// ARP or Neighbor Discovery that the parser refused, by reason; reasons without one
    /// are left out.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL
            .into_iter()
            .zip(self.refused)
            .filter(|&(_, count)| count > 0)
    }

    /// Frames that were not looked at, or not believed, by reason.
    pub fn skipped(&self) -> impl Iterator<Item = (Skipped, u64)> {
        Skipped::ALL
            .into_iter()
            .zip(self.skipped)
            .filter(|&(_, count)| count > 0)
    }

    /// Whether there were frames and none could be looked at.
    pub fn is_blind(&self) -> bool {
        let unseen = self
            .skipped()
            .filter(|(why, _)| *why != Skipped::Outgoing)
            .map(|(_, count)| count);
        self.frames > 0 && unseen.sum::<u64>() == self.frames
    }

    /// How much ARP and Neighbor Discovery was cut short as it was captured.
    pub fn cut(&self) -> u64 {
        self.skipped[Skipped::Cut as usize]
    }

    pub(super) fn believe(&mut self, evidence: Evidence) {
        use Evidence::{ArpAnnouncement, ArpGratuitousReply, ArpProbe, ArpReply, ArpRequest};
        match evidence {
            ArpRequest | ArpReply | ArpAnnouncement | ArpGratuitousReply | ArpProbe => {
                self.arp += 1;
            }
            _ => self.nd += 1,
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refused[refusal as usize] += 1;
    }

    pub(super) fn skip(&mut self, skipped: Skipped) {
        self.skipped[skipped as usize] += 1;
    }
}
