//! When passes come, and that no more is released for it.

use std::collections::BTreeSet;

use super::*;
use crate::engine::plan::{Outcome, OutcomeResult};

const START: Timestamp = Timestamp(1_000_000_000);
const STEP: Duration = Duration::from_secs(1);

/// A host whose leases nobody holds, played second by second.
struct World {
    engine: Engine,
    now: Timestamp,
    leases: Vec<Lease>,
    pools: Vec<Pool>,
    /// When passes were made, in seconds from the start.
    passes: Vec<u64>,
    /// When plans were carried out.
    tried: Vec<u64>,
    /// When leases went, and how many.
    released: Vec<(u64, usize)>,
    /// The executor refuses.
    refuses: bool,
    /// For so long the executor works.
    takes: Duration,
    executing: Option<(Timestamp, ReclaimPlan)>,
}

impl World {
    fn new(count: u8, settings: impl FnOnce(&mut ReclaimSettings)) -> Self {
        let config = Config::without_file(Vec::new()).expect("valid");
        let mut agent = settings_of(&config);
        settings(&mut agent.reclaim);
        let mut world = Self {
            engine: Engine::new(agent),
            now: START,
            leases: (1..=count).map(|last| lease(last, None)).collect(),
            pools: Vec::new(),
            passes: Vec::new(),
            tried: Vec::new(),
            released: Vec::new(),
            refuses: false,
            takes: Duration::ZERO,
            executing: None,
        };
        world.tell(Input::State(Ok(())));
        world.tell(Input::Links {
            topology: Arc::new(topology()),
            since: world.now,
        });
        let since = world.now;
        world.tell(Input::Attached { ifindex: 1, since });
        world
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        while let Some(command) = self.engine.next_command() {
            match command {
                Command::Watch { add, .. } => self.engine.handle(Input::Watching(add), self.now),
                Command::Gather => self.pass(),
                Command::Execute(plan) => self.executing = Some((self.now + self.takes, plan)),
                _ => {}
            }
        }
    }

    fn read(&mut self) {
        let view = StoreView {
            fencing: Default::default(),
            store: StoreName("host-local:net".into()),
            mode: Mode::Continuous,
            writable: Ok(()),
            place: Place::Routed,
            pools: self.pools.clone(),
            leases: self.leases.clone(),
        };
        self.tell(Input::Stores {
            source: 0,
            views: vec![view],
            failed: Vec::new(),
            owners: Owners::default(),
        });
    }

    fn pass(&mut self) {
        self.passes.push(self.now.since(START).as_secs());
        let stamps = { self.leases.iter() }.map(|lease| (lease.address, Stamps::default()));
        let evidence = PassEvidence {
            runtimes: None,
            person: false,
            ports: vec![(1, PortCheck::Attached(Timestamp(0)))],
            stamps: stamps.collect(),
            sources: vec![SourceReport {
                source: Source::Namespaces,
                answer: Ok(Vec::new()),
            }],
        };
        self.tell(Input::Evidence(evidence));
    }

    /// What was planned is done.
    fn executed(&mut self) {
        let Some((at, plan)) = self.executing.take() else {
            return;
        };
        if at > self.now {
            self.executing = Some((at, plan));
            return;
        }
        let at = self.now.since(START).as_secs();
        self.tried.push(at);
        let outcome = |release: &Release| Outcome {
            id: Some(String::from("00000001")),
            store: release.lease().store.clone(),
            address: release.lease().address,
            result: match self.refuses {
                true => OutcomeResult::Failed("read-only".into()),
                false => OutcomeResult::Released,
            },
        };
        let outcomes: Vec<Outcome> = plan.releases.iter().map(outcome).collect();
        if !self.refuses {
            let gone: BTreeSet<Address> = outcomes.iter().map(|done| done.address).collect();
            self.leases.retain(|lease| !gone.contains(&lease.address));
            self.released.push((at, gone.len()));
            self.read();
        }
        self.tell(Input::Outcomes(outcomes));
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now + STEP;
            self.engine.handle_timeout(self.now);
            if let Some(command) = self.engine.next_command() {
                assert!(matches!(command, Command::Gather), "{command:?}");
                self.pass();
            }
            self.executed();
        }
    }
}

fn settings_of(config: &Config) -> crate::engine::Settings {
    settings(config, "now")
}

fn begun(count: u8, change: impl FnOnce(&mut ReclaimSettings)) -> World {
    let mut world = World::new(count, change);
    world.read();
    world.engine.begin_passes(world.now);
    world
}

#[test]
fn a_pass_comes_when_a_gate_is_over_and_the_second_shortly_after() {
    let mut world = begun(1, |settings| settings.gate = Duration::from_secs(95));
    world.run(200);
    // A minute apart but for those that something is due at.
    assert_eq!(world.passes, [1, 61, 95, 105, 165]);
    assert_eq!(world.released, [(105, 1)]);
}

#[test]
fn a_gate_that_is_over_shortly_after_a_pass_is_waited_for() {
    let mut world = begun(1, |settings| settings.gate = Duration::from_secs(65));
    world.run(100);
    assert_eq!(world.passes, [1, 65, 75]);
    assert_eq!(world.released, [(75, 1)]);
}

#[test]
fn what_time_alone_does_not_bring_makes_no_pass_sooner() {
    let keep = |settings: &mut ReclaimSettings| {
        settings.gate = Duration::from_secs(95);
        settings.keep = vec!["10.0.0.0/24".parse().expect("a prefix")];
    };
    let mut world = begun(1, keep);
    world.run(200);
    assert_eq!(world.passes, [1, 61, 121, 181]);
}

