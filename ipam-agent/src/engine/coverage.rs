//! Since when a segment has been watched without a moment in which life could have been
//! missed. Silence counts only from then on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    evidence::PortCheck,
    segment::{PortKind, Segment, Topology},
    time::Timestamp,
};

/// A guest's port that appears may be unwatched for this long: no pod has its address by then.
const ATTACH_GRACE: Duration = Duration::from_secs(1);

/// What is known of the watch on one port.
#[derive(Clone, Debug)]
struct Watch {
    /// When it appeared, at the earliest; `None` if it was there before us.
    appeared: Option<Timestamp>,
    /// Since when our program is on it.
    attached: Option<Timestamp>,
    /// When that was last told.
    told: Timestamp,
    /// Why it isn't, and since when.
    blind: Option<(Arc<str>, Timestamp)>,
    /// Since when an uplink is without carrier.
    dark: Option<Timestamp>,
    /// When it last came back.
    lit: Option<Timestamp>,
    /// What ended when it was attached or came back last.
    gap: Option<Gap>,
}

/// A time in which life could have been missed on a port, over by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The port.
    pub port: Arc<str>,
    /// Why.
    pub why: Arc<str>,
    /// For how long.
    pub length: Duration,
}

/// That a segment is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Since when, without a gap.
    pub since: Timestamp,
    /// The gap before, if there was one.
    pub after: Option<Gap>,
}

/// Why a segment isn't watched whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwatched {
    /// Nothing was told yet.
    #[error("the host's links are not known yet")]
    LinksUnknown,
    /// One of its ports has no program of ours, or not first.
    #[error("{port} isn't watched: {why}")]
    Blind {
        /// The port.
        port: Arc<str>,
        /// Why.
        why: Arc<str>,
    },
    /// All of its ports are watched, but this one has no carrier: an unused bond, a loose cable.
    #[error("{port} has no carrier")]
    Dark {
        /// The port.
        port: Arc<str>,
    },
}

/// The watch on every port.
#[derive(Clone, Debug, Default)]
pub struct CoverageBook {
    started: Option<Timestamp>,
    /// The links have been told.
    linked: bool,
    ports: BTreeMap<u32, Watch>,
}

impl CoverageBook {
    /// The host has been watched since then, whoever began it.
    pub fn started(&mut self, since: Timestamp) {
        self.started = Some(since);
    }

    /// The links are these now, and nothing of that was so before `since` which wasn't told: who
    /// was busy meanwhile can't say when a port came. A port that is gone proves nothing and
    /// blocks nothing.
    pub fn links(&mut self, topology: &Topology, since: Timestamp, now: Timestamp) {
        let first = !std::mem::replace(&mut self.linked, true);
        self.started.get_or_insert(now);
        self.ports
            .retain(|ifindex, _| topology.ports.contains_key(ifindex));
        for (&ifindex, port) in &topology.ports {
            let watch = self.ports.entry(ifindex).or_insert_with(|| Watch {
                appeared: (!first).then_some(since),
                attached: None,
                told: now,
                blind: None,
                dark: None,
                lit: None,
                gap: None,
            });
            // The other end of a veth without carrier is down: no frame can come.
            let dark = port.kind != PortKind::Veth && !(port.up && port.carrier);
            if dark {
                watch.dark.get_or_insert(since);
            } else if let Some(dark) = watch.dark.take() {
                watch.lit = Some(now);
                watch.gap = Some(Gap {
                    port: Arc::clone(&port.name),
                    why: "no carrier".into(),
                    length: now.since(dark),
                });
            }
        }
    }

