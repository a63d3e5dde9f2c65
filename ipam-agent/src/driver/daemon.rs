//! The daemon of one host: observes, judges, serves, gives back.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::Timestamp as WallTime;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet, yield_now},
    time::{Instant, interval, sleep_until},
};

use super::{
    DriverError, boot_id, clock, gather,
    observer::{Ears, Observer},
    release::Releaser,
    stores::Readings,
    sweep::{Portions, portions},
};
use crate::{
    config::Config,
    engine::{
        evidence::{PassEvidence, SourceReport},
        input::{Command, Input, Notice, Remembered},
        lease::StoreName,
        plan::{Asker, Outcome, OutcomeResult, ReclaimPlan},
    },
    error::in_full,
    report::document::{Applied, ApplyRequest, ConfirmedRelease, OutcomeRecord, ReleaseResult},
    serve::{
        Query, Socket,
        query::{self, Reply},
        router,
    },
    source::live::TableError,
    state::{self, State},
    store::watch::Watcher,
};
use ipam_common::{Address, sighting::Stamps};

/// How often SIGHTINGS is read whole, to repair what events lost.
const SWEEP: Duration = Duration::from_secs(10);
/// No more often than this, even where events are lost.
const HURRIED_SWEEP: Duration = Duration::from_secs(2);
/// How often the counters are looked at.
const TICK: Duration = Duration::from_secs(1);
/// From one of the two passes that a person's question needs to the other.
const BETWEEN_PASSES: Duration = Duration::from_secs(1);
/// How many questions for a plan wait at once; more are told to come back.
const MAX_ASKED: usize = 32;

/// What came back from outside the loop.
enum Done {
    Read(Readings),
    Gathered(
        Vec<SourceReport>,
        Result<Vec<(Address, Stamps)>, TableError>,
    ),
    Behind(SourceReport),
    Swept(Result<Portions, TableError>),
    Executed(ReclaimPlan, Vec<Outcome>),
}

/// A question that needs fresh passes before it can be answered.
struct Asked {
    passes: u32,
    question: Question,
}

enum Question {
    Plan(Reply<crate::report::document::Plan>),
    Apply(ApplyRequest, Reply<Applied>),
}

/// The plan that is being carried out for a person, and who waits for its outcome.
struct Waiting {
    confirmed: Vec<ConfirmedRelease>,
    kept: Vec<OutcomeRecord>,
    reply: Reply<Applied>,
}

struct Daemon {
    observer: Observer,
    state: State,
    state_dir: std::path::PathBuf,
    holders: crate::config::Holders,
    releaser: Releaser,
    tasks: JoinSet<Done>,
    asked: Vec<Asked>,
    /// Plans that wait for the one that is being carried out, and who waits for them.
    plans: VecDeque<(ReclaimPlan, Option<Waiting>)>,
    executing: Option<Option<Waiting>>,
    reading: bool,
    read_again: bool,
    gathering: bool,
    next_gather: Option<Instant>,
    sweeping: bool,
    /// What the last look at SIGHTINGS found and the engine doesn't know yet.
    portions: Portions,
    swept: Instant,
    hurry: bool,
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// What it can't run without is missing or went away.
pub async fn run(config: &Config) -> Result<(), DriverError> {
    let boot = boot_id()?;
    let mut state = State::open(&config.state_dir)?;
    for warning in state.warnings() {
        tracing::warn!("{warning}");
    }
    let socket = Socket::bind(&config.socket).await?;
    let (mut observer, mut ears) = Observer::new(config, boot)?;
    let mut watcher = Watcher::new(observer.stores.roots())?;
    observer.tell(Input::Remembered(
        state.load().into_iter().map(remembered).collect(),
    ));
    let readings = observer.stores.read();
    observer.stores_read(readings);
    let releaser = Releaser::new(
        &config.state_dir,
        &observer.boot,
        observer.stores.clone(),
        Arc::clone(&observer.live),
        Arc::clone(&observer.tables),
        config.holders.netns,
    );
    let mut daemon = Daemon {
        observer,
        state,
        state_dir: config.state_dir.clone(),
        holders: config.holders.clone(),
        releaser,
        tasks: JoinSet::new(),
        asked: Vec::new(),
        plans: VecDeque::new(),
        executing: None,
        reading: false,
        read_again: false,
        gathering: false,
        next_gather: None,
        sweeping: false,
        portions: Portions::new(),
        swept: Instant::now(),
        hurry: false,
    };
    // LEASED is filled before the first port is watched.
    daemon.obey();
    daemon.observer.begin(&mut ears).await?;
    daemon.check_state();
    daemon.observer.engine.begin_passes(clock::now());
    if config.reclaim.lab {
        tracing::warn!(
            "reclaim.lab is on: the floors under gates and budgets are lifted. This is for \
             laboratories; never let it near leases that matter"
        );
    }
    tracing::info!(
        ports = daemon.observer.wanted().len(),
        "watching; the socket is {}",
        config.socket.display()
    );
    let (queries, asks) = query::channel();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(socket.serve(
        router::reading(queries.clone()).merge(router::changing(queries)),
        async move {
            let _ = stopped.await;
        },
    ));
    let ended = daemon.attend(&mut ears, &mut watcher, asks).await;
    daemon.observer.end();
    let _ = stop.send(());
    let _ = serving.await;
    if ended.is_ok() {
        tracing::info!("stopped; nothing of ours is left on any interface");
    }
    ended
}

impl Daemon {
    async fn attend(
        &mut self,
        ears: &mut Ears,
        watcher: &mut Watcher,
        mut asks: mpsc::Receiver<Query>,
    ) -> Result<(), DriverError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(DriverError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(DriverError::Signals)?;
        let mut tick = interval(TICK);
        let mut seen = Vec::new();
        loop {
            self.obey();
            let wake = self.wake();
            tokio::select! {
                heard = ears.events.next(&mut seen) => {
                    heard.map_err(DriverError::Events)?;
                    self.observer.seen(&mut seen);
                }
                // By way of the runtime, which looks for events meanwhile.
                () = yield_now(), if !self.portions.is_empty() => self.portion(),
                event = ears.links.next() => self.observer.link_event(event?),
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                Some(done) = self.tasks.join_next() => self.done(done),
                changed = watcher.changed() => {
                    changed?;
                    self.read_stores();
                }
                Some(query) = asks.recv() => self.answer(query),
                _ = tick.tick() => self.tick(),
                () = sleep_until(wake) => self.timeout(),
            }
        }
    }

