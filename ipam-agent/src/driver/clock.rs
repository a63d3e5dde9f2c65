//! The clocks. The only place in the agent that reads them for the engine.

use nix::time::{ClockId, clock_gettime};

use crate::{engine::time::Timestamp, journal::When, report::compose::WallClock};

/// CLOCK_BOOTTIME, which goes on while the machine sleeps and is what the eBPF program
/// stamps with (`bpf_ktime_get_boot_ns`).
pub fn now() -> Timestamp {
    Timestamp(nanoseconds(ClockId::CLOCK_BOOTTIME))
}

/// Where the wall clock is at the beginning of CLOCK_BOOTTIME, by now's reckoning. For
/// people only.
pub fn wall() -> WallClock<'static> {
    let wall = i128::from(nanoseconds(ClockId::CLOCK_REALTIME));
    WallClock::since(wall - i128::from(now().0))
}

/// The wall time.
pub fn wall_time() -> jiff::Timestamp {
    wall().at(now())
}

/// Now, by both clocks.
pub fn when() -> When {
    let now = now();
    When {
        at: wall().at(now),
        uptime: now.0,
    }
}

/// Zero if the kernel hasn't the clock, which no kernel that runs the program lacks.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that reads the clocks"
)]
fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let rest = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(rest)
    })
}
