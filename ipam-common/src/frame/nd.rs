//! Neighbor Discovery (RFC 4861): solicitations and advertisements, of neighbors and
//! routers. Redirects (§4.5) assert nothing and are other ICMPv6 to us.

use super::{Frame, Refusal, ip, link::Link};
use crate::{
    address::{Address, Mac},
    sighting::{Evidence, Sighting},
};

const ICMPV6: u8 = 58;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

/// Flags of a Neighbor Advertisement (§4.4).
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// RFC 3971 §5.3.2.
const NONCE: u8 = 14;

/// Messages and options come in words of eight bytes (§4.6).
const WORD: usize = 8;
/// Words in the longest message looked at: 512 bytes hold an advertisement of a dozen
/// prefixes.
const WORDS: usize = 64;
/// How many options are followed.
const OPTIONS: usize = 16;

const UNSPECIFIED: [u8; 16] = [0; 16];

/// `None` for a packet that is none of them.
#[inline(always)]
pub(super) fn sighting<F: Frame>(frame: &F, link: &Link) -> Result<Option<Sighting>, Refusal> {
    let [next] = link.at::<F, 20, 1>(frame).ok_or(Refusal::Truncated)?;
    if next != ICMPV6 && !ip::is_extension(next) {
        return Ok(None);
    }
    discovery(frame, link)
}

// Not inlined: the kernel gives a program 512 bytes of stack, and this needs most of them.
#[inline(never)]
fn discovery<F: Frame>(frame: &F, link: &Link) -> Result<Option<Sighting>, Refusal> {
    let Some(ip) = ip::V6::of(frame, link)? else {
        return Ok(None);
    };
    let Some(upper) = ip.upper(frame)? else {
        return Ok(None);
    };
    if upper.protocol != ICMPV6 {
        return Ok(None);
    }
    let [kind, code] = frame.read(upper.start).ok_or(Refusal::Truncated)?;
    // How many words precede the options.
    let fixed = match kind {
        ROUTER_SOLICITATION => 1,
        ROUTER_ADVERTISEMENT => 2,
        NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT => 3,
        _ => return Ok(None),
    };
    if upper.fragment {
        return Err(Refusal::Fragmented);
    }
    if ip.hop_limit != 255 {
        return Err(Refusal::HopLimit);
    }
    if upper.end > frame.length() {
        return Err(Refusal::Truncated);
    }
    let length = upper.end.saturating_sub(upper.start);
    if length < fixed * WORD {
        return Err(Refusal::Lengths);
    }
    if length > WORDS * WORD {
        return Err(Refusal::Oversized);
    }
    if length % WORD != 0 {
        return Err(Refusal::OptionLength);
    }
    let wanted = match kind {
        NEIGHBOR_ADVERTISEMENT => TARGET_LINK_LAYER,
        _ => SOURCE_LINK_LAYER,
    };
    if sum(frame, &ip, upper.start, length)? != 0xffff {
        return Err(Refusal::Checksum);
    }
    if code != 0 {
        return Err(Refusal::Code);
    }
    let options = Options::read(frame, upper.start + fixed * WORD, upper.end, wanted)?;
    let Said {
        address,
        evidence,
        asked,
    } = said(frame, &ip, kind, upper.start, options.has_link_layer)?;

    let ether_dst = frame.head::<0, 6>().ok_or(Refusal::Truncated)?;
    let ether_src = frame.head::<6, 6>().ok_or(Refusal::Truncated)?;
    let mac = if options.has_link_layer {
        options.link_layer
    } else {
        ether_src
    };
    Ok(Some(Sighting {
        address,
        mac: Mac::new(mac).ok_or(Refusal::SenderMac)?,
        evidence,
        asked: Address::v6(asked),
        tags: link.tags,
        ether_src,
        to: ether_dst,
        nonce: (options.has_nonce && kind == NEIGHBOR_SOLICITATION).then_some(options.nonce),
    }))
}

/// What a message says. Here and in [`Options`], what is absent is all zero rather than
/// `None`: a value that is undefined on some way through the program is one that the
/// kernel's verifier may refuse, wherever the compiler keeps it.
struct Said {
    address: Address,
    evidence: Evidence,
    asked: [u8; 16],
}

