//! One leaked lease, pass by pass.

use std::{collections::BTreeMap, time::Duration};

use ipam_common::sighting::Stamps;
use proptest::prelude::*;

use super::*;
use crate::engine::{
    Settings, Windows,
    evidence::{Held, PassEvidence, PortCheck, Source, SourceReport},
    input::Input,
    lease::{Holder, Mode, Place, StoreView},
    owner::Owners,
    plan::{Asker, Blocker, Reason, ReclaimPlan},
    reclaim::{LeaseState, ReclaimSettings},
    segment::{Port, Wiring},
};

const MINUTE: Duration = Duration::from_secs(60);
const LEASED: Address = Address::v4([10, 0, 0, 5]).unwrap();
const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 9]).unwrap();
const VETH: u32 = 1;
const BOND: u32 = 2;

struct World {
    engine: Engine,
    now: Timestamp,
    place: Place,
    ports: BTreeMap<u32, Port>,
    grant: u64,
    alive: Stamps,
    held: bool,
    waiting: Option<Inquiry>,
}

impl World {
    fn new(mode: Mode, place: Place, wiring: Wiring) -> Self {
        let reclaim = ReclaimSettings {
            gate: 5 * MINUTE,
            damaged_gate: 5 * MINUTE,
            asked_gate: 5 * MINUTE,
            asked_damaged_gate: 5 * MINUTE,
            reboot_gate: MINUTE,
            pass_interval: MINUTE,
            max_per_pass: 64,
            max_percent: 10,
            keep: Vec::new(),
            data_plane: true,
        };
        let mut world = Self {
            engine: Engine::new(Settings {
                boot: "boot".into(),
                owners: Owners::default(),
                confirm: Vec::new(),
                windows: Windows::default(),
                reclaim,
            }),
            now: Timestamp(1) + MINUTE,
            place,
            ports: BTreeMap::from([(VETH, Port::new("veth1", PortKind::Veth, wiring))]),
            grant: 1,
            alive: Stamps::default(),
            held: false,
            waiting: None,
        };
        world.tell(Input::State(Ok(())));
        world.links();
        world.leases(mode);
        world.tell(Input::Watching(vec![LEASED]));
        world
    }

    /// A bridge with one pod's port, and a store that is released from unasked.
    fn bridge() -> Self {
        let place = Place::Bridge {
            bridge: "br0".into(),
            vlan: None,
        };
        Self::new(Mode::Continuous, place, Wiring::bridge("br0"))
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(input, self.now);
    }

    fn links(&mut self) {
        let topology = Topology {
            ports: self.ports.clone(),
            ..Topology::default()
        };
        self.tell(Input::Links {
            topology: Arc::new(topology),
            since: self.now,
        });
        for ifindex in self.ports.keys().copied().collect::<Vec<_>>() {
            // From the beginning of each.
            let since = Timestamp(0);
            self.tell(Input::Attached { ifindex, since });
        }
    }

    fn leases(&mut self, mode: Mode) {
        let store = StoreName("host-local:pods".into());
        let grant = Generation {
            inode: self.grant,
            ..Generation::default()
        };
        let lease = Lease::new(store.clone(), LEASED, &Holder::default(), &grant, None);
        self.tell(Input::Stores {
            source: 0,
            views: vec![StoreView {
                fencing: Default::default(),
                store,
                mode,
                writable: Ok(()),
                place: self.place.clone(),
                pools: Vec::new(),
                leases: vec![lease],
            }],
            failed: Vec::new(),
            owners: Owners::default(),
        });
    }

    /// A minute later a pass; what it has released.
    fn pass(&mut self, person: bool) -> Option<ReclaimPlan> {
        self.now = self.now + MINUTE;
        let address = LEASED;
        let held = self.held.then_some(Held {
            address,
            ifindex: None,
        });
        let ports = self.ports.keys();
        self.tell(Input::Evidence(PassEvidence {
            runtimes: None,
            ports: ports
                .map(|&port| (port, PortCheck::Attached(Timestamp(0))))
                .collect(),
            stamps: vec![(LEASED, self.alive)],
            sources: vec![SourceReport {
                source: Source::Namespaces,
                answer: Ok(held.into_iter().collect()),
            }],
            person,
        }));
        let mut plan = None;
        while let Some(command) = self.engine.next_command() {
            match command {
                Command::Probe(inquiry) => {
                    assert_eq!(self.waiting, None, "two inquiries at once");
                    self.waiting = Some(inquiry);
                }
                Command::Execute(releases) => {
                    plan = Some(releases);
                    // The store would not let it go.
                    self.tell(Input::Outcomes(Vec::new()));
                }
                _ => {}
            }
        }
        plan
    }