    /// When time alone asks for something.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let engine = self.observer.engine.poll_timeout();
        let engine = engine.map(|at| now + at.since(clock::now()));
        let ask = self.next_gather.filter(|_| !self.gathering);
        let latest = now + SWEEP;
        engine.into_iter().chain(ask).fold(latest, Instant::min)
    }

    fn timeout(&mut self) {
        self.observer.engine.handle_timeout(clock::now());
        if self.next_gather.is_some_and(|at| at <= Instant::now()) && !self.gathering {
            self.gather();
        }
    }

    fn tick(&mut self) {
        self.hurry |= self.observer.count_lost();
        self.observer.retry();
        let pause = if self.hurry { HURRIED_SWEEP } else { SWEEP };
        if !self.sweeping && self.swept.elapsed() >= pause {
            self.sweeping = true;
            self.hurry = false;
            let tables = Arc::clone(&self.observer.tables);
            self.tasks
                .spawn_blocking(move || Done::Swept(tables.sweep().map(portions)));
        }
    }

    /// Tells the engine a portion of what a look at SIGHTINGS found.
    fn portion(&mut self) {
        if let Some(portion) = self.portions.pop_front() {
            self.observer.tell(Input::Snapshot(portion));
        }
        if self.portions.is_empty() {
            self.sweeping = false;
            self.swept = Instant::now();
        }
    }

    /// Does what the engine says.
    fn obey(&mut self) {
        while let Some(command) = self.observer.engine.next_command() {
            match self.observer.obey(command) {
                None | Some(Command::Watch { .. } | Command::Ask(_)) => {}
                Some(Command::Gather) => self.gather(),
                Some(Command::LookBehindPorts) => {
                    self.tasks
                        .spawn_blocking(|| Done::Behind(gather::behind_ports()));
                }
                Some(Command::Publish(notice)) => self.publish(&notice),
                Some(Command::Execute(plan)) => self.execute(plan, None),
                Some(Command::Remember { leases, forget }) => self.remember(leases, &forget),
            }
        }
    }

    fn publish(&self, notice: &Notice) {
        match notice {
            Notice::Opened(segment, address, conflict)
            | Notice::Resolved(segment, address, conflict) => {
                let reason = self.observer.engine.sentence(segment, *address, conflict);
                let kind = conflict.verdict.kind().name();
                if conflict.is_active() {
                    tracing::warn!(id = %conflict.id, kind, "{reason}");
                } else {
                    tracing::info!(id = %conflict.id, kind, "resolved: {reason}");
                }
            }
            Notice::Happened(event) => {
                tracing::info!(kind = event.kind.name(), "{event}");
            }
        }
    }

    fn remember(&mut self, leases: Vec<Remembered>, forget: &[(StoreName, Address)]) {
        let at = clock::wall_time();
        let leases: Vec<state::Remembered> = leases
            .into_iter()
            .map(|lease| recorded(lease, at))
            .collect();
        if let Err(error) = self.state.remember(&leases, forget) {
            tracing::error!("{}", in_full(&error));
        }
        self.check_state();
    }

