//! The frame parser.

use crate::sighting::Sighting;

/// A frame as the parser sees it: in the kernel an skb, in user space bytes.
pub trait Frame {
    /// `N` bytes at `offset` from the Ethernet header; `None` past the end.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// How long the frame is, from the Ethernet header on.
    fn len(&self) -> usize;
    /// The tag control information of the VLAN tag that was stripped into metadata.
    fn stripped_tag(&self) -> Option<u16>;
}

/// Why a frame was not looked at further.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Shorter than its headers say.
    Truncated = 0,
}

impl Refusal {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 1] = [Self::Truncated];
}

/// What a frame is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It says something of an address.
    Sighting(Sighting),
    /// ARP or Neighbor Discovery that can't be believed.
    Refused(Refusal),
    /// Neither ARP nor Neighbor Discovery.
    Other,
}

/// Read a frame.
pub fn parse<F: Frame>(_frame: &F) -> Parsed {
    Parsed::Other
}
