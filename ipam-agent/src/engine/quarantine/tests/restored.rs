//! A lease that was put back: what it takes until it may go again.

use super::*;
use crate::engine::{lease::Damage, leasebook::Origin};

const MINUTE: u32 = 60;

impl World {
    /// Released after so many minutes of silence, heard after so many more, and put back.
    fn goes_and_comes_back(&mut self, quiet_for: u32, later: u32, grant: i64) {
        self.later(quiet_for * MINUTE);
        self.quiet_for = SECOND * (quiet_for * MINUTE);
        self.release();
        self.later(later * MINUTE - 2);
        self.heard(1, self.now);
        let back = back(grant);
        self.is_put_back(done(Some(back.generation())));
        self.leases = vec![back];
        self.read();
    }

    fn blocker(&self, asker: Asker, reason: Reason) -> Option<String> {
        let plan = self.engine.plan(asker, self.now);
        let blockers = plan.kept.into_iter().flat_map(|kept| kept.blockers);
        let mut blockers = { blockers }.filter(|blocker| blocker.reason == reason);
        blockers.next().map(|blocker| blocker.detail)
    }

    fn is_old_enough(&self, asker: Asker) -> bool {
        self.blocker(asker, Reason::Age).is_none()
    }

    fn origin(&self) -> Origin {
        self.engine.leases().of(&address(5))[0].origin.clone()
    }
}

#[test]
fn silence_that_was_broken_counts_once_it_has_lasted_four_times_as_long() {
    let mut world = World::new();
    // Broken after eighteen minutes.
    world.goes_and_comes_back(15, 3, 2);
    assert_eq!(
        world.blocker(Asker::Daemon, Reason::Age).as_deref(),
        Some(
            "seen unchanged for 0 s of 72 min, since it was released as 00000001, after which its \
             address broke a silence of 18 min"
        )
    );
    assert_eq!(world.blocker(Asker::Daemon, Reason::Kept), None);
    world.later(72 * MINUTE - 1);
    for asker in [Asker::Daemon, Asker::Person] {
        assert!(!world.is_old_enough(asker));
        assert!(world.blocker(asker, Reason::Seen).is_some());
    }
    world.later(1);
    for asker in [Asker::Daemon, Asker::Person] {
        assert!(world.is_old_enough(asker));
        assert_eq!(world.blocker(asker, Reason::Seen), None);
    }
    // Whoever breaks that too, is waited for longer still; a shorter one makes it no less.
    world.goes_and_comes_back(72, 8, 3);
    world.later(319 * MINUTE);
    assert!(!world.is_old_enough(Asker::Daemon));
    world.goes_and_comes_back(1, 1, 4);
    world.later(319 * MINUTE);
    assert!(!world.is_old_enough(Asker::Daemon));
    world.later(MINUTE);
    assert!(world.is_old_enough(Asker::Daemon));
    // Given back by its holder, it is another's.
    world.leases.clear();
    world.read();
    world.leases = vec![back(4)];
    world.read();
    world.later(15 * MINUTE);
    assert!(world.is_old_enough(Asker::Daemon));
}

#[test]
fn it_takes_no_less_than_for_others_and_no_more_than_a_day() {
    let mut world = World::new();
    world.goes_and_comes_back(1, 1, 2);
    world.later(15 * MINUTE - 1);
    assert!(!world.is_old_enough(Asker::Daemon));
    assert!(world.is_old_enough(Asker::Person), "after eight");
    world.later(1);
    assert!(world.is_old_enough(Asker::Daemon));
    let mut world = World::new();
    world.goes_and_comes_back(15, 23 * 60, 2);
    world.later(24 * 60 * MINUTE - 1);
    assert!(!world.is_old_enough(Asker::Daemon));
    world.later(1);
    assert!(world.is_old_enough(Asker::Daemon));
}

