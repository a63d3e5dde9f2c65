//! The Ethernet header and the VLAN tags behind it (IEEE 802.3, 802.1Q §9).

use super::{Frame, Refusal};
use crate::sighting::Tags;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const RARP: u16 = 0x8035;
pub(super) const IPV6: u16 = 0x86dd;
const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;

/// Where the payload of a frame without tags begins.
pub(super) const UNTAGGED: usize = 14;
const TAG: usize = 4;

/// A frame's Ethernet header, tags read.
pub(super) struct Link {
    pub(super) ethertype: u16,
    pub(super) tags: Tags,
    /// Where the payload begins.
    pub(super) payload: usize,
}

impl Link {
    #[inline(always)]
    pub(super) fn of<F: Frame>(frame: &F) -> Result<Self, Refusal> {
        let mut link = Self {
            ethertype: frame.ethertype().ok_or(Refusal::Truncated)?,
            tags: Tags::default(),
            payload: UNTAGGED,
        };
        let stripped = frame.stripped_tag();
        if let Some(tci) = stripped {
            link.add(tci);
        }
        // Written out: kernels before 6.7 don't take every shape that a compiler gives a
        // loop this small.
        link.strip(frame)?;
        if stripped.is_none() {
            link.strip(frame)?;
        }
        if link.is_tag() {
            return Err(Refusal::Tags);
        }
        Ok(link)
    }

    #[inline(always)]
    const fn is_tag(&self) -> bool {
        matches!(self.ethertype, DOT1Q | DOT1AD)
    }

    /// Read a tag from the frame, if one is next.
    #[inline(always)]
    fn strip<F: Frame>(&mut self, frame: &F) -> Result<(), Refusal> {
        if self.is_tag() {
            let [t0, t1, e0, e1] = frame.read(self.payload).ok_or(Refusal::Truncated)?;
            self.add(u16::from_be_bytes([t0, t1]));
            self.ethertype = u16::from_be_bytes([e0, e1]);
            self.payload += TAG;
        }
        Ok(())
    }

    /// Take in the next tag, from the outside in. A VID of 0 carries a priority alone.
    #[inline(always)]
    fn add(&mut self, tci: u16) {
        let vid = tci & 0x0fff;
        if vid != 0 {
            self.tags = Tags {
                outer: self.tags.vlan,
                vlan: vid,
            };
        }
    }

    /// The `N` bytes that stand at `AT` in a frame without tags, and accordingly later in
    /// one that has some.
    #[inline(always)]
    pub(super) fn at<F: Frame, const AT: usize, const N: usize>(
        &self,
        frame: &F,
    ) -> Option<[u8; N]> {
        if self.payload == UNTAGGED {
            frame.head::<AT, N>()
        } else {
            frame.read(AT - UNTAGGED + self.payload)
        }
    }
}
