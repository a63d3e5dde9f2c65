//! Frames that are almost right, the same in every run.

use pnet_packet::{ip::IpNextHeaderProtocols, util::ipv6_checksum};

use crate::frames::{self, DOT1AD, DOT1Q};

/// xorshift64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed but 0.
    pub const fn new(seed: u64) -> Self {
        Self(if seed == 0 { 1 } else { seed })
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`; 0 if that is 0.
    pub const fn below(&mut self, bound: usize) -> usize {
        match bound {
            0 => 0,
            _ => (self.next() % bound as u64) as usize,
        }
    }
}

/// Bytes that decide something somewhere in a header.
const ODD: [u8; 17] = [
    0, 1, 2, 3, 4, 8, 14, 58, 64, 127, 133, 134, 135, 136, 224, 254, 255,
];

/// The untagged frame, damaged in at most two places, and tagged or not.
///
/// Where a Neighbor Discovery message was damaged its checksum is mended three times of
/// four, so that what is behind the checksum's check is reached too.
pub fn mutated(frame: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if random.below(8) == 0 {
        extend(&mut frame, random);
    }
    for _ in 0..random.below(3) {
        damage(&mut frame, random);
    }
    if random.below(4) != 0 {
        mend(&mut frame);
    }
    if frame.len() >= 14 && random.below(3) == 0 {
        let mut tags = Vec::new();
        for _ in 0..=random.below(3) {
            let protocol = [DOT1Q, DOT1AD][random.below(2)];
            tags.push((protocol, [0, 100, 0xe064][random.below(3)]));
        }
        frame = frames::tagged(&frame, &tags);
    }
    frame
}

fn damage(frame: &mut Vec<u8>, random: &mut Random) {
    match random.below(8) {
        0 => frame.truncate(random.below(frame.len() + 1)),
        1 => frame.resize(frame.len() + random.below(40), 0),
        2 | 3 if frame.len() > 12 => {
            let at = 12 + random.below(frame.len() - 12);
            frame[at] = ODD[random.below(ODD.len())];
        }
        4 if !frame.is_empty() => {
            let at = random.below(frame.len());
            frame[at] ^= 1 << random.below(8);
        }
        5 if frame.len() > 54 => {
            // Type, code, flags, target, options.
            let at = 54 + random.below(frame.len() - 54);
            frame[at] = ODD[random.below(ODD.len())];
        }
        6 if frame.len() >= 54 => {
            // A source that is none.
            frame[22..38].fill(0);
        }
        _ => {}
    }
}

/// Put extension headers, or options, into an IPv6 frame; make another one Reverse ARP.
fn extend(frame: &mut Vec<u8>, random: &mut Random) {
    if frame.len() < 54 || frame[12..14] != [0x86, 0xdd] {
        if frame.len() >= 14 && random.below(4) == 0 {
            frame[12..14].copy_from_slice(&[0x80, 0x35]);
        }
        return;
    }
    let before = frame.len();
    if random.below(2) == 0 {
        for _ in 0..random.below(8) {
            let kind = [0, 43, 44, 60][random.below(4)];
            let next = std::mem::replace(&mut frame[20], kind);
            frame.splice(54..54, [next, 0, 0, 0, 0, 0, 0, 0]);
        }
    } else {
        for _ in 0..random.below(80) {
            frame.extend_from_slice(&[random.below(20) as u8, 1, 2, 0, 0, 0, 0, 9]);
        }
    }
    let length = u16::from_be_bytes([frame[18], frame[19]]) + (frame.len() - before) as u16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    mend(frame);
}

/// Set the ICMPv6 checksum right where an untagged frame holds such a message whole.
fn mend(frame: &mut [u8]) {
    if frame.len() < 58 || frame[12..14] != [0x86, 0xdd] {
        return;
    }
    let end = 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]));
    let (mut next, mut start) = (frame[20], 54);
    while [0, 43, 44, 60].contains(&next) && start + 8 <= frame.len() {
        next = frame[start];
        start += 8;
    }
    if next != 58 || end > frame.len() || start + 4 > end {
        return;
    }
    let address = |at: usize| frame[at..].first_chunk::<16>().copied().unwrap_or_default();
    let checksum = ipv6_checksum(
        &frame[start..end],
        1,
        &[],
        &address(22).into(),
        &address(38).into(),
        IpNextHeaderProtocols::Icmpv6,
    );
    frame[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
}
