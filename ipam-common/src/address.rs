//! Addresses that a machine can claim: what can't be claimed can't be constructed.

use core::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// An IPv4 or IPv6 address that one machine can claim as its own.
///
/// Sixteen bytes, big-endian; IPv4 in its IPv4-mapped form (RFC 4291 §2.5.5.2). Never
/// unspecified, loopback, multicast or the limited broadcast address, and never an
/// IPv4-mapped address that came from IPv6, which would pass for the IPv4 one.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 16]);

/// ::ffff:0:0/96.
const MAPPED: u128 = 0xffff << 32;

impl Address {
    /// The claimable IPv4 address of these bytes.
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Option<Self> {
        let [a, ..] = bytes;
        let value = u32::from_be_bytes(bytes);
        // Unspecified; loopback 127/8; multicast 224/4; limited broadcast.
        if value == 0 || a == 127 || (a & 0xf0) == 224 || value == u32::MAX {
            return None;
        }
        Some(Self((MAPPED | value as u128).to_be_bytes()))
    }

    /// The claimable IPv6 address of these bytes.
    #[inline(always)]
    pub const fn v6(bytes: [u8; 16]) -> Option<Self> {
        let value = u128::from_be_bytes(bytes);
        // Unspecified and loopback; multicast ff00::/8; IPv4-mapped ::ffff:0:0/96.
        if value <= 1 || bytes[0] == 0xff || (value >> 32) == 0xffff {
            return None;
        }
        Some(Self(bytes))
    }

    /// The claimable address, if `ip` is one.
    pub const fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Self::v4(ip.octets()),
            IpAddr::V6(ip) => Self::v6(ip.octets()),
        }
    }

    /// The claimable address in a record's sixteen bytes, IPv4 in its mapped form.
    pub const fn from_mapped(bytes: [u8; 16]) -> Option<Self> {
        if (u128::from_be_bytes(bytes) >> 32) == 0xffff {
            Self::v4([bytes[12], bytes[13], bytes[14], bytes[15]])
        } else {
            Self::v6(bytes)
        }
    }

    /// The address in the standard library's form.
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }

    /// The sixteen bytes, IPv4 in its mapped form.
    #[inline(always)]
    pub const fn mapped(self) -> [u8; 16] {
        self.0
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_ipv4(self) -> bool {
        (u128::from_be_bytes(self.0) >> 32) == 0xffff
    }

    /// Whether the address means something on one link only: IPv6 fe80::/10 (RFC 4291
    /// §2.5.6), IPv4 169.254/16 (RFC 3927).
    pub const fn is_link_local(self) -> bool {
        if self.is_ipv4() {
            self.0[12] == 169 && self.0[13] == 254
        } else {
            self.0[0] == 0xfe && (self.0[1] & 0xc0) == 0x80
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

/// The MAC address of one station: unicast, not zero.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The station's MAC, unless it is zero or has the group bit set (IEEE 802 §8.2),
    /// as broadcast and multicast do.
    #[inline(always)]
    pub const fn new(bytes: [u8; 6]) -> Option<Self> {
        let [a, b, c, d, e, f] = bytes;
        if a & 1 != 0 || (a | b | c | d | e | f) == 0 {
            return None;
        }
        Some(Self(bytes))
    }

    /// The six bytes.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no MAC address of one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a unicast MAC address such as 52:54:00:00:00:0b")
    }
}

impl core::error::Error for ParseMacError {}

impl core::str::FromStr for Mac {
    type Err = ParseMacError;

    /// Six pairs of hexadecimal digits, separated by `:` or `-`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut groups = text.split([':', '-']);
        for byte in &mut bytes {
            let group = groups.next().ok_or(ParseMacError)?;
            if group.len() != 2 || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParseMacError);
            }
            *byte = u8::from_str_radix(group, 16).map_err(|_| ParseMacError)?;
        }
        if groups.next().is_some() {
            return Err(ParseMacError);
        }
        Self::new(bytes).ok_or(ParseMacError)
    }
}
