//! What must be and must never be, told from the truth alone: the engine's own reckoning is
//! not looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipam_agent::engine::{
    lease::{Generation, Mode},
    plan::{Asker, Kept, Reason, ReclaimPlan},
    probing::{Finding, Found},
    reclaim::ReclaimSettings,
};

use super::{
    agent::{Agent, Memory},
    host::{Host, SECOND},
    leases::Key,
    net::{self, net},
    plan::Plan,
    sources::{Answers, Listed},
};

/// By so much the agent may learn of its links later than they change.
const TOLD_LATE: Duration = Duration::from_secs(1);

/// What is known of a run of the agent, and of what it ought to know.
pub struct Truth {
    settings: ReclaimSettings,
    modes: [Mode; super::plan::NETS],
    /// Since when the agent has known each lease as it is.
    seen: BTreeMap<Key, (Generation, u64)>,
    /// What an agent in an earlier boot recorded.
    earlier: BTreeMap<Key, Generation>,
    answered_since: Option<u64>,
    /// How many passes in a row ought to have found nothing against a lease.
    clear: BTreeMap<Key, u32>,
    /// How often in a row a lease was not released, and until when that isn't tried again.
    undone: BTreeMap<Key, (u32, u64)>,
    /// What the wire said of each address when it was asked for last, and which pass asked.
    found: BTreeMap<Key, Told>,
    /// How many passes this run has judged.
    passes: u64,
    /// The runtime has listed sandboxes in this boot, and since when it lists none any more.
    filled: bool,
    empty_since: Option<u64>,
}

/// What the wire said.
struct Told {
    finding: Finding,
    asked: u64,
    /// How many passes there were then.
    told: u64,
}

