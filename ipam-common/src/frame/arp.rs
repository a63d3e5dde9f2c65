//! ARP for IPv4 over Ethernet (RFC 826), with the probes and announcements of RFC 5227.
//!
//! Bytes behind the 28 of the packet are padding to Ethernet's minimum length.

use super::{Frame, Refusal, link::Link};
use crate::{
    address::{Address, Mac},
    sighting::{Evidence, Sighting},
};

/// Hardware type Ethernet, protocol type IPv4, their address lengths.
const ETHERNET: [u8; 2] = [0, 1];
const IPV4: [u8; 2] = [8, 0];
const LENGTHS: [u8; 2] = [6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// As [`sighting`]. Not inlined: in the kernel, the program that looks at tagged frames has
/// little stack left.
#[inline(never)]
pub(super) fn tagged<F: Frame>(frame: &F, link: &Link) -> Result<Sighting, Refusal> {
    sighting(frame, link)
}

#[inline(always)]
pub(super) fn sighting<F: Frame>(frame: &F, link: &Link) -> Result<Sighting, Refusal> {
    // The last field first: where it is, the others are.
    let target = link.at::<F, 38, 4>(frame).ok_or(Refusal::Truncated)?;
    let target_mac = link.at::<F, 32, 6>(frame).ok_or(Refusal::Truncated)?;
    let sender = link.at::<F, 28, 4>(frame).ok_or(Refusal::Truncated)?;
    let sender_mac = link.at::<F, 22, 6>(frame).ok_or(Refusal::Truncated)?;
    let operation = link.at::<F, 20, 2>(frame).ok_or(Refusal::Truncated)?;
    let lengths = link.at::<F, 18, 2>(frame).ok_or(Refusal::Truncated)?;
    let protocol = link.at::<F, 16, 2>(frame).ok_or(Refusal::Truncated)?;
    let hardware_type = link.at::<F, 14, 2>(frame).ok_or(Refusal::Truncated)?;
    let ether_src = frame.head::<6, 6>().ok_or(Refusal::Truncated)?;
    let ether_dst = frame.head::<0, 6>().ok_or(Refusal::Truncated)?;
    if hardware_type != ETHERNET {
        return Err(Refusal::HardwareType);
    }
    if protocol != IPV4 {
        return Err(Refusal::Protocol);
    }
    if lengths != LENGTHS {
        return Err(Refusal::Lengths);
    }
    if operation != REQUEST && operation != REPLY {
        return Err(Refusal::Opcode);
    }
    let mac = Mac::new(sender_mac).ok_or(Refusal::SenderMac)?;

    let probe = operation == REQUEST && sender == [0; 4];
    let (address, evidence) = if probe {
        let address = Address::v4(target).ok_or(Refusal::TargetAddress)?;
        (address, Evidence::ArpProbe)
    } else {
        let address = Address::v4(sender).ok_or(Refusal::SenderAddress)?;
        let evidence = if operation == REQUEST {
            if sender == target {
                Evidence::ArpAnnouncement
            } else {
                Evidence::ArpRequest
            }
        } else if answers(mac, sender, target, target_mac, ether_dst) {
            Evidence::ArpReply
        } else {
            Evidence::ArpGratuitousReply
        };
        (address, evidence)
    };
    let asked = match evidence {
        Evidence::ArpRequest => Address::v4(target),
        _ => None,
    };
    // RFC 3927 §2.5 has answers for link-local addresses broadcast: whom such a one answers
    // it says itself.
    let to = if matches!(evidence, Evidence::ArpReply) && !is_another(ether_dst, mac) {
        target_mac
    } else {
        ether_dst
    };
    Ok(Sighting {
        address,
        mac,
        evidence,
        asked,
        tags: link.tags,
        ether_src,
        to,
        nonce: None,
    })
}

/// Whether a reply answers somebody's question.
///
/// RFC 826 puts the asker into the target fields. A reply about the target itself was
/// asked by nobody. Neither was one that names no other station, in its target hardware
/// address or as Ethernet destination. The target protocol address may be 0.0.0.0: that
/// asker was probing.
#[inline(always)]
fn answers(
    mac: Mac,
    sender: [u8; 4],
    target: [u8; 4],
    target_mac: [u8; 6],
    ether_dst: [u8; 6],
) -> bool {
    sender != target && (is_another(ether_dst, mac) || is_another(target_mac, mac))
}

#[inline(always)]
fn is_another(station: [u8; 6], mac: Mac) -> bool {
    Mac::new(station).is_some_and(|station| station != mac)
}