    /// Passes until the wire is asked.
    fn asked(&mut self) -> Inquiry {
        for _ in 0..20 {
            assert_eq!(self.pass(false), None, "nobody was asked");
            if let Some(inquiry) = self.waiting.take() {
                return inquiry;
            }
        }
        panic!("the wire is not asked: {:?}", self.blockers());
    }

    fn answer(&mut self, inquiry: &Inquiry, finding: Finding) {
        let found = inquiry.wires.iter().flat_map(|wire| {
            wire.addresses.iter().map(|&address| Found {
                segment: wire.segment.clone(),
                address,
                finding: finding.clone(),
            })
        });
        self.tell(Input::Probed {
            round: inquiry.round,
            found: found.collect(),
        });
    }

    fn blockers(&self) -> Vec<Blocker> {
        let plan = self.engine.plan(Asker::Person, self.now);
        plan.kept
            .into_iter()
            .flat_map(|kept| kept.blockers)
            .collect()
    }

    fn blocked(&self, reason: Reason) -> String {
        let blockers = self.blockers();
        let found = blockers.iter().find(|blocker| blocker.reason == reason);
        found
            .unwrap_or_else(|| panic!("{reason:?}: {blockers:?}"))
            .detail
            .clone()
    }

    fn state(&self) -> LeaseState {
        let planner = self.engine.planner(self.now);
        planner.state(&self.engine.leases().of(&LEASED)[0])
    }
}

#[test]
fn nothing_is_released_before_the_wire_was_asked_and_said_nothing() {
    let mut world = World::bridge();
    let inquiry = world.asked();
    let [wire] = &inquiry.wires[..] else {
        panic!("{inquiry:?}");
    };
    assert_eq!(wire.exits, [(VETH, Tags::default())]);
    assert_eq!(wire.addresses, [LEASED]);
    // No answer, no release, however many passes agree.
    for _ in 0..3 {
        assert_eq!(world.pass(true), None);
        assert_eq!(
            world.blocked(Reason::SecondPass),
            "the wire is being asked for it"
        );
    }
    world.answer(&inquiry, Finding::Silent(3));
    let plan = world.pass(false).expect("it goes");
    let unanswered = plan.releases[0].proof().unanswered();
    assert_eq!(unanswered, Some(Unanswered { sent: 3, ports: 1 }));
}

#[test]
fn silence_is_good_for_one_pass_and_its_own_round() {
    let place = World::bridge().place;
    let mut world = World::new(Mode::Observe, place, Wiring::bridge("br0"));
    let inquiry = world.asked();
    assert_eq!(world.state(), LeaseState::Quiet);
    let older = Inquiry {
        round: inquiry.round - 1,
        ..inquiry.clone()
    };
    world.answer(&older, Finding::Silent(3));
    world.answer(&inquiry, Finding::Silent(3));
    // Of the pass that asked, it proves nothing yet.
    world.blocked(Reason::SecondPass);
    world.pass(false);
    assert_eq!(
        world.engine.plan(Asker::Person, world.now).releases.len(),
        1
    );
    assert_eq!(world.state(), LeaseState::Stale);
    // Nobody wants it released: it is not asked for again, and stays what it is.
    for _ in 0..3 {
        world.pass(false);
        assert_eq!(world.waiting, None);
        world.blocked(Reason::SecondPass);
        assert_eq!(world.state(), LeaseState::Stale);
    }
    // Until somebody does.
    world.pass(true);
    let inquiry = world.waiting.take().expect("it is asked for");
    world.answer(&inquiry, Finding::Silent(3));
    world.pass(false);
    assert_eq!(
        world.engine.plan(Asker::Person, world.now).releases.len(),
        1
    );
}

