//! What one frame says of an address, and the records that cross the kernel boundary.
//!
//! Records are plain bytes on both sides: multi-byte integers in host order (both sides
//! run on one host), addresses big-endian, no implicit padding. Their sizes and offsets
//! are pinned below; the agent refuses an object whose maps have other sizes.

use core::mem::{offset_of, size_of};

use crate::address::{Address, Mac};

/// How a frame says something of an address.
///
/// The first kinds are *assertions* ("this address is mine"); the last two are *probes*,
/// which ask and claim nothing. The discriminants are bits in [`Tally::kinds`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// ARP request with a claimable sender, for another address (RFC 826).
    ArpRequest = 0,
    /// ARP reply for another's question.
    ArpReply = 1,
    /// ARP request whose sender and target address are one (RFC 5227 §1.1).
    ArpAnnouncement = 2,
    /// ARP reply whose sender and target address are one, which answers nobody.
    ArpGratuitousReply = 3,
    /// Neighbor Advertisement with the Override flag (RFC 4861 §4.4).
    NeighborAdvertisement = 4,
    /// Neighbor Advertisement without it: proxy, anycast, optimistic DAD, or Linux's
    /// answer to a unicast solicitation. Life, but it contests nobody.
    WeakAdvertisement = 5,
    /// Neighbor Solicitation with a unicast source.
    NeighborSolicitation = 6,
    /// Router Solicitation with a unicast source.
    RouterSolicitation = 7,
    /// Router Advertisement.
    RouterAdvertisement = 8,
    /// ARP request with sender 0.0.0.0 (RFC 5227 §1.1).
    ArpProbe = 9,
    /// Neighbor Solicitation from `::`, duplicate address detection (RFC 4862 §5.4.2).
    DadProbe = 10,
}

impl Evidence {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Self; 11] = [
        Self::ArpRequest,
        Self::ArpReply,
        Self::ArpAnnouncement,
        Self::ArpGratuitousReply,
        Self::NeighborAdvertisement,
        Self::WeakAdvertisement,
        Self::NeighborSolicitation,
        Self::RouterSolicitation,
        Self::RouterAdvertisement,
        Self::ArpProbe,
        Self::DadProbe,
    ];

    /// The kind with this discriminant.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        if (byte as usize) < Self::ALL.len() {
            Some(Self::ALL[byte as usize])
        } else {
            None
        }
    }

    /// The kind's bit in [`Tally::kinds`].
    #[inline(always)]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Whether it asks for an address without claiming it.
    #[inline(always)]
    pub const fn is_probe(self) -> bool {
        matches!(self, Self::ArpProbe | Self::DadProbe)
    }

    /// Whether it is ARP, not Neighbor Discovery.
    #[inline(always)]
    pub const fn is_arp(self) -> bool {
        matches!(
            self,
            Self::ArpRequest
                | Self::ArpReply
                | Self::ArpAnnouncement
                | Self::ArpGratuitousReply
                | Self::ArpProbe
        )
    }

    /// Whether it is an assertion that contests nobody.
    #[inline(always)]
    pub const fn is_weak(self) -> bool {
        matches!(self, Self::WeakAdvertisement)
    }

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ArpRequest => "arp-request",
            Self::ArpReply => "arp-reply",
            Self::ArpAnnouncement => "arp-announcement",
            Self::ArpGratuitousReply => "arp-gratuitous-reply",
            Self::NeighborAdvertisement => "neighbor-advertisement",
            Self::WeakAdvertisement => "neighbor-advertisement-weak",
            Self::NeighborSolicitation => "neighbor-solicitation",
            Self::RouterSolicitation => "router-solicitation",
            Self::RouterAdvertisement => "router-advertisement",
            Self::ArpProbe => "arp-probe",
            Self::DadProbe => "dad-probe",
        }
    }
}

/// The VLANs a frame was tagged with. Zero: no such tag, as a VID of 0 is a priority tag
/// (IEEE 802.1Q §9.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tags {
    /// The outer VID of a double-tagged frame.
    pub outer: u16,
    /// The VID, of two the inner.
    pub vlan: u16,
}

