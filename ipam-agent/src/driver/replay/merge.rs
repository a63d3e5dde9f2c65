//! Several captures as one stream, in the order of time.
//!
//! A capture is open only from its first frame on to its last, so that a ring of a thousand
//! files takes the memory of the few that overlap.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use ipam_common::Sighting;

use crate::source::pcap::{Capture, CaptureError, CapturedFrame, Counts, OnRead, Place, PortName};

/// What is read of one capture.
pub struct Track {
    /// Where it is.
    pub place: Place,
    /// What became of its frames.
    pub counts: Counts,
    /// When its first and its last frame were captured, nanoseconds since 1970.
    pub span: Option<(u64, u64)>,
    /// Why it can't be read on.
    pub failed: Option<CaptureError>,
    /// The ports that it had, once it was read.
    pub ports: Vec<PortName>,
    capture: Option<Capture>,
    next: Option<CapturedFrame>,
}

impl Track {
    fn new(place: &Place, capture: Option<Capture>) -> Self {
        Self {
            place: place.clone(),
            counts: Counts::default(),
            span: None,
            failed: None,
            ports: Vec::new(),
            capture,
            next: None,
        }
    }

    /// What a port of it is called.
    pub fn port(&self, port: u32) -> &PortName {
        let capture = self.capture.as_ref();
        capture.map_or(&PortName::Whole, |capture| capture.port(port))
    }

    /// Reads on. The next frame's time; `None` at the end, where the capture is closed.
    fn read(&mut self) -> Option<u64> {
        let next = self.capture.as_mut()?.read();
        let next = next.unwrap_or_else(|error| {
            self.failed = Some(error);
            None
        });
        self.next = next;
        if let Some(frame) = next {
            let (first, last) = self.span.unwrap_or((frame.at, frame.at));
            self.span = Some((first.min(frame.at), last.max(frame.at)));
        }
        next.map(|frame| frame.at)
    }

    /// Gives the memory back.
    fn close(&mut self) {
        if let Some(capture) = self.capture.take() {
            self.counts = *capture.counts();
            self.ports = capture.ports().to_vec();
        }
    }
}

/// A frame of one of several captures.
#[derive(Clone, Copy, Debug)]
pub struct MergedFrame {
    /// Which, in the order given.
    pub track: usize,
    /// When.
    pub at: u64,
    /// What it says, and by which port of its capture.
    pub heard: Option<(u32, Sighting)>,
}

/// Captures as one stream.
pub struct Merge {
    /// The captures, in the order given.
    pub tracks: Vec<Track>,
    /// Those that were not begun, by the time of their first frame, the last one first.
    waiting: Vec<(u64, usize)>,
    /// Those that are open, by the time of their next frame.
    open: BinaryHeap<Reverse<(u64, usize)>>,
    on_read: Option<OnRead>,
}

impl Merge {
    /// Looks at the beginning of each capture.
    ///
    /// # Errors
    /// One can't be opened, or is no capture.
    pub fn new(places: &[Place], on_read: Option<OnRead>) -> Result<Self, CaptureError> {
        let mut merge = Self {
            tracks: Vec::new(),
            waiting: Vec::new(),
            open: BinaryHeap::new(),
            on_read,
        };
        for (number, place) in places.iter().enumerate() {
            // What is no file, such as a pipe, is read once only, and kept open.
            let once = places.len() == 1 || place.length().is_none();
            let counted = merge.on_read.clone().filter(|_| once);
            let capture = Capture::open(place, counted)?;
            let mut track = Track::new(place, Some(capture));
            let first = track.read();
            if once {
                merge.open.extend(first.map(|at| Reverse((at, number))));
                if first.is_none() {
                    track.close();
                }
            } else {
                // One that is damaged at once is looked at again, and told of, in its turn.
                merge.waiting.push((first.unwrap_or(0), number));
                track = Track::new(place, None);
            }
            merge.tracks.push(track);
        }
        merge.waiting.sort_unstable_by_key(|&next| Reverse(next));
        Ok(merge)
    }

    /// The earliest of the next frames, handed to `see` while its capture is open; false at
    /// the end of all.
    pub fn next(&mut self, see: &mut dyn FnMut(&Track, MergedFrame)) -> bool {
        while let Some(&(first, number)) = self.waiting.last()
            && self.open.peek().is_none_or(|Reverse((at, _))| first <= *at)
        {
            self.waiting.pop();
            self.begin(number);
        }
        let Some(mut earliest) = self.open.peek_mut() else {
            return false;
        };
        let Reverse((_, number)) = *earliest;
        let Some(track) = self.tracks.get_mut(number) else {
            return false;
        };
        if let Some(CapturedFrame { at, heard }) = track.next {
            let frame = MergedFrame {
                track: number,
                at,
                heard,
            };
            see(track, frame);
        }
        match track.read() {
            Some(at) => *earliest = Reverse((at, number)),
            None => {
                track.close();
                PeekMut::pop(earliest);
            }
        }
        true
    }

    fn begin(&mut self, number: usize) {
        let Some(track) = self.tracks.get_mut(number) else {
            return;
        };
        match Capture::open(&track.place, self.on_read.clone()) {
            Ok(capture) => track.capture = Some(capture),
            Err(error) => track.failed = Some(error),
        }
        match track.read() {
            Some(at) => self.open.push(Reverse((at, number))),
            None => track.close(),
        }
    }
}
