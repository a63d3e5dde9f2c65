//! Time as the engine knows it: a number its driver hands in.

use std::{
    fmt,
    num::NonZeroU64,
    ops::{Add, Sub},
    time::Duration,
};

/// Nanoseconds on the driver's clock: CLOCK_BOOTTIME live, the capture's stamps in a
/// replay, simulated time in a simulation. The engine only compares and subtracts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// How long ago `earlier` was; zero if it lies ahead, as events of two CPUs may.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A [`Timestamp`], or never, in eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment(Option<NonZeroU64>);

impl Moment {
    /// None.
    pub const NEVER: Self = Self(None);

    /// The time.
    pub fn get(self) -> Option<Timestamp> {
        self.0.map(|held| Timestamp(held.get() - 1))
    }
}

impl From<Option<Timestamp>> for Moment {
    /// The last nanosecond of all, in the year 2554, is one early.
    fn from(at: Option<Timestamp>) -> Self {
        Self(at.and_then(|at| NonZeroU64::new(at.0.saturating_add(1))))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}
