use proptest::{collection::vec, prelude::*};

use super::*;
use crate::engine::{
    Settings, Windows,
    evidence::{PassEvidence, SourceReport},
    holders::{Own, RuntimeReport, Sandbox, SocketAnswer},
    input::Input,
    owner::Owners,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const GATE: Duration = Duration::from_secs(1800);
const MOST: usize = 3;

/// An engine whose state is fine, and what it was told last.
struct World {
    engine: Engine,
    now: Timestamp,
    dead: Vec<DeadEntry>,
    runtimes: Option<RuntimeReport>,
    namespaces: Result<(), String>,
}

impl World {
    /// A host on which one runtime lists no sandbox.
    fn new(dead: Vec<DeadEntry>) -> Self {
        let reclaim = ReclaimSettings {
            gate: 15 * MINUTE,
            damaged_gate: GATE,
            asked_gate: 5 * MINUTE,
            asked_damaged_gate: 15 * MINUTE,
            reboot_gate: MINUTE,
            pass_interval: MINUTE,
            max_per_pass: MOST,
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
            dead,
            runtimes: Some(runtime(SocketAnswer::Sandboxes(Vec::new()))),
            namespaces: Ok(()),
        };
        world.tell(Input::State(Ok(())));
        world
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(input, self.now);
    }

    /// A pass; what is to be removed by then.
    fn pass(&mut self) -> Vec<Removal> {
        self.tell(Input::DeadEntries(self.dead.clone()));
        self.tell(Input::Evidence(PassEvidence {
            sources: vec![SourceReport {
                source: Source::Namespaces,
                answer: self.namespaces.clone().map(|()| Vec::new()),
            }],
            runtimes: self.runtimes.clone(),
            ..PassEvidence::default()
        }));
        self.removals()
    }

    fn removals(&mut self) -> Vec<Removal> {
        let commands = std::iter::from_fn(|| self.engine.next_command());
        let mut removals: Vec<_> = commands
            .filter_map(|command| match command {
                Command::Clean(removals) => Some(removals),
                _ => None,
            })
            .collect();
        assert!(removals.len() < 2, "one at a time");
        removals.pop().unwrap_or_default()
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Passes a minute apart, until the first removals.
    fn passes(&mut self, minutes: u32) -> Vec<Removal> {
        for _ in 0..minutes {
            let removals = self.pass();
            if !removals.is_empty() {
                return removals;
            }
            self.wait(MINUTE);
        }
        Vec::new()
    }

    /// What stands against the removal of the first entry.
    fn blockers(&self) -> Vec<(Reason, bool)> {
        let mut dead = self.engine.dead_caches(self.now);
        let (_, blockers) = dead.next().expect("an entry");
        let told = blockers.iter().map(|b| (b.reason, b.until.is_some()));
        told.collect()
    }
}

fn id(n: u8) -> Arc<str> {
    format!("{n:02x}").repeat(32).into()
}

fn entry(n: u8, content: &[u8]) -> DeadEntry {
    DeadEntry {
        path: Path::new(&format!("/cache/net-{}-eth0", id(n))).into(),
        damage: Damage::Empty,
        subject: Ok(Subject {
            container: id(n),
            generation: Generation {
                inode: n.into(),
                modified: 1,
                content: content.into(),
            },
        }),
    }
}

fn runtime(answer: SocketAnswer) -> RuntimeReport {
    RuntimeReport {
        own: Own::Host,
        sockets: vec![("/run/a.sock".into(), answer)],
    }
}

fn sandbox(n: u8, ready: bool, namespace_gone: bool) -> Sandbox {
    Sandbox {
        id: id(n),
        pod: "default/pod".into(),
        ready,
        addresses: Vec::new(),
        own_network: true,
        namespace_gone,
        guest: false,
    }
}

fn listing(sandboxes: Vec<Sandbox>) -> Option<RuntimeReport> {
    Some(runtime(SocketAnswer::Sandboxes(sandboxes)))
}

#[test]
fn what_nobody_holds_goes_after_the_gate_and_two_passes() {
    let mut world = World::new(vec![entry(1, b"")]);
    assert_eq!(world.passes(30), []);
    world.wait(GATE - 30 * MINUTE);
    assert_eq!(world.pass(), []);
    assert_eq!(world.blockers(), [(Reason::SecondPass, true)]);
    world.wait(MINUTE);
    let removals = world.pass();
    let [removal] = &removals[..] else {
        panic!("{removals:?}")
    };
    assert_eq!(removal.subject(), &entry(1, b"").subject.expect("one"));
    assert_eq!(removal.unchanged_for(), GATE + MINUTE);
    assert_eq!(removal.sources(), ["cri", "namespaces"]);
    assert_eq!(world.blockers(), []);
    // It is being removed: nothing more is asked for.
    assert_eq!(world.pass(), []);
    let cleaned = |result| {
        let removal = removal.clone();
        Input::Cleaned(vec![Cleaned { removal, result }])
    };
    // What couldn't be done is tried again as late as the first time.
    world.tell(cleaned(Err(NotRemoved::Failed("no".into()))));
    assert_eq!(world.passes(31), []);
    assert_eq!(world.passes(1).len(), 1);
    world.tell(cleaned(Ok(())));
    assert_eq!(world.engine.dead_caches(world.now).count(), 0);
}

#[test]
fn what_is_written_to_begins_anew() {
    let mut world = World::new(vec![entry(1, b"")]);
    assert_eq!(world.passes(30), []);
    world.dead = vec![entry(1, b"{")];
    assert_eq!(world.passes(31), []);
    assert_eq!(world.passes(1).len(), 1);
    // Whole by now: it isn't named any more, and dead again is another matter.
    let mut world = World::new(vec![entry(1, b"")]);
    assert_eq!(world.passes(30), []);
    world.dead.clear();
    assert_eq!(world.pass(), []);
    world.dead = vec![entry(1, b"")];
    assert_eq!(world.passes(31), []);
    assert_eq!(world.passes(1).len(), 1);
}

#[test]
fn whatever_is_in_doubt_keeps_it() {
    type Change = fn(&mut World);
    let cases: [(Change, Reason); 8] = [
        (
            |w| w.dead[0].subject = Err("its name tells of no container"),
            Reason::Kept,
        ),
        (|w| w.runtimes = None, Reason::SourceDown),
        (
            |w| w.runtimes = Some(runtime(SocketAnswer::Failed("hung".into()))),
            Reason::SourceDown,
        ),
        (|w| w.namespaces = Err("refused".into()), Reason::SourceDown),
        (
            |w| w.runtimes = listing(vec![sandbox(1, true, false)]),
            Reason::Holder,
        ),
        // Nothing says that its namespace is gone.
        (
            |w| w.runtimes = listing(vec![sandbox(1, false, false)]),
            Reason::Holder,
        ),
        (
            |w| w.tell(Input::Paused(Some("paused".into()))),
            Reason::Mode,
        ),
        (
            |w| w.tell(Input::State(Err("tmpfs".into()))),
            Reason::StateNotPersistent,
        ),
    ];
    for (change, reason) in cases {
        let mut world = World::new(vec![entry(1, b"")]);
        change(&mut world);
        assert_eq!(world.passes(90), [], "{reason:?}");
        assert_eq!(world.blockers()[0], (reason, false));
    }
}

#[test]
fn a_sandbox_that_its_kubelet_never_stopped_holds_it_for_a_while() {
    let mut world = World::new(vec![entry(1, b"")]);
    world.runtimes = listing(vec![sandbox(1, true, false)]);
    assert_eq!(world.passes(40), []);
    // A power cut: its namespace is gone, and its DEL fails because of the entry.
    world.runtimes = listing(vec![sandbox(1, false, true)]);
    assert_eq!(world.pass(), []);
    assert_eq!(
        world.blockers(),
        [(Reason::Holder, true), (Reason::SecondPass, false)]
    );
    world.wait(MINUTE);
    assert_eq!(world.passes(10), []);
    assert_eq!(world.passes(1).len(), 1);
}

#[test]
fn a_list_that_became_empty_is_doubted_for_the_gate() {
    let mut world = World::new(vec![entry(1, b"")]);
    world.runtimes = listing(vec![sandbox(1, true, false)]);
    assert_eq!(world.passes(40), []);
    world.runtimes = listing(Vec::new());
    assert_eq!(world.passes(31), []);
    assert_eq!(world.passes(1).len(), 1);
}

#[test]
fn so_many_go_at_once() {
    let mut world = World::new((1..=5).map(|n| entry(n, b"")).collect());
    let removals = world.passes(40);
    assert_eq!(removals.len(), MOST);
    let blocked = |world: &World| -> Vec<Vec<Reason>> {
        let dead = world.engine.dead_caches(world.now);
        let reasons = dead.map(|(_, blockers)| blockers.iter().map(|b| b.reason).collect());
        reasons.collect()
    };
    let none = Vec::new;
    let budget = || vec![Reason::Budget];
    assert_eq!(
        blocked(&world),
        [none(), none(), none(), budget(), budget()]
    );
    let gone = removals.into_iter().map(|removal| Cleaned {
        removal,
        result: Ok(()),
    });
    let gone = Input::Cleaned(gone.collect());
    world.tell(gone);
    world.dead.drain(..MOST);
    assert_eq!(world.pass().len(), 2);
}

/// What one pass meets.
#[derive(Clone, Debug)]
struct Step {
    seconds: u64,
    /// Of two entries: not there, or there with this content.
    contents: [Option<u8>; 2],
    /// Of their sandboxes: not listed, NOTREADY without a namespace, READY.
    sandboxes: [u8; 2],
    answers: bool,
    paused: bool,
    fails: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let content = || prop_oneof![1 => Just(None), 12 => Just(Some(0)), 1 => Just(Some(1))];
    let sandbox = || prop_oneof![8 => Just(0u8), 1 => Just(1), 1 => Just(2)];
    (
        1..900u64,
        [content(), content()],
        [sandbox(), sandbox()],
        prop::bool::weighted(0.95),
        prop::bool::weighted(0.05),
        any::<bool>(),
    )
        .prop_map(
            |(seconds, contents, sandboxes, answers, paused, fails)| Step {
                seconds,
                contents,
                sandboxes,
                answers,
                paused,
                fails,
            },
        )
}

proptest! {
    /// Whatever happens: what goes was the same, and held by nobody, for all of the gate's
    /// end, and at the very pass every source answered.
    #[test]
    fn nothing_goes_without_its_proof(steps in vec(step(), 1..60)) {
        let mut world = World::new(Vec::new());
        let mut since = [None; 2];
        let mut clear = [0u32; 2];
        for step in steps {
            world.wait(Duration::from_secs(step.seconds));
            world.dead = (0..2u8)
                .filter_map(|n| Some(entry(n, &[step.contents[usize::from(n)]?])))
                .collect();
            // One that is always there: the list was never emptied.
            let mut listed = vec![sandbox(9, true, false)];
            for (n, state) in (0u8..).zip(step.sandboxes) {
                if state > 0 {
                    listed.push(sandbox(n, state == 2, true));
                }
            }
            world.runtimes = match step.answers {
                true => listing(listed),
                false => Some(runtime(SocketAnswer::Failed("hung".into()))),
            };
            let paused = step.paused.then(|| "paused".into());
            world.tell(Input::Paused(paused));
            let removals = world.pass();
            for n in 0..2 {
                let content = step.contents[n];
                match (content, since[n]) {
                    (Some(now), Some((then, _))) if now == then => {}
                    (Some(content), _) => (since[n], clear[n]) = (Some((content, world.now)), 0),
                    (None, _) => (since[n], clear[n]) = (None, 0),
                }
                let old = since[n].is_some_and(|(_, at)| world.now.since(at) >= GATE);
                let held = step.sandboxes[n] == 2;
                let agrees = old && !held && step.answers && !step.paused;
                clear[n] = if agrees { clear[n] + 1 } else { 0 };
                let goes = removals.iter().any(|removal| removal.path() == &entry(n as u8, b"").path);
                prop_assert!(!goes || clear[n] >= 2, "{n}: {step:?}");
                if goes && step.fails {
                    (since[n], clear[n]) = (content.map(|content| (content, world.now)), 0);
                } else if goes {
                    (since[n], clear[n]) = (None, 0);
                }
            }
            if !removals.is_empty() {
                let cleaned = removals.into_iter().map(|removal| Cleaned {
                    removal,
                    result: match step.fails {
                        true => Err(NotRemoved::Failed("no".into())),
                        false => Ok(()),
                    },
                });
                world.tell(Input::Cleaned(cleaned.collect()));
            }
        }
    }
}
