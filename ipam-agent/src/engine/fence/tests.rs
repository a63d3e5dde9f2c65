//! One squatter, second by second.

use ipam_common::{Evidence, Sighting, sighting::Tags};

use super::*;
use crate::engine::{
    Settings, Windows,
    evidence::{PassEvidence, PortCheck, Source, SourceReport},
    input::{Input, Seen},
    lease::{Fencing, Generation, Holder, Mode, StoreView},
    owner::Owners,
    probing::{Finding, Found, Inquiry},
    quarantine::{PutBack, Released},
    reclaim::ReclaimSettings,
    segment::{Port, PortKind, Topology, Wiring},
};

const SECOND: Duration = Duration::from_secs(1);
const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 9]).unwrap();
const SQUATTED: Address = Address::v4([10, 0, 0, 5]).unwrap();

struct World {
    engine: Engine,
    now: Timestamp,
    prefix: &'static str,
    wanted: bool,
    fences: Vec<Address>,
    leases: Vec<Address>,
    asked: usize,
    inquiry: Option<Inquiry>,
    changes: Vec<Fence>,
}

impl World {
    fn new(prefix: &'static str) -> Self {
        let gate = 60 * SECOND;
        let reclaim = ReclaimSettings {
            gate,
            damaged_gate: gate,
            asked_gate: gate,
            asked_damaged_gate: gate,
            reboot_gate: gate,
            pass_interval: 10 * SECOND,
            max_per_pass: 64,
            max_percent: 10,
            keep: Vec::new(),
            data_plane: true,
        };
        let settings = Settings {
            boot: "boot".into(),
            owners: Owners::default(),
            confirm: Vec::new(),
            windows: Windows::default(),
            reclaim,
        };
        let mut world = Self {
            engine: Engine::new(settings),
            now: Timestamp(1) + SECOND,
            prefix,
            wanted: true,
            fences: Vec::new(),
            leases: Vec::new(),
            asked: 0,
            inquiry: None,
            changes: Vec::new(),
        };
        let port = Port::new("veth1", PortKind::Veth, Wiring::bridge("br0"));
        let topology = Topology {
            ports: [(1, port)].into(),
            ..Topology::default()
        };
        world.tell(Input::State(Ok(())));
        world.tell(Input::Links {
            topology: Arc::new(topology),
            since: world.now,
        });
        let since = world.now;
        world.tell(Input::Attached { ifindex: 1, since });
        world.read();
        world
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(input, self.now);
    }

    /// The store is read.
    fn read(&mut self) {
        let store = StoreName("host-local:pods".into());
        let lease = |address: &Address| {
            let (nobody, grant) = (Holder::default(), Generation::default());
            Lease::new(store.clone(), *address, &nobody, &grant, None)
        };
        let view = StoreView {
            store: store.clone(),
            mode: Mode::Observe,
            writable: Ok(()),
            place: crate::engine::lease::Place::Bridge {
                bridge: "br0".into(),
                vlan: None,
            },
            pools: vec![Pool {
                prefix: self.prefix.parse().expect("a prefix"),
                range: None,
                gateway: None,
                gateway_mac: None,
                exclude: Vec::new(),
                place: None,
            }],
            leases: self.leases.iter().map(lease).collect(),
            fencing: Fencing {
                wanted: self.wanted,
                fences: self.fences.iter().map(lease).collect(),
            },
        };
        self.tell(Input::Stores {
            source: 0,
            views: vec![view],
            failed: Vec::new(),
            owners: Owners::default(),
        });
    }

    fn speaks(&mut self, address: Address) {
        self.says(Evidence::ArpRequest, address);
    }

    fn says(&mut self, evidence: Evidence, address: Address) {
        self.tell(Input::Seen(Seen {
            at: self.now,
            ifindex: 1,
            sighting: Sighting {
                address,
                mac: MAC,
                evidence,
                asked: None,
                tags: Tags::default(),
                ether_src: MAC.bytes(),
                to: [0xff; 6],
                nonce: None,
            },
            again: false,
        }));
    }

    /// Seconds pass; who is asked answers or doesn't.
    fn wait(&mut self, seconds: u64, answers: bool) {
        for _ in 0..seconds {
            self.now = self.now + SECOND;
            self.engine.handle_timeout(self.now);
            self.obey(answers);
        }
    }

