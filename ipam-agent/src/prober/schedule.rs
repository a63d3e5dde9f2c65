//! When a question is asked, how often, and how long answers are awaited.

use std::time::Duration;

use ipam_common::Address;

/// RFC 5227 §1.1.
const PROBE_WAIT: f64 = 1.0;
const PROBE_NUM: usize = 3;
const PROBE_MIN: f64 = 1.0;
const PROBE_MAX: f64 = 2.0;
const ANNOUNCE_WAIT: f64 = 2.0;

/// RFC 4861 §10.
const MAX_RTR_SOLICITATION_DELAY: f64 = 1.0;
const RETRANS_TIMER: f64 = 1.0;
const MAX_UNICAST_SOLICIT: usize = 3;
/// RFC 4862 §5.1 leaves it to the node and defaults to 1. One lost frame would then make an
/// address free that isn't: as many as ARP sends.
const DUP_ADDR_DETECT_TRANSMITS: usize = 3;

/// Times between questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Before each question, how long is listened since the one before.
    pub(super) waits: Vec<Duration>,
    /// How long is listened after the last.
    pub(super) listen: Duration,
}

impl Schedule {
    /// Duplicate address detection: for IPv4 by RFC 5227 §2.1.1 (5 to 7 s), for IPv6 by RFC
    /// 4862 §5.4.2 (4 s). `random` gives numbers from 0 to 1. With `within`, all times are
    /// scaled down so that it takes no longer than that, whatever is random.
    ///
    /// Where the standards have a host wait for a random part of a second before its first
    /// question, so that not all ask at once after a power cut, this listens for the whole
    /// of it: who is in its own detection is heard then, and not made to give up.
    pub fn detection(
        address: Address,
        within: Option<Duration>,
        mut random: impl FnMut() -> f64,
    ) -> Self {
        let (waits, listen, longest) = if address.is_ipv4() {
            let mut between = || PROBE_MIN + random() * (PROBE_MAX - PROBE_MIN);
            let mut waits: Vec<f64> = (1..PROBE_NUM).map(|_| between()).collect();
            waits.insert(0, PROBE_WAIT);
            let longest = PROBE_WAIT + (PROBE_NUM - 1) as f64 * PROBE_MAX + ANNOUNCE_WAIT;
            (waits, ANNOUNCE_WAIT, longest)
        } else {
            let mut waits = vec![RETRANS_TIMER; DUP_ADDR_DETECT_TRANSMITS];
            waits[0] = MAX_RTR_SOLICITATION_DELAY;
            let listened = DUP_ADDR_DETECT_TRANSMITS as f64 * RETRANS_TIMER;
            (waits, RETRANS_TIMER, MAX_RTR_SOLICITATION_DELAY + listened)
        };
        let scale = within.map_or(1.0, |within| (within.as_secs_f64() / longest).min(1.0));
        let scaled = |seconds: f64| Duration::from_secs_f64(seconds * scale);
        Self {
            waits: waits.into_iter().map(scaled).collect(),
            listen: scaled(listen),
        }
    }

    /// Unicast questions to one machine.
    pub(super) fn unicast() -> Self {
        let retransmit = Duration::from_secs_f64(RETRANS_TIMER);
        let mut waits = vec![retransmit; MAX_UNICAST_SOLICIT];
        waits[0] = Duration::ZERO;
        Self {
            waits,
            listen: retransmit,
        }
    }

    /// How long is listened before the question of this number, counted from 0, or after all.
    pub(super) fn wait(&self, question: usize) -> Duration {
        self.waits.get(question).copied().unwrap_or(self.listen)
    }

    /// How often it asks.
    pub fn questions(&self) -> u32 {
        u32::try_from(self.waits.len()).unwrap_or(u32::MAX)
    }

    /// How long it takes in all.
    pub fn length(&self) -> Duration {
        self.waits.iter().sum::<Duration>() + self.listen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4: Address = Address::v4([10, 0, 0, 5]).unwrap();
    const V6: Address = Address::v6([0xfd; 16]).unwrap();

    fn seconds(schedule: &Schedule) -> (Vec<f64>, f64) {
        let waits = schedule.waits.iter().map(Duration::as_secs_f64).collect();
        (waits, schedule.listen.as_secs_f64())
    }

    #[test]
    fn the_extremes_are_those_of_the_standards() {
        let of = |address, random| seconds(&Schedule::detection(address, None, || random));
        assert_eq!(of(V4, 0.0), (vec![1.0, 1.0, 1.0], 2.0));
        assert_eq!(of(V4, 1.0), (vec![1.0, 2.0, 2.0], 2.0));
        assert_eq!(of(V6, 0.5), (vec![1.0, 1.0, 1.0], 1.0));
        assert_eq!(seconds(&Schedule::unicast()), (vec![0.0, 1.0, 1.0], 1.0));
    }

    proptest! {
        #[test]
        fn it_ends_in_the_time_given_and_never_takes_longer_than_the_standards(
            millis in 1u64..20_000,
            random in 0.0..1.0f64,
            v4: bool,
        ) {
            let (address, longest) = if v4 { (V4, 7) } else { (V6, 4) };
            let within = Duration::from_millis(millis);
            let scaled = Schedule::detection(address, Some(within), || random);
            let whole = Schedule::detection(address, None, || random);
            let slack = Duration::from_micros(1);
            prop_assert!(scaled.length() <= within + slack);
            prop_assert!(whole.length() <= Duration::from_secs(longest) + slack);
            prop_assert!(scaled.length() <= whole.length() + slack);
            prop_assert_eq!(scaled.questions(), whole.questions());
        }
    }
}
