//! The daemon of one host: observes, judges, serves, gives back. Here is its loop; what a
//! pass, a person's question and a notice ask of it is in the modules below.

mod caches;
mod confirm;
mod fence;
mod health;
mod memory;
mod metering;
mod passes;
mod pause;
mod probe;
mod publish;
mod reload;
mod requests;
mod serving;
mod signals;
mod survey;
mod undo;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet, yield_now},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::{
    health::Readiness,
    memory::Unwritten,
    metering::{FramesHeard, Metering},
    reload::Reloading,
    requests::{Asked, Waiting},
    serving::Serving,
    signals::{End, Signals, Told},
    undo::PuttingBack,
};
use super::{
    DriverError,
    alone::{Alone, NotAlone},
    boot_id, clock,
    down::Down,
    gather::{self, Gathered},
    observer::{Ears, Observer},
    release::{Releaser, lock},
    stores::Readings,
    sweep::{Portions, portions},
};
use crate::{
    config::{Config, ConfigError},
    engine::{
        caches::Cleaned,
        evidence::SourceReport,
        fence::Fenced,
        input::{Command, Input},
        plan::{Outcome, ReclaimPlan},
        probing::Found,
        vigil::Vigil,
    },
    error::in_full,
    prober::Prober,
    report::compose::Survey,
    serve::{
        Listeners, Query, Socket, Watchers,
        metrics::stage,
        query::{self, Overviewed, Reply},
    },
    source::live::{Pins, PinsError, TableError},
    state::{Paused, State, StateError},
    store::watch::Watcher,
};
use ipam_common::{Address, sighting::Stamps};

/// How often SIGHTINGS is read whole, to repair what events lost.
const SWEEP: Duration = Duration::from_secs(10);
/// No more often than this, even where events are lost.
const HURRIED_SWEEP: Duration = Duration::from_secs(2);
/// How often the counters are looked at, and how old what is known of the links gets where
/// nothing happens: who was stopped meanwhile can't tell when what then comes has come.
const TICK: Duration = Duration::from_millis(500);
/// How often is looked for what is wrong, which counts once it lasts.
const HEALTH: Duration = Duration::from_secs(5);
/// Between two ports of a crowd that are put in order, each of which takes the loop 8 to 19 ms.
const SETTLE: Duration = Duration::from_millis(100);

/// What came back from outside the loop.
enum Done {
    Read(Readings),
    Gathered(Gathered, Result<Vec<(Address, Stamps)>, TableError>),
    Behind(SourceReport),
    Asked(Input),
    Probed(u64, Vec<Found>),
    Swept(Result<(Portions, FramesHeard), TableError>),
    Executed(ReclaimPlan, Vec<Outcome>),
    PutBack(Box<PuttingBack>),
    Noted(Result<(), String>),
    Remembered(Result<(), StateError>),
    Fenced(Vec<Fenced>),
    Cleaned(Vec<Cleaned>),
}

struct Daemon {
    alone: Option<Alone>,
    observer: Observer,
    state: Arc<Mutex<State>>,
    writing: bool,
    unwritten: Unwritten,
    /// Why the state could not be read or written, when that was tried last. Unless there is
    /// something, what earlier runs wrote to it has been told to the engine.
    unrecorded: Option<String>,
    state_dir: std::path::PathBuf,
    /// Why the state isn't to be relied on, as it was logged last.
    state_problem: Option<String>,
    holders: crate::config::Holders,
    /// Which of them don't answer, as the log tells of them.
    holders_down: Down,
    clean_caches: bool,
    releaser: Releaser,
    paused: Option<Paused>,
    watchers: Watchers,
    prober: Prober,
    /// In a laboratory: in how long a time the wire is asked.
    probe_within: Option<Duration>,
    /// The round in which the wire is being asked.
    probing: Option<u64>,
    tasks: JoinSet<Done>,
    asked: Vec<Asked>,
    /// A look at every lease that is under way, and who waits for it.
    survey: Option<Survey>,
    surveyed: Vec<Reply<Overviewed>>,
    /// Plans that wait for the one that is being carried out, and who waits for them.
    plans: VecDeque<(ReclaimPlan, Vigil, Option<Waiting>)>,
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
    metering: Metering,
    readiness: Readiness,
    reloading: Reloading,
}

