//! A simulated host with leases that leak, and what is true of each address: for the proof
//! that no live one is ever released, and every leaked one is.
//!
//! A [`Plan`] says what happens, a seed draws the rest. The engine, the planner, the executor
//! and the journal are the real ones, in some worlds the store of files too; what the driver
//! does around them is played by `agent` on a simulated kernel (`host`). The world is honest:
//! who is alive shows it in at least one way that the agent looks at, be it only a word within
//! the shortest gate, unless a fault hides it that the agent can find out. What must be and must
//! never be is told from the truth alone (`truth`, and `shop` at the moment of a release).
//!
//! What the agent learns to look at is a [`What`] more for the fault, an arm in `host` for what
//! shows, and one in `agent` for the command.

mod agent;
mod host;
mod leases;
mod net;
mod plan;
mod shop;
mod sources;
mod truth;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use ipam_agent::journal;
use tempfile::TempDir;

use agent::{Agent, Memory, Step};
use host::{Host, SECOND};
pub use plan::{Habit, Incident, Plan, What, plans};
use shop::{Killed, Shop, lock};
use truth::Truth;

/// After so many beats every fault is over.
const FAULTS_END: u64 = 100;
/// How long a killed agent is away.
const RESTARTED_AFTER: u64 = 5 * SECOND;

/// What happened in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many passes were judged.
    pub passes: usize,
    /// How many leases were released.
    pub released: usize,
    /// How many were put back, because somebody came with their address.
    pub restored: usize,
    /// How many planned releases were not done.
    pub undone: usize,
    /// How many addresses the wire was asked for.
    pub asked: usize,
    /// How often the agent was killed in the middle of a release.
    pub killed: usize,
}

enum Event {
    Start,
    What(What),
    Boot,
}

struct World {
    plan: Plan,
    host: Arc<Mutex<Host>>,
    shop: Arc<Shop>,
    state: TempDir,
    agent: Option<Agent>,
    memory: Memory,
    truth: Truth,
    agenda: BTreeMap<(u64, usize), Event>,
    tally: Tally,
}

/// Plays a world.
///
/// # Errors
///
/// What was wrong: a live address released, a leaked one kept, a lease lost, a word missing
/// in the journal.
pub fn play(plan: &Plan) -> Result<Tally, String> {
    let io = |error: std::io::Error| error.to_string();
    let host = Arc::new(Mutex::new(Host::new(plan).map_err(io)?));
    let state = leases::memory_directory().map_err(io)?;
    let shop = Arc::new(Shop::new(Arc::clone(&host), plan, state.path().to_owned()));
    let mut world = World {
        plan: plan.clone(),
        host,
        shop,
        state,
        agent: None,
        memory: Memory::default(),
        truth: Truth::new(plan),
        agenda: BTreeMap::new(),
        tally: Tally::default(),
    };
    let calm = world.expect_all();
    world.until(calm)?;
    let mut end = world.calm();
    let calm = lock(&world.host).now;
    // What was put back meanwhile takes its own time.
    while end > lock(&world.host).now {
        world.until(end)?;
        end = world.all_enough(calm);
    }
    world.ended()?;
    Ok(world.tally)
}

impl World {
    /// What will happen; and when it has.
    fn expect_all(&mut self) -> u64 {
        let mut host = lock(&self.host);
        let beat = self.plan.beat() * SECOND;
        let mut at = host.now;
        for (number, incident) in self.plan.incidents.iter().enumerate() {
            at += u64::from(incident.pause) * beat + host.random.u64(0..beat);
            if number == self.plan.installed_after {
                self.agenda.insert((at, 2 * number), Event::Start);
            }
            match incident.what {
                what @ (What::Restart { .. } | What::PowerCut { .. } | What::Apply) => {
                    self.agenda.insert((at, 2 * number + 1), Event::What(what));
                }
                what => host.expect(at, what),
            }
        }
        if self.plan.installed_after >= self.plan.incidents.len() {
            self.agenda.insert((at, usize::MAX), Event::Start);
        }
        at + FAULTS_END * beat + 60 * SECOND
    }

    /// No more faults: by the end of the calm, whatever leaked is to be gone.
    fn calm(&mut self) -> u64 {
        let mut host = lock(&self.host);
        (host.contended, host.late, host.lawless, host.doomed) = (0, 0, false, None);
        host.now.max(self.truth.tried_again()) + self.longest(&host)
    }

    /// When all that was put back, and isn't used, has gone again; it has been calm since
    /// then.
    fn all_enough(&self, calm: u64) -> u64 {
        let host = lock(&self.host);
        let unused = host.leases.keys().filter(|key| host.alive(*key).is_none());
        let ends = unused.filter_map(|key| {
            let (at, enough) = host.leases.enough(key, host.boots)?;
            let heard = host.heard.get(&key.1).copied().unwrap_or(0);
            Some(heard.max(at).max(calm) + enough)
        });
        ends.max().map_or(0, |end| end + self.longest(&host))
    }

    /// How long it takes until the last lease is gone.
    fn longest(&self, host: &Host) -> u64 {
        // With their probes, three passes or four a lease where the budget is one.
        let settings = self.plan.settings();
        let leases = host.leases.keys().count() as u32;
        let longest = settings.damaged_gate + settings.pass_interval * (4 * leases + 12);
        longest.as_nanos() as u64 + u64::from(leases + 20) * 4 * SECOND
    }

