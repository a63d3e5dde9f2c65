//! The interfaces of a capture: what their frames are, and how their time is written.

use pcap_parser::{IDB_MAGIC, Linktype, OptionCode, pcapng::InterfaceDescriptionBlock};

/// Times from here on (the year 2262) are taken for none.
const TOO_LATE: i128 = i64::MAX as i128;
const SECOND: u128 = 1_000_000_000;

/// What an interface's frames begin with (<https://www.tcpdump.org/linktypes.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Ethernet,
    /// LINKTYPE_LINUX_SLL.
    CookedV1,
    /// LINKTYPE_LINUX_SLL2.
    CookedV2,
    Other,
}

impl From<Linktype> for Link {
    fn from(link: Linktype) -> Self {
        // A classic header has the length of frame check sequences in the highest bits.
        match link.0 & 0x03ff_ffff {
            1 => Self::Ethernet,
            113 => Self::CookedV1,
            276 => Self::CookedV2,
            _ => Self::Other,
        }
    }
}

/// How many ticks a second has, and where they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    per_second: u128,
    /// Seconds.
    offset: i64,
}

impl Clock {
    pub(super) const MICROSECONDS: Self = Self {
        per_second: 1_000_000,
        offset: 0,
    };
    pub(super) const NANOSECONDS: Self = Self {
        per_second: SECOND,
        offset: 0,
    };

    /// The clock of a pcapng interface, by its options if_tsresol and if_tsoffset; `None`
    /// where a second has more ticks than can be counted.
    fn of(description: &InterfaceDescriptionBlock<'_>) -> Option<Self> {
        let option = |code| {
            let mut options = description.options.iter();
            options.find(|option| option.code == code)
        };
        let per_second = match option(OptionCode::IfTsresol).and_then(|option| option.value.first())
        {
            None => Self::MICROSECONDS.per_second,
            Some(&power) if power & 0x80 != 0 => 1 << (power & 0x7f),
            Some(&power) => 10_u128.checked_pow(power.into())?,
        };
        let offset = option(OptionCode::IfTsoffset)
            .and_then(|option| option.value.first_chunk())
            .map_or(0, |&bytes| match big_endian(description) {
                true => i64::from_be_bytes(bytes),
                false => i64::from_le_bytes(bytes),
            });
        Some(Self { per_second, offset })
    }

    /// The same of seconds and a fraction in ticks, which may lie and be more than a second.
    pub(super) fn split(&self, seconds: u32, fraction: u32) -> Option<u64> {
        let ticks = u128::from(seconds) * self.per_second + u128::from(fraction);
        self.time(u64::try_from(ticks).ok()?)
    }

    /// Nanoseconds since 1970 of so many ticks; `None` of a time that no capture is from.
    pub(super) fn time(&self, ticks: u64) -> Option<u64> {
        // At most 94 bits.
        let since = u128::from(ticks) * SECOND / self.per_second;
        let offset = i128::from(self.offset) * SECOND as i128;
        let at = i128::try_from(since).ok()?.checked_add(offset)?;
        if !(0..TOO_LATE).contains(&at) {
            return None;
        }
        // The engine takes zero for never.
        u64::try_from(at).ok().map(|at| at.max(1))
    }
}

/// An interface, as described.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) link: Link,
    pub(super) clock: Option<Clock>,
    /// Its port, unless each frame names its own.
    pub(super) port: Option<u32>,
}

impl Interface {
    pub(super) fn described(description: &InterfaceDescriptionBlock<'_>) -> Self {
        Self {
            link: description.linktype.into(),
            clock: Clock::of(description),
            port: None,
        }
    }
}

/// The block type tells: it is read as if it were little-endian.
fn big_endian(description: &InterfaceDescriptionBlock<'_>) -> bool {
    description.block_type != IDB_MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(per_second: u128, offset: i64) -> Clock {
        Clock { per_second, offset }
    }

    #[test]
    fn ticks_are_powers_of_ten_or_of_two() {
        assert_eq!(Clock::MICROSECONDS.time(1_500_000), Some(1_500_000_000));
        assert_eq!(clock(1 << 20, 0).time(3 << 19), Some(1_500_000_000));
        assert_eq!(clock(1, 0).time(7), Some(7_000_000_000));
        assert_eq!(clock(1 << 127, 0).time(u64::MAX), Some(1));
    }

    #[test]
    fn an_offset_moves_all() {
        assert_eq!(clock(SECOND, 10).time(5), Some(10_000_000_005));
        assert_eq!(clock(1, -5).time(7), Some(2_000_000_000));
        assert_eq!(clock(1, -5).time(4), None);
        assert_eq!(clock(1, i64::MAX).time(u64::MAX), None);
        assert_eq!(clock(1, i64::MIN).time(0), None);
    }

    #[test]
    fn zero_is_the_first_moment_and_not_never() {
        assert_eq!(Clock::MICROSECONDS.time(0), Some(1));
    }
}
