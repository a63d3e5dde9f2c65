//! Captures for tests, written byte by byte: nothing here is shared with the reader under
//! test.

/// LINKTYPE_ETHERNET.
pub const ETHERNET: u16 = 1;
/// LINKTYPE_LINUX_SLL.
pub const COOKED_V1: u16 = 113;
/// LINKTYPE_LINUX_SLL2.
pub const COOKED_V2: u16 = 276;

/// Options of an interface (pcapng §4.2).
pub mod option {
    /// if_tsresol.
    pub const RESOLUTION: u16 = 9;
    /// if_tsoffset.
    pub const OFFSET: u16 = 14;
}

/// In which order numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// As most machines do.
    Little,
    /// As networks do.
    Big,
}

impl Endian {
    fn bytes<const N: usize>(self, mut little: [u8; N]) -> [u8; N] {
        if self == Self::Big {
            little.reverse();
        }
        little
    }

    fn two(self, number: u16) -> [u8; 2] {
        self.bytes(number.to_le_bytes())
    }

    fn four(self, number: u32) -> [u8; 4] {
        self.bytes(number.to_le_bytes())
    }

    /// Eight bytes, as if_tsoffset has them.
    pub fn eight(self, number: i64) -> [u8; 8] {
        self.bytes(number.to_le_bytes())
    }
}

/// A classic capture.
#[derive(Clone, Debug)]
pub struct Classic {
    /// What was written so far.
    pub bytes: Vec<u8>,
    endian: Endian,
    nanoseconds: bool,
}

impl Classic {
    /// One with a header and no frames.
    pub fn new(endian: Endian, nanoseconds: bool, link: u16) -> Self {
        let magic = if nanoseconds {
            0xa1b2_3c4d
        } else {
            0xa1b2_c3d4
        };
        let header = [
            &endian.four(magic)[..],
            &endian.two(2),
            &endian.two(4),
            &[0; 8],
            &endian.four(262_144),
            &endian.four(link.into()),
        ];
        Self {
            bytes: header.concat(),
            endian,
            nanoseconds,
        }
    }

    /// With one frame more, at so many nanoseconds since 1970.
    pub fn frame(mut self, at: u64, frame: &[u8]) -> Self {
        self.add(at, frame);
        self
    }

    /// Adds a frame.
    pub fn add(&mut self, at: u64, frame: &[u8]) {
        let length = frame.len() as u32;
        self.cut(at, frame, length);
    }

    /// Adds a frame that was longer than what is captured of it.
    pub fn cut(&mut self, at: u64, frame: &[u8], length: u32) {
        let fraction = at % SECOND / if self.nanoseconds { 1 } else { 1000 };
        let numbers = [
            (at / SECOND) as u32,
            fraction as u32,
            frame.len() as u32,
            length,
        ];
        for number in numbers {
            self.bytes.extend(self.endian.four(number));
        }
        self.bytes.extend(frame);
    }
}

const SECOND: u64 = 1_000_000_000;

/// A pcapng capture.
#[derive(Clone, Debug)]
pub struct Ng {
    /// What was written so far.
    pub bytes: Vec<u8>,
    endian: Endian,
}

impl Ng {
    /// One with a section and nothing in it.
    pub fn new(endian: Endian) -> Self {
        let bytes = Vec::new();
        Self { bytes, endian }.section(endian)
    }

    /// With one section more.
    pub fn section(mut self, endian: Endian) -> Self {
        self.endian = endian;
        let body = [
            &endian.four(0x1a2b_3c4d)[..],
            &endian.two(1),
            &endian.two(0),
            &endian.eight(-1),
        ];
        self.block(0x0a0d_0d0a, &body.concat())
    }

    /// With one interface more, with microseconds.
    pub fn interface(self, link: u16, name: Option<&str>) -> Self {
        self.interface_with(link, name, &[])
    }

    /// With one interface more, and options of it.
    pub fn interface_with(self, link: u16, name: Option<&str>, options: &[(u16, Vec<u8>)]) -> Self {
        let endian = self.endian;
        let mut body = [&endian.two(link)[..], &[0; 2], &endian.four(262_144)].concat();
        let name = name.map(|name| (2, name.as_bytes().to_vec()));
        for (code, value) in name.iter().chain(options) {
            body.extend(endian.two(*code));
            body.extend(endian.two(value.len() as u16));
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body.extend([0; 4]);
        self.block(1, &body)
    }

    /// With one frame more, at so many ticks of its interface's clock.
    pub fn frame(self, interface: u32, ticks: u64, frame: &[u8]) -> Self {
        let numbers = [interface, (ticks >> 32) as u32, ticks as u32];
        let length = frame.len() as u32;
        let mut body = self.numbers(&numbers);
        body.extend(self.numbers(&[length, length]));
        body.extend(frame);
        self.block(6, &body)
    }

    /// With one frame more, in the block that came before.
    pub fn old_frame(self, interface: u16, ticks: u64, frame: &[u8]) -> Self {
        let mut body = [self.endian.two(interface), [0; 2]].concat();
        let length = frame.len() as u32;
        body.extend(self.numbers(&[(ticks >> 32) as u32, ticks as u32, length, length]));
        body.extend(frame);
        self.block(2, &body)
    }

    /// With one frame more, without a time.
    pub fn simple_frame(self, frame: &[u8]) -> Self {
        let mut body = self.numbers(&[frame.len() as u32]);
        body.extend(frame);
        self.block(3, &body)
    }

    /// With one block more.
    pub fn block(mut self, kind: u32, body: &[u8]) -> Self {
        let padded = body.len().next_multiple_of(4);
        let length = self.endian.four(padded as u32 + 12);
        self.bytes.extend(self.endian.four(kind));
        self.bytes.extend(length);
        self.bytes.extend(body);
        self.bytes.resize(self.bytes.len() + padded - body.len(), 0);
        self.bytes.extend(length);
        self
    }

    fn numbers(&self, numbers: &[u32]) -> Vec<u8> {
        let numbers = numbers.iter().flat_map(|&number| self.endian.four(number));
        numbers.collect()
    }
}

/// How a cooked frame was addressed: to this host, to all, to a group, to another host, or
/// sent by this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressed {
    /// PACKET_HOST.
    Here = 0,
    /// PACKET_BROADCAST.
    Broadcast = 1,
    /// PACKET_MULTICAST.
    Multicast = 2,
    /// PACKET_OTHERHOST.
    Elsewhere = 3,
    /// PACKET_OUTGOING.
    Outgoing = 4,
}

/// An Ethernet frame as a host has it that captures on all its interfaces.
pub fn cooked_v1(frame: &[u8], addressed: Addressed) -> Vec<u8> {
    let header = [0, addressed as u8, 0, 1, 0, 6];
    [&header, &frame[6..12], &[0; 2], &frame[12..]].concat()
}

/// The same, with the number of the interface.
pub fn cooked_v2(frame: &[u8], addressed: Addressed, ifindex: u32) -> Vec<u8> {
    let (stations, rest) = frame.split_at(12);
    let (protocol, payload) = rest.split_at(2);
    let hardware = [0, 1, addressed as u8, 6];
    let address = [&stations[6..], &[0; 2]].concat();
    let parts = [protocol, &[0; 2], &ifindex.to_be_bytes(), &hardware];
    [&parts.concat(), &address[..], payload].concat()
}
