//! The frame parser: what one Ethernet frame says of an IP address.
//!
//! The kernel runs it on an skb, user space on captured bytes; both read a frame through
//! [`Frame`], so they can't disagree. It reads at most one Ethernet header, two VLAN tags
//! and one ARP packet or Neighbor Discovery message, keeps no state, and never panics,
//! allocates or loops without bound, whatever the bytes.
//!
//! ARP is RFC 826 with the probes and announcements of RFC 5227; Neighbor Discovery is
//! RFC 4861 with every check that it asks of a receiver (§6.1.1, §6.1.2, §7.1.1, §7.1.2),
//! and RFC 6980, which forbids it in fragments.

mod arp;
mod ip;
mod link;
mod nd;

use crate::{address::Address, sighting::Sighting};
use link::Link;

/// A frame as the parser sees it: in the kernel an skb, in user space bytes.
pub trait Frame {
    /// `N` bytes at `offset` from the Ethernet header; `None` past the end.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// As [`Frame::read`], at a place that is the same in every frame. A reader that can
    /// reach fixed places faster does it here.
    #[inline(always)]
    fn head<const OFFSET: usize, const N: usize>(&self) -> Option<[u8; N]> {
        self.read(OFFSET)
    }
    /// The type that follows the stations, be it a tag's or the payload's. A reader that
    /// knows it already says it here.
    #[inline(always)]
    fn ethertype(&self) -> Option<u16> {
        self.head::<12, 2>().map(u16::from_be_bytes)
    }
    /// How long the frame is, from the Ethernet header on.
    fn length(&self) -> usize;
    /// The tag control information of the VLAN tag that was stripped into metadata: the
    /// outermost of the frame's tags.
    fn stripped_tag(&self) -> Option<u16>;
}

/// A frame in memory, from its Ethernet header on.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// The bytes that were captured.
    pub bytes: &'a [u8],
    /// The tag control information of a VLAN tag that the capture holds outside the bytes.
    pub stripped_tag: Option<u16>,
}

impl<'a> Captured<'a> {
    /// A frame all of whose tags are in its bytes.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            stripped_tag: None,
        }
    }
}

impl Frame for Captured<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn stripped_tag(&self) -> Option<u16> {
        self.stripped_tag
    }
}

/// Why a frame was not looked at further.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Shorter than its headers say.
    Truncated = 0,
    /// More than two VLAN tags.
    Tags = 1,
    /// Reverse ARP (RFC 903): names a machine, asserts no address.
    Rarp = 2,
    /// ARP for a hardware other than Ethernet.
    HardwareType = 3,
    /// ARP for a protocol other than IPv4.
    Protocol = 4,
    /// ARP address lengths other than 6 and 4, or a Neighbor Discovery message shorter
    /// than its kind.
    Lengths = 5,
    /// An ARP operation other than request and reply.
    Opcode = 6,
    /// The speaker's MAC is zero, broadcast or multicast.
    SenderMac = 7,
    /// The speaker's address is none that a machine can claim, or not one it may speak
    /// from: a Router Advertisement's must be link-local.
    SenderAddress = 8,
    /// The address probed for, solicited or advertised is none that a machine can claim.
    TargetAddress = 9,
    /// More IPv6 extension headers than are followed, or hop-by-hop options behind another.
    ExtensionHeaders = 10,
    /// Neighbor Discovery with a Fragment header (RFC 6980 §5).
    Fragmented = 11,
    /// Neighbor Discovery with a hop limit other than 255: it came through a router.
    HopLimit = 12,
    /// Wrong ICMPv6 checksum.
    Checksum = 13,
    /// An ICMPv6 code other than 0.
    Code = 14,
    /// An option of length 0, one that reaches past the message's end, or a link-layer
    /// address that isn't Ethernet's.
    OptionLength = 15,
    /// A solicitation from `::` that carries a source link-layer address.
    SourceOption = 16,
    /// Sent to where such a message can't go: DAD elsewhere than to a solicited-node
    /// address, or an answer to a solicitation to a multicast address.
    Destination = 17,
    /// A Neighbor Discovery message longer than 512 bytes.
    Oversized = 18,
    /// More options than are followed.
    Options = 19,
}

impl Refusal {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 20] = [
        Self::Truncated,
        Self::Tags,
        Self::Rarp,
        Self::HardwareType,
        Self::Protocol,
        Self::Lengths,
        Self::Opcode,
        Self::SenderMac,
        Self::SenderAddress,
        Self::TargetAddress,
        Self::ExtensionHeaders,
        Self::Fragmented,
        Self::HopLimit,
        Self::Checksum,
        Self::Code,
        Self::OptionLength,
        Self::SourceOption,
        Self::Destination,
        Self::Oversized,
        Self::Options,
    ];

    /// The name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Tags => "tags",
            Self::Rarp => "rarp",
            Self::HardwareType => "hardware-type",
            Self::Protocol => "protocol",
            Self::Lengths => "lengths",
            Self::Opcode => "opcode",
            Self::SenderMac => "sender-mac",
            Self::SenderAddress => "sender-address",
            Self::TargetAddress => "target-address",
            Self::ExtensionHeaders => "extension-headers",
            Self::Fragmented => "fragmented",
            Self::HopLimit => "hop-limit",
            Self::Checksum => "checksum",
            Self::Code => "code",
            Self::OptionLength => "option-length",
            Self::SourceOption => "source-option",
            Self::Destination => "destination",
            Self::Oversized => "oversized",
            Self::Options => "options",
        }
    }
}

/// What a frame is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It says something of an address.
    Sighting(Sighting),
    /// ARP or Neighbor Discovery that can't be believed, or a frame that hides whether it
    /// is one.
    Refused(Refusal),
    /// Neither ARP nor Neighbor Discovery.
    Other,
}

/// Read a frame.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Parsed {
    match sighting(frame) {
        Ok(Some(sighting)) => Parsed::Sighting(sighting),
        Ok(None) => Parsed::Other,
        Err(refusal) => Parsed::Refused(refusal),
    }
}

#[inline(always)]
fn sighting<F: Frame>(frame: &F) -> Result<Option<Sighting>, Refusal> {
    let link = Link::of(frame)?;
    match link.ethertype {
        link::ARP if link.payload == link::UNTAGGED => arp::sighting(frame, &link).map(Some),
        link::ARP => arp::tagged(frame, &link).map(Some),
        link::IPV6 => nd::sighting(frame, &link),
        link::RARP => Err(Refusal::Rarp),
        _ => Ok(None),
    }
}

/// The source of an IPv4 or IPv6 packet, through VLAN tags; `None` for any other frame,
/// and where the source is none that a machine can claim.
#[inline(always)]
pub fn source<F: Frame>(frame: &F) -> Option<Address> {
    let link = Link::of(frame).ok()?;
    match link.ethertype {
        link::IPV4 => ip::v4_source(frame, &link),
        link::IPV6 => ip::v6_source(frame, &link),
        _ => None,
    }
}