#[test]
fn a_lease_of_an_earlier_boot_stays_one_and_waits_for_the_whole_gate() {
    for read_first in [false, true] {
        let mut world = World::new();
        let released = proven(&lease(5, 1), SECOND * MINUTE, Some("before"));
        world.leases.clear();
        world.tell(Input::Releasing(vec![released]));
        world.read();
        let outcome = Outcome {
            id: Some("00000001".to_owned()),
            store: store(),
            address: address(5),
            result: OutcomeResult::Released,
        };
        world.tell(Input::Outcomes(vec![outcome]));
        world.later(1);
        world.heard(1, world.now);
        // The watch on the store may be faster than who put it back.
        let back = back(2);
        world.leases = vec![back.clone()];
        let alarms = world.alarms.len();
        if read_first {
            world.read();
            assert_eq!(world.origin(), Origin::ThisBoot);
            assert_eq!(world.quarantined(), [(address(5), "00000001")]);
        }
        world.is_put_back(done(Some(back.generation())));
        world.read();
        assert_eq!(world.quarantined(), []);
        assert_eq!(world.alarms.len(), alarms + 1);
        assert!(world.taken.is_empty(), "it is its own lease");
        assert_eq!(world.origin(), Origin::EarlierBoot("before".into()));
        // Every source answers.
        world.pass(Stamps::default(), false);
        world.later(15 * MINUTE - 1);
        assert!(!world.is_old_enough(Asker::Daemon));
        world.later(1);
        assert!(world.is_old_enough(Asker::Daemon));
        // What is granted to the same again is of this boot.
        world.leases = vec![super::back(3)];
        world.read();
        assert_eq!(world.origin(), Origin::ThisBoot);
    }
}

#[test]
fn what_a_person_wanted_back_stays_unasked() {
    let mut world = World::new();
    world.release();
    let id = "00000001".to_owned();
    let back = back(2);
    world.tell(Input::PutBack {
        id,
        result: done(Some(back.generation())),
    });
    world.leases = vec![back];
    world.read();
    world.later(48 * 60 * MINUTE);
    assert!(world.blocker(Asker::Daemon, Reason::Kept).is_some());
    assert_eq!(world.blocker(Asker::Person, Reason::Kept), None);
    assert!(world.is_old_enough(Asker::Person));
    // However long ago it was released.
    let mut forgotten = World::new();
    forgotten.tell(Input::PutBack {
        id: "00000001".to_owned(),
        result: done(None),
    });
    assert!(forgotten.blocker(Asker::Daemon, Reason::Kept).is_some());
    // Not even if a person has it released, and it comes back by itself.
    world.goes_and_comes_back(5, 1, 3);
    assert!(world.blocker(Asker::Daemon, Reason::Kept).is_some());
}

#[test]
fn an_earlier_run_s_are_known() {
    let mut world = World::new();
    let mut tell = |silence| {
        world.tell(Input::Released {
            quarantined: Vec::new(),
            returned: vec![Returned {
                id: "00000001".into(),
                lease: lease(5, 1),
                silence,
            }],
            budgeted: Vec::new(),
        });
        let age = world.blocker(Asker::Daemon, Reason::Age);
        let kept = world.blocker(Asker::Daemon, Reason::Kept);
        (age.expect("it is new"), kept.is_some())
    };
    let (age, kept) = tell(Some(SECOND * (10 * MINUTE)));
    assert!(
        age.contains("of 40 min, since it was released as 00000001") && !kept,
        "{age}"
    );
    let (_, kept) = tell(None);
    assert!(kept);
}

#[test]
fn what_is_damaged_before_it_is_told_of_was_put_back_by_no_person() {
    let mut world = World::new();
    world.later(15 * MINUTE);
    world.quiet_for = SECOND * (15 * MINUTE);
    world.release();
    world.later(3 * MINUTE - 2);
    world.heard(1, world.now);
    // The watch on the store is faster than who put it back, and a power cut than both.
    let generation = Generation {
        content: Box::default(),
        ..back(2).generation()
    };
    let damage = Some(Damage::Empty);
    world.leases = vec![Lease::new(
        store(),
        address(5),
        &Holder::default(),
        &generation,
        damage,
    )];
    world.read();
    assert!(world.taken.is_empty());
    world.is_put_back(done(Some(back(2).generation())));
    assert_eq!(world.blocker(Asker::Daemon, Reason::Kept), None);
    assert_eq!(
        world.blocker(Asker::Daemon, Reason::Age).as_deref(),
        Some(
            "seen unchanged for 0 s of 72 min, since it was released as 00000001, after which its \
             address broke a silence of 18 min"
        )
    );
    assert_eq!(world.alarms.len(), 1);
}

#[test]
fn a_lease_that_comes_while_an_old_one_cannot_be_put_back_ends_its_quarantine() {
    let mut world = World::new();
    world.release();
    world.heard(1, world.now);
    world.leases = vec![lease(5, 2)];
    world.read();
    assert!(world.taken.is_empty(), "it isn't known yet");
    world.is_put_back(PutBack::Failed("its lock is held".to_owned()));
    assert_eq!(world.taken, ["00000001"]);
    assert_eq!(world.quarantined(), []);
}