/// Runs the daemon until SIGTERM or SIGINT, or until SIGUSR2 has it hand over to the next.
/// SIGHUP has it read its configuration `again`.
///
/// # Errors
/// What it can't run without is missing or went away.
pub async fn run(
    config: &Config,
    again: impl Fn() -> Result<Config, ConfigError>,
) -> Result<(), DriverError> {
    // Before there is anything that a stop would have to take away.
    let mut signals = Signals::listen()?;
    let boot = boot_id()?;
    let mut state = State::open(&config.state_dir)?;
    for warning in state.warnings() {
        tracing::warn!("{warning}");
    }
    let socket = Socket::bind(&config.socket).await?;
    let alone = match Alone::take() {
        Ok(alone) => Some(alone),
        Err(error @ NotAlone::Another(_)) => return Err(error.into()),
        Err(error) => {
            tracing::warn!("{}", in_full(&error));
            None
        }
    };
    let pins = match Pins::take() {
        Ok(pins) => Some(pins),
        Err(error @ PinsError::InUse { .. }) => return Err(error.into()),
        Err(error) => {
            tracing::warn!(
                "whenever the agent restarts, leases have to be proven dead anew: {}",
                in_full(&error)
            );
            None
        }
    };
    let listeners = Listeners::bind(&config.listen)?;
    let (mut observer, mut ears) = Observer::new(config, boot, pins)?;
    let mut watcher = Watcher::new(observer.stores.roots())?;
    observer.tell(Input::Remembered(memory::remembered(state.load())));
    observer.tell(Input::HeardBefore(state.heard(&observer.boot)));
    let readings = observer.stores.read();
    let releaser = Releaser::new(
        &config.state_dir,
        &observer,
        &readings,
        config.holders.clone(),
    );
    let mut metering = Metering::new(config, clock::now());
    metering.stores_read(&readings);
    observer.stores_read(readings);
    let mut daemon = Daemon {
        alone,
        watchers: Watchers::new(&observer.host, clock::wall_time),
        observer,
        unrecorded: state.problem().map(|problem| in_full(problem)),
        state: Arc::new(Mutex::new(state)),
        writing: false,
        unwritten: Unwritten::default(),
        state_dir: config.state_dir.clone(),
        state_problem: None,
        holders: config.holders.clone(),
        holders_down: Down::default(),
        clean_caches: config.reclaim.clean_caches,
        releaser,
        paused: None,
        prober: Prober::default(),
        probe_within: config.reclaim.lab.then(|| config.reclaim.pass_interval / 2),
        probing: None,
        tasks: JoinSet::new(),
        asked: Vec::new(),
        survey: None,
        surveyed: Vec::new(),
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
        metering,
        readiness: Readiness::default(),
        reloading: Reloading::of(config),
    };
    daemon.pause_as_before();
    daemon.watch_released();
    // LEASED is filled before the first port is watched.
    daemon.obey();
    daemon.observer.begin(&mut ears).await?;
    // What an earlier run heard: who spoke before a restart may speak again after it.
    let claims = lock(&daemon.state).claims(&daemon.observer.boot);
    daemon.observer.tell(Input::Snapshot(claims));
    daemon.check_state();
    daemon.observer.engine.begin_passes(clock::now());
    if config.reclaim.lab {
        tracing::warn!(
            "reclaim.lab is on: the floors under gates and budgets are lifted. This is for \
             laboratories; never let it near leases that matter"
        );
    }
    let watched_for = clock::now().since(lock(&daemon.observer.live).since());
    tracing::info!(
        ports = daemon.observer.wanted().len(),
        watched_for_s = watched_for.as_secs(),
        "watching; the socket is {}",
        config.socket.display()
    );
    let (queries, asks) = query::channel();
    let serving = Serving::start(socket, listeners, queries, config.metrics);
    tell_systemd(NotifyState::Ready);
    let ended = daemon
        .attend(&mut ears, &mut watcher, asks, &mut signals, &again)
        .await;
    tell_systemd(NotifyState::Stopping);
    match ended {
        Ok(End::HandOver) => daemon.observer.hand_over(),
        Ok(End::Stop) | Err(_) => daemon.observer.end(),
    }
    daemon.write_the_rest().await;
    daemon.keep_claims();
    // Who waits for an answer, or watches, is told that there is no more.
    drop(daemon);
    serving.stop().await;
    match ended? {
        End::Stop => tracing::info!("stopped; nothing of ours is left on any interface"),
        End::HandOver => tracing::info!("stopped; the next agent takes over what goes on"),
    }
    Ok(())
}

/// Says so where systemd started it and waits to hear, `Type=notify`.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("systemd can't be told: {error}");
    }
}

