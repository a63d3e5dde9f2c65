//! The ring buffer: what is new or changed, as it happens.

use std::io;

use aya::maps::{MapData, RingBuf};
use ipam_common::{
    Address, Mac,
    sighting::{Event, Evidence, Sighting, Speaker, Tags},
};
use tokio::io::unix::AsyncFd;

use super::pod;
use crate::engine::{input::Seen, time::Timestamp};

/// How many records are read before others get a turn.
const BATCH: usize = 1024;

/// What the program tells as it happens. What there is no room for in the ring buffer is
/// dropped and counted by the program.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    malformed: u64,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        Ok(Self {
            ring: pod::watch(ring)?,
            malformed: 0,
        })
    }

    /// Wait for events and append them to `seen`, at least one and at most 2,048. A record
    /// that tells who spoke before gives two, that one first, with its own time and port.
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the ring buffer can't be waited for; nothing more will come.
    pub async fn next(&mut self, seen: &mut Vec<Seen>) -> io::Result<()> {
        let before = seen.len();
        while seen.len() == before {
            let mut ready = self.ring.readable_mut().await?;
            let ring = ready.get_inner_mut();
            let mut drained = false;
            for _ in 0..BATCH {
                let Some(record) = ring.next() else {
                    drained = true;
                    break;
                };
                match pod::event(&record).as_ref().and_then(sightings) {
                    Some((previous, event)) => seen.extend(previous.into_iter().chain([event])),
                    None => self.malformed += 1,
                }
            }
            if drained {
                ready.clear_ready();
            }
        }
        Ok(())
    }

    /// How many records made no sense, and were dropped.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// Who spoke before, if anybody, and what is new. `None`: not a record of the program's.
fn sightings(event: &Event) -> Option<(Option<Seen>, Seen)> {
    let address = Address::from_mapped(event.address)?;
    let seen = Seen {
        at: Timestamp(event.at),
        ifindex: event.ifindex,
        sighting: Sighting {
            address,
            mac: Mac::new(event.mac)?,
            evidence: Evidence::from_byte(event.evidence)?,
            asked: Address::from_mapped(event.asked),
            tags: Tags {
                outer: event.outer_vlan,
                vlan: event.vlan,
            },
            ether_src: event.ether_src,
            to: event.to,
            nonce: (event.nonce != [0; 6]).then_some(event.nonce),
        },
        again: false,
    };
    let previous = match event.previous {
        Speaker { at: 0, .. } => None,
        speaker => Some(previous(address, &speaker)?),
    };
    Some((previous, seen))
}

/// SPEAKERS keeps neither what a frame asked for nor its Ethernet source.
fn previous(address: Address, speaker: &Speaker) -> Option<Seen> {
    Some(Seen {
        at: Timestamp(speaker.at),
        ifindex: speaker.ifindex,
        sighting: Sighting {
            address,
            mac: Mac::new(speaker.mac)?,
            evidence: Evidence::from_byte(speaker.evidence)?,
            asked: None,
            tags: Tags {
                outer: speaker.outer_vlan,
                vlan: speaker.vlan,
            },
            ether_src: speaker.mac,
            to: speaker.to,
            nonce: None,
        },
        again: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> Event {
        Event {
            at: 50,
            address: Address::v4([10, 0, 0, 5]).unwrap().mapped(),
            asked: Address::v4([10, 0, 0, 1]).unwrap().mapped(),
            ifindex: 7,
            vlan: 100,
            mac: [2, 0, 0, 0, 0, 2],
            ether_src: [2, 0, 0, 0, 0, 2],
            to: [0xff; 6],
            evidence: Evidence::ArpRequest as u8,
            ..Event::default()
        }
    }

    #[test]
    fn a_record_tells_who_spoke_before() {
        let previous = Speaker {
            at: 20,
            ifindex: 3,
            mac: [2, 0, 0, 0, 0, 1],
            evidence: Evidence::ArpReply as u8,
            ..Speaker::default()
        };
        let (before, now) = sightings(&Event {
            previous,
            ..event()
        })
        .unwrap();
        let before = before.unwrap();
        assert_eq!((before.at, before.ifindex), (Timestamp(20), 3));
        assert_eq!(before.sighting.address, now.sighting.address);
        assert_eq!(before.sighting.evidence, Evidence::ArpReply);
        assert_eq!(
            (now.at, now.ifindex, now.sighting.tags.vlan),
            (Timestamp(50), 7, 100)
        );
        assert_eq!(now.sighting.asked, Address::v4([10, 0, 0, 1]));
        assert_eq!(sightings(&event()).unwrap().0, None);
    }

    proptest! {
        #[test]
        fn a_record_that_makes_no_sense_is_refused_whole(evidence: u8, mac: [u8; 6], address: [u8; 16], spoke: u8) {
            let previous = Speaker { at: 1, mac: [2; 6], evidence: spoke, ..Speaker::default() };
            let record = Event { evidence, mac, address, previous, ..event() };
            let sense = Evidence::from_byte(evidence).is_some()
                && Evidence::from_byte(spoke).is_some()
                && Mac::new(mac).is_some()
                && Address::from_mapped(address).is_some();
            prop_assert_eq!(sightings(&record).is_some(), sense);
        }
    }
}
