//! Captures: pcap and pcapng, plain or gzip'd, read as a stream.
//!
//! Files are untrusted: lengths that lie end the capture with an error that says where,
//! and never make it read more than a block into memory.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use pcap_parser::{
    Block, Linktype, PcapBlockOwned, PcapError, create_reader, traits::PcapReaderIterator,
};

/// The largest block that is read: a frame of 256 KiB, tcpdump's largest snap length, and
/// its header.
const BLOCK_LIMIT: usize = 1 << 19;

/// Why a capture can't be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file.
    #[error("can't read {}", path.display())]
    Io {
        /// The capture.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it.
    #[error("{}: {what} after {frames} frames; what came before was read", path.display())]
    Damaged {
        /// The capture.
        path: PathBuf,
        /// How many frames were read.
        frames: u64,
        /// What is wrong.
        what: String,
    },
}

/// A frame of a capture.
#[derive(Clone, Copy, Debug)]
pub struct CapturedFrame<'a> {
    /// When, nanoseconds since 1970.
    pub at: u64,
    /// By which of the capture's interfaces, counted from 0.
    pub interface: u32,
    /// The frame, from the Ethernet header on.
    pub bytes: &'a [u8],
}

/// An interface of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedInterface {
    /// Its name, where the capture has one.
    pub name: Option<String>,
    /// Ticks of its time stamps in a second.
    resolution: u64,
    /// Seconds to add to them.
    offset: i64,
    ethernet: bool,
}

/// A capture, read frame by frame.
pub struct Capture {
    reader: Box<dyn PcapReaderIterator + Send>,
    path: PathBuf,
    interfaces: Vec<CapturedInterface>,
    frames: u64,
    /// Frames that are no Ethernet, or of an interface that was not described.
    pub skipped: u64,
}

impl Capture {
    /// Opens a capture.
    ///
    /// # Errors
    /// It can't be read, or is no capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = [0; 2];
        let zipped = match file.read_exact(&mut magic) {
            Ok(()) => magic == [0x1f, 0x8b],
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(failed(error)),
        };
        file.rewind().map_err(failed)?;
        let file = BufReader::with_capacity(1 << 16, file);
        let input: Box<dyn Read + Send> = if zipped {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let reader = create_reader(BLOCK_LIMIT, input).map_err(|error| CaptureError::Damaged {
            path: path.to_owned(),
            frames: 0,
            what: format!("no pcap or pcapng ({error:?})"),
        })?;
        Ok(Self {
            reader,
            path: path.to_owned(),
            interfaces: Vec::new(),
            frames: 0,
            skipped: 0,
        })
    }

    /// The interfaces described so far.
    pub fn interfaces(&self) -> &[CapturedInterface] {
        &self.interfaces
    }

    /// Hands the next frame to `see`; false at the end.
    ///
    /// # Errors
    /// The capture can't be read on, or is damaged from here.
    pub fn next(
        &mut self,
        see: &mut dyn FnMut(&[CapturedInterface], CapturedFrame<'_>),
    ) -> Result<bool, CaptureError> {
        loop {
            let (length, block) = match self.reader.next() {
                Ok(next) => next,
                Err(PcapError::Eof) => return Ok(false),
                Err(PcapError::Incomplete(_)) => {
                    if self.reader.reader_exhausted() {
                        return Err(self.damaged("cut off"));
                    }
                    match self.reader.refill() {
                        Ok(()) => continue,
                        Err(PcapError::BufferTooSmall) => {
                            return Err(self.damaged("a block larger than any frame"));
                        }
                        Err(_) => return Err(self.damaged("can't be read on")),
                    }
                }
                Err(error) => {
                    let what = format!("damaged ({error:?})");
                    return Err(self.damaged(&what));
                }
            };
            let seen = take(&mut self.interfaces, block, see);
            self.reader.consume(length);
            match seen {
                Taken::Frame => {
                    self.frames += 1;
                    return Ok(true);
                }
                Taken::Skipped => self.skipped += 1,
                Taken::Other => {}
            }
        }
    }

    fn damaged(&self, what: &str) -> CaptureError {
        CaptureError::Damaged {
            path: self.path.clone(),
            frames: self.frames,
            what: what.to_owned(),
        }
    }
}

enum Taken {
    Frame,
    Skipped,
    Other,
}

fn take(
    interfaces: &mut Vec<CapturedInterface>,
    block: PcapBlockOwned<'_>,
    see: &mut dyn FnMut(&[CapturedInterface], CapturedFrame<'_>),
) -> Taken {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            interfaces.push(CapturedInterface {
                name: None,
                resolution: if header.is_nanosecond_precision() {
                    1_000_000_000
                } else {
                    1_000_000
                },
                offset: 0,
                ethernet: header.network == Linktype::ETHERNET,
            });
            Taken::Other
        }
        PcapBlockOwned::Legacy(packet) => {
            let Some(interface) = interfaces.first().filter(|known| known.ethernet) else {
                return Taken::Skipped;
            };
            let ticks = u64::from(packet.ts_usec).saturating_mul(1_000_000_000);
            let at = u64::from(packet.ts_sec)
                .saturating_mul(1_000_000_000)
                .saturating_add(ticks / interface.resolution);
            let captured = (packet.caplen as usize).min(packet.data.len());
            see(
                interfaces,
                CapturedFrame {
                    at,
                    interface: 0,
                    bytes: &packet.data[..captured],
                },
            );
            Taken::Frame
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            Taken::Other
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
            let name = description.if_name().and_then(Result::ok);
            interfaces.push(CapturedInterface {
                name: name.map(str::to_owned),
                resolution: description.ts_resolution().unwrap_or(1_000_000).max(1),
                offset: description.ts_offset(),
                ethernet: description.linktype == Linktype::ETHERNET,
            });
            Taken::Other
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let known = usize::try_from(packet.if_id).ok();
            let interface = known
                .and_then(|index| interfaces.get(index))
                .filter(|known| known.ethernet);
            let Some(interface) = interface else {
                return Taken::Skipped;
            };
            let ticks = u128::from(packet.ts_high) << 32 | u128::from(packet.ts_low);
            let nanoseconds = ticks * 1_000_000_000 / u128::from(interface.resolution);
            let offset = i128::from(interface.offset) * 1_000_000_000;
            let at = i128::try_from(nanoseconds)
                .unwrap_or(i128::MAX)
                .saturating_add(offset);
            let captured = (packet.caplen as usize).min(packet.data.len());
            see(
                interfaces,
                CapturedFrame {
                    at: u64::try_from(at).unwrap_or(0),
                    interface: packet.if_id,
                    bytes: &packet.data[..captured],
                },
            );
            Taken::Frame
        }
        PcapBlockOwned::NG(Block::SimplePacket(_)) => Taken::Skipped,
        PcapBlockOwned::NG(_) => Taken::Other,
    }
}