    fn obey(&mut self, answers: bool) {
        while let Some(command) = self.engine.next_command() {
            match command {
                Command::Ask(question) => {
                    self.asked += 1;
                    assert_eq!(question.claimants[0].mac, MAC);
                    // This host has no address of its own to ask with.
                    let answers = answers && question.unprobed;
                    let answered = answers.then_some(MAC).into_iter().collect();
                    self.tell(Input::Answers {
                        segment: question.segment,
                        address: question.address,
                        answered,
                    });
                    self.engine.handle_timeout(self.now);
                }
                Command::Probe(inquiry) => self.inquiry = Some(inquiry),
                Command::Fence(changes) => self.changes.extend(changes),
                _ => {}
            }
        }
    }

    fn pass(&mut self) {
        self.tell(Input::Evidence(PassEvidence {
            ports: vec![(1, PortCheck::Attached(Timestamp(0)))],
            stamps: Vec::new(),
            sources: vec![SourceReport {
                source: Source::Namespaces,
                answer: Ok(Vec::new()),
            }],
            runtimes: None,
            person: false,
        }));
        self.obey(false);
    }

    fn answer(&mut self, finding: Finding) {
        let inquiry = self.inquiry.take().expect("the wire is asked");
        let found = inquiry.wires.iter().flat_map(|wire| {
            wire.addresses.iter().map(|&address| Found {
                segment: wire.segment.clone(),
                address,
                finding: finding.clone(),
            })
        });
        let (round, found) = (inquiry.round, found.collect());
        self.tell(Input::Probed { round, found });
        self.obey(false);
    }

    /// The changes were made, or not, and the store is read again.
    fn done(&mut self, result: Result<(), String>) -> usize {
        let changes = std::mem::take(&mut self.changes);
        let count = changes.len();
        for fence in &changes {
            match (&fence.change, &result) {
                (Change::Raise { .. }, Ok(())) => self.fences.push(fence.address),
                (Change::Lower(..), Ok(())) => self.fences.retain(|a| *a != fence.address),
                (_, Err(_)) => {}
            }
        }
        self.fences.sort_unstable();
        let fenced = changes.into_iter().map(|fence| Fenced {
            fence,
            result: result.clone(),
        });
        self.tell(Input::Fenced(fenced.collect()));
        self.read();
        count
    }
}

#[test]
fn a_squatter_is_fenced_when_it_was_known_for_ten_seconds_and_answered() {
    let mut world = World::new("10.0.0.0/24");
    world.speaks(SQUATTED);
    world.wait(9, true);
    assert_eq!(world.asked, 1);
    assert_eq!(world.changes, []);
    world.wait(1, true);
    let Some(Fence {
        address,
        change: Change::Raise { squatter, port },
        ..
    }) = world.changes.first()
    else {
        panic!("{:?}", world.changes);
    };
    assert_eq!((*address, *squatter, &**port), (SQUATTED, MAC, "veth1"));
    world.done(Ok(()));
    world.speaks(SQUATTED);
    world.wait(100, true);
    assert_eq!(world.changes, [], "it is fenced");
    // It is no lease: the conflict stays open, and nothing is planned.
    let open = world
        .engine
        .conflicts()
        .filter(|case| case.conflict.is_active());
    assert_eq!(open.count(), 1);
    assert_eq!(world.engine.leases().iter().count(), 0);
}

#[test]
fn who_gives_no_answer_is_not_fenced_and_what_fails_is_tried_again_later() {
    let mut world = World::new("10.0.0.0/24");
    world.speaks(SQUATTED);
    for _ in 0..6 {
        world.wait(10, false);
        world.speaks(SQUATTED);
    }
    assert_eq!(world.changes, []);
    assert_eq!(world.asked, 4, "after 5, 10 and 20 s more");
    world.wait(20, true);
    assert_eq!(world.done(Err("locked".into())), 1);
    world.speaks(SQUATTED);
    world.wait(30, true);
    assert_eq!(world.changes, []);
    world.speaks(SQUATTED);
    world.wait(60, true);
    assert_eq!(world.done(Ok(())), 1);
}

