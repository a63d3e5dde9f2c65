//! IPv4 and IPv6 headers, as far as they say who sends and where ICMPv6 begins.

use super::{Frame, Refusal, link::Link};
use crate::address::Address;

/// The source of an IPv4 packet (RFC 791 §3.1), if it can be claimed.
#[inline(always)]
pub(super) fn v4_source<F: Frame>(frame: &F, link: &Link) -> Option<Address> {
    let [version] = link.at::<F, 14, 1>(frame)?;
    if version >> 4 != 4 {
        return None;
    }
    Address::v4(link.at::<F, 26, 4>(frame)?)
}

/// The source of an IPv6 packet, if it can be claimed.
#[inline(always)]
pub(super) fn v6_source<F: Frame>(frame: &F, link: &Link) -> Option<Address> {
    let [version] = link.at::<F, 14, 1>(frame)?;
    if version >> 4 != 6 {
        return None;
    }
    Address::v6(link.at::<F, 22, 16>(frame)?)
}

const V6_HEADER: usize = 40;

/// How many extension headers are followed: RFC 8200 §4.1 recommends each kind once, and
/// destination options twice.
const EXTENSIONS: usize = 5;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;
/// For experiments, in the form that RFC 6564 §4 gives new ones.
const EXPERIMENT: u8 = 253;
const OTHER_EXPERIMENT: u8 = 254;

/// An IPv6 header (RFC 8200 §3).
pub(super) struct V6 {
    pub(super) source: [u8; 16],
    pub(super) destination: [u8; 16],
    pub(super) hop_limit: u8,
    next: u8,
    /// Where what follows the header begins.
    start: usize,
    /// Where the packet ends; what is behind it is Ethernet's padding.
    end: usize,
}

/// What follows the extension headers.
pub(super) struct Upper {
    pub(super) protocol: u8,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether a Fragment header stood before it.
    pub(super) fragment: bool,
}

impl V6 {
    /// The header; `None` if it is of another version.
    #[inline(always)]
    pub(super) fn of<F: Frame>(frame: &F, link: &Link) -> Result<Option<Self>, Refusal> {
        let destination = link.at::<F, 38, 16>(frame).ok_or(Refusal::Truncated)?;
        let source = link.at::<F, 22, 16>(frame).ok_or(Refusal::Truncated)?;
        let [length @ .., next, hop_limit]: [u8; 4] =
            link.at::<F, 18, 4>(frame).ok_or(Refusal::Truncated)?;
        let [version] = link.at::<F, 14, 1>(frame).ok_or(Refusal::Truncated)?;
        if version >> 4 != 6 {
            return Ok(None);
        }
        let start = link.payload + V6_HEADER;
        Ok(Some(Self {
            source,
            destination,
            hop_limit,
            next,
            start,
            end: start + usize::from(u16::from_be_bytes(length)),
        }))
    }

    /// Follow the extension headers. `None`: a later fragment, which holds no header.
    #[inline(always)]
    pub(super) fn upper<F: Frame>(&self, frame: &F) -> Result<Option<Upper>, Refusal> {
        let mut upper = Upper {
            protocol: self.next,
            start: self.start,
            end: self.end,
            fragment: false,
        };
        for place in 0..EXTENSIONS {
            if !is_extension(upper.protocol) {
                return Ok(Some(upper));
            }
            // Only the first can be hop-by-hop options; receivers drop others (§4.1).
            if upper.protocol == HOP_BY_HOP && place != 0 {
                return Err(Refusal::ExtensionHeaders);
            }
            let [next, length, o0, o1] = frame.read(upper.start).ok_or(Refusal::Truncated)?;
            let size = if upper.protocol == FRAGMENT {
                upper.fragment = true;
                if u16::from_be_bytes([o0, o1]) >> 3 != 0 {
                    return Ok(None);
                }
                8
            } else if upper.protocol == AUTHENTICATION {
                // In words of four bytes, less two (RFC 4302 §2.2).
                (usize::from(length) + 2) * 4
            } else {
                (usize::from(length) + 1) * 8
            };
            upper.protocol = next;
            upper.start += size;
        }
        if is_extension(upper.protocol) {
            return Err(Refusal::ExtensionHeaders);
        }
        Ok(Some(upper))
    }
}

/// Whether this next header value is an extension header that is followed: every one there is
/// (RFC 7045 §4) but Encapsulating Security Payload, which hides what comes next.
#[inline(always)]
pub(super) const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | DESTINATION
            | MOBILITY
            | HIP
            | SHIM6
            | EXPERIMENT
            | OTHER_EXPERIMENT
    )
}
