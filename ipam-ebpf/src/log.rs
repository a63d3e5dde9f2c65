//! A second classifier that tells every sighting to the log (aya-log), and writes nothing
//! else. It exists in builds with the feature `log` only, `cargo xtask ebpf --log FILE`,
//! and stands beside `ipam_agent` on a port: in the same program there is no stack left
//! for it, and its cost would hide what is to be debugged.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use aya_log_ebpf::info;
use ipam_common::{Parsed, parse};

use crate::{ARP, DOT1AD, DOT1Q, IPV6, skb::Skb};

/// Logs who speaks for which address, how and in which VLAN; and what is refused.
#[classifier]
pub fn ipam_agent_log(ctx: TcContext) -> i32 {
    let ethertype = u16::from_be(ctx.skb.protocol() as u16);
    match ethertype {
        ARP => log_arp(&ctx),
        IPV6 => log(&ctx, IPV6),
        DOT1Q | DOT1AD => log(&ctx, ethertype),
        _ => {}
    }
    TC_ACT_UNSPEC
}

#[inline(never)]
fn log_arp(ctx: &TcContext) {
    log(ctx, ARP);
}

#[inline(always)]
fn log(ctx: &TcContext, ethertype: u16) {
    match parse(&Skb::new(ctx, ethertype)) {
        Parsed::Sighting(sighting) => info!(
            ctx,
            "{:mac} {:i} evidence {} vlan {}",
            sighting.mac.bytes(),
            sighting.address.mapped(),
            sighting.evidence as u8,
            sighting.tags.vlan
        ),
        Parsed::Refused(refusal) => info!(ctx, "refused {}", refusal as u8),
        Parsed::Other => {}
    }
}
