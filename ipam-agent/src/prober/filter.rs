//! What a port's socket lets through: a classic BPF program that keeps the frames that say
//! something of one address, under one set of tags, and come in. So that no flood of others
//! fills the socket. Pure.

use ipam_common::{Address, sighting::Tags};
use socket2::SockFilter;

/// `BPF_LD | BPF_W`, `BPF_H`, `BPF_B` with `BPF_ABS` (Linux `include/uapi/linux/bpf_common.h`).
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// `BPF_ALU | BPF_AND | BPF_K`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K`.
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF` and what is behind it (Linux `include/uapi/linux/filter.h`).
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
const VLAN_TAG: u32 = 0xffff_f000 + 44;
/// `PACKET_OUTGOING`: frames that this host sends pass by too.
const OUTGOING: u32 = 4;

const VID: u32 = 0x0fff;
const ARP: u32 = 0x0806;
const IPV6: u32 = 0x86dd;
const ICMPV6: u32 = 58;

/// How much of a frame is read: more than any message that the parser follows.
pub(super) const SNAP: usize = 2048;

/// A load, and what it has to give.
struct Test {
    load: u16,
    at: u32,
    mask: Option<u32>,
    is: u32,
}

impl Test {
    const fn new(load: u16, at: u32, is: u32) -> Self {
        let mask = None;
        Self { load, at, mask, is }
    }

    const fn vid(load: u16, at: u32, vid: u16) -> Self {
        Self {
            load,
            at,
            mask: Some(VID),
            is: vid as u32,
        }
    }

    /// `body` where it holds; else what comes after it.
    fn then(&self, body: Vec<SockFilter>) -> Vec<SockFilter> {
        let mut program = vec![SockFilter::new(self.load, 0, 0, self.at)];
        program.extend(self.mask.map(|mask| SockFilter::new(AND, 0, 0, mask)));
        // A program has a few dozen instructions: it fits.
        let over = u8::try_from(body.len()).unwrap_or(u8::MAX);
        program.push(SockFilter::new(JUMP_IF_EQUAL, 0, over, self.is));
        program.extend(body);
        program
    }
}

fn all(tests: impl DoubleEndedIterator<Item = Test>, body: Vec<SockFilter>) -> Vec<SockFilter> {
    tests.rev().fold(body, |body, test| test.then(body))
}

fn accept() -> Vec<SockFilter> {
    vec![SockFilter::new(RETURN, 0, 0, SNAP as u32)]
}

/// Nothing.
pub(super) fn none() -> Vec<SockFilter> {
    vec![SockFilter::new(RETURN, 0, 0, 0)]
}

/// The tag that the kernel takes out of a frame that comes in: the outermost.
pub(super) const fn stripped(tags: Tags) -> u16 {
    if tags.outer != 0 {
        tags.outer
    } else {
        tags.vlan
    }
}

/// Addresses of one family that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// One of them.
    address: Address,
    /// How many bits of the mapped form are the same.
    bits: u32,
}

impl From<Address> for Range {
    fn from(address: Address) -> Self {
        Self { address, bits: 128 }
    }
}

impl Range {
    /// The smallest that has all of these; `None` for none.
    pub(super) fn of(addresses: &[Address]) -> Option<Self> {
        let number = |address: &Address| u128::from_be_bytes(address.mapped());
        let address = *addresses.first()?;
        let differ = addresses.iter().fold(0, |differ, other| {
            differ | (number(other) ^ number(&address))
        });
        let bits = differ.leading_zeros();
        Some(Self { address, bits })
    }
}

/// ARP and Neighbor Discovery that has an address of the range as its sender or target.
pub(super) fn about(range: Range, tags: Tags) -> Vec<SockFilter> {
    let Range { address, .. } = range;
    // A frame without a tag, and one that has only a priority, give 0.
    let mut common = vec![Test::vid(LOAD_WORD, VLAN_TAG, stripped(tags))];
    let payload = if tags.outer != 0 {
        common.push(Test::vid(LOAD_HALF, 14, tags.vlan));
        18
    } else {
        14
    };
    let (sender, target) = if address.is_ipv4() {
        common.push(Test::new(LOAD_HALF, payload - 2, ARP));
        (payload + 14, payload + 24)
    } else {
        common.push(Test::new(LOAD_HALF, payload - 2, IPV6));
        common.push(Test::new(LOAD_BYTE, payload + 6, ICMPV6));
        (payload + 8, payload + 48)
    };
    let mut body = all(words(range, sender), accept());
    body.extend(all(words(range, target), accept()));
    let mut program = Test::new(LOAD_WORD, PACKET_TYPE, OUTGOING).then(none());
    program.extend(all(common.into_iter(), body));
    program.extend(none());
    program
}

/// That an address of the range is there.
fn words(range: Range, at: u32) -> impl DoubleEndedIterator<Item = Test> {
    let mapped = range.address.mapped();
    // Of IPv4 in its mapped form, the last.
    let skip = if range.address.is_ipv4() { 3 } else { 0 };
    let words = mapped.as_chunks::<4>().0.iter().enumerate().skip(skip);
    let tests = (at..)
        .step_by(4)
        .zip(words)
        .filter_map(|(at, (index, word))| {
            let before = u32::try_from(index).unwrap_or(0) * 32;
            let same = range.bits.saturating_sub(before).min(32);
            let mask = u32::MAX.checked_shl(32 - same)?;
            let is = u32::from_be_bytes(*word) & mask;
            let mask = (mask != u32::MAX).then_some(mask);
            Some(Test {
                mask,
                ..Test::new(LOAD_WORD, at, is)
            })
        });
    tests.collect::<Vec<_>>().into_iter()
}
