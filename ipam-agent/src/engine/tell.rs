//! What has become of an address, a station or a lease, told to whoever watches.

use ipam_common::{Address, Mac};

use super::{
    EVENT_SETTLES, Engine, MAX_EVENTS, Timer,
    conflict::{Conflict, Event, EventKind},
    input::{Command, Notice},
    judge::Judged,
    runs::{ALTERNATION_WINDOW, Move},
    segment::Segment,
    station::StationId,
    time::Timestamp,
};

impl Engine {
    pub(super) fn tell(
        &mut self,
        segment: &Segment,
        address: Address,
        conflict: Option<Conflict>,
        moved: Option<Move>,
        judged: Judged,
        now: Timestamp,
    ) {
        if judged.look_behind {
            self.commands.push_back(Command::LookBehindPorts);
        }
        let contested = conflict.as_ref().is_some_and(Conflict::is_active);
        if contested {
            // While it lasts, no more come.
            if let Some(known) = conflict.as_ref().filter(|_| judged.opened || judged.joined) {
                self.withdraw_events(segment, address, known.verdict.macs(), judged.since, now);
            }
        } else if let Some(Move { from, to, at }) = moved.or(judged.moved)
            // What an earlier run heard may have been part of a conflict then.
            && Some(at) >= self.began
        {
            self.happened(
                Event {
                    kind: EventKind::AddressMoved,
                    segment: segment.clone(),
                    address,
                    at,
                    macs: vec![from, to],
                    both_asked: false,
                    outcome: None,
                },
                now,
            );
        }
        let Some(conflict) = conflict else {
            return;
        };
        if judged.opened {
            self.publish(Notice::Opened(segment.clone(), address, conflict));
        } else if judged.resolved {
            self.publish(Notice::Resolved(segment.clone(), address, conflict));
        }
    }

    /// Something happened that is no conflict, or not yet: it is told of when it has turned
    /// into none.
    pub(super) fn happened(&mut self, event: Event, now: Timestamp) {
        self.keep_event(event.clone());
        if self.unsettled.len() < MAX_EVENTS {
            self.unsettled.push_back((now + EVENT_SETTLES, event));
        }
    }

    /// For reports.
    pub(super) fn keep_event(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
            self.counts.forgotten += 1;
        }
        self.events.push_back(event);
    }

    /// What looked like a move since the conflict began, or like a probe that was given up by
    /// one who now is among the claimants, was part of it.
    fn withdraw_events(
        &mut self,
        segment: &Segment,
        address: Address,
        claimants: &[Mac],
        since: Option<Timestamp>,
        now: Timestamp,
    ) {
        let part = |event: &Event| {
            let asked = if event.both_asked { 2 } else { 1 };
            let mut askers = event.macs.iter().take(asked);
            event.address == address
                && event.segment == *segment
                && now.since(event.at) <= ALTERNATION_WINDOW
                && match event.kind {
                    EventKind::AddressMoved => Some(event.at) >= since,
                    EventKind::ProbeCollision => askers.any(|mac| claimants.contains(mac)),
                    EventKind::SenderMismatch | EventKind::ReleasedButAlive => false,
                }
        };
        self.events.retain(|event| !part(event));
        self.unsettled.retain(|(_, event)| !part(event));
    }

    /// Looks at where a MAC is.
    pub(super) fn look_at(&mut self, id: StationId, now: Timestamp) {
        let segment = self.table.segment(id.0).clone();
        let windows = self.settings.windows;
        let looked = self
            .stations
            .look(id, &segment, &self.topology, windows, now);
        if let Some(at) = looked.before {
            self.timers.remove(&(at, Timer::Station(id)));
        }
        if let Some(at) = looked.deadline {
            self.timers.insert((at, Timer::Station(id)));
        }
        let Some(track) = self.stations.track(id) else {
            return;
        };
        let Some(conflict) = track.conflict.clone() else {
            return;
        };
        let address = track.address;
        if looked.opened {
            self.publish(Notice::Opened(segment, address, conflict));
        } else if looked.resolved {
            self.publish(Notice::Resolved(segment, address, conflict));
        }
    }

    /// Looks at to how many an address is leased.
    pub(super) fn look_for_two(&mut self, address: Address, now: Timestamp) {
        for change in self.twice.look(address, &self.leases, &self.scopes, now) {
            let (segment, conflict) = (change.segment, change.conflict);
            self.publish(match conflict.is_active() {
                true => Notice::Opened(segment, address, conflict),
                false => Notice::Resolved(segment, address, conflict),
            });
        }
    }

    pub(super) fn publish(&mut self, notice: Notice) {
        self.commands.push_back(Command::Publish(notice));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ipam_common::{
        Evidence, Mac, Sighting,
        sighting::{SightingKey, Tags, Tally},
    };

    use super::*;
    use crate::{
        config::Config,
        driver::settings,
        engine::{
            input::Input,
            segment::{Port, PortKind, Topology, Wiring},
        },
    };

    const SECOND: u64 = 1_000_000_000;

    fn announced(n: u8, at: u64) -> (SightingKey, Tally) {
        let mac = Mac::new([2, 0, 0, 0, 0, n]).expect("unicast");
        let sighting = Sighting {
            address: Address::v4([10, 0, 0, 5]).expect("claimable"),
            mac,
            evidence: Evidence::ArpAnnouncement,
            asked: None,
            tags: Tags::default(),
            ether_src: mac.bytes(),
            to: [0xff; 6],
            nonce: None,
        };
        let key = SightingKey {
            ifindex: 1,
            outer_vlan: 0,
            vlan: 0,
            address: sighting.address.mapped(),
            mac: mac.bytes(),
            probe: 0,
            reserved: 0,
        };
        (key, Tally::first(&sighting, at * SECOND))
    }

    /// It was news to an earlier run, or part of a conflict.
    #[test]
    fn what_moved_before_the_start_is_no_news() {
        let config = Config::without_file(Vec::new()).expect("valid");
        let mut engine = Engine::new(settings(&config, "now"));
        let start = Timestamp(1000 * SECOND);
        let port = Port::new("bond0", PortKind::Bond, Wiring::Uplink);
        let topology = Arc::new(Topology {
            ports: [(1, port)].into(),
            ..Topology::default()
        });
        let since = start;
        engine.handle(Input::Links { topology, since }, start);
        let mut moves = |told: &[(u8, u64)], now: u64| {
            let table = told.iter().map(|&(n, at)| announced(n, at)).collect();
            engine.handle(Input::Snapshot(table), Timestamp(now * SECOND));
            engine.events().count()
        };
        assert_eq!(moves(&[(1, 700), (2, 800)], 1001), 0);
        assert_eq!(moves(&[(3, 1002)], 1003), 1);
    }
}