#[test]
fn who_probed_first_or_whose_first_answer_was_lost_is_fenced_no_later() {
    let mut probed = World::new("10.0.0.0/24");
    for _ in 0..3 {
        probed.says(Evidence::ArpProbe, SQUATTED);
        probed.wait(1, true);
    }
    probed.wait(1, true);
    probed.speaks(SQUATTED);
    probed.wait(9, true);
    assert_eq!(probed.changes, []);
    probed.wait(1, true);
    assert_eq!(probed.done(Ok(())), 1);

    let mut lost = World::new("10.0.0.0/24");
    lost.speaks(SQUATTED);
    lost.wait(6, false);
    assert_eq!(lost.asked, 1);
    lost.wait(5, true);
    assert_eq!(lost.done(Ok(())), 1);
}

#[test]
fn an_address_whose_lease_is_to_be_put_back_is_not_fenced() {
    let mut world = World::new("10.0.0.0/24");
    let (nobody, grant) = (Holder::default(), Generation::default());
    let store = StoreName("host-local:pods".into());
    let lease = Lease::new(store, SQUATTED, &nobody, &grant, None);
    let released = Released {
        id: "00000001".into(),
        lease,
        at: world.now,
        quiet_since: Timestamp(0),
        earlier_boot: None,
    };
    world.tell(Input::Released {
        quarantined: vec![released],
        returned: Vec::new(),
        budgeted: Vec::new(),
    });
    world.wait(1, true);
    world.speaks(SQUATTED);
    world.tell(Input::PutBack {
        id: "00000001".into(),
        result: PutBack::Failed("locked".into()),
    });
    world.wait(60, true);
    assert_eq!(world.changes, []);
}

#[test]
fn what_is_leased_or_beyond_the_share_or_not_wanted_is_not_fenced() {
    let mut leased = World::new("10.0.0.0/24");
    leased.speaks(SQUATTED);
    leased.wait(8, true);
    leased.leases.push(SQUATTED);
    leased.read();
    leased.speaks(SQUATTED);
    leased.wait(100, true);
    assert_eq!(leased.changes, []);

    // Five percent of 64 addresses, and of 16.
    for (prefix, share) in [("10.0.0.0/26", 3), ("10.0.0.0/28", 0)] {
        let mut world = World::new(prefix);
        for last in 1..10 {
            world.speaks(Address::v4([10, 0, 0, last]).expect("claimable"));
        }
        world.wait(30, true);
        assert_eq!(world.done(Ok(())), share, "{prefix}");
        world.wait(80, true);
        assert_eq!(world.changes, [], "{prefix}");
    }

    let mut unwanted = World::new("10.0.0.0/24");
    unwanted.wanted = false;
    unwanted.read();
    unwanted.speaks(SQUATTED);
    unwanted.wait(30, true);
    assert_eq!((unwanted.asked, unwanted.changes.len()), (0, 0));
    // Those of before go.
    unwanted.fences.push(SQUATTED);
    unwanted.read();
    unwanted.pass();
    assert_eq!(unwanted.done(Ok(())), 1);
    assert_eq!(unwanted.fences, []);
}

#[test]
fn a_fence_stays_for_as_long_as_anybody_is_heard_or_answers() {
    let mut world = World::new("10.0.0.0/24");
    world.fences.push(SQUATTED);
    world.read();
    world.speaks(SQUATTED);
    world.wait(50, true);
    world.pass();
    assert_eq!(world.inquiry, None, "heard within the gate");
    world.wait(30, true);
    world.pass();
    let (mac, ifindex) = (MAC, 1);
    world.answer(Finding::Answered { mac, ifindex });
    assert_eq!(world.changes, []);
    world.pass();
    world.answer(Finding::Unsent("veth1 is down".into()));
    assert_eq!(world.changes, []);
    world.pass();
    // It speaks while the wire is asked.
    world.speaks(SQUATTED);
    world.answer(Finding::Silent(3));
    assert_eq!(world.changes, []);
    world.wait(70, true);
    world.pass();
    world.answer(Finding::Silent(3));
    assert_eq!(world.done(Ok(())), 1);
    assert_eq!(world.fences, []);
}