impl Truth {
    /// Nothing is known yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            settings: plan.settings(),
            modes: plan.modes,
            seen: BTreeMap::new(),
            earlier: BTreeMap::new(),
            answered_since: None,
            clear: BTreeMap::new(),
            undone: BTreeMap::new(),
            found: BTreeMap::new(),
            passes: 0,
            filled: false,
            empty_since: None,
        }
    }

    /// An agent begins with this memory.
    pub fn begin(&mut self, host: &Host, memory: &Memory) {
        let boot = host.boots.to_string();
        let known = memory.leases.values();
        let (now, earlier): (Vec<_>, Vec<_>) = known.partition(|known| *known.boot == *boot);
        let key = |known: &ipam_agent::engine::input::Remembered| {
            net::of_store(&known.store).map(|net| (net, known.address))
        };
        let now: BTreeSet<Key> = now.into_iter().filter_map(key).collect();
        self.seen.retain(|key, _| now.contains(key));
        self.earlier = earlier
            .into_iter()
            .filter_map(|known| Some((key(known)?, known.generation.clone())))
            .collect();
        self.answered_since = None;
        self.clear.clear();
        self.undone.clear();
        self.found.clear();
        self.passes = 0;
        self.filled = memory.heard(&boot).iter().any(|socket| socket.filled);
        self.empty_since = None;
    }

    /// The wire was asked after this pass of the run, and answered.
    pub fn found(&mut self, asked: u64, found: &[Found]) {
        for found in found {
            if let Some(number) = net::of_address(found.address) {
                let told = Told {
                    finding: found.finding.clone(),
                    asked,
                    told: self.passes,
                };
                self.found.insert((number, found.address), told);
            }
        }
    }

    /// What may be missing to a lease that so many passes in a row found clear.
    fn missing(&self, key: Key, clear: u32) -> Vec<Reason> {
        let mut missing = vec![Reason::Budget];
        if clear < 2 {
            missing.push(Reason::SecondPass);
        }
        if key.0 == net::ROUTED {
            return missing;
        }
        match self.found.get(&key) {
            // Asked by one pass that found it clear, and judged in the first after the answer.
            Some(Told {
                finding: Finding::Silent(_),
                asked,
                told,
            }) if told + 1 == self.passes && asked + u64::from(clear) > self.passes => {}
            Some(Told { finding, .. }) => {
                missing.push(Reason::SecondPass);
                match finding {
                    Finding::Wanted(_) => missing.push(Reason::Seen),
                    Finding::Unsent(_) => missing.push(Reason::Coverage),
                    Finding::Silent(_) | Finding::Answered { .. } => {}
                }
            }
            None => missing.push(Reason::SecondPass),
        }
        missing
    }

    /// The agent read the stores.
    pub fn read(&mut self, host: &Host, agent: &Agent) {
        let mut there = BTreeSet::new();
        for record in agent.engine.leases().iter() {
            let Some(number) = net::of_store(&record.lease.store) else {
                continue;
            };
            let key = (number, record.lease.address);
            there.insert(key);
            let known = self.seen.get(&key);
            if known.is_none_or(|(generation, _)| *generation != record.lease.generation()) {
                let fresh = (record.lease.generation(), host.now);
                self.seen.insert(key, fresh);
                self.clear.remove(&key);
                self.undone.remove(&key);
            }
        }
        self.seen.retain(|key, _| there.contains(key));
        self.undone.retain(|key, _| there.contains(key));
        // What was put back is of the boot that it was of before.
        for (key, (before, now)) in &host.leases.came_back {
            if self.earlier.get(key) == Some(before) {
                self.earlier.insert(*key, now.clone());
            }
        }
    }

    /// A release was not done: two passes have to agree again, and if nobody asked for it not
    /// before some time has passed.
    pub fn undone(&mut self, key: Key, asker: Asker, now: u64) {
        self.clear.remove(&key);
        if asker == Asker::Daemon {
            let (times, until) = self.undone.entry(key).or_default();
            let intervals = 60.min(1 << (*times).min(6));
            let pause = self.settings.pass_interval * intervals;
            (*times, *until) = (*times + 1, now + pause.as_nanos() as u64);
        }
    }

    /// When everything may be tried again.
    pub fn tried_again(&self) -> u64 {
        let untils = self.undone.values().map(|(_, until)| *until);
        untils.max().unwrap_or(0)
    }

    /// A pass was judged.
    pub fn passed(&mut self, host: &Host, agent: &Agent, answers: &Answers) -> Result<(), String> {
        let book = Listed::of(answers);
        if book.is_some() {
            self.answered_since.get_or_insert(host.now);
        }
        let sandboxes = answers.sandboxes();
        self.filled |= sandboxes.is_some_and(|sandboxes| !sandboxes.is_empty());
        let is_emptied = self.filled && sandboxes.is_some_and(|sandboxes| sandboxes.is_empty());
        self.empty_since = is_emptied.then(|| self.empty_since.unwrap_or(host.now));
        self.passes += 1;
        let plan = agent.engine.plan(Asker::Daemon, host.clock());
        whole(agent, &plan)?;
        whole(agent, &agent.engine.plan(Asker::Person, host.clock()))?;
        let keys: Vec<Key> = host.leases.keys().collect();
        self.clear.retain(|key, _| keys.contains(key));
        for key in keys {
            let again = self.undone.get(&key).is_none_or(|(_, at)| host.now >= *at);
            let passes = if again && self.is_clear(host, agent, book.as_ref(), key) {
                self.clear.get(&key).map_or(1, |passes| passes + 1)
            } else {
                0
            };
            self.clear.insert(key, passes);
            if passes > 0 && self.is_allowed(host, key) {
                is_planned(&plan, key, &self.missing(key, passes))?;
            }
        }
        Ok(())
    }

    /// Nobody who could be seen to live is in a plan. `began`: when the pass before the last
    /// one began.
    pub fn planned(&self, host: &Host, plan: &ReclaimPlan, began: u64) -> Result<(), String> {
        for release in &plan.releases {
            let lease = release.lease();
            let number = net::of_store(&lease.store).ok_or("of no store")?;
            let key = (number, lease.address);
            let alive = host.alive(key).filter(|_| {
                host.leases.restored(key, host.boots).is_some() || !host.is_whispered(key)
            });
            if let Some(since) = alive.filter(|&since| since < began) {
                return Err(format!(
                    "{} of {} is to be released though its holder has been alive for {} s, and \
                     could be seen: {:?}; {:?}",
                    lease.address,
                    lease.store,
                    (host.now - since) / SECOND,
                    release.proof(),
                    host.machines
                        .iter()
                        .filter(|machine| machine.address == lease.address)
                        .collect::<Vec<_>>(),
                ));
            }
        }
        Ok(())
    }

    /// After a long calm nothing is left that leaked, and who came back has a lease again.
    pub fn ended(&self, host: &Host, agent: &Agent) -> Result<(), String> {
        let mut homeless = host.leases.vacated(host.booted);
        // Who whispers may not have been heard yet.
        let was_heard = |key| !host.is_whispered(key) || host.leases.heard_again(key).is_some();
        if let Some(key) = homeless.find(|&key| host.alive(key).is_some() && was_heard(key)) {
            return Err(format!("{} is used and was not put back", key.1));
        }
        let answers = Answers {
            runtime: host.look_at_runtime(),
            sources: vec![host.look_into_namespaces()],
        };
        let listed = Listed::of(&answers).ok_or("the sources can't be believed at the end")?;
        let mut leaked = host.leases.keys().filter(|&key| {
            host.alive(key).is_none()
                && net(key.0).watchable
                && self.is_allowed(host, key)
                // Who lives may have the id of one before.
                && listed.frees(host.leases.container(key).as_deref(), key.1)
        });
        let Some(key) = leaked.next() else {
            return Ok(());
        };
        let plan = agent.engine.plan(Asker::Daemon, host.clock());
        let why = why_kept(&plan, key);
        Err(format!("{} is still leased at the end: {why}", key.1))
    }

    fn is_earlier(&self, host: &Host, key: Key) -> bool {
        let recorded = self.earlier.get(&key);
        recorded.is_some_and(|generation| host.leases.generation(key) == Some(generation))
    }

    fn is_allowed(&self, host: &Host, key: Key) -> bool {
        if self
            .settings
            .keep
            .iter()
            .any(|kept| kept.contains(&key.1.ip()))
        {
            return false;
        }
        match self.modes[key.0] {
            Mode::Continuous => true,
            Mode::AfterReboot => self.is_earlier(host, key),
            Mode::Observe => false,
        }
    }

    /// Whether nothing stands against a release, but for leave and the second pass.
    fn is_clear(&self, host: &Host, agent: &Agent, listed: Option<&Listed>, key: Key) -> bool {
        let is_free = |listed: &Listed| listed.frees(host.leases.container(key).as_deref(), key.1);
        let gate = self.settings.gate.as_nanos() as u64;
        let is_doubted = self
            .empty_since
            .is_some_and(|since| host.now - since < gate);
        let Some((_, seen)) = self
            .seen
            .get(&key)
            .filter(|(generation, _)| host.leases.generation(key) == Some(generation))
        else {
            return false;
        };
        let store = agent.engine.leases().stores().get(&net(key.0).store());
        if !net(key.0).watchable
            || host.alive(key).is_some()
            || host.is_troubled(key.0)
            || host.now < host.broken_until
            || store.is_none_or(|store| store.failed.is_some())
            || is_doubted
            || !listed.is_some_and(is_free)
        {
            return false;
        }
        let (Some(watched), Some(leased)) = (host.watched_since, host.leased.get(&key.1)) else {
            return false;
        };
        let earlier = self.is_earlier(host, key);
        let enough = host.leases.enough(key, host.boots);
        let window = if host.leases.damage(key).is_some() {
            self.settings.damaged_gate
        } else if earlier && enough.is_none() {
            self.settings.reboot_gate
        } else {
            self.settings.gate
        };
        let enough = enough.map_or(0, |(_, enough)| enough);
        let window = window.max(Duration::from_nanos(enough));
        // A record that a power cut damaged is of the earlier boot, too, and so is one that an
        // earlier run released as such and this one put back.
        let came_back = host.leases.restored(key, host.boots).is_some()
            && host.leases.boot(key) != Some(host.boots);
        let answered = match self.earlier.get(&key) {
            None if !came_back => 0,
            _ => self.answered_since.unwrap_or(host.now),
        };
        let heard = host.heard.get(&key.1).copied().unwrap_or(0);
        let since = [
            *seen,
            host.trouble[key.0],
            host.world(watched),
            host.world(leased.since),
            answered,
            heard,
        ];
        let since = since.into_iter().max().unwrap_or(host.now);
        Duration::from_nanos(host.now - since.min(host.now)) >= window + TOLD_LATE
    }
}