#[test]
fn who_answers_keeps_the_lease_for_a_gate() {
    let mut world = World::bridge();
    let inquiry = world.asked();
    let (mac, ifindex) = (MAC, VETH);
    world.answer(&inquiry, Finding::Answered { mac, ifindex });
    for _ in 0..4 {
        assert_eq!(world.pass(true), None);
        let said = world.blocked(Reason::ProbeAnswered);
        assert!(
            said.starts_with(&format!("{MAC} on veth1 answered")),
            "{said}"
        );
        assert_eq!(world.state(), LeaseState::Active);
        assert_eq!(world.waiting, None);
    }
    let inquiry = world.asked();
    world.answer(&inquiry, Finding::Silent(3));
    assert!(world.pass(false).is_some());
}

#[test]
fn a_port_that_could_not_be_asked_is_named_and_asked_again() {
    let mut world = World::bridge();
    for _ in 0..3 {
        let inquiry = world.asked();
        world.answer(&inquiry, Finding::Unsent("veth1 is down".into()));
        assert_eq!(world.blocked(Reason::Coverage), "veth1 is down");
        assert_eq!(world.state(), LeaseState::Unknown);
    }
    let inquiry = world.asked();
    // The task that asked failed: nothing is known.
    let none = Vec::new();
    world.tell(Input::Probed {
        round: inquiry.round,
        found: none,
    });
    let inquiry = world.asked();
    world.answer(&inquiry, Finding::Silent(3));
    assert!(world.pass(false).is_some());
}

#[test]
fn nobody_who_is_about_to_take_the_address_is_disturbed() {
    let mut world = World::bridge();
    let inquiry = world.asked();
    world.answer(&inquiry, Finding::Wanted(MAC));
    assert!(world.blocked(Reason::Seen).contains(&MAC.to_string()));
    // A short gate is over, and somebody probed a moment ago.
    world.engine.settings.reclaim.asked_gate = Duration::ZERO;
    world.engine.settings.reclaim.gate = Duration::ZERO;
    world.alive.probe = (world.now + MINUTE).0 - 9_000_000_000;
    assert_eq!(world.pass(true), None);
    assert_eq!(world.waiting, None);
    world.blocked(Reason::Seen);
    world.alive.probe = (world.now + MINUTE).0 - 10_000_000_000;
    world.asked();
}

#[test]
fn another_grant_was_never_asked_about() {
    let mut world = World::bridge();
    let inquiry = world.asked();
    world.grant += 1;
    world.leases(Mode::Continuous);
    world.answer(&inquiry, Finding::Silent(3));
    // A new grant, with all its gates before it.
    let again = world.asked();
    assert_ne!(again.round, inquiry.round);
}

#[test]
fn a_port_to_other_hosts_that_came_meanwhile_is_asked_too() {
    let mut world = World::bridge();
    let inquiry = world.asked();
    world.ports.insert(
        BOND,
        Port::new("bond0", PortKind::Bond, Wiring::bridge("br0")),
    );
    world.links();
    world.answer(&inquiry, Finding::Silent(3));
    assert_eq!(world.pass(false), None);
    let again = world.waiting.take().expect("it is asked for again");
    assert_eq!(again.wires[0].exits.len(), 2);
    world.answer(&again, Finding::Silent(6));
    assert!(world.pass(false).is_some());
}

#[test]
fn routed_pods_are_not_asked_and_a_bridge_without_ports_has_nobody_to_ask() {
    let mut world = World::new(Mode::Continuous, Place::Routed, Wiring::Routed);
    let plan = (0..9).find_map(|_| world.pass(true)).expect("it goes");
    assert_eq!(plan.releases[0].proof().unanswered(), None);
    assert_eq!(world.waiting, None);

    for there in [false, true] {
        let mut world = World::bridge();
        if there {
            // The other end is down: nobody is behind it.
            let veth = world.ports.get_mut(&VETH).expect("the port");
            veth.carrier = false;
        } else {
            world.ports.clear();
        }
        world.links();
        let plan = (0..9).find_map(|_| world.pass(true)).expect("it goes");
        let unanswered = plan.releases[0].proof().unanswered();
        assert_eq!(unanswered, Some(Unanswered { sent: 0, ports: 0 }));
        assert_eq!(world.waiting, None);
    }
}