/// What one frame says of one address, as the parser read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The address asserted or, in a probe, asked for.
    pub address: Address,
    /// The machine that speaks: ARP's sender hardware address; in Neighbor Discovery the
    /// link-layer address option, else the Ethernet source.
    pub mac: Mac,
    /// How it says so.
    pub evidence: Evidence,
    /// The address that an assertion asks for besides: the target of an ARP request or
    /// Neighbor Solicitation.
    pub asked: Option<Address>,
    /// Its VLANs, whether stripped into metadata or in the frame.
    pub tags: Tags,
    /// Ethernet source.
    pub ether_src: [u8; 6],
    /// To whom: the Ethernet destination, but of an answer to all the asker that it names.
    pub to: [u8; 6],
    /// The Nonce option of a Neighbor Solicitation (RFC 3971 §5.3.2, RFC 7527 §4.1), the first
    /// six bytes of it: what comes back with a nonce just seen is an echo. All zero it is none.
    pub nonce: Option<[u8; 6]>,
}

/// Key of SIGHTINGS: who said what, where.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SightingKey {
    /// The port the frame came in by.
    pub ifindex: u32,
    /// Outer VID, 0 without one.
    pub outer_vlan: u16,
    /// VID, 0 without one.
    pub vlan: u16,
    /// The address, IPv4 in its mapped form.
    pub address: [u8; 16],
    /// The speaker.
    pub mac: [u8; 6],
    /// 1: probes for the address; 0: assertions of it.
    pub probe: u8,
    /// Always zero.
    pub reserved: u8,
}

/// Value of SIGHTINGS. Times are nanoseconds of CLOCK_BOOTTIME.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// When the first of them came.
    pub first_seen: u64,
    /// When the last of them came.
    pub last_seen: u64,
    /// When the last that wasn't weak came; 0: none.
    pub last_strong: u64,
    /// How many came; wraps after 2³².
    pub frames: u32,
    /// The kinds of evidence among them, as [`Evidence::bit`], and [`Self::FORWARDED`].
    pub kinds: u32,
    /// [`Sighting::to`] of the last.
    pub to: [u8; 6],
    /// How the last was said, as [`Evidence`].
    pub evidence: u8,
    /// 1: all that the last one had to change elsewhere is changed, and nobody spoke for the
    /// address since.
    pub settled: u8,
}

impl Tally {
    /// A probe that comes again after this long, in nanoseconds, is news.
    pub const PROBE_QUIET: u64 = 1_000_000_000;

    /// The bit in [`Self::kinds`] of frames whose Ethernet source isn't the sender that their
    /// ARP names.
    pub const FORWARDED: u32 = 1 << 31;

    /// The tally of a first frame.
    #[inline(always)]
    pub fn first(sighting: &Sighting, now: u64) -> Self {
        Self {
            first_seen: now,
            last_seen: now,
            last_strong: if sighting.evidence.is_weak() { 0 } else { now },
            frames: 1,
            kinds: Self::kinds_of(sighting),
            to: sighting.to,
            evidence: sighting.evidence as u8,
            settled: 0,
        }
    }

    /// Whether one frame more says, at the same time, what the last one said: it needs to be
    /// counted, and nothing else.
    #[inline(always)]
    pub fn is_repeat(&self, sighting: &Sighting, now: u64) -> bool {
        self.settled != 0
            && self.last_seen == now
            && self.evidence == sighting.evidence as u8
            && self.to == sighting.to
            && self.kinds & Self::kinds_of(sighting) == Self::kinds_of(sighting)
    }

    /// Whether one frame more is news: of a kind that was not among those before, or a
    /// probe, after [`Self::PROBE_QUIET`] or with a nonce, by which its echo is known.
    #[inline(always)]
    pub fn is_news(&self, sighting: &Sighting, now: u64) -> bool {
        let kinds = Self::kinds_of(sighting);
        self.kinds & kinds != kinds
            || (sighting.evidence.is_probe()
                && (sighting.nonce.is_some()
                    || now.saturating_sub(self.last_seen) >= Self::PROBE_QUIET))
    }

    /// Count one frame more. Times never go back.
    #[inline(always)]
    pub fn add(&mut self, sighting: &Sighting, now: u64) {
        self.last_seen = self.last_seen.max(now);
        if !sighting.evidence.is_weak() {
            self.last_strong = self.last_strong.max(now);
        }
        self.frames = self.frames.wrapping_add(1);
        self.kinds |= Self::kinds_of(sighting);
        self.to = sighting.to;
        self.evidence = sighting.evidence as u8;
        self.settled = 0;
    }