    /// Our program is on the port, and has seen every frame since then.
    pub fn attached(
        &mut self,
        ifindex: u32,
        since: Timestamp,
        now: Timestamp,
        topology: &Topology,
    ) {
        let (Some(watch), Some(port)) =
            (self.ports.get_mut(&ifindex), topology.ports.get(&ifindex))
        else {
            return;
        };
        let told = std::mem::replace(&mut watch.told, now);
        let gap = |why, from| Gap {
            port: Arc::clone(&port.name),
            why,
            length: since.since(from),
        };
        if let Some(before) = watch.attached {
            if since > before {
                watch.attached = Some(since);
                // A carrier whose return the links told of is told of already.
                if watch.lit.is_none_or(|lit| lit < told) {
                    let why = "its carrier, or what takes its frames first, came and went";
                    watch.gap = Some(gap(why.into(), told));
                }
            }
            return;
        }
        watch.attached = Some(since);
        watch.gap = match (watch.blind.take(), watch.appeared) {
            (Some((why, from)), _) => {
                // It had been missing: no grace for the time without it.
                watch.appeared = None;
                Some(gap(why, from))
            }
            (None, Some(appeared)) => Some(gap("it came up before we were on it".into(), appeared)),
            (None, None) => None,
        };
    }

    /// Our program isn't on the port, or not first.
    pub fn blind(&mut self, ifindex: u32, why: &str, now: Timestamp) {
        if let Some(watch) = self.ports.get_mut(&ifindex) {
            watch.attached = None;
            let from = watch.blind.as_ref().map_or(now, |(_, from)| *from);
            watch.blind = Some((why.into(), from));
        }
    }

    /// The kernel was asked for our program on the port.
    pub fn checked(
        &mut self,
        ifindex: u32,
        check: &PortCheck,
        now: Timestamp,
        topology: &Topology,
    ) {
        match check {
            PortCheck::Attached(since) => self.attached(ifindex, *since, now, topology),
            // It has its grace.
            PortCheck::Blind(_) if self.is_new(ifindex) => {}
            PortCheck::Blind(why) => self.blind(ifindex, why, now),
        }
    }

    /// Whether our program has never been on the port, and nothing is known to keep it from there.
    fn is_new(&self, ifindex: u32) -> bool {
        let watch = self.ports.get(&ifindex);
        watch.is_none_or(|watch| watch.attached.is_none() && watch.blind.is_none())
    }

