//! Captures: pcap and pcapng, plain or gzip'd, read as a stream.
//!
//! Files are untrusted: lengths that lie end the capture with an error that says where,
//! and never make it read more than a block into memory.

mod cooked;
mod counts;
mod input;
mod interface;

use std::{
    collections::{BTreeMap, HashSet},
    io,
};

use ipam_common::{
    Evidence, Parsed, Sighting,
    frame::{Captured, Frame, parse},
};
use pcap_parser::{
    Block, PcapBlockOwned, PcapError, PcapHeader, create_reader, pcapng::UnknownBlock,
    traits::PcapReaderIterator,
};

use self::{
    cooked::Cooked,
    input::{Failure, failed, unpacked},
    interface::{Clock, Interface, Link},
};
pub use self::{
    counts::{Counts, Skipped},
    input::{OnRead, Place},
};

/// What is read at once: a frame of 256 KiB, tcpdump's largest snap length, and its header.
const BUFFER: usize = 1 << 19;
/// The largest block that is read, for which the buffer grows: Wireshark's limit.
const BLOCK_LIMIT: usize = 1 << 24;
/// How many ports a capture may have.
const MAX_PORTS: usize = 4096;
/// How many interfaces a section may describe.
const MAX_INTERFACES: usize = 1 << 16;
/// How many stations are remembered to have been heard coming in, in a cooked capture.
const MAX_INCOMING: usize = 1 << 20;
/// Frames that are older than others before them by more than this are counted.
const LATE: u64 = 1_000_000_000;
/// The type of the Packet Block, which pcapng had before the Enhanced Packet Block.
const PACKET_BLOCK: u32 = 2;

/// Why a capture can't be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It can't be opened.
    #[error("can't read {place}")]
    Open {
        /// The capture.
        place: Place,
        /// Why.
        source: io::Error,
    },
    /// Nothing in it.
    #[error("{place} is empty, and no capture: even one without frames has a header")]
    Empty {
        /// What should be a capture.
        place: Place,
    },
    /// Something else.
    #[error("{place} is no capture: it begins neither as pcap nor as pcapng")]
    NoCapture {
        /// What should be a capture.
        place: Place,
    },
    /// It can't be read on.
    #[error("{place}: can't read on after {frames} frames, which were judged")]
    Read {
        /// The capture.
        place: Place,
        /// How many frames were read.
        frames: u64,
        /// Why.
        source: io::Error,
    },
    /// What is in it.
    #[error("{place}: {what} after {frames} frames, which were judged")]
    Damaged {
        /// The capture.
        place: Place,
        /// How many frames were read.
        frames: u64,
        /// What is wrong.
        what: &'static str,
    },
}

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
    /// By which port, as [`Capture::port`] numbers them, and what it says of an address.
    pub heard: Option<(u32, Sighting)>,
}

/// A capture, read frame by frame.
pub struct Capture {
    reader: Box<dyn PcapReaderIterator + Send>,
    failure: Failure,
    capacity: usize,
    place: Place,
    wires: Wires,
}

impl Capture {
    /// Opens a capture. `on_read` is told how many bytes of it were read.
    ///
    /// # Errors
    /// It can't be read, or is no capture.
    pub fn open(place: &Place, on_read: Option<OnRead>) -> Result<Self, CaptureError> {
        let unopened = |source| CaptureError::Open {
            place: place.clone(),
            source,
        };
        let input = place.open().map_err(unopened)?;
        let (whole, failure) = unpacked(input, on_read).map_err(unopened)?;
        let reader = create_reader(BUFFER, whole);
        let reader = reader.map_err(|error| match (failed(&failure), error) {
            (Some(source), _) => unopened(source),
            (None, PcapError::Eof) => CaptureError::Empty {
                place: place.clone(),
            },
            (None, _) => CaptureError::NoCapture {
                place: place.clone(),
            },
        })?;
        Ok(Self {
            reader,
            failure,
            capacity: BUFFER,
            place: place.clone(),
            wires: Wires::default(),
        })
    }

    /// What became of the frames so far.
    pub fn counts(&self) -> &Counts {
        &self.wires.counts
    }

    /// The name of a port that a frame came in by.
    pub fn port(&self, port: u32) -> &PortName {
        let names = usize::try_from(port).ok();
        let name = names.and_then(|port| self.wires.names.get(port));
        name.unwrap_or(&PortName::Whole)
    }

