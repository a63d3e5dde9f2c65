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

mod maps;
mod record;
mod skb;

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC, helpers::generated::bpf_ktime_get_boot_ns, macros::classifier,
    programs::TcContext,
};
use ipam_common::{Parsed, Refusal, parse, source};
use skb::Skb;

/// What `skb->protocol` holds: an Ethernet type in network byte order.
const fn protocol(ethertype: u16) -> u32 {
    ethertype.to_be() as u32
}

const ARP: u32 = protocol(0x0806);
const RARP: u32 = protocol(0x8035);
const IPV4: u32 = protocol(0x0800);
const IPV6: u32 = protocol(0x86dd);
const DOT1Q: u32 = protocol(0x8100);
const DOT1AD: u32 = protocol(0x88a8);

/// Attached at ingress of every watched port.
#[classifier]
pub fn ipam_agent(ctx: TcContext) -> i32 {
    match ctx.skb.protocol() {
        IPV4 => stamp_source(&ctx),
        ARP | RARP | IPV6 | DOT1Q | DOT1AD => look(&ctx),
        _ => {}
    }
    TC_ACT_UNSPEC
}

/// Does nothing: what the measurements of the other are compared with.
#[classifier]
pub fn empty(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[inline(always)]
fn look(ctx: &TcContext) {
    match parse(&Skb::new(ctx)) {
        Parsed::Sighting(sighting) => {
            // SAFETY: the helper takes no argument and can't fail.
            let now = unsafe { bpf_ktime_get_boot_ns() };
            record::sighting(ctx, &sighting, now);
        }
        Parsed::Refused(refusal) => {
            maps::count_refusal(refusal);
            // What hides behind too many headers may be data all the same.
            if refusal == Refusal::ExtensionHeaders {
                stamp_source(ctx);
            }
        }
        Parsed::Other => stamp_source(ctx),
    }
}

/// An IP packet from a leased address is a sign of life.
#[inline(always)]
fn stamp_source(ctx: &TcContext) {
    if maps::DATA_PLANE.load() == 0 {
        return;
    }
    if let Some(address) = source(&Skb::new(ctx)) {
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
