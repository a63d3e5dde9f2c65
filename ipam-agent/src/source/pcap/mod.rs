//! Captures: pcap and pcapng, plain or gzip'd, read as a stream.
//!
//! Files are untrusted: lengths that lie end the capture with an error that says where,
//! and never make it read more than a block into memory.

mod cooked;
mod counts;
mod input;
mod interface;
mod wires;

use std::io;

use pcap_parser::{PcapError, create_reader, traits::PcapReaderIterator};

pub use self::{
    counts::{Counts, Skipped},
    input::{OnRead, Place},
    wires::{CapturedFrame, PortName},
};
use self::{
    input::{Failure, failed, unpacked},
    wires::Wires,
};

/// What is read at once: a frame of 256 KiB, tcpdump's largest snap length, and its header.
const BUFFER: usize = 1 << 19;
/// The largest block that is read, for which the buffer grows: Wireshark's limit.
const BLOCK_LIMIT: usize = 1 << 24;

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
        self.wires.counts()
    }

    /// The name of a port that a frame came in by.
    pub fn port(&self, port: u32) -> &PortName {
        self.wires.name(port)
    }

    /// The names of all ports that were described so far, or that a frame came in by.
    pub fn ports(&self) -> &[PortName] {
        self.wires.names()
    }

    /// The next frame that can be looked at; `None` at the end.
    ///
    /// # Errors
    /// The capture can't be read on, or is damaged from here.
    pub fn read(&mut self) -> Result<Option<CapturedFrame>, CaptureError> {
        loop {
            // The reader of blocks subtracts from a length before it looks at it.
            if self.wires.is_too_short(self.reader.data()) {
                return Err(self.damaged("a block shorter than its own header"));
            }
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