#[test]
fn what_can_not_be_released_is_tried_ever_more_rarely() {
    let mut world = begun(1, |settings| settings.gate = Duration::from_secs(60));
    world.refuses = true;
    world.run(5 * 3600);
    let pauses = { world.tried.windows(2) }.map(|two| (two[1] - two[0]) / 60);
    assert_eq!(
        pauses.collect::<Vec<_>>(),
        [1, 2, 4, 8, 16, 32, 60, 60, 60],
        "{:?}",
        world.tried
    );
    let unasked = world.engine.plan(Asker::Daemon, world.now);
    let [blocker] = &unasked.kept[0].blockers[..] else {
        panic!("{unasked:?}")
    };
    assert_eq!(blocker.reason, Reason::Budget);
    assert!(blocker.until.is_some_and(|at| at > world.now));
    let asked = world.engine.plan(Asker::Person, world.now);
    assert_eq!(asked.releases.len(), 1, "{asked:?}");
}

#[test]
fn what_is_granted_anew_was_never_tried() {
    let mut world = begun(1, |settings| settings.gate = Duration::from_secs(60));
    world.refuses = true;
    world.run(3600);
    let (since, before) = (world.now.since(START).as_secs(), world.tried.len());
    let generation = Generation {
        inode: 200,
        ..Generation::default()
    };
    let Lease { store, address, .. } = world.leases[0].clone();
    world.leases = vec![Lease::new(
        store,
        address,
        &Holder::default(),
        &generation,
        None,
    )];
    world.read();
    world.run(200);
    let pauses = { world.tried[before..].iter() }.map(|at| (at - since) / 60);
    assert_eq!(pauses.collect::<Vec<_>>(), [1, 2], "{:?}", world.tried);
    world.refuses = false;
    world.run(200);
    assert_eq!(world.leases, []);
}

#[test]
fn a_share_is_of_what_the_pool_hands_out_and_not_of_its_prefix() {
    let within = |first: u8, last: u8| (lease(first, None).address, lease(last, None).address);
    let pool = Pool {
        prefix: "10.0.0.0/24".parse().expect("a prefix"),
        range: Some(within(1, 20)),
        gateway: None,
        gateway_mac: None,
        exclude: Vec::new(),
        place: None,
    };
    let other = Pool {
        range: Some(within(100, 200)),
        ..pool.clone()
    };
    let excluding = Pool {
        range: None,
        exclude: vec![within(21, 254)],
        ..pool.clone()
    };
    for pools in [vec![other, pool], vec![excluding]] {
        let mut world = World::new(20, |settings| settings.gate = Duration::from_secs(60));
        world.pools = pools;
        world.read();
        world.engine.begin_passes(world.now);
        world.run(1200);
        assert_eq!(most(&world.released, 60), 2, "{:?}", world.released);
        assert_eq!(world.leases, []);
    }
}

/// The most that went in any interval.
fn most(released: &[(u64, usize)], interval: u64) -> usize {
    let within = |from: u64| {
        let lately = released
            .iter()
            .filter(|(at, _)| (from..from + interval).contains(at));
        lately.map(|(_, count)| count).sum()
    };
    released
        .iter()
        .map(|(at, _)| within(*at))
        .max()
        .unwrap_or(0)
}

#[test]
fn no_more_is_released_in_any_interval_however_close_passes_are() {
    for takes in [0, 25] {
        let mut world = begun(0, |settings| {
            settings.gate = Duration::from_secs(60);
            settings.max_per_pass = 3;
            settings.max_percent = 100;
        });
        world.takes = Duration::from_secs(takes);
        // One gate ends after the other, so that there is always something due.
        for last in 1..=20 {
            world.leases.push(lease(last, None));
            world.read();
            world.run(3);
        }
        world.run(1200);
        assert_eq!(
            world.released.iter().map(|(_, count)| count).sum::<usize>(),
            20
        );
        assert_eq!(most(&world.released, 60), 3, "{:?}", world.released);
        let close = world.passes.windows(2).filter(|two| two[1] - two[0] == 10);
        assert!(close.count() > 1, "{:?}", world.passes);
        let closer = world.passes.windows(2).filter(|two| two[1] - two[0] < 10);
        assert_eq!(closer.count(), 0, "{:?}", world.passes);
    }
}

#[test]
fn a_restart_gives_no_new_budget_and_a_person_s_plan_ends_no_other() {
    let mut world = World::new(3, |settings| {
        settings.gate = Duration::from_secs(20);
        settings.max_per_pass = 1;
    });
    world.read();
    world.run(1);
    let store = StoreName("host-local:net".into());
    world.tell(Input::Released {
        quarantined: Vec::new(),
        returned: Vec::new(),
        budgeted: vec![(store, world.now)],
    });
    world.engine.begin_passes(world.now);
    world.takes = Duration::from_secs(5);
    world.run(60);
    assert_eq!(world.released, [], "{:?}", world.passes);
    world.run(2);
    assert!(world.executing.is_some());
    world.tell(Input::Outcomes(vec![Outcome {
        id: None,
        store: StoreName("host-local:net".into()),
        address: lease(3, None).address,
        result: OutcomeResult::Failed("a person's".into()),
    }]));
    world.run(20);
    assert_eq!(world.released.len(), 1, "{:?}", world.released);
}
