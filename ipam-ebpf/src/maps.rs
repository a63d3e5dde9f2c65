//! The maps, their sizes, and the values that the agent sets at load.
//!
//! Names and value types are the contract with the agent. Hash maps that the agent fills
//! take memory as they grow (`BPF_F_NO_PREALLOC`); LRU maps take it at load, and the agent
//! may give them another size there.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use ipam_common::{
    Counter, Refusal,
    sighting::{PortBudget, SightingKey, Speaker, Stamps, Tally, Watch},
};

/// Whether the sources of IP packets are stamped: 0 or 1. Read-only once loaded, so the
/// verifier removes what 0 disables.
#[unsafe(no_mangle)]
pub static DATA_PLANE: Global<u8> = Global::new(0);

/// What a lease covers, and its last signs of life. Entries are the agent's.
#[map]
pub static LEASED: HashMap<[u8; 16], Stamps> =
    HashMap::with_max_entries(1_048_576, BPF_F_NO_PREALLOC);

/// Who said what, where.
#[map]
pub static SIGHTINGS: LruHashMap<SightingKey, Tally> = LruHashMap::with_max_entries(262_144, 0);

/// Who asserted an address last.
#[map]
pub static SPEAKERS: LruHashMap<[u8; 16], Speaker> = LruHashMap::with_max_entries(262_144, 0);

/// What each port may still put in. Entries are the agent's.
#[map]
pub static PORTS: HashMap<u32, PortBudget> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Since when the program is on each port. Nothing here reads it: it is the agent's.
#[map]
pub static WATCHES: HashMap<u32, Watch> = HashMap::with_max_entries(4097, BPF_F_NO_PREALLOC);

/// What is new or changed: records of type [`ipam_common::sighting::Event`].
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Indexed by [`Counter`], then by [`Refusal`].
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::LEN, 0);

/// How many sources of packets a CPU remembers.
pub const TRAINS: u32 = 256;

/// The source of a packet, and the jiffy in which it was looked up.
#[repr(C)]
pub struct Train {
    pub jiffies: u64,
    pub address: [u8; 16],
}

/// Indexed by the address's last byte.
#[map]
pub static TRAIN: PerCpuArray<Train> = PerCpuArray::with_max_entries(TRAINS, 0);

/// Count one.
#[inline(always)]
pub fn count(counter: Counter) {
    increment(counter as u32);
}

/// Count a frame that was not looked at further.
#[inline(always)]
pub fn count_refusal(refusal: Refusal) {
    increment(Counter::REFUSALS + refusal as u32);
}

#[inline(always)]
fn increment(index: u32) {
    if let Some(slot) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the slot is this CPU's own, and the program is not preempted by itself.
        unsafe { *slot += 1 };
    }
}