    /// What a frame adds to [`Self::kinds`].
    #[inline(always)]
    pub fn kinds_of(sighting: &Sighting) -> u32 {
        let forwarded = sighting.evidence.is_arp() && sighting.ether_src != sighting.mac.bytes();
        sighting.evidence.bit() | if forwarded { Self::FORWARDED } else { 0 }
    }
}

/// The form and meaning of all maps. Raised with every change of either: an agent takes over
/// what another left in the kernel only if both know it as the same.
pub const LAYOUT: u32 = 1;

/// Value of LEASED: the last sign of life of a leased address, whoever gave it and
/// wherever. Nanoseconds of CLOCK_BOOTTIME, 0: none since the agent put the lease there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// Assertion (ARP, Neighbor Discovery).
    pub assertion: u64,
    /// Probe for it, by anybody.
    pub probe: u64,
    /// IP packet from it, kept where data-plane stamping is on.
    pub packet: u64,
    /// Since when the address is watched for. The agent's.
    pub since: u64,
}

impl Stamps {
    /// The last sign of life of any kind.
    pub fn last(&self) -> u64 {
        self.assertion.max(self.probe).max(self.packet)
    }
}

/// Value of SPEAKERS, keyed by address: who asserted it last, so that the kernel can tell
/// a change of speaker from the same one talking on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// When, in nanoseconds of CLOCK_BOOTTIME; 0: nobody.
    pub at: u64,
    /// The port.
    pub ifindex: u32,
    /// Outer VID, 0 without one.
    pub outer_vlan: u16,
    /// VID, 0 without one.
    pub vlan: u16,
    /// Who.
    pub mac: [u8; 6],
    /// [`Sighting::to`].
    pub to: [u8; 6],
    /// How, as [`Evidence`].
    pub evidence: u8,
    /// How many more of its words are told of, because somebody probed for the address: the
    /// answer is among them.
    pub probed: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}

impl Speaker {
    /// [`Self::probed`] after a probe.
    pub const ANSWERS: u8 = 3;
}

/// Value of PORTS, keyed by ifindex: what one port may still put into the shared tables,
/// so that one pod's flood crowds nobody else out. Made by the agent when it attaches.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortBudget {
    /// New entries it may still put into SIGHTINGS; counted down by the kernel, set anew by
    /// the agent after each look at the table.
    pub sightings: i64,
    /// Event tokens for addresses nobody knew, in thousandths of an event.
    pub fresh_tokens: u64,
    /// When they were last filled up, in nanoseconds of CLOCK_BOOTTIME.
    pub fresh_at: u64,
    /// Event tokens for changes and for leased addresses, apart, so that a flood of forged
    /// addresses doesn't silence a contest.
    pub change_tokens: u64,
    /// When they were last filled up.
    pub change_at: u64,
}

/// Value of WATCHES, keyed by ifindex: how the program came to be on a port. The agent's
/// alone: the kernel keeps it for the agent that takes over. Of ifindex 0, which no port has:
/// since when the host is watched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Since when it sees every frame, in nanoseconds of CLOCK_BOOTTIME.
    pub since: u64,
    /// The kernel's count of changes at the port's TCX ingress, after ours.
    pub revision: u64,
    /// The program's id.
    pub program: u32,
    /// How often the link's carrier had changed.
    pub carrier_changes: u32,
    /// Whether the program stamps IP packets: 0 or 1.
    pub data_plane: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Which of a port's two event limits a sighting counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventClass {
    /// An address nobody knew.
    Fresh,
    /// Another speaker for a known address, or anything of a leased one.
    Change,
}

impl PortBudget {
    /// Events of one class that a port may send at once.
    pub const EVENT_BURST: u64 = 4096;
    /// [`EventClass::Fresh`] events a second thereafter.
    pub const FRESH_PER_SECOND: u64 = 2_000;
    /// [`EventClass::Change`] events a second thereafter.
    pub const CHANGE_PER_SECOND: u64 = 4_000;

    /// Tokens are counted in thousandths of an event.
    const EVENT: u64 = 1_000;

    /// What a port starts with: room for `sightings` new entries, and full bursts.
    pub const fn new(sightings: i64, now: u64) -> Self {
        Self {
            sightings,
            fresh_tokens: Self::EVENT_BURST * Self::EVENT,
            fresh_at: now,
            change_tokens: Self::EVENT_BURST * Self::EVENT,
            change_at: now,
        }
    }

