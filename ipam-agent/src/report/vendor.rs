//! Who made the interface that a MAC belongs to, without a network.
//!
//! The list is text in the program's image, looked up where it lies: no memory is taken and
//! nothing is done at start-up. `cargo xtask vendors` renews it.

use std::cmp::Ordering;

use ipam_common::Mac;

use crate::engine::owner::{VirtualRouter, virtual_router};

/// Lines of a prefix (6, 7 or 9 upper-case hexadecimal digits: the IEEE's blocks of 24, 28
/// and 36 bits), a space and a name, in the order of their bytes; before them a comment that
/// says where they are from.
const LIST: &str = include_str!("vendors.txt");

/// The blocks' lengths in hexadecimal digits, the smallest block first.
const DIGITS: [usize; 3] = [9, 7, 6];

/// What made-up MACs of this front are by custom; nobody has registered them.
const QEMU: [u8; 3] = [0x52, 0x54, 0x00];

/// The vendor of a MAC. A virtual router's is the protocol that made it up. `None`: a
/// locally administered MAC, which anybody may have made up, or one of no known block.
pub fn vendor(mac: Mac) -> Option<&'static str> {
    if let Some(router) = virtual_router(mac) {
        return Some(match router {
            VirtualRouter::Vrrp => "VRRP or CARP",
            VirtualRouter::Hsrp => "HSRP",
            VirtualRouter::Glbp => "GLBP",
        });
    }
    let bytes = mac.bytes();
    if bytes.starts_with(&QEMU) {
        return Some("QEMU/KVM");
    }
    if bytes[0] & 0b10 != 0 {
        return None;
    }
    let digits = digits(bytes);
    DIGITS.iter().find_map(|&length| find(&digits[..length]))
}

/// The front of a MAC as the list writes it.
fn digits(bytes: [u8; 6]) -> [u8; 12] {
    let mut digits = [0; 12];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        for (digit, half) in pair.iter_mut().zip([byte >> 4, byte & 0xf]) {
            *digit = b"0123456789ABCDEF"[usize::from(half)];
        }
    }
    digits
}

/// The name of exactly this block.
fn find(prefix: &[u8]) -> Option<&'static str> {
    let list = LIST.as_bytes();
    // Both are where lines begin, or the end.
    let (mut from, mut until) = (0, list.len());
    while from < until {
        let middle = from + (until - from) / 2;
        let start = list[from..middle]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(from, |newline| from + newline + 1);
        let line = list[start..until].split(|&byte| byte == b'\n').next()?;
        let next = start + line.len() + 1;
        let (key, name) = LIST.get(start..start + line.len())?.split_once(' ')?;
        match key.as_bytes().cmp(prefix) {
            Ordering::Less => from = next,
            Ordering::Greater => until = start,
            Ordering::Equal => return Some(name),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::clean;

    fn of(mac: &str) -> Option<&'static str> {
        vendor(mac.parse().expect("a MAC"))
    }

    fn lines() -> impl Iterator<Item = (&'static str, &'static str)> {
        let lines = LIST.lines().skip_while(|line| line.starts_with('#'));
        lines.map(|line| line.split_once(' ').expect("two words"))
    }

    #[test]
    fn the_list_is_sorted_and_clean() {
        assert!(LIST.starts_with("# ") && LIST.ends_with('\n'));
        let mut before = "";
        for (prefix, name) in lines() {
            assert!(before < prefix, "{before} before {prefix}");
            assert!(DIGITS.contains(&prefix.len()), "{prefix}");
            let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
            assert!(prefix.bytes().all(is_digit), "{prefix}");
            assert!(!name.is_empty() && name.trim() == name, "{prefix}");
            assert_eq!(clean(name), name, "{prefix}");
            before = prefix;
        }
        assert!(lines().count() > 50_000);
    }

    #[test]
    fn every_line_is_found() {
        for (prefix, name) in lines() {
            assert_eq!(find(prefix.as_bytes()), Some(name), "{prefix}");
        }
        for absent in ["", "000000000", "FFFFFF", "FFFFFFFFF", "001C7"] {
            assert_eq!(find(absent.as_bytes()), None, "{absent}");
        }
    }

    #[test]
    fn known_blocks_have_their_vendors() {
        assert_eq!(of("00:1c:73:01:02:03"), Some("Arista Networks"));
        assert_eq!(of("3c:ec:ef:00:01:a1"), Some("Super Micro Computer"));
        assert_eq!(of("00:50:56:12:34:56"), Some("VMware"));
        // The block's own registry is not its vendor; of 28 and 36 bits there is one.
        assert_eq!(
            of("c8:5c:e2:70:00:01"),
            Some("SYNERGY SYSTEMS AND SOLUTIONS")
        );
        assert_eq!(of("8c:1f:64:af:a0:01"), Some("DATA ELECTRONIC DEVICES"));
        assert_eq!(find(b"8C1F64"), None);
    }

    #[test]
    fn made_up_macs_have_none() {
        assert_eq!(of("02:00:00:00:00:01"), None);
        // Registered once, and locally administered since there is such a thing.
        assert_eq!(of("aa:00:04:00:00:01"), None);
        assert_eq!(of("52:54:00:00:00:0b"), Some("QEMU/KVM"));
        assert_eq!(of("00:00:5e:00:01:07"), Some("VRRP or CARP"));
        assert_eq!(of("00:00:0c:07:ac:01"), Some("HSRP"));
        assert_eq!(of("00:07:b4:00:01:02"), Some("GLBP"));
    }
}