impl Daemon {
    async fn attend(
        &mut self,
        ears: &mut Ears,
        watcher: &mut Watcher,
        mut asks: mpsc::Receiver<Query>,
        signals: &mut Signals,
        again: &impl Fn() -> Result<Config, ConfigError>,
    ) -> Result<End, DriverError> {
        let mut tick = interval(TICK);
        let mut health = interval(HEALTH);
        let mut settle = interval(SETTLE);
        settle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = Vec::new();
        loop {
            self.obey();
            // First: nothing is judged while news of the links waits, and what keeps the loop
            // from here on is known to be older than what comes meanwhile.
            self.observer.catch_up(ears).await?;
            let wake = self.wake();
            tokio::select! {
                heard = ears.events.next(&mut seen) => {
                    heard.map_err(DriverError::Events)?;
                    // A port may have joined its bridge just before.
                    self.observer.catch_up(ears).await?;
                    self.observer.seen(&mut seen);
                    self.metering.malformed = ears.events.malformed();
                }
                // By way of the runtime, which looks for events meanwhile.
                () = yield_now(), if !self.portions.is_empty() => self.portion(),
                () = yield_now(), if self.survey.is_some() => self.survey_on(),
                event = ears.links.next() => self.observer.link_event(event?),
                told = signals.next() => match told {
                    Told::Reload => self.reload(again),
                    Told::End(end) => return Ok(end),
                },
                Some(done) = self.tasks.join_next() => self.done(done),
                changed = watcher.changed() => {
                    changed?;
                    self.read_stores();
                }
                Some(query) = asks.recv() => self.answer(query),
                _ = tick.tick() => self.tick(),
                _ = health.tick() => self.look_at_health(),
                _ = settle.tick(), if self.observer.is_unsettled() => self.observer.settle(),
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
        engine
            .into_iter()
            .chain(ask)
            .fold(now + SWEEP, Instant::min)
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
        if let Some(alone) = &self.alone {
            alone.turn_away();
        }
        let pause = if self.hurry { HURRIED_SWEEP } else { SWEEP };
        if !self.sweeping && self.swept.elapsed() >= pause {
            self.sweeping = true;
            self.hurry = false;
            let tables = Arc::clone(&self.observer.tables);
            let frames = Arc::clone(&self.metering.frames);
            self.tasks.spawn_blocking(move || {
                let swept = tables.sweep();
                Done::Swept(
                    swept
                        .map(|table| (lock(&frames).count(&table), table))
                        .map(|(heard, table)| (portions(table), heard)),
                )
            });
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
                None | Some(Command::Watch { .. }) => {}
                Some(Command::Ask(question)) => self.ask_claimants(question),
                Some(Command::Probe(inquiry)) => self.probe(inquiry),
                Some(Command::Fence(fences)) => self.fence(fences),
                Some(Command::Clean(removals)) => self.clean(removals),
                Some(Command::Gather) => self.gather(),
                Some(Command::LookBehindPorts) => {
                    self.tasks
                        .spawn_blocking(|| Done::Behind(gather::behind_ports()));
                }
                Some(Command::Publish(notice)) => self.publish(&notice),
                Some(Command::Execute(plan)) => self.execute(plan, None),
                Some(Command::PutBack { id, reason }) => self.put_back(id, reason),
                Some(Command::Taken { id, holder }) => self.taken(id, holder),
                Some(Command::Remember { leases, forget }) => self.remember(&leases, &forget),
                Some(Command::RememberHeard(heard)) => self.remember_heard(heard),
            }
        }
    }

    fn done(&mut self, done: Result<Done, JoinError>) {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                // A panic is a defect of ours: the pass is void, the next one begins anew.
                tracing::error!("a task failed: {error}");
                (self.reading, self.gathering, self.sweeping) = (false, false, false);
                self.writing = false;
                if let Some(round) = self.probing {
                    self.probed(round, Vec::new());
                }
                return;
            }
        };
        match done {
            Done::Read(readings) => {
                self.reading = false;
                self.metering.end(stage::STORES);
                self.metering.stores_read(&readings);
                self.observer.stores_read(readings);
                self.reloaded_stores();
                if std::mem::take(&mut self.read_again) {
                    self.read_stores();
                } else if self.gathering {
                    self.obey();
                    self.ask_sources();
                }
            }
            Done::Gathered(gathered, stamps) => self.pass(gathered, stamps),
            Done::Behind(report) => self.observer.tell(Input::Held(report)),
            Done::Asked(answers) => self.observer.tell(answers),
            Done::Probed(round, found) => self.probed(round, found),
            Done::Swept(Ok((portions, heard))) => {
                self.count_frames(&heard);
                self.portions = portions;
                self.portion();
            }
            Done::Swept(Err(error)) => {
                self.sweeping = false;
                self.swept = Instant::now();
                tracing::warn!("{}", in_full(&error));
            }
            Done::Fenced(fenced) => self.fenced(fenced),
            Done::Cleaned(cleaned) => self.cleaned(cleaned),
            Done::Executed(plan, outcomes) => self.executed(&plan, outcomes),
            Done::PutBack(done) => self.was_put_back(*done),
            Done::Remembered(written) => self.remembered(written),
            Done::Noted(Ok(())) => {}
            Done::Noted(Err(error)) => tracing::warn!("{error}"),
        }
    }
}
