//! What a capture's blocks describe, and what its frames say.

use std::collections::{BTreeMap, HashSet};

use ipam_common::{
    Evidence, Parsed, Refusal, Sighting,
    frame::{Captured, Frame, parse},
    sighting::Tags,
};
use pcap_parser::{Block, PcapBlockOwned, PcapHeader, pcapng::UnknownBlock};

use super::{
    cooked::Cooked,
    counts::{Counts, Skipped},
    interface::{Clock, Interface, Link},
};

/// How many ports a capture may have.
const MAX_PORTS: usize = 1024;
/// How many VLANs are told apart, over all ports.
const MAX_VLANS: usize = 1 << 16;
/// How many interfaces a section may describe.
const MAX_INTERFACES: usize = 1 << 16;
/// How many stations are remembered to have been heard coming in, in a cooked capture.
const MAX_INCOMING: usize = 1 << 20;
/// Frames that are older than others before them by more than this are counted.
const LATE: u64 = 1_000_000_000;
/// What a block has that has nothing in it, in bytes.
const SHORTEST_BLOCK: u32 = 12;
/// The type of the Packet Block, which pcapng had before the Enhanced Packet Block.
const PACKET_BLOCK: u32 = 2;

/// What a port of a capture is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortName {
    /// As the capture: a classic one is a single wire.
    Whole,
    /// As pcapng names the interface.
    Named(String),
    /// An interface that pcapng gives no name: its number in its section, from 0.
    Numbered(u32),
    /// By the number of an interface of the host that captured (cooked, version 2).
    Index(u32),
}

/// A frame of a capture that could be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedFrame {
    /// When, nanoseconds since 1970.
    pub at: u64,
    /// By which port, as [`super::Capture::port`] numbers them, and what it says of an address.
    pub heard: Option<(u32, Sighting)>,
}

/// The interfaces that blocks describe, and what their frames say.
#[derive(Debug, Default)]
pub(super) struct Wires {
    /// Whether this section is big-endian; a classic capture has none.
    big_endian: Option<bool>,
    /// The section's.
    interfaces: Vec<Interface>,
    /// How often each name was met in this section.
    met: BTreeMap<String, u32>,
    names: Vec<PortName>,
    ports: BTreeMap<PortName, u32>,
    /// VLANs that were heard, with their ports.
    vlans: HashSet<(u32, Tags)>,
    /// Stations that were heard coming in.
    incoming: HashSet<[u8; 6]>,
    latest: u64,
    counts: Counts,
}

impl Wires {
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What a port is called.
    pub(super) fn name(&self, port: u32) -> &PortName {
        let name = usize::try_from(port)
            .ok()
            .and_then(|port| self.names.get(port));
        name.unwrap_or(&PortName::Whole)
    }

    /// What all ports are called.
    pub(super) fn names(&self) -> &[PortName] {
        &self.names
    }

    /// Whether a block begins here that says to be shorter than its type and its two lengths.
    pub(super) fn is_too_short(&self, bytes: &[u8]) -> bool {
        let (Some(big_endian), Some((_, rest))) = (self.big_endian, bytes.split_first_chunk::<4>())
        else {
            return false;
        };
        let length = rest.first_chunk().map(|&length| match big_endian {
            true => u32::from_be_bytes(length),
            false => u32::from_le_bytes(length),
        });
        length.is_some_and(|length| length < SHORTEST_BLOCK)
    }