/// Whoever names one that is no segment here proves nothing by its silence.
#[test]
fn a_segment_that_this_host_has_not_is_never_silent() {
    let named = |name: &str| {
        let place = Place::Segment {
            name: name.into(),
            vlan: None,
        };
        World::new(Mode::Continuous, place, Wiring::bridge("br0"))
    };
    named("br0").asked();
    for (name, why) in [
        ("br1000", "no port of this host is on br1000"),
        ("veth1", "veth1 is a port of br0: name br0"),
    ] {
        let mut world = named(name);
        for _ in 0..20 {
            assert_eq!(world.pass(true), None, "{name}");
            assert_eq!(world.waiting, None, "{name}");
        }
        let told = world.blocked(Reason::SegmentUnwatched);
        assert!(told.contains(why), "{told}");
    }
}

/// What happens in a minute.
#[derive(Clone, Debug)]
enum Act {
    Pass { person: bool },
    Heard,
    Held(bool),
    Regrant,
    Answer(u8),
    Uplink(bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => any::<bool>().prop_map(|person| Act::Pass { person }),
        1 => Just(Act::Heard),
        1 => any::<bool>().prop_map(Act::Held),
        1 => Just(Act::Regrant),
        6 => (0u8..8).prop_map(Act::Answer),
        1 => any::<bool>().prop_map(Act::Uplink),
    ]
}

proptest! {
    /// Whatever happens in whatever order: what is released was asked for in one pass, out of
    /// every port to other hosts, and silent in the next, and neither had anything against it.
    #[test]
    fn every_release_has_a_silent_inquiry_between_two_passes(
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut world = World::bridge();
        let mut passes = 0u32;
        // Since when nothing stood against it, by passes; what was asked, and is silent.
        let mut clean = 0;
        let mut asked: Option<(u32, Inquiry)> = None;
        let mut silent: Option<(u32, BTreeSet<u32>)> = None;
        for act in acts {
            match act {
                Act::Pass { person } => {
                    passes += 1;
                    let heard = world.alive.assertion + 5 * MINUTE.as_nanos() as u64;
                    if world.held || (world.alive.assertion > 0 && (world.now + MINUTE).0 < heard) {
                        clean = passes;
                        silent = None;
                    }
                    if world.pass(person).is_some() {
                        let (at, ports) = silent.clone().expect("it was silent");
                        prop_assert!(clean < at && at < passes, "{clean} {at} {passes}");
                        let whole = !world.ports.contains_key(&BOND) || ports.contains(&BOND);
                        prop_assert!(whole, "not out of the uplink");
                    }
                    // It was good for that pass alone.
                    silent = None;
                    if let Some(inquiry) = world.waiting.take() {
                        asked = Some((passes, inquiry));
                    }
                }
                Act::Heard => world.alive.assertion = world.now.0,
                Act::Held(held) => world.held = held,
                Act::Regrant => {
                    world.grant += 1;
                    world.leases(Mode::Continuous);
                    (clean, silent) = (passes, None);
                }
                Act::Answer(how) => {
                    let Some((at, inquiry)) = asked.take() else {
                        continue;
                    };
                    let (mac, ifindex) = (MAC, VETH);
                    let finding = match how {
                        0 => Finding::Answered { mac, ifindex },
                        1 => Finding::Wanted(mac),
                        2 => Finding::Unsent("it is down".into()),
                        _ => Finding::Silent(3),
                    };
                    let exits = inquiry.wires[0].exits.iter().map(|(port, _)| *port).collect();
                    silent = matches!(finding, Finding::Silent(_)).then_some((at, exits));
                    world.answer(&inquiry, finding);
                }
                Act::Uplink(there) => {
                    if there {
                        world.ports.insert(BOND, Port::new("bond0", PortKind::Bond, Wiring::bridge("br0")));
                    } else {
                        world.ports.remove(&BOND);
                    }
                    world.links();
                }
            }
        }
    }
}