    /// Since when the segment's whole wire is watched or why it isn't.
    pub fn since(
        &self,
        topology: &Topology,
        segment: &Segment,
        now: Timestamp,
    ) -> Result<Watched, Unwatched> {
        let started = self.started.ok_or(Unwatched::LinksUnknown)?;
        let mut watched = Watched {
            since: started,
            after: None,
        };
        let mut dark = None;
        for (ifindex, port) in topology.ports_of(segment) {
            let blind = |why: Arc<str>| Unwatched::Blind {
                port: Arc::clone(&port.name),
                why,
            };
            if !port.wanted {
                return Err(blind("`interfaces` leaves it out; include it".into()));
            }
            let Some(watch) = self.ports.get(&ifindex) else {
                return Err(blind("not attached yet".into()));
            };
            let appeared = watch.appeared.filter(|_| port.is_guests());
            let attached = match (watch.attached, appeared) {
                (Some(at), Some(appeared)) if at.since(appeared) <= ATTACH_GRACE => started,
                (Some(at), _) => at,
                (None, Some(appeared))
                    if watch.blind.is_none() && now.since(appeared) <= ATTACH_GRACE =>
                {
                    started
                }
                (None, _) => {
                    let why = watch.blind.as_ref().map(|(why, _)| Arc::clone(why));
                    return Err(blind(why.unwrap_or_else(|| "not attached yet".into())));
                }
            };
            if watch.dark.is_some() {
                dark.get_or_insert(&port.name);
            }
            let since = attached.max(watch.lit.unwrap_or(attached));
            if since > watched.since {
                watched = Watched {
                    since,
                    after: watch.gap.clone(),
                };
            }
        }
        match dark {
            None => Ok(watched),
            Some(port) => Err(Unwatched::Dark {
                port: Arc::clone(port),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::segment::{Port, Wiring};

    const SECOND: u64 = 1_000_000_000;

    impl CoverageBook {
        /// Told at once.
        fn links_at(&mut self, topology: &Topology, at: u64) {
            self.links(topology, Timestamp(at), Timestamp(at));
        }

        fn attached_at(&mut self, ifindex: u32, at: u64, topology: &Topology) {
            self.attached(ifindex, Timestamp(at), Timestamp(at), topology);
        }
    }

    fn topology(ports: &[(u32, PortKind, bool)]) -> Topology {
        let port = |&(ifindex, kind, carrier): &(u32, PortKind, bool)| {
            let port = Port {
                carrier,
                // A guest's.
                namespace: (kind == PortKind::Veth).then_some(1),
                ..Port::new(format!("port{ifindex}"), kind, Wiring::bridge("br0"))
            };
            (ifindex, port)
        };
        Topology {
            ports: ports.iter().map(port).collect(),
            ..Topology::default()
        }
    }

    fn segment() -> Segment {
        Segment {
            name: "br0".into(),
            outer_vlan: None,
            vlan: None,
        }
    }

    fn since(book: &CoverageBook, topology: &Topology, at: u64) -> Result<Timestamp, Unwatched> {
        book.since(topology, &segment(), Timestamp(at))
            .map(|watched| watched.since)
    }

    #[test]
    fn what_was_there_before_us_counts_from_the_attach() {
        let wire = topology(&[(1, PortKind::Veth, true)]);
        let mut book = CoverageBook::default();
        book.links_at(&wire, SECOND);
        assert!(since(&book, &wire, SECOND).is_err());
        book.attached_at(1, SECOND + 5, &wire);
        assert_eq!(since(&book, &wire, 9 * SECOND), Ok(Timestamp(SECOND + 5)));
    }

    #[test]
    fn a_new_port_watched_in_time_costs_no_coverage_and_a_late_one_does() {
        let mut book = CoverageBook::default();
        book.links_at(&topology(&[]), 0);
        let wire = topology(&[(1, PortKind::Veth, true)]);
        book.links_at(&wire, 10 * SECOND);
        assert_eq!(since(&book, &wire, 10 * SECOND + 1), Ok(Timestamp(0)));
        assert!(since(&book, &wire, 12 * SECOND).is_err());
        book.attached_at(1, 13 * SECOND, &wire);
        assert_eq!(since(&book, &wire, 14 * SECOND), Ok(Timestamp(13 * SECOND)));
        // Gone, it blocks nothing any more.
        let empty = topology(&[]);
        book.links_at(&empty, 15 * SECOND);
        assert_eq!(since(&book, &empty, 16 * SECOND), Ok(Timestamp(0)));
    }

    #[test]
    fn a_program_that_went_missing_costs_the_time_until_it_is_back() {
        let wire = topology(&[(1, PortKind::Veth, true)]);
        let mut book = CoverageBook::default();
        book.links_at(&topology(&[]), 0);
        book.links_at(&wire, SECOND);
        book.attached_at(1, SECOND, &wire);
        book.blind(1, "the filter is gone", Timestamp(SECOND));
        assert!(
            since(&book, &wire, SECOND + 1)
                .is_err_and(|why| why.to_string().contains("filter is gone"))
        );
        book.attached_at(1, SECOND + 2, &wire);
        let watched = book.since(&wire, &segment(), Timestamp(3 * SECOND));
        let gap = Gap {
            port: "port1".into(),
            why: "the filter is gone".into(),
            length: Duration::from_nanos(2),
        };
        let expected = Watched {
            since: Timestamp(SECOND + 2),
            after: Some(gap),
        };
        assert_eq!(watched, Ok(expected));
    }

    #[test]
    fn an_uplink_without_carrier_hears_nobody() {
        let mut book = CoverageBook::default();
        let (lit, dark) = (
            topology(&[(1, PortKind::Bond, true)]),
            topology(&[(1, PortKind::Bond, false)]),
        );
        book.links_at(&lit, 0);
        book.attached_at(1, 1, &lit);
        book.links_at(&dark, SECOND);
        assert!(since(&book, &dark, 2 * SECOND).is_err());
        book.links_at(&lit, 3 * SECOND);
        assert_eq!(since(&book, &lit, 4 * SECOND), Ok(Timestamp(3 * SECOND)));
    }

    #[test]
    fn a_port_may_have_come_as_soon_as_nobody_looked() {
        let mut book = CoverageBook::default();
        book.links_at(&topology(&[]), 0);
        let wire = topology(&[(1, PortKind::Veth, true)]);
        // Of what came while the loop was at something else it hears 6 s later.
        book.links(&wire, Timestamp(4 * SECOND), Timestamp(10 * SECOND));
        assert!(since(&book, &wire, 10 * SECOND).is_err());
        book.attached_at(1, 10 * SECOND + 1, &wire);
        assert_eq!(
            since(&book, &wire, 11 * SECOND),
            Ok(Timestamp(10 * SECOND + 1))
        );
        let watched = book.since(&wire, &segment(), Timestamp(11 * SECOND));
        let why = watched.unwrap().after.unwrap().why;
        assert!(why.contains("before we were on it"), "{why}");
    }

    #[test]
    fn a_stall_in_which_no_port_came_costs_nothing_and_no_short_one_does() {
        let old = topology(&[(1, PortKind::Bond, true)]);
        let mut book = CoverageBook::default();
        book.links_at(&old, 0);
        book.attached_at(1, 1, &old);
        // Something else of the links is news after a minute.
        book.links(&old, Timestamp(SECOND), Timestamp(61 * SECOND));
        book.attached(1, Timestamp(1), Timestamp(61 * SECOND), &old);
        assert_eq!(since(&book, &old, 62 * SECOND), Ok(Timestamp(1)));
        let new = topology(&[(1, PortKind::Bond, true), (2, PortKind::Veth, true)]);
        let now = 70 * SECOND + 900_000_000;
        book.links(&new, Timestamp(70 * SECOND), Timestamp(now));
        book.attached_at(2, now + 50_000_000, &new);
        assert_eq!(since(&book, &new, 72 * SECOND), Ok(Timestamp(1)));
    }

    #[test]
    fn what_came_and_went_between_two_looks_costs_the_time_until_then() {
        let wire = topology(&[(1, PortKind::Bond, true)]);
        let mut book = CoverageBook::default();
        book.links_at(&wire, 0);
        book.attached_at(1, 1, &wire);
        book.checked(
            1,
            &PortCheck::Attached(Timestamp(1)),
            Timestamp(SECOND),
            &wire,
        );
        assert_eq!(since(&book, &wire, 2 * SECOND), Ok(Timestamp(1)));
        // The kernel has counted another carrier since.
        let anew = PortCheck::Attached(Timestamp(9 * SECOND));
        book.checked(1, &anew, Timestamp(9 * SECOND), &wire);
        let watched = book
            .since(&wire, &segment(), Timestamp(9 * SECOND))
            .unwrap();
        assert_eq!(watched.since, Timestamp(9 * SECOND));
        let gap = watched.after.unwrap();
        assert_eq!(gap.length, Duration::from_secs(8), "{gap:?}");
        assert!(gap.why.contains("came and went"), "{gap:?}");
    }

    /// Beyond an uplink, or a veth of which this host has both ends, are those who were there
    /// before.
    #[test]
    fn only_a_guests_port_may_come_without_a_gap() {
        for (kind, namespace, counts_from) in [
            (PortKind::Veth, Some(1), SECOND),
            (PortKind::Veth, None, 20 * SECOND),
            (PortKind::Other, None, 20 * SECOND),
        ] {
            let mut wire = topology(&[(1, PortKind::Veth, true)]);
            let mut book = CoverageBook::default();
            book.links_at(&wire, SECOND);
            book.attached_at(1, SECOND, &wire);
            let new = Port {
                namespace,
                ..Port::new("new", kind, Wiring::bridge("br0"))
            };
            wire.ports.insert(2, new);
            book.links_at(&wire, 20 * SECOND);
            book.attached_at(2, 20 * SECOND, &wire);
            let since = since(&book, &wire, 30 * SECOND);
            assert_eq!(since, Ok(Timestamp(counts_from)), "{kind:?}");
        }
    }
}