/// What the message says of which address, and what it asks for besides.
#[inline(always)]
fn said<F: Frame>(
    frame: &F,
    ip: &ip::V6,
    kind: u8,
    start: usize,
    has_link_layer: bool,
) -> Result<Said, Refusal> {
    let said = |address, evidence| Said {
        address,
        evidence,
        asked: UNSPECIFIED,
    };
    let unspecified = ip.source == UNSPECIFIED;
    if unspecified && has_link_layer && matches!(kind, ROUTER_SOLICITATION | NEIGHBOR_SOLICITATION)
    {
        return Err(Refusal::SourceOption);
    }
    if matches!(kind, ROUTER_SOLICITATION | ROUTER_ADVERTISEMENT) {
        let source = Address::v6(ip.source).ok_or(Refusal::SenderAddress)?;
        if kind == ROUTER_SOLICITATION {
            return Ok(said(source, Evidence::RouterSolicitation));
        }
        if !source.is_link_local() {
            return Err(Refusal::SenderAddress);
        }
        return Ok(said(source, Evidence::RouterAdvertisement));
    }

    let target: [u8; 16] = frame.read(start + WORD).ok_or(Refusal::Truncated)?;
    if kind == NEIGHBOR_ADVERTISEMENT {
        let [flags] = frame.read(start + 4).ok_or(Refusal::Truncated)?;
        let target = Address::v6(target).ok_or(Refusal::TargetAddress)?;
        if flags & SOLICITED != 0 && ip.destination[0] == 0xff {
            return Err(Refusal::Destination);
        }
        let evidence = if flags & OVERRIDE != 0 {
            Evidence::NeighborAdvertisement
        } else {
            Evidence::WeakAdvertisement
        };
        return Ok(said(target, evidence));
    }
    if unspecified {
        let target = Address::v6(target).ok_or(Refusal::TargetAddress)?;
        if !is_solicited_node(ip.destination) {
            return Err(Refusal::Destination);
        }
        return Ok(said(target, Evidence::DadProbe));
    }
    let source = Address::v6(ip.source).ok_or(Refusal::SenderAddress)?;
    if target[0] == 0xff {
        return Err(Refusal::TargetAddress);
    }
    Ok(Said {
        address: source,
        evidence: Evidence::NeighborSolicitation,
        asked: target,
    })
}

/// ff02::1:ff00:0/104 (RFC 4291 §2.7.1).
#[inline(always)]
const fn is_solicited_node(address: [u8; 16]) -> bool {
    u128::from_be_bytes(address) >> 24 == 0x00ff_0200_0000_0000_0000_0000_01ff
}

/// The options that concern us.
struct Options {
    /// The first link-layer address option of the wanted type.
    link_layer: [u8; 6],
    has_link_layer: bool,
    nonce: [u8; 6],
    has_nonce: bool,
}

impl Options {
    /// Follow the options from `start` to `end`.
    ///
    /// The loop remembers places, with `end` for none, and compares them with each other
    /// only. Flags would do in user space; the kernel's verifier would follow the loop anew
    /// for every combination of them.
    #[inline(always)]
    fn read<F: Frame>(frame: &F, start: usize, end: usize, wanted: u8) -> Result<Self, Refusal> {
        let (mut link_layer, mut nonce) = (end, end);
        let mut at = start;
        for _ in 0..OPTIONS {
            if at >= end {
                break;
            }
            let [kind, words] = frame.read(at).ok_or(Refusal::Truncated)?;
            if kind == wanted && at < link_layer {
                link_layer = at;
            }
            if kind == NONCE && at < nonce {
                nonce = at;
            }
            if words == 0 {
                return Err(Refusal::OptionLength);
            }
            at += usize::from(words) * WORD;
        }
        if at < end {
            return Err(Refusal::Options);
        }
        if at > end {
            return Err(Refusal::OptionLength);
        }
        let mut options = Self {
            link_layer: [0; 6],
            has_link_layer: link_layer < end,
            nonce: [0; 6],
            has_nonce: false,
        };
        if options.has_link_layer {
            let [_, words, address @ ..]: [u8; WORD] =
                frame.read(link_layer).ok_or(Refusal::Truncated)?;
            if words != 1 {
                return Err(Refusal::OptionLength);
            }
            options.link_layer = address;
        }
        if nonce < end {
            let [_, _, bytes @ ..]: [u8; WORD] = frame.read(nonce).ok_or(Refusal::Truncated)?;
            options.nonce = bytes;
            options.has_nonce = bytes != [0; 6];
        }
        Ok(options)
    }
}

/// The one's complement sum over the message and its pseudo-header (RFC 8200 §8.1);
/// 0xffff where the checksum is right.
#[inline(always)]
fn sum<F: Frame>(frame: &F, ip: &ip::V6, start: usize, length: usize) -> Result<u64, Refusal> {
    let mut sum =
        quarters(ip.source) + quarters(ip.destination) + length as u64 + u64::from(ICMPV6);
    for word in 0..WORDS {
        if word * WORD >= length {
            break;
        }
        let word = frame.read(start + word * WORD).ok_or(Refusal::Truncated)?;
        sum += halves(u64::from_be_bytes(word));
    }
    // Fewer than 2⁸ numbers of 32 bits: folded to 33, 18, 17 and 16 bits.
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    Ok((sum >> 16) + (sum & 0xffff))
}

/// One's complement sums may be taken in any width (RFC 1071 §2).
#[inline(always)]
const fn halves(word: u64) -> u64 {
    (word >> 32) + (word & 0xffff_ffff)
}

#[inline(always)]
const fn quarters(address: [u8; 16]) -> u64 {
    let address = u128::from_be_bytes(address);
    halves((address >> 64) as u64) + halves(address as u64)
}
