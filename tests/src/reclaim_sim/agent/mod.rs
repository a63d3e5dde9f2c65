//! The daemon's part: drives the real engine over the host as `driver/` does over a kernel,
//! and has the real executor release with the real journal.

mod releases;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    sync::{Arc, Mutex},
};

use ipam_agent::{
    engine::{
        Engine, Settings, Windows,
        evidence::{PassEvidence, PortCheck},
        holders::HeardSocket,
        input::{Command, Input, Remembered, Seen},
        lease::{StoreName, StoreView},
        owner::Owners,
        plan::{Asker, Outcome, ReclaimPlan},
        probing::{Found, Inquiry},
        quarantine::PutBack,
        time::Timestamp,
        vigil::Vigil,
    },
    error::in_full,
    executor,
    journal::Journal,
    store::{LeaseStore, Reading},
};
use ipam_common::{Address, sighting::Stamps};

use self::releases::{Execution, clocks};
use super::{
    host::{Host, News, SECOND},
    plan::Plan,
    shop::{Killed, Shop, lock},
    sources::Answers,
};

/// So many milliseconds after a link changed it is known: a port's first frame comes later.
const LATEST_LINKS: u64 = 800;

/// What comes back to the loop.
pub enum Job {
    /// Stores were read.
    Read(Vec<Input>),
    /// The sources are asked.
    AskSources,
    /// They answered.
    Answered(Answers),
    /// All is there that a pass needs.
    Pass(Answers, Vec<(Address, Stamps)>),
    /// Something the host tells.
    Told(News),
    /// Attaching is tried again.
    Retry,
    /// A pass is wanted.
    Gather,
    /// SIGHTINGS is read.
    Sweep,
    /// The plan under way goes on.
    Release,
    /// A lease was to be put back.
    PutBack(String, PutBack),
    /// The wire was asked, since then, by this pass.
    Surveyed(Inquiry, u64, u64),
}

/// One run of the daemon.
pub struct Agent {
    /// The engine.
    pub engine: Engine,
    host: Arc<Mutex<Host>>,
    shop: Arc<Shop>,
    stores: [Arc<dyn LeaseStore>; 1],
    journal: Journal,
    plan: Plan,
    jobs: BTreeMap<(u64, u64), Job>,
    numbered: u64,
    attached: BTreeSet<u32>,
    missing: BTreeSet<u32>,
    reading: bool,
    read_again: bool,
    gathering: bool,
    /// When the last pass began, and the one before.
    began: [u64; 2],
    asked: Vec<u32>,
    plans: VecDeque<(ReclaimPlan, Vigil)>,
    execution: Option<Execution>,
    /// The inquiry under way.
    probing: Option<u64>,
    random: fastrand::Rng,
}

/// What the agent remembers from run to run.
#[derive(Default)]
pub struct Memory {
    /// Of leases.
    pub leases: BTreeMap<(StoreName, Address), Remembered>,
    /// Of container runtimes, and in which boot.
    heard: (String, Vec<HeardSocket>),
}

impl Memory {
    /// What was heard of container runtimes in this boot.
    pub fn heard(&self, boot: &str) -> Vec<HeardSocket> {
        let (of, heard) = &self.heard;
        match of == boot {
            true => heard.clone(),
            false => Vec::new(),
        }
    }
}

/// What came of a step.
#[derive(Default)]
pub struct Step {
    /// A pass was judged.
    pub passed: Option<Answers>,
    /// Releases that were planned, and for whom.
    pub planned: Vec<ReclaimPlan>,
    /// Releases that were not done, and for whom.
    pub undone: Vec<(Asker, Outcome)>,
    /// The agent was killed.
    pub killed: Option<Killed>,
    /// The stores as the engine knows them now.
    pub read: bool,
    /// What was found on the wire, and which pass asked.
    pub found: Option<(u64, Vec<Found>)>,
    /// What nobody should have wanted.
    pub wrong: Option<String>,
}

