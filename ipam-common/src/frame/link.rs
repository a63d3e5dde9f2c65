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
/// QinQ has two.
const MAX_TAGS: usize = 2;

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
        let mut tags = 0;
        if let Some(tci) = frame.stripped_tag() {
            link.add(tci);
            tags += 1;
        }
        // Counted, so that the compiler unrolls it: older verifiers (Linux 6.1's
        // `push_insn`) take a loop only where its back edge is a jump, and the compiler lets
        // one fall through.
        for _ in 0..=MAX_TAGS {
            if !matches!(link.ethertype, DOT1Q | DOT1AD) {
                break;
            }
            if tags == MAX_TAGS {
                return Err(Refusal::Tags);
            }
            tags += 1;
            let [t0, t1, e0, e1] = frame.read(link.payload).ok_or(Refusal::Truncated)?;
            link.add(u16::from_be_bytes([t0, t1]));
            link.ethertype = u16::from_be_bytes([e0, e1]);
            link.payload += TAG;
        }
        Ok(link)
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
