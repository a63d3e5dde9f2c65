//! A released address: quiet, in use, leased anew, put back.

mod restored;

use std::collections::BTreeSet;

use ipam_common::{Evidence, Sighting, sighting::Tags};

use super::*;
use crate::{
    config::Config,
    driver::settings,
    engine::{
        evidence::{PassEvidence, Source, SourceReport},
        holders::{Own, RuntimeReport, Sandbox, SocketAnswer},
        input::{Input, Seen},
        lease::{Generation, Holder, Mode, Place as Wire, StoreView},
        owner::Owners,
        plan::{Asker, Outcome, OutcomeResult, Reason, StaleProof},
        segment::{Bridge, Port, PortKind, Topology, Wiring},
    },
};

const START: Timestamp = Timestamp(1_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn address(last: u8) -> Address {
    Address::v4([10, 0, 0, last]).expect("claimable")
}

fn store() -> StoreName {
    StoreName("host-local:net".into())
}

fn lease(last: u8, grant: i64) -> Lease {
    written(last, grant, grant)
}

/// The first lease, written anew.
fn back(times: i64) -> Lease {
    written(5, 1, 100 + times)
}

fn written(last: u8, grant: i64, modified: i64) -> Lease {
    let id = format!("pod{grant}");
    let generation = Generation {
        inode: 7,
        modified,
        content: format!("{id}\r\neth0").into_bytes().into(),
    };
    let holder = Holder {
        container_id: Some(id.into()),
        ..Holder::default()
    };
    Lease::new(store(), address(last), &holder, &generation, None)
}

struct World {
    engine: Engine,
    now: Timestamp,
    leases: Vec<Lease>,
    /// LEASED, as the driver has it.
    watched: BTreeSet<Address>,
    put_backs: Vec<(String, String)>,
    taken: Vec<String>,
    alarms: Vec<String>,
    held_behind: Option<u32>,
    /// At the next release.
    quiet_for: Duration,
}

/// A release of what was silent for so long.
fn proven(lease: &Lease, quiet_for: Duration, earlier_boot: Option<&str>) -> Release {
    let proof = StaleProof {
        quiet_for,
        earlier_boot: earlier_boot.map(str::to_owned),
        ..Release::for_test(lease.clone()).proof().clone()
    };
    Release::new(lease.clone(), proof)
}

/// It was put back, as this record.
fn done(record: Option<Generation>) -> PutBack {
    PutBack::Done {
        lease: lease(5, 1),
        record,
    }
}

impl World {
    /// Two bridges, a lease on the first.
    fn new() -> Self {
        let config = Config::without_file(Vec::new()).expect("valid");
        let mut world = Self {
            engine: Engine::new(settings(&config, "boot")),
            now: START,
            leases: vec![lease(5, 1)],
            watched: BTreeSet::new(),
            put_backs: Vec::new(),
            taken: Vec::new(),
            alarms: Vec::new(),
            held_behind: None,
            quiet_for: SECOND,
        };
        let mut topology = Topology::default();
        for (ifindex, name) in [(1, "br1"), (2, "br2")] {
            let port = Port::new(
                format!("veth{ifindex}"),
                PortKind::Veth,
                Wiring::bridge(name),
            );
            topology.ports.insert(ifindex, port);
            let bridge = Bridge {
                ifindex: 100 + ifindex,
                filtering: None,
            };
            topology.bridges.insert(name.into(), bridge);
        }
        world.tell(Input::Links {
            topology: Arc::new(topology),
            since: world.now,
        });
        world.read();
        world
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        self.obey();
    }

    fn obey(&mut self) {
        while let Some(command) = self.engine.next_command() {
            match command {
                Command::Watch { add, remove } => {
                    remove.iter().for_each(|address| {
                        self.watched.remove(address);
                    });
                    self.watched.extend(&add);
                    self.engine.handle(Input::Watching(add), self.now);
                }
                Command::PutBack { id, reason } => self.put_backs.push((id.to_string(), reason)),
                Command::Taken { id, .. } => self.taken.push(id.to_string()),
                Command::Publish(Notice::Happened(event)) => {
                    assert_eq!(event.kind, EventKind::ReleasedButAlive);
                    self.alarms.push(event.sentence(&|mac| mac.to_string()));
                }
                _ => {}
            }
        }
    }

    fn later(&mut self, seconds: u32) {
        self.now = self.now + SECOND * seconds;
        self.engine.handle_timeout(self.now);
        self.obey();
    }

    /// The store is read.
    fn read(&mut self) {
        let view = StoreView {
            fencing: Default::default(),
            store: store(),
            mode: Mode::Continuous,
            writable: Ok(()),
            place: Wire::Bridge {
                bridge: "br1".into(),
                vlan: None,
            },
            pools: Vec::new(),
            leases: self.leases.clone(),
        };
        self.tell(Input::Stores {
            source: 0,
            views: vec![view],
            failed: Vec::new(),
            owners: Owners::default(),
        });
    }

    /// The lease is released, and the store read.
    fn release(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        let proven = |lease: &Lease| proven(lease, self.quiet_for, None);
        self.tell(Input::Releasing(leases.iter().map(proven).collect()));
        self.later(1);
        // The store's watch is faster than the executor's answer.
        self.read();
        let outcomes = leases.iter().map(|lease| Outcome {
            id: Some("00000001".to_owned()),
            store: lease.store.clone(),
            address: lease.address,
            result: OutcomeResult::Released,
        });
        self.tell(Input::Outcomes(outcomes.collect()));
        self.later(1);
    }

    fn heard(&mut self, ifindex: u32, at: Timestamp) {
        let mac = Mac::new([2, 0, 0, 0, 0, 9]).expect("unicast");
        self.tell(Input::Seen(Seen {
            at,
            ifindex,
            again: false,
            sighting: Sighting {
                address: address(5),
                mac,
                evidence: Evidence::ArpRequest,
                asked: None,
                tags: Tags::default(),
                ether_src: mac.bytes(),
                to: [0xff; 6],
                nonce: None,
            },
        }));
    }

    fn pass(&mut self, stamps: Stamps, held: bool) {
        let held = held.then_some(crate::engine::evidence::Held {
            address: address(5),
            ifindex: self.held_behind,
        });
        let stamps = { self.watched.iter() }.map(|address| (*address, stamps));
        let evidence = PassEvidence {
            runtimes: None,
            person: false,
            stamps: stamps.collect(),
            sources: vec![SourceReport {
                source: Source::Namespaces,
                answer: Ok(held.into_iter().collect()),
            }],
            ports: Vec::new(),
        };
        self.tell(Input::Evidence(evidence));
    }

    fn quarantined(&self) -> Vec<(Address, &str)> {
        let entries = self.engine.quarantine().iter();
        entries
            .map(|entry| (entry.lease.address, entry.id()))
            .collect()
    }

    fn is_put_back(&mut self, result: PutBack) {
        let (id, _) = self.put_backs.last().expect("asked").clone();
        self.tell(Input::PutBack { id, result });
    }
}

#[test]
fn what_was_released_is_watched_for_a_day_and_no_longer() {
    let mut world = World::new();
    world.release();
    assert_eq!(world.quarantined(), [(address(5), "00000001")]);
    assert!(world.watched.contains(&address(5)), "never out of LEASED");
    world.later(23 * 3600);
    assert_eq!(world.quarantined().len(), 1);
    world.later(3600);
    assert_eq!(world.quarantined(), []);
    assert!(world.watched.is_empty());
    assert!(world.put_backs.is_empty() && world.alarms.is_empty());
}

#[test]
fn a_release_that_did_not_happen_leaves_nothing_behind() {
    let mut world = World::new();
    world.tell(Input::Releasing(vec![proven(&lease(5, 1), SECOND, None)]));
    assert_eq!(world.quarantined(), [], "not released yet");
    let outcome = Outcome {
        id: Some("00000001".to_owned()),
        store: store(),
        address: address(5),
        result: OutcomeResult::Failed("read-only".to_owned()),
    };
    world.tell(Input::Outcomes(vec![outcome]));
    world.leases.clear();
    world.read();
    assert!(world.watched.is_empty(), "its holder gave it back");
    world.heard(1, world.now);
    assert!(world.put_backs.is_empty());
}

#[test]
fn a_second_plan_with_the_same_lease_ends_no_quarantine() {
    let mut world = World::new();
    let planned = vec![proven(&lease(5, 1), SECOND, None)];
    world.release();
    world.tell(Input::Releasing(planned));
    assert_eq!(world.quarantined(), [(address(5), "00000001")]);
    let outcome = Outcome {
        id: Some("00000002".to_owned()),
        store: store(),
        address: address(5),
        result: OutcomeResult::Failed("it is gone".to_owned()),
    };
    world.tell(Input::Outcomes(vec![outcome]));
    assert_eq!(world.quarantined(), [(address(5), "00000001")]);
    assert!(world.watched.contains(&address(5)));
    world.heard(1, world.now);
    assert_eq!(world.put_backs.len(), 1);
}

#[test]
fn an_assertion_after_the_release_has_the_lease_put_back_and_tells() {
    let mut world = World::new();
    world.release();
    // From before, and from another wire with the same addresses.
    world.heard(1, START);
    world.heard(2, world.now);
    assert!(world.put_backs.is_empty());
    world.heard(1, world.now);
    world.heard(1, world.now + SECOND);
    let [(id, reason)] = &world.put_backs[..] else {
        panic!("{:?}", world.put_backs);
    };
    assert_eq!(id, "00000001");
    assert_eq!(
        reason,
        "10.0.0.5 was asserted by 02:00:00:00:00:09 after the release"
    );
    assert!(world.alarms.is_empty(), "it may have a lease by now");
    world.is_put_back(done(None));
    assert_eq!(
        world.alarms,
        [
            "10.0.0.5 was released and is in use by 02:00:00:00:00:09: its lease, released as \
             00000001, was put back"
        ]
    );
    let events: Vec<_> = world.engine.events().map(|event| event.kind).collect();
    assert_eq!(events, [EventKind::ReleasedButAlive]);
    assert_eq!(world.quarantined(), []);
    assert!(world.watched.contains(&address(5)));
    world.leases = vec![back(1)];
    world.read();
    assert!(world.taken.is_empty(), "it is its own lease");
}

#[test]
fn a_packet_and_an_address_behind_a_port_are_life_too() {
    let packet = |world: &World| Stamps {
        packet: world.now.0,
        ..Stamps::default()
    };
    let probe = |world: &World| Stamps {
        probe: world.now.0,
        ..Stamps::default()
    };
    let mut world = World::new();
    world.release();
    let stamps = probe(&world);
    world.pass(stamps, false);
    assert!(world.put_backs.is_empty(), "to ask is not to use");
    let stamps = packet(&world);
    world.pass(stamps, false);
    assert!(
        world.put_backs[0].1.contains("an IP packet came from"),
        "{:?}",
        world.put_backs
    );
    let mut world = World::new();
    world.release();
    // Another's on another wire.
    world.heard(2, world.now);
    let stamps = packet(&world);
    world.pass(stamps, false);
    world.held_behind = Some(2);
    world.pass(Stamps::default(), true);
    assert!(world.put_backs.is_empty(), "{:?}", world.put_backs);
    world.held_behind = Some(1);
    world.pass(Stamps::default(), true);
    assert!(
        world.put_backs[0].1.contains("network namespace"),
        "{:?}",
        world.put_backs
    );
}

#[test]
fn a_new_lease_ends_the_quarantine_and_is_no_alarm() {
    let mut world = World::new();
    world.release();
    world.leases = vec![lease(5, 2)];
    world.read();
    assert_eq!(world.taken, ["00000001"]);
    assert_eq!(world.quarantined(), []);
    assert!(world.watched.contains(&address(5)));
    world.heard(1, world.now);
    assert!(world.put_backs.is_empty());

    // The new holder is heard before the store is read: who puts back finds the lease.
    let mut world = World::new();
    world.release();
    world.heard(1, world.now);
    world.is_put_back(PutBack::Taken);
    world.leases = vec![lease(5, 2)];
    world.read();
    assert!(world.alarms.is_empty() && world.taken.is_empty());
    assert_eq!(world.quarantined(), []);
}

#[test]
fn what_cannot_be_put_back_is_told_once_and_tried_again() {
    let mut world = World::new();
    world.release();
    for round in 0..3 {
        world.heard(1, world.now);
        assert_eq!(world.put_backs.len(), round + 1);
        world.is_put_back(PutBack::Failed("read-only file system".to_owned()));
        world.heard(1, world.now);
        assert_eq!(world.put_backs.len(), round + 1, "not at once");
        world.later(300);
    }
    assert_eq!(world.alarms.len(), 1);
    assert!(
        world.alarms[0].contains("could not be put back: read-only file system"),
        "{:?}",
        world.alarms
    );
    // Silent since, and still without a lease.
    world.pass(Stamps::default(), false);
    world.is_put_back(done(None));
    assert_eq!(world.quarantined(), []);
    assert_eq!(world.alarms.len(), 1);
}

#[test]
fn a_person_who_puts_it_back_is_no_alarm() {
    let mut world = World::new();
    world.release();
    let id = "00000001".to_owned();
    world.tell(Input::PutBack {
        id,
        result: done(None),
    });
    assert_eq!(world.quarantined(), []);
    assert!(world.alarms.is_empty());
    assert!(world.watched.contains(&address(5)));
}

#[test]
fn what_an_earlier_run_released_is_watched_on() {
    let released = |at: Timestamp| Released {
        id: "00000007".into(),
        lease: lease(5, 1),
        at,
        quiet_since: at - SECOND,
        earlier_boot: None,
    };
    let tell = |world: &mut World, at| {
        world.tell(Input::Released {
            quarantined: vec![released(at)],
            returned: Vec::new(),
            budgeted: Vec::new(),
        });
    };
    let mut world = World::new();
    world.leases.clear();
    world.read();
    assert!(world.watched.is_empty());
    tell(&mut world, START);
    assert_eq!(world.quarantined(), [(address(5), "00000007")]);
    assert!(world.watched.contains(&address(5)));
    world.later(1);
    world.heard(1, world.now);
    assert_eq!(world.put_backs.len(), 1);
    // Heard before that it was released was known: once, perhaps, and on its own wire.
    for (port, put_backs) in [(1, 1), (2, 0)] {
        let mut world = World::new();
        world.leases.clear();
        world.read();
        world.later(1);
        world.heard(port, world.now);
        tell(&mut world, START);
        assert_eq!(world.put_backs.len(), put_backs);
        world.later(1);
        let released = world.now;
        tell(&mut world, released);
        assert_eq!(world.put_backs.len(), put_backs, "before the release");
    }
    // Too long ago, or with a new lease by now.
    let mut world = World::new();
    world.leases = vec![lease(5, 2)];
    world.read();
    tell(&mut world, START);
    assert_eq!(world.quarantined(), []);
    assert_eq!(world.taken, ["00000007"]);
    let mut world = World::new();
    world.leases.clear();
    world.read();
    world.now = START + QUARANTINE;
    tell(&mut world, START);
    assert_eq!(world.quarantined(), []);
    assert!(world.watched.is_empty());
}

#[test]
fn no_more_are_watched_than_there_is_room_for() {
    let mut quarantine = Quarantine::default();
    let mut released = |number: u32| {
        let octets = (0x0a00_0001 + number).to_be_bytes();
        let address = Address::v4(octets).expect("claimable");
        let entry = Quarantined {
            id: Some("x".into()),
            lease: Lease::new(
                store(),
                address,
                &Holder::default(),
                &Generation::default(),
                None,
            ),
            at: START + SECOND * number,
            quiet_since: START,
            earlier_boot: None,
            stamps: Stamps::default(),
            alive: None,
            asked: false,
            tried: None,
            told: false,
            ended: false,
        };
        quarantine.entries.insert((address, store()), entry);
        address
    };
    let first = released(0);
    for number in 1..=u32::try_from(MAX_QUARANTINED).expect("fits") {
        released(number);
    }
    assert_eq!(quarantine.bound(), [first]);
    assert_eq!(quarantine.iter().count(), MAX_QUARANTINED);
}

#[test]
fn a_ready_sandbox_with_a_released_address_is_life() {
    let sandbox = Sandbox {
        id: "a".repeat(64).into(),
        pod: "default/db-0".into(),
        ready: true,
        addresses: vec![address(5)],
        own_network: true,
        namespace_gone: false,
        // Of a virtual machine's nothing is configured in a namespace.
        guest: true,
    };
    let is_put_back = |own: Own, sandbox: Sandbox| {
        let mut world = World::new();
        world.release();
        let stamps = { world.watched.iter() }.map(|address| (*address, Stamps::default()));
        let evidence = PassEvidence {
            runtimes: Some(RuntimeReport {
                own,
                sockets: vec![("/run/a.sock".into(), SocketAnswer::Sandboxes(vec![sandbox]))],
            }),
            person: false,
            stamps: stamps.collect(),
            sources: Vec::new(),
            ports: Vec::new(),
        };
        world.tell(Input::Evidence(evidence));
        !world.put_backs.is_empty()
    };
    assert!(is_put_back(Own::Host, sandbox.clone()));
    let gone = Sandbox {
        ready: false,
        ..sandbox.clone()
    };
    assert!(!is_put_back(Own::Host, gone));
    let hosts = Sandbox {
        own_network: false,
        ..sandbox.clone()
    };
    assert!(!is_put_back(Own::Host, hosts));
    let unbelieved = Own::Pod(Some("b".repeat(64).into()));
    assert!(!is_put_back(unbelieved, sandbox.clone()));
    let elsewhere = Sandbox {
        addresses: vec![address(6)],
        ..sandbox
    };
    assert!(!is_put_back(Own::Host, elsewhere));
}