    /// Takes in a block; of a frame that can be looked at, what it says.
    pub(super) fn take(&mut self, block: PcapBlockOwned<'_>) -> Option<CapturedFrame> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.classic(&header);
                None
            }
            PcapBlockOwned::Legacy(packet) => {
                let clock = self.interfaces.first().and_then(|known| known.clock);
                let at = clock.and_then(|clock| clock.split(packet.ts_sec, packet.ts_usec));
                self.frame(0, at, packet.data, [packet.caplen, packet.origlen])
            }
            PcapBlockOwned::NG(Block::SectionHeader(header)) => {
                self.big_endian = Some(header.big_endian());
                self.interfaces.clear();
                self.met.clear();
                None
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
                let name = description.if_name().and_then(Result::ok);
                let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
                self.describe(Interface::described(&description), name);
                None
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let at = self.time(packet.if_id, ticks);
                self.frame(
                    packet.if_id,
                    at,
                    packet.data,
                    [packet.caplen, packet.origlen],
                )
            }
            // It has no time.
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                self.frame(0, None, packet.data, [packet.origlen; 2])
            }
            PcapBlockOwned::NG(Block::Unknown(block)) => self.packet_block(&block),
            PcapBlockOwned::NG(_) => None,
        }
    }

    fn classic(&mut self, header: &PcapHeader) {
        let clock = match header.is_nanosecond_precision() {
            true => Clock::NANOSECONDS,
            false => Clock::MICROSECONDS,
        };
        let mut interface = Interface {
            link: header.network.into(),
            clock: Some(clock),
            port: None,
        };
        if interface.link != Link::CookedV2 {
            interface.port = self.port(PortName::Whole);
        }
        self.interfaces.push(interface);
    }

    /// An interface of this section. Two of one name in one section are two ports; of two
    /// sections they are one that was captured twice.
    fn describe(&mut self, mut interface: Interface, name: Option<String>) {
        if self.interfaces.len() >= MAX_INTERFACES {
            return;
        }
        if interface.link != Link::CookedV2 {
            let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
            let name = match name {
                None => PortName::Numbered(number),
                Some(name) => {
                    let met = self.met.entry(name.clone()).or_default();
                    *met += 1;
                    PortName::Named(match *met {
                        1 => name,
                        more => format!("{name}#{more}"),
                    })
                }
            };
            interface.port = self.port(name);
        }
        self.interfaces.push(interface);
    }

    /// The port of this name, unless there are too many.
    fn port(&mut self, name: PortName) -> Option<u32> {
        if let Some(&port) = self.ports.get(&name) {
            return Some(port);
        }
        if self.names.len() >= MAX_PORTS {
            return None;
        }
        let port = u32::try_from(self.names.len()).ok()?;
        self.names.push(name.clone());
        self.ports.insert(name, port);
        Some(port)
    }

    fn interface(&self, number: u32) -> Option<&Interface> {
        self.interfaces.get(usize::try_from(number).ok()?)
    }

    fn time(&self, interface: u32, ticks: u64) -> Option<u64> {
        self.interface(interface)?.clock?.time(ticks)
    }

    /// The Packet Block (draft-ietf-opsawg-pcapng, appendix A).
    fn packet_block(&mut self, block: &UnknownBlock<'_>) -> Option<CapturedFrame> {
        let big = match block.block_type {
            PACKET_BLOCK => false,
            swapped if swapped.swap_bytes() == PACKET_BLOCK => true,
            _ => return None,
        };
        let (header, data) = block.data.split_first_chunk::<20>()?;
        let [i0, i1, _, _, numbers @ ..] = *header;
        let number = |at: usize| {
            let bytes = [0, 1, 2, 3].map(|byte| numbers[at * 4 + byte]);
            match big {
                true => u32::from_be_bytes(bytes),
                false => u32::from_le_bytes(bytes),
            }
        };
        let interface = match big {
            true => u16::from_be_bytes([i0, i1]),
            false => u16::from_le_bytes([i0, i1]),
        };
        let ticks = u64::from(number(0)) << 32 | u64::from(number(1));
        let at = self.time(interface.into(), ticks);
        self.frame(interface.into(), at, data, [number(2), number(3)])
    }

    /// A frame of an interface: how much of it was captured, and how much there was.
    fn frame(
        &mut self,
        interface: u32,
        at: Option<u64>,
        data: &[u8],
        lengths: [u32; 2],
    ) -> Option<CapturedFrame> {
        self.counts.frames += 1;
        match self.look(interface, at, data, lengths) {
            Ok(frame) => {
                self.counts.late += u64::from(frame.at.saturating_add(LATE) < self.latest);
                self.latest = self.latest.max(frame.at);
                Some(frame)
            }
            Err(skipped) => {
                self.counts.skip(skipped);
                None
            }
        }
    }

    fn look(
        &mut self,
        number: u32,
        at: Option<u64>,
        data: &[u8],
        [captured, original]: [u32; 2],
    ) -> Result<CapturedFrame, Skipped> {
        let is_cut = captured < original;
        let captured = usize::try_from(captured).unwrap_or(usize::MAX);
        let bytes = &data[..captured.min(data.len())];
        let interface = self.interface(number).ok_or(Skipped::Undescribed)?;
        let (link, port) = (interface.link, interface.port);
        let cooked = match link {
            Link::Ethernet => None,
            Link::CookedV1 => Some(Cooked::v1(bytes).ok_or(Skipped::NotEthernet)?),
            Link::CookedV2 => Some(Cooked::v2(bytes).ok_or(Skipped::NotEthernet)?),
            Link::Other => return Err(Skipped::NotEthernet),
        };
        let at = at.ok_or(Skipped::NoTime)?;
        let port = match cooked.and_then(|cooked| cooked.ifindex) {
            Some(ifindex) => self.port(PortName::Index(ifindex)),
            None => port,
        };
        let port = port.ok_or(Skipped::TooManySegments)?;
        let sighting = match cooked {
            None => self.parsed(&Captured::new(bytes), is_cut)?,
            Some(frame) => self.cooked(&frame, is_cut)?,
        };
        if let Some(Sighting { tags, evidence, .. }) = sighting {
            if tags != Tags::default() && !self.tells_apart(port, tags) {
                return Err(Skipped::TooManySegments);
            }
            self.counts.believe(evidence);
        }
        // A probe of one station is a keep-alive. Its destination is not in a cooked frame.
        let keep_alive = |sighting: &Sighting| {
            sighting.evidence.is_probe() && cooked.is_some_and(|frame| frame.is_to_one())
        };
        let heard = sighting.filter(|sighting| !keep_alive(sighting));
        Ok(CapturedFrame {
            at,
            heard: heard.map(|sighting| (port, sighting)),
        })
    }

    /// Whether the VLAN is known, or one more can be. Whoever sends frames makes up tags.
    fn tells_apart(&mut self, port: u32, tags: Tags) -> bool {
        let vlan = (port, tags);
        if self.vlans.len() < MAX_VLANS {
            self.vlans.insert(vlan);
        }
        self.vlans.contains(&vlan)
    }

    /// What a frame says that a host took on all its interfaces. What the host passes on was
    /// heard coming in before. Its own questions and announcements count; its answers don't,
    /// because it may give them for another (proxy ARP), which no capture can tell.
    fn cooked(&mut self, frame: &Cooked<'_>, is_cut: bool) -> Result<Option<Sighting>, Skipped> {
        if !frame.is_outgoing() {
            let sighting = self.parsed(frame, is_cut)?;
            if let Some(sighting) = sighting
                && self.incoming.len() < MAX_INCOMING
            {
                self.incoming.insert(sighting.mac.bytes());
            }
            return Ok(sighting);
        }
        let sighting = match parse(frame) {
            Parsed::Sighting(sighting) => sighting,
            Parsed::Refused(_) => return Err(Skipped::Outgoing),
            Parsed::Other => return Ok(None),
        };
        let answer = matches!(
            sighting.evidence,
            Evidence::ArpReply | Evidence::NeighborAdvertisement | Evidence::WeakAdvertisement
        );
        if answer || self.incoming.contains(&sighting.mac.bytes()) {
            return Err(Skipped::Outgoing);
        }
        Ok(Some(sighting))
    }

    fn parsed(&mut self, frame: &impl Frame, is_cut: bool) -> Result<Option<Sighting>, Skipped> {
        match parse(frame) {
            Parsed::Sighting(sighting) => Ok(Some(sighting)),
            // What is missing was on the wire.
            Parsed::Refused(Refusal::Truncated) if is_cut => Err(Skipped::Cut),
            Parsed::Refused(refusal) => {
                self.counts.refuse(refusal);
                Ok(None)
            }
            Parsed::Other => Ok(None),
        }
    }
}
