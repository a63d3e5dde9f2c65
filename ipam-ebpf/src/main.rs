//! A TC classifier that records which machine asserts which IP address.
//!
//! It runs at ingress of the host's ports. It reads ARP and Neighbor Discovery, and on
//! request the sources of IP packets, and writes what it read into maps. It never changes
//! a frame, never drops or redirects one, and whatever a frame holds it returns
//! `TC_ACT_UNSPEC`, so that the filters behind it run as if it weren't there.
//!
//! Kernel 5.10 and later: helpers and map types it uses exist since 5.8. Direct packet
//! access is read-only, and nothing is pulled into the linear part.

#![no_std]
#![no_main]

mod clock;
#[cfg(feature = "log")]
mod log;
mod maps;
mod record;
mod skb;

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use ipam_common::{Parsed, Refusal, parse, source};
use skb::Skb;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const DOT1Q: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const DOT1AD: u16 = 0x88a8;

/// Attached at ingress of every watched port.
#[classifier]
pub fn ipam_agent(ctx: TcContext) -> i32 {
    // In network byte order.
    let ethertype = u16::from_be(ctx.skb.protocol() as u16);
    match ethertype {
        IPV4 => stamp_source(&Skb::new(&ctx, IPV4)),
        IPV6 => look(&ctx, IPV6),
        ARP => look_at_arp(&ctx),
        RARP | DOT1Q | DOT1AD => look(&ctx, ethertype),
        _ => {}
    }
    TC_ACT_UNSPEC
}

/// Does nothing: what the measurements of the other are compared with.
#[classifier]
pub fn empty(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

// Not inlined: a program has 512 bytes of stack, and this needs most of them. All of it is
// compiled into one, because where the kernel mitigates speculation, a call's return costs
// as much as the whole of the parser.
#[inline(never)]
fn look_at_arp(ctx: &TcContext) {
    match parse(&Skb::new(ctx, ARP)) {
        Parsed::Sighting(sighting) => record::sighting(ctx, &sighting),
        Parsed::Refused(refusal) => maps::count_refusal(refusal),
        Parsed::Other => {}
    }
}

#[inline(always)]
fn look(ctx: &TcContext, ethertype: u16) {
    let skb = Skb::new(ctx, ethertype);
    match parse(&skb) {
        Parsed::Sighting(sighting) => record::sighting_apart(ctx, &sighting),
        Parsed::Refused(refusal) => {
            maps::count_refusal(refusal);
            // What hides behind too many headers, or behind one that leads nowhere because it
            // is none, may be data all the same.
            if matches!(refusal, Refusal::ExtensionHeaders | Refusal::Truncated) {
                stamp_source(&skb);
            }
        }
        Parsed::Other => stamp_source(&skb),
    }
}

/// An IP packet from a leased address is a sign of life.
#[inline(always)]
fn stamp_source(skb: &Skb<'_>) {
    if maps::DATA_PLANE.load() == 0 {
        return;
    }
    if let Some(address) = source(skb) {
        record::packet(address);
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers for time are offered to programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