impl Agent {
    /// Starts, as the daemon does: LEASED is filled before the first port is watched.
    pub fn start(
        host: &Arc<Mutex<Host>>,
        shop: &Arc<Shop>,
        plan: &Plan,
        memory: &mut Memory,
        state_dir: &Path,
    ) -> Result<Self, String> {
        let (boot, random) = {
            let mut host = lock(host);
            (host.boots.to_string(), host.random.fork())
        };
        let mut journal = Journal::open(state_dir, &boot).map_err(|error| in_full(&error))?;
        let readings = inputs(shop.read());
        let settled = executor::settle(&mut journal, &views(&readings), &clocks(host));
        let settled = settled.map_err(|error| in_full(&error))?;
        journal.settled(settled.left);
        let engine = Engine::new(Settings {
            boot: boot.as_str().into(),
            owners: Owners::default(),
            confirm: Vec::new(),
            windows: Windows::default(),
            reclaim: plan.settings(),
        });
        let mut agent = Self {
            engine,
            host: Arc::clone(host),
            shop: Arc::clone(shop),
            stores: [Arc::clone(shop) as Arc<dyn LeaseStore>],
            journal,
            plan: plan.clone(),
            jobs: BTreeMap::new(),
            numbered: 0,
            attached: BTreeSet::new(),
            missing: BTreeSet::new(),
            reading: false,
            read_again: false,
            gathering: false,
            began: [0; 2],
            asked: Vec::new(),
            plans: VecDeque::new(),
            execution: None,
            probing: None,
            random,
        };
        let since = lock(host).take_over();
        agent.tell(Input::WatchedSince(since));
        let leases = memory.leases.values().cloned();
        agent.tell(Input::Remembered(leases.collect()));
        agent.tell(Input::HeardBefore(Some(memory.heard(&boot))));
        for reading in readings {
            agent.tell(reading);
        }
        agent.obey(memory, &mut Step::default());
        agent.watch_released()?;
        agent.obey(memory, &mut Step::default());
        agent.links();
        agent.check_state();
        let now = agent.clock();
        agent.engine.begin_passes(now);
        agent.after(10 * SECOND, Job::Sweep);
        Ok(agent)
    }

    fn clock(&self) -> Timestamp {
        lock(&self.host).clock()
    }

    fn tell(&mut self, input: Input) {
        let now = self.clock();
        self.engine.handle(input, now);
    }

    fn after(&mut self, pause: u64, job: Job) {
        let at = lock(&self.host).now + pause;
        self.numbered += 1;
        self.jobs.insert((at, self.numbered), job);
    }

    /// So many milliseconds at most.
    fn soon(&mut self, most: u64, job: Job) {
        let pause = self.random.u64(0..=most) * 1_000_000;
        self.after(pause, job);
    }

    /// When there is something to do next, in world time.
    pub fn next(&self) -> Option<u64> {
        let job = self.jobs.first_key_value().map(|(&(at, _), _)| at);
        let engine = self
            .engine
            .poll_timeout()
            .map(|at| lock(&self.host).world(at.0));
        job.into_iter().chain(engine).min()
    }

    /// Takes in what the host has news of.
    pub fn listen(&mut self) {
        let news = std::mem::take(&mut lock(&self.host).news);
        for news in news {
            let most = match news {
                News::Links | News::Touched(_) => LATEST_LINKS,
                News::Store => 2000,
                News::Seen { .. } | News::Lost => 50,
            };
            self.soon(most, Job::Told(news));
        }
    }

    /// Does what is due.
    pub fn step(&mut self, memory: &mut Memory) -> Step {
        let mut step = Step::default();
        let now = lock(&self.host).now;
        while let Some((&(at, n), _)) = self.jobs.first_key_value()
            && at <= now
            && step.killed.is_none()
        {
            if let Some(job) = self.jobs.remove(&(at, n)) {
                self.perform(job, memory, &mut step);
                self.obey(memory, &mut step);
            }
            if step.passed.is_some() {
                // Each pass is looked at by itself.
                return step;
            }
        }
        let clock = self.clock();
        if self.engine.poll_timeout().is_some_and(|at| at <= clock) {
            self.engine.handle_timeout(clock);
            self.obey(memory, &mut step);
        }
        step
    }

    /// A person has all released that is proven, after two fresh passes.
    pub fn apply(&mut self) {
        self.asked.push(if self.gathering { 3 } else { 2 });
        self.gather();
    }

    /// When the pass before the last one began.
    pub fn began_before(&self) -> u64 {
        self.began[1]
    }

