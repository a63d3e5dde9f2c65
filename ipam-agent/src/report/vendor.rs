//! Who made the interface that a MAC belongs to, without a network.
//!
//! The list is part of the program's image, looked up where it lies: nothing is done at
//! start-up, and memory is taken for the names alone, once one is asked for. `cargo xtask
//! vendors` renews it, as `vendors.txt`; `build.rs` packs it.

use std::{cmp::Ordering, io::Read as _, sync::LazyLock};

use flate2::read::DeflateDecoder;
use ipam_common::Mac;

use crate::engine::owner::{VirtualRouter, virtual_router};

/// Each name once, each followed by a newline.
static NAMES: LazyLock<String> = LazyLock::new(|| {
    let deflated = include_bytes!(concat!(env!("OUT_DIR"), "/vendors-names"));
    let mut names = String::new();
    // Tests read them all: what fails here is a program that was damaged, and a MAC says enough.
    let _ = DeflateDecoder::new(deflated.as_slice()).read_to_string(&mut names);
    names
});

/// The IEEE's blocks, the smallest first: how many bits their prefixes have, and entries of a
/// prefix, in whole bytes, and its name's place in [`NAMES`], in [`PLACE`] bytes. All of it is
/// most significant byte first, in the order of the prefixes.
const BLOCKS: [(u32, &[u8]); 3] = [
    (36, include_bytes!(concat!(env!("OUT_DIR"), "/vendors-36"))),
    (28, include_bytes!(concat!(env!("OUT_DIR"), "/vendors-28"))),
    (24, include_bytes!(concat!(env!("OUT_DIR"), "/vendors-24"))),
];

/// How many bytes a name's place has.
const PLACE: usize = 3;

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
    let bits = bytes
        .iter()
        .fold(0, |bits, &byte| bits << 8 | u64::from(byte));
    let blocks = BLOCKS.iter();
    { blocks }.find_map(|(length, blocks)| find(*length, blocks, bits >> (48 - length)))
}

/// The name of exactly this block.
fn find(length: u32, blocks: &[u8], prefix: u64) -> Option<&'static str> {
    let bytes = length.div_ceil(8) as usize;
    let wanted = &prefix.to_be_bytes()[8 - bytes..];
    let size = bytes + PLACE;
    let (mut from, mut until) = (0, blocks.len() / size);
    while from < until {
        let middle = from.midpoint(until);
        let (found, place) = blocks.get(middle * size..)?.get(..size)?.split_at(bytes);
        match found.cmp(wanted) {
            Ordering::Less => from = middle + 1,
            Ordering::Greater => until = middle,
            Ordering::Equal => {
                let place = { place.iter() }.fold(0, |place, &byte| place << 8 | usize::from(byte));
                return NAMES.get(place..)?.split('\n').next();
            }
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

    /// What is packed: lines of a prefix (6, 7 or 9 upper-case hexadecimal digits), a space
    /// and a name, in the order of their bytes; before them a comment that says where they
    /// are from.
    const LIST: &str = include_str!("vendors.txt");

    /// The name of the block of this prefix.
    fn of_block(prefix: &str) -> Option<&'static str> {
        let length = prefix.len() as u32 * 4;
        let (_, blocks) = BLOCKS.iter().find(|(of, _)| *of == length)?;
        find(length, blocks, u64::from_str_radix(prefix, 16).ok()?)
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
            assert!([6, 7, 9].contains(&prefix.len()), "{prefix}");
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
            assert_eq!(of_block(prefix), Some(name), "{prefix}");
        }
        let size =
            |(length, blocks): &(u32, &[u8])| blocks.len() / (length.div_ceil(8) as usize + PLACE);
        assert_eq!(BLOCKS.iter().map(size).sum::<usize>(), lines().count());
        for absent in ["000000000", "FFFFFF", "FFFFFFF", "FFFFFFFFF", "001C730"] {
            assert_eq!(of_block(absent), None, "{absent}");
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
        assert_eq!(of_block("8C1F64"), None);
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
