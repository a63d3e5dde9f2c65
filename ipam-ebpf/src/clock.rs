//! Two ways to tell the time, both in nanoseconds of CLOCK_BOOTTIME.

use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns},
    macros::map,
    maps::PerCpuArray,
};

/// The time when this CPU last asked for it.
#[repr(C)]
struct Asked {
    jiffies: u64,
    at: u64,
}

#[map]
static CLOCK: PerCpuArray<Asked> = PerCpuArray::with_max_entries(1, 0);

/// The time.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes no argument and can't fail.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The kernel's count of jiffies, of 1 to 10 ms, which it keeps in memory.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: the helper takes no argument and can't fail.
    unsafe { bpf_jiffies64() }
}

/// A time not later than now, and earlier by less than a jiffy: to read the clock costs as
/// much as to look up two maps.
#[inline(always)]
pub fn recently() -> u64 {
    let Some(asked) = CLOCK.get_ptr_mut(0) else {
        return now();
    };
    // SAFETY: the slot is this CPU's own, and TC programs don't interrupt each other.
    unsafe {
        let jiffies = jiffies();
        if (*asked).jiffies != jiffies {
            (*asked).jiffies = jiffies;
            (*asked).at = now();
        }
        (*asked).at
    }
}