    fn perform(&mut self, job: Job, memory: &mut Memory, step: &mut Step) {
        match job {
            Job::Told(News::Links) => self.links(),
            Job::Told(News::Touched(ifindex)) => self.look_at(ifindex),
            Job::Told(News::Seen {
                at,
                ifindex,
                sighting,
            }) => {
                let at = Timestamp(at);
                self.tell(Input::Seen(Seen {
                    at,
                    ifindex,
                    sighting,
                    again: false,
                }));
            }
            Job::Told(News::Lost) => self.tell(Input::Lost(1)),
            Job::Told(News::Store) => self.read_stores(),
            Job::Read(inputs) => {
                self.reading = false;
                step.read = true;
                for input in inputs {
                    self.tell(input);
                }
                if std::mem::take(&mut self.read_again) {
                    self.read_stores();
                } else if self.gathering {
                    self.obey(memory, step);
                    self.soon(300, Job::AskSources);
                }
            }
            Job::AskSources => {
                let (late, answers) = {
                    let mut host = lock(&self.host);
                    let answers = Answers {
                        runtime: host.ask_runtime(),
                        sources: vec![host.ask_namespaces()],
                    };
                    (std::mem::take(&mut host.late), answers)
                };
                let pause = self.random.u64(0..=SECOND);
                self.after(late + pause, Job::Answered(answers));
            }
            Job::Answered(answers) => {
                let stamps = lock(&self.host).leased.clone();
                self.soon(100, Job::Pass(answers, stamps.into_iter().collect()));
            }
            Job::Pass(answers, stamps) => self.pass(answers, stamps, memory, step),
            Job::Retry => {
                for ifindex in std::mem::take(&mut self.missing) {
                    self.attach(ifindex);
                }
            }
            Job::Gather => self.gather(),
            Job::Sweep => {
                let table = lock(&self.host).sightings.clone();
                self.tell(Input::Snapshot(table.into_iter().collect()));
                let pause = self.random.u64(10..60) * SECOND;
                self.after(pause, Job::Sweep);
            }
            Job::Release => self.release(step),
            Job::PutBack(id, result) => self.was_put_back(id, result),
            Job::Surveyed(inquiry, since, pass) => self.surveyed(inquiry, since, pass, step),
        }
    }

    fn read_stores(&mut self) {
        if self.reading {
            self.read_again = true;
            return;
        }
        self.reading = true;
        let mut readings = inputs(self.shop.read());
        readings.extend(self.settle(&readings));
        self.soon(500, Job::Read(readings));
    }

    fn gather(&mut self) {
        if !self.gathering {
            self.gathering = true;
            self.began = [lock(&self.host).now, self.began[0]];
            self.read_stores();
        }
    }

    fn pass(
        &mut self,
        answers: Answers,
        stamps: Vec<(Address, Stamps)>,
        memory: &mut Memory,
        step: &mut Step,
    ) {
        self.gathering = false;
        self.check_state();
        let wanted: Vec<u32> = lock(&self.host).topology().ports.keys().copied().collect();
        let known = wanted.into_iter().filter(|ifindex| self.knows(*ifindex));
        let ports: Vec<(u32, PortCheck)> = {
            let mut host = lock(&self.host);
            known
                .map(|ifindex| (ifindex, host.check(ifindex)))
                .collect()
        };
        // While the wire is being asked, what it answers is not among the evidence.
        let counts = u32::from(self.probing.is_none());
        step.passed = Some(answers.clone());
        self.tell(Input::Evidence(PassEvidence {
            ports: ports.clone(),
            stamps,
            sources: answers.sources,
            runtimes: answers.runtime,
            person: self.asked.iter().any(|passes| *passes > counts),
        }));
        for (ifindex, check) in ports {
            if let PortCheck::Blind(_) = check {
                self.attach(ifindex);
            }
        }
        for asked in &mut self.asked {
            *asked = asked.saturating_sub(counts);
        }
        let before = self.asked.len();
        self.asked.retain(|passes| *passes > 0);
        if self.asked.len() < before {
            let plan = self.engine.plan(Asker::Person, self.clock());
            step.planned.push(plan.clone());
            self.execute(plan);
        }
        self.obey(memory, step);
        self.go_on_asking();
    }

    /// The next pass for a person's question, once the wire has been asked.
    fn go_on_asking(&mut self) {
        if !self.asked.is_empty() && self.probing.is_none() && !self.gathering {
            self.after(SECOND, Job::Gather);
        }
    }

    fn knows(&self, ifindex: u32) -> bool {
        self.engine.topology().ports.contains_key(&ifindex)
    }