    /// Whether there is room for one more entry in SIGHTINGS; if so, it is taken.
    #[inline(always)]
    pub const fn take_sighting(&mut self) -> bool {
        let room = self.sightings > 0;
        if room {
            self.sightings -= 1;
        }
        room
    }

    /// Whether one more event may be sent at `now`; if so, it is taken.
    #[inline(always)]
    pub const fn take_event(&mut self, class: EventClass, now: u64) -> bool {
        match class {
            EventClass::Fresh => Self::take(
                &mut self.fresh_tokens,
                &mut self.fresh_at,
                Self::FRESH_PER_SECOND,
                now,
            ),
            EventClass::Change => Self::take(
                &mut self.change_tokens,
                &mut self.change_at,
                Self::CHANGE_PER_SECOND,
                now,
            ),
        }
    }

    #[inline(always)]
    const fn take(tokens: &mut u64, filled_at: &mut u64, per_second: u64, now: u64) -> bool {
        let full = Self::EVENT_BURST * Self::EVENT;
        let token_ns = 1_000_000_000 / (per_second * Self::EVENT);
        // Whole tokens only, and the clock advanced by no more than they took: a flood that
        // asks every few nanoseconds would otherwise never see a token.
        let earned = now.saturating_sub(*filled_at) / token_ns;
        if earned >= full - *tokens {
            *tokens = full;
            *filled_at = now;
        } else {
            *tokens += earned;
            *filled_at += earned * token_ns;
        }
        let some = *tokens >= Self::EVENT;
        if some {
            *tokens -= Self::EVENT;
        }
        some
    }
}

/// What the ring buffer carries: a sighting that is new, or whose speaker changed, and
/// who spoke before.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of CLOCK_BOOTTIME.
    pub at: u64,
    /// The address, IPv4 in its mapped form.
    pub address: [u8; 16],
    /// What it asks for besides, all zero for nothing.
    pub asked: [u8; 16],
    /// The port.
    pub ifindex: u32,
    /// Outer VID, 0 without one.
    pub outer_vlan: u16,
    /// VID, 0 without one.
    pub vlan: u16,
    /// Who speaks.
    pub mac: [u8; 6],
    /// Ethernet source.
    pub ether_src: [u8; 6],
    /// [`Sighting::to`].
    pub to: [u8; 6],
    /// Nonce option, all zero without one.
    pub nonce: [u8; 6],
    /// How, as [`Evidence`].
    pub evidence: u8,
    /// Always zero.
    pub reserved: [u8; 7],
    /// Who asserted the address last before this frame, if somebody else; its `at` is
    /// what orders the two, though no event told of it.
    pub previous: Speaker,
}

/// Index into COUNTERS, per CPU. [`crate::frame::Refusal`]s follow at
/// [`Counter::REFUSALS`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// ARP frames that said something of an address.
    Arp = 0,
    /// Neighbor Discovery frames that said something of an address.
    Nd = 1,
    /// Events handed to the ring buffer.
    EventsSent = 2,
    /// Events held back by the port's limit.
    EventsLimited = 3,
    /// Events lost because the ring buffer was full.
    EventsLost = 4,
    /// Sightings not entered because the port had used up its share.
    SightingsOverShare = 5,
    /// Sightings not entered because the kernel refused the entry.
    SightingsFailed = 6,
}

impl Counter {
    /// Where the refusals begin.
    pub const REFUSALS: u32 = 8;
    /// How many entries COUNTERS has.
    pub const LEN: u32 = Self::REFUSALS + crate::frame::Refusal::ALL.len() as u32;
}

const _: () = {
    assert!(size_of::<Address>() == 16 && size_of::<Mac>() == 6);
    assert!(size_of::<SightingKey>() == 32);
    assert!(offset_of!(SightingKey, address) == 8 && offset_of!(SightingKey, mac) == 24);
    assert!(size_of::<Tally>() == 40);
    assert!(size_of::<Stamps>() == 32);
    assert!(size_of::<Watch>() == 32);
    assert!(size_of::<Speaker>() == 32);
    assert!(size_of::<PortBudget>() == 40);
    assert!(size_of::<Event>() == 112);
    assert!(offset_of!(Event, ifindex) == 40 && offset_of!(Event, previous) == 80);
};