/// A lease is to be released, or only these stand against it.
fn is_planned(plan: &ReclaimPlan, key: Key, but: &[Reason]) -> Result<(), String> {
    let store = net(key.0).store();
    let mut planned = plan.releases.iter().map(|release| release.lease());
    if planned.any(|lease| lease.store == store && lease.address == key.1) {
        return Ok(());
    }
    let mut kept = plan.kept.iter();
    let kept = kept.find(|kept| kept.store == store && kept.address == key.1);
    let is_only = |kept: &Kept| {
        kept.blockers
            .iter()
            .all(|blocker| but.contains(&blocker.reason))
    };
    match kept {
        Some(kept) if is_only(kept) => Ok(()),
        _ => Err(format!(
            "{} of {store} is proven and kept: {}",
            key.1,
            why_kept(plan, key)
        )),
    }
}

/// Every lease is in the plan once, and what is kept has its reasons.
fn whole(agent: &Agent, plan: &ReclaimPlan) -> Result<(), String> {
    let leases = agent.engine.leases().iter().count();
    if plan.releases.len() + plan.kept.len() != leases {
        return Err(format!("{leases} leases, and a plan of {plan:?}"));
    }
    match plan.kept.iter().find(|kept| kept.blockers.is_empty()) {
        Some(kept) => Err(format!("{} is kept for no reason", kept.address)),
        None => Ok(()),
    }
}

fn why_kept(plan: &ReclaimPlan, key: Key) -> String {
    let store = net(key.0).store();
    let kept = plan
        .kept
        .iter()
        .find(|kept| kept.store == store && kept.address == key.1);
    kept.map_or_else(
        || String::from("it isn't in the plan"),
        |kept| format!("{:?}", kept.blockers),
    )
}