    fn until(&mut self, end: u64) -> Result<(), String> {
        loop {
            let host = lock(&self.host).next();
            let agenda = self.agenda.first_key_value().map(|(&(at, _), _)| at);
            let agent = self.agent.as_ref().and_then(Agent::next);
            let Some(next) = [host, agenda, agent]
                .into_iter()
                .flatten()
                .min()
                .filter(|at| *at <= end)
            else {
                lock(&self.host).advance(end);
                return Ok(());
            };
            lock(&self.host).advance(next);
            let now = lock(&self.host).now;
            while let Some((&key, _)) = self.agenda.first_key_value()
                && key.0 <= now
            {
                if let Some(event) = self.agenda.remove(&key) {
                    self.happen(event)?;
                }
            }
            self.step()?;
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Start => self.start()?,
            Event::Boot => lock(&self.host).boot(),
            Event::What(What::Apply) => {
                if let Some(agent) = &mut self.agent {
                    agent.apply();
                }
            }
            Event::What(What::Restart {
                pinned,
                forgets,
                beats,
            }) if self.agent.is_some() => {
                if forgets {
                    self.memory = Memory::default();
                }
                self.kill(
                    &Killed { pinned },
                    u64::from(beats) * self.plan.beat() * SECOND,
                );
            }
            Event::What(What::PowerCut { beats, damaged }) if lock(&self.host).up => {
                let after = u64::from(beats) * self.plan.beat() * SECOND;
                if self.agent.is_some() {
                    self.kill(&Killed { pinned: false }, after + 20 * SECOND);
                } else {
                    self.agenda
                        .retain(|_, event| !matches!(event, Event::Start));
                    self.later(after + 20 * SECOND, Event::Start);
                }
                lock(&self.host).power_cut(damaged);
                self.later(after, Event::Boot);
            }
            Event::What(_) => {}
        }
        Ok(())
    }

    fn later(&mut self, pause: u64, event: Event) {
        let at = lock(&self.host).now + pause;
        let number = usize::MAX - self.agenda.len();
        self.agenda.insert((at, number), event);
    }

    fn start(&mut self) -> Result<(), String> {
        if self.agent.is_some() {
            return Ok(());
        }
        self.truth.begin(&lock(&self.host), &self.memory);
        let agent = Agent::start(
            &self.host,
            &self.shop,
            &self.plan,
            &mut self.memory,
            self.state.path(),
        )?;
        self.truth.read(&lock(&self.host), &agent);
        self.agent = Some(agent);
        Ok(())
    }

    fn kill(&mut self, killed: &Killed, after: u64) {
        self.agent = None;
        lock(&self.host).abandon(killed.pinned);
        self.later(after, Event::Start);
    }

    fn step(&mut self) -> Result<(), String> {
        let Some(agent) = &mut self.agent else {
            lock(&self.host).news.clear();
            return Ok(());
        };
        agent.listen();
        let Step {
            passed,
            planned,
            undone,
            killed,
            read,
            found,
            wrong,
        } = agent.step(&mut self.memory);
        let host = lock(&self.host);
        if let Some((asked, found)) = found {
            self.tally.asked += found.len();
            self.truth.found(asked, &found);
        }
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        if read {
            self.truth.read(&host, agent);
        }
        if let Some(answers) = passed {
            self.tally.passes += 1;
            self.truth.passed(&host, agent, &answers)?;
        }
        for plan in &planned {
            self.truth.planned(&host, plan, agent.began_before())?;
        }
        for (asker, outcome) in undone {
            self.tally.undone += 1;
            if let Some(number) = net::of_store(&outcome.store) {
                let key = (number, outcome.address);
                self.truth.undone(key, asker, host.now);
            }
        }
        if (host.released, host.restored) != (self.tally.released, self.tally.restored) {
            (self.tally.released, self.tally.restored) = (host.released, host.restored);
            host.leases.verify()?;
        }
        if let Some(wrong) = &host.wrong {
            return Err(wrong.clone());
        }
        drop(host);
        if let Some(killed) = killed {
            self.tally.killed += 1;
            self.kill(&killed, RESTARTED_AFTER);
        }
        Ok(())
    }

    fn ended(&mut self) -> Result<(), String> {
        let host = lock(&self.host);
        host.leases.verify()?;
        let agent = self.agent.as_ref().ok_or("there is no agent at the end")?;
        self.truth.ended(&host, agent)?;
        let history =
            journal::history(self.state.path(), usize::MAX).map_err(|error| error.to_string())?;
        if history.damaged > 0 {
            return Err("the journal is damaged".into());
        }
        let done = history.entries.iter().filter(|entry| {
            entry
                .effect
                .as_ref()
                .is_some_and(|(_, effect)| effect.result == journal::EffectResult::Released)
        });
        if done.count() < host.released {
            return Err(format!(
                "{} releases, and the journal knows less",
                host.released
            ));
        }
        match history.entries.iter().find(|entry| entry.effect.is_none()) {
            Some(entry) => Err(format!(
                "nobody knows what became of {}",
                entry.intent.address
            )),
            None => Ok(()),
        }
    }
}
