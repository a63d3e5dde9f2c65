//! How the parser reads an skb.

use aya_ebpf::programs::TcContext;
use ipam_common::Frame;

/// An skb at TC ingress, where its data begin with the Ethernet header.
///
/// What `skb->protocol` says stands in the frame too, behind the stations: of a frame with
/// tags the kernel has stripped the outermost before TC sees it.
pub struct Skb<'a> {
    ctx: &'a TcContext,
    ethertype: u16,
}

impl<'a> Skb<'a> {
    /// The skb that the program was called with, whose protocol is `ethertype`. Where that
    /// is a constant, what other protocols ask for is compiled away.
    #[inline(always)]
    pub const fn new(ctx: &'a TcContext, ethertype: u16) -> Self {
        Self { ctx, ethertype }
    }
}

impl Frame for Skb<'_> {
    /// Through the helper, which reads paged data too and checks the bounds itself: with
    /// an offset that the verifier doesn't know it is both simpler and cheaper to verify.
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.ctx.load(offset).ok()
    }

    /// Straight from the linear part, where headers almost always are.
    #[inline(always)]
    fn head<const OFFSET: usize, const N: usize>(&self) -> Option<[u8; N]> {
        let data = self.ctx.data();
        if data + OFFSET + N <= self.ctx.data_end() {
            // SAFETY: the verifier has seen the comparison: these bytes are the packet's,
            // and an array of bytes has no alignment.
            return Some(unsafe { *((data + OFFSET) as *const [u8; N]) });
        }
        self.read(OFFSET)
    }

    #[inline(always)]
    fn ethertype(&self) -> Option<u16> {
        Some(self.ethertype)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn stripped_tag(&self) -> Option<u16> {
        let skb = self.ctx.skb.skb;
        // SAFETY: the context is valid while the program runs; the verifier turns both
        // reads into reads of the skb.
        let (present, tci) = unsafe { ((*skb).vlan_present, (*skb).vlan_tci) };
        (present != 0).then_some(tci as u16)
    }
}