    /// The next frame that can be looked at; `None` at the end.
    ///
    /// # Errors
    /// The capture can't be read on, or is damaged from here.
    pub fn read(&mut self) -> Result<Option<CapturedFrame>, CaptureError> {
        loop {
            let (length, block) = match self.reader.next() {
                Ok(next) => next,
                Err(error) => match ending(&error) {
                    Ending::Refill => match self.reader.refill() {
                        Ok(()) => continue,
                        Err(_) => return Err(self.damaged("it can't be read on")),
                    },
                    Ending::Grow if self.capacity < BLOCK_LIMIT => {
                        self.capacity *= 2;
                        self.reader.grow(self.capacity);
                        continue;
                    }
                    Ending::Grow => return Err(self.damaged("a block longer than 16 MiB")),
                    Ending::End => {
                        return match failed(&self.failure) {
                            Some(source) => Err(self.unreadable(source)),
                            None => Ok(None),
                        };
                    }
                    Ending::CutOff => {
                        return Err(match failed(&self.failure) {
                            Some(source) => self.unreadable(source),
                            None => self.damaged("it is cut off"),
                        });
                    }
                    Ending::Damaged => {
                        return Err(self.damaged("what follows is no block of a capture"));
                    }
                },
            };
            let frame = self.wires.take(block);
            self.reader.consume(length);
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    fn damaged(&self, what: &'static str) -> CaptureError {
        CaptureError::Damaged {
            place: self.place.clone(),
            frames: self.counts().frames,
            what,
        }
    }

    fn unreadable(&self, source: io::Error) -> CaptureError {
        CaptureError::Read {
            place: self.place.clone(),
            frames: self.counts().frames,
            source,
        }
    }
}

/// What to do where no block is.
enum Ending {
    Refill,
    Grow,
    End,
    CutOff,
    Damaged,
}

fn ending(error: &PcapError<&[u8]>) -> Ending {
    match error {
        PcapError::Eof => Ending::End,
        PcapError::Incomplete(_) => Ending::Refill,
        PcapError::BufferTooSmall => Ending::Grow,
        PcapError::UnexpectedEof => Ending::CutOff,
        _ => Ending::Damaged,
    }
}

/// The interfaces that blocks describe, and what their frames say.
#[derive(Debug, Default)]
struct Wires {
    /// Of this section.
    interfaces: Vec<Interface>,
    /// How often each name was met in this section.
    met: BTreeMap<String, u32>,
    names: Vec<PortName>,
    ports: BTreeMap<PortName, u32>,
    /// Stations that were heard coming in.
    incoming: HashSet<[u8; 6]>,
    latest: u64,
    counts: Counts,
}

impl Wires {
    fn take(&mut self, block: PcapBlockOwned<'_>) -> Option<CapturedFrame> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.classic(&header);
                None
            }
            PcapBlockOwned::Legacy(packet) => {
                let clock = self.interfaces.first().and_then(|known| known.clock);
                let at = clock.and_then(|clock| clock.split(packet.ts_sec, packet.ts_usec));
                self.frame(0, at, packet.data, packet.caplen)
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
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
                self.frame(packet.if_id, at, packet.data, packet.caplen)
            }
            // It has no time.
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                self.frame(0, None, packet.data, packet.origlen)
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
        self.frame(interface.into(), at, data, number(2))
    }

    /// A frame of an interface, of whose data only so much was captured.
    fn frame(
        &mut self,
        interface: u32,
        at: Option<u64>,
        data: &[u8],
        captured: u32,
    ) -> Option<CapturedFrame> {
        self.counts.frames += 1;
        match self.look(interface, at, data, captured) {
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
        captured: u32,
    ) -> Result<CapturedFrame, Skipped> {
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
        let port = port.ok_or(Skipped::TooManyInterfaces)?;
        let sighting = match cooked {
            None => self.parsed(&Captured::new(bytes)),
            Some(frame) => self.cooked(&frame)?,
        };
        Ok(CapturedFrame {
            at,
            heard: sighting.map(|sighting| (port, sighting)),
        })
    }

    /// What a frame says that a host took on all its interfaces. What the host passes on was
    /// heard coming in before. Its own questions and announcements count; its answers don't,
    /// because it may give them for another (proxy ARP), which no capture can tell.
    fn cooked(&mut self, frame: &Cooked<'_>) -> Result<Option<Sighting>, Skipped> {
        if !frame.outgoing {
            let sighting = self.parsed(frame);
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
        self.counts.believe(sighting.evidence);
        Ok(Some(sighting))
    }

    fn parsed(&mut self, frame: &impl Frame) -> Option<Sighting> {
        match parse(frame) {
            Parsed::Sighting(sighting) => {
                self.counts.believe(sighting.evidence);
                Some(sighting)
            }
            Parsed::Refused(refusal) => {
                self.counts.refuse(refusal);
                None
            }
            Parsed::Other => None,
        }
    }
}