    fn check_state(&mut self) {
        let problem = self.state.problem().map(|problem| in_full(problem));
        let problem = problem
            .or_else(|| {
                state::persistence(&self.state_dir)
                    .err()
                    .map(|e| in_full(&e))
            })
            .or_else(|| self.releaser.problem());
        self.observer
            .tell(Input::State(problem.map_or(Ok(()), Err)));
    }

    /// Reads the stores again; once more afterwards if they change meanwhile.
    fn read_stores(&mut self) {
        if self.reading {
            self.read_again = true;
            return;
        }
        self.reading = true;
        let stores = self.observer.stores.clone();
        self.tasks.spawn_blocking(move || Done::Read(stores.read()));
    }

    /// Begins a pass: the stores first, so that the leases are no older than the evidence.
    fn gather(&mut self) {
        if self.gathering {
            return;
        }
        self.gathering = true;
        self.next_gather = None;
        self.read_stores();
    }

    fn ask_sources(&mut self) {
        let tables = Arc::clone(&self.observer.tables);
        let holders = self.holders.clone();
        self.tasks.spawn_blocking(move || {
            let reports = gather::holders(&holders);
            // Last, so that no sign of life is younger than the answer to it.
            Done::Gathered(reports, tables.stamps())
        });
    }

    fn done(&mut self, done: Result<Done, JoinError>) {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                // A panic is a defect of ours: the pass is void, the next one begins anew.
                tracing::error!("a task failed: {error}");
                (self.reading, self.gathering, self.sweeping) = (false, false, false);
                return;
            }
        };
        match done {
            Done::Read(readings) => {
                self.reading = false;
                self.observer.stores_read(readings);
                if std::mem::take(&mut self.read_again) {
                    self.read_stores();
                } else if self.gathering {
                    self.obey();
                    self.ask_sources();
                }
            }
            Done::Gathered(sources, stamps) => self.pass(sources, stamps),
            Done::Behind(report) => self.observer.tell(Input::Held(report)),
            Done::Swept(Ok(portions)) => {
                self.portions = portions;
                self.portion();
            }
            Done::Swept(Err(error)) => {
                self.sweeping = false;
                self.swept = Instant::now();
                tracing::warn!("{}", in_full(&error));
            }
            Done::Executed(plan, outcomes) => self.executed(&plan, outcomes),
        }
    }

    /// Everything of a pass has been answered.
    fn pass(
        &mut self,
        sources: Vec<SourceReport>,
        stamps: Result<Vec<(Address, Stamps)>, TableError>,
    ) {
        self.gathering = false;
        self.check_state();
        let ports = self.observer.check_all();
        let stamps = stamps.unwrap_or_else(|error| {
            // Without it no lease is known to be watched for.
            tracing::warn!("{}", in_full(&error));
            Vec::new()
        });
        self.observer.tell(Input::Evidence(PassEvidence {
            ports: ports.clone(),
            stamps,
            sources,
        }));
        self.observer.mend(&ports);
        self.obey();
        let mut ready = Vec::new();
        for asked in &mut self.asked {
            asked.passes = asked.passes.saturating_sub(1);
        }
        for asked in std::mem::take(&mut self.asked) {
            if asked.passes == 0 {
                ready.push(asked.question);
            } else {
                self.asked.push(asked);
            }
        }
        for question in ready {
            self.reply(question);
        }
        if !self.asked.is_empty() {
            self.next_gather = Some(Instant::now() + BETWEEN_PASSES);
        }
    }

    fn answer(&mut self, query: Query) {
        let composer = self.observer.composer(&[]);
        match query {
            Query::Report(reply) => drop(reply.send(composer.report())),
            Query::Leases(reply) => drop(reply.send(composer.leases())),
            Query::Addresses(reply) => drop(reply.send(composer.addresses())),
            Query::Segments(reply) => drop(reply.send(composer.segments())),
            Query::Explain(address, reply) => drop(reply.send(composer.explain(address))),
            Query::Plan(reply) => self.ask(Question::Plan(reply)),
            Query::Apply(request, reply) => self.ask(Question::Apply(request, reply)),
        }
    }

    /// Two fresh passes, then the answer.
    fn ask(&mut self, question: Question) {
        if self.asked.len() >= MAX_ASKED {
            return;
        }
        // One that is under way began before the question.
        let passes = if self.gathering { 3 } else { 2 };
        self.asked.push(Asked { passes, question });
        self.gather();
    }

    fn reply(&mut self, question: Question) {
        match question {
            Question::Plan(reply) => drop(reply.send(self.observer.composer(&[]).plan())),
            Question::Apply(request, reply) => self.apply(request, reply),
        }
    }

    /// Carries out what is both confirmed and, after two more passes, still proven.
    fn apply(&mut self, request: ApplyRequest, reply: Reply<Applied>) {
        let now = clock::now();
        let mut plan = self.observer.engine.plan(Asker::Person, now);
        let confirmed = |store: &StoreName, address: Address| {
            request
                .confirmed
                .iter()
                .any(|confirmed| *confirmed.store == *store.0 && confirmed.address == address.ip())
        };
        plan.releases
            .retain(|release| confirmed(&release.lease().store, release.lease().address));
        plan.kept
            .retain(|kept| confirmed(&kept.store, kept.address));
        let composer = self.observer.composer(&[]);
        let kept = plan
            .kept
            .iter()
            .map(|kept| OutcomeRecord {
                store: kept.store.to_string(),
                address: kept.address.ip(),
                result: ReleaseResult::Kept,
                blocker: kept.blockers.first().map(|b| composer.blocker(b)),
                error: None,
            })
            .collect();
        let waiting = Waiting {
            confirmed: request.confirmed,
            kept,
            reply,
        };
        self.execute(plan, Some(waiting));
    }

    fn execute(&mut self, plan: ReclaimPlan, waiting: Option<Waiting>) {
        if self.executing.is_some() {
            self.plans.push_back((plan, waiting));
            return;
        }
        self.executing = Some(waiting);
        let ports = Releaser::ports(&self.observer.engine, &plan, clock::now());
        let releaser = self.releaser.clone();
        self.tasks.spawn_blocking(move || {
            let outcomes = releaser.execute(&plan, &ports);
            Done::Executed(plan, outcomes)
        });
    }

    fn executed(&mut self, plan: &ReclaimPlan, outcomes: Vec<Outcome>) {
        for (release, outcome) in plan.releases.iter().zip(&outcomes) {
            let (store, address) = (&outcome.store, outcome.address);
            match &outcome.result {
                OutcomeResult::Released => {
                    tracing::info!(%store, %address, "released: {}", release.sentence());
                }
                OutcomeResult::Kept(blocker) => {
                    tracing::info!(%store, %address, "kept at the last moment: {blocker}");
                }
                OutcomeResult::Failed(error) => {
                    tracing::error!(%store, %address, "not released: {error}");
                }
            }
        }
        if let Some(Some(waiting)) = self.executing.take() {
            let applied = self.applied(waiting.kept, &waiting.confirmed, &outcomes);
            drop(waiting.reply.send(applied));
        }
        self.observer.tell(Input::Outcomes(outcomes));
        self.read_stores();
        if let Some((plan, waiting)) = self.plans.pop_front() {
            self.execute(plan, waiting);
        }
    }

    fn applied(
        &self,
        kept: Vec<OutcomeRecord>,
        confirmed: &[ConfirmedRelease],
        outcomes: &[Outcome],
    ) -> Applied {
        let composer = self.observer.composer(&[]);
        let mut records = kept;
        records.extend(outcomes.iter().map(|outcome| {
            let (result, blocker, error) = match &outcome.result {
                OutcomeResult::Released => (ReleaseResult::Released, None, None),
                OutcomeResult::Kept(blocker) => {
                    (ReleaseResult::Kept, Some(composer.blocker(blocker)), None)
                }
                OutcomeResult::Failed(error) => (ReleaseResult::Failed, None, Some(error.clone())),
            };
            OutcomeRecord {
                store: outcome.store.to_string(),
                address: outcome.address.ip(),
                result,
                blocker,
                error,
            }
        }));
        for confirmed in confirmed {
            let told = records
                .iter()
                .any(|r| r.store == confirmed.store && r.address == confirmed.address);
            if !told {
                // Not leased any more: somebody else gave it back meanwhile.
                records.push(OutcomeRecord {
                    store: confirmed.store.clone(),
                    address: confirmed.address,
                    result: ReleaseResult::Kept,
                    blocker: Some(composer.blocker(&crate::engine::plan::Blocker::new(
                        crate::engine::plan::Reason::Changed,
                        "there is no such lease any more",
                    ))),
                    error: None,
                });
            }
        }
        records.sort_by(|a, b| (&a.store, a.address).cmp(&(&b.store, b.address)));
        Applied {
            schema: Default::default(),
            generated_at: clock::wall_time(),
            host: self.observer.host.clone(),
            blind: composer.plan().blind,
            outcomes: records,
        }
    }
}

fn remembered(known: state::Remembered) -> Remembered {
    Remembered {
        store: known.store,
        address: known.address,
        generation: known.generation,
        boot: known.boot_id,
        since: known.first_seen,
    }
}

fn recorded(lease: Remembered, at: WallTime) -> state::Remembered {
    state::Remembered {
        store: lease.store,
        address: lease.address,
        generation: lease.generation,
        boot_id: lease.boot,
        first_seen: lease.since,
        at,
    }
}