    fn check_state(&mut self) {
        let broken = {
            let host = lock(&self.host);
            host.now < host.broken_until
        };
        let state = if broken {
            Err("no space left".into())
        } else {
            Ok(())
        };
        self.tell(Input::State(state));
    }

    fn links(&mut self) {
        let topology = lock(&self.host).topology();
        let ports: Vec<u32> = topology.ports.keys().copied().collect();
        self.attached.retain(|ifindex| ports.contains(ifindex));
        let since = self.heard();
        self.tell(Input::Links { topology, since });
        for ifindex in ports {
            if !self.attached.contains(&ifindex) {
                self.attach(ifindex);
            }
        }
    }

    /// All that the links were before is known.
    fn heard(&self) -> Timestamp {
        Timestamp(self.clock().0.saturating_sub(LATEST_LINKS * 1_000_000))
    }

    fn look_at(&mut self, ifindex: u32) {
        if !self.knows(ifindex) {
            return;
        }
        let check = lock(&self.host).check(ifindex);
        match check {
            PortCheck::Attached(since) => self.tell(Input::Attached { ifindex, since }),
            PortCheck::Blind(why) => {
                self.tell(Input::Unattached { ifindex, why });
                self.attach(ifindex);
            }
        }
    }

    fn attach(&mut self, ifindex: u32) {
        let attached = lock(&self.host).attach(ifindex);
        match attached {
            None => drop(self.attached.remove(&ifindex)),
            Some(Ok(since)) => {
                self.attached.insert(ifindex);
                self.tell(Input::Attached { ifindex, since });
            }
            Some(Err(why)) => {
                self.attached.remove(&ifindex);
                if self.missing.is_empty() {
                    self.after(SECOND, Job::Retry);
                }
                self.missing.insert(ifindex);
                self.tell(Input::Unattached { ifindex, why });
            }
        }
    }

    fn obey(&mut self, memory: &mut Memory, step: &mut Step) {
        while let Some(command) = self.engine.next_command() {
            match command {
                Command::Watch { add, remove } => {
                    let mut host = lock(&self.host);
                    let since = host.clock().0;
                    for address in &remove {
                        host.leased.remove(address);
                    }
                    for address in &add {
                        let fresh = Stamps {
                            since,
                            ..Stamps::default()
                        };
                        host.leased.entry(*address).or_insert(fresh);
                    }
                    drop(host);
                    self.tell(Input::Watching(add));
                }
                Command::Gather => self.gather(),
                Command::LookBehindPorts => {
                    let report = lock(&self.host).look_into_namespaces();
                    self.tell(Input::Held(report));
                }
                Command::Execute(plan) => {
                    step.planned.push(plan.clone());
                    self.execute(plan);
                }
                Command::Remember { leases, forget } => {
                    for key in forget {
                        memory.leases.remove(&key);
                    }
                    for (store, address) in leases {
                        if let Some(known) = self.engine.leases().to_remember(&store, &address) {
                            memory.leases.insert((store, address), known);
                        }
                    }
                }
                Command::RememberHeard(heard) => {
                    memory.heard = (lock(&self.host).boots.to_string(), heard);
                }
                Command::Probe(inquiry) => self.probe(inquiry),
                Command::PutBack { id, reason } => self.put_back(&id, reason),
                Command::Taken { id, holder } => self.taken(&id, &holder),
                // No store of this world is to be fenced.
                Command::Fence(fences) => step.wrong = Some(format!("{fences:?}")),
                // Nor has it caches of CNI's.
                Command::Clean(removals) => step.wrong = Some(format!("{removals:?}")),
                Command::Ask(_) | Command::Publish(_) => {}
            }
        }
    }
}

fn views(readings: &[Input]) -> Vec<&StoreView> {
    let views = readings.iter().filter_map(|input| match input {
        Input::Stores { views, .. } => Some(views),
        _ => None,
    });
    views.flatten().collect()
}

fn inputs(reading: Reading) -> Vec<Input> {
    let (mut views, mut failed) = (Vec::new(), Vec::new());
    for view in reading.views {
        match view {
            Ok(view) => views.push(view),
            Err(error) => match error.store() {
                Some(store) => failed.push((store.clone(), in_full(&error))),
                None => {
                    return vec![Input::SourceFailed {
                        source: 0,
                        why: in_full(&error),
                    }];
                }
            },
        }
    }
    vec![Input::Stores {
        source: 0,
        views,
        failed,
        owners: reading.owners,
    }]
}
