//! The host and all that lives on it: machines, ports, what the kernel keeps, the stores.
//! What is true of an address is known here, and nowhere in the agent.

mod incidents;
mod machines;
mod ports;
mod runtime;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use ipam_agent::engine::{
    evidence::Source,
    lease::{Damage, StoreName},
    time::Timestamp,
};
use ipam_common::{
    Address, Mac, Sighting,
    sighting::{SightingKey, Stamps, Tally},
};

use self::ports::Port;
use super::{
    leases::Leases,
    plan::{Habit, Lie, NETS, Plan, What},
};

/// A second, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
/// From a pod's link to its first word: so long the agent has to attach.
const PLUGGED_BEFORE: u64 = 2 * SECOND;
/// How long before a power cut what was written is lost, and how long before it is damaged.
const UNWRITTEN: u64 = 6 * SECOND;
const HALF_WRITTEN: u64 = 8 * SECOND;

/// Something with an address, or about to have one.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its network.
    pub net: usize,
    /// Its address.
    pub address: Address,
    /// How it lives.
    pub habit: Habit,
    /// Since when it is alive.
    pub born: u64,
    /// It is gone for good.
    pub dead: bool,
    /// Since when.
    pub died: u64,
    /// Its id at the container runtime.
    pub id: String,
    port: Option<u32>,
    remote: bool,
    shown: bool,
    mac: Mac,
    pause: u64,
}

/// What the agent will hear of.
#[derive(Clone, Debug)]
pub enum News {
    /// The links changed.
    Links,
    /// What is attached to a port changed.
    Touched(u32),
    /// A frame.
    Seen {
        /// When, by the kernel's clock.
        at: u64,
        /// The port.
        ifindex: u32,
        /// What it says.
        sighting: Sighting,
    },
    /// An event that was dropped.
    Lost,
    /// A store's directory changed.
    Store,
}

/// What happens by itself.
#[derive(Clone, Copy, Debug)]
enum Task {
    Incident(What),
    Plug(usize),
    Show(usize),
    Speak(usize),
    Free(usize),
    Grant(usize),
    Fail(usize),
    Light(u32),
    Withdraw(u32),
}

/// The host.
pub struct Host {
    /// World time.
    pub now: u64,
    /// When it was booted last.
    pub booted: u64,
    /// How often it was booted.
    pub boots: u32,
    /// It runs.
    pub up: bool,
    /// Its stores.
    pub leases: Leases,
    /// Everything that ever lived on it.
    pub machines: Vec<Machine>,
    /// LEASED.
    pub leased: BTreeMap<Address, Stamps>,
    /// SIGHTINGS.
    pub sightings: BTreeMap<SightingKey, Tally>,
    /// Since when it is watched, as the pinned maps say.
    pub watched_since: Option<u64>,
    /// What the agent has not heard of yet.
    pub news: Vec<News>,
    /// When an address was last heard of.
    pub heard: BTreeMap<Address, u64>,
    /// When each network was last not watched in whole.
    pub trouble: [u64; NETS],
    /// What was done wrong.
    pub wrong: Option<String>,
    /// How many leases were released.
    pub released: usize,
    /// When, and of which store, each was released that the budget counts.
    pub budgeted: Vec<(u64, StoreName)>,
    /// How many were put back.
    pub restored: usize,
    /// The next releases wait so long for the lock.
    pub contended: u64,
    /// The next release is overtaken by who doesn't lock.
    pub lawless: bool,
    /// The agent dies in its next release: before it is done, and whether its maps stay.
    pub doomed: Option<(bool, bool)>,
    /// The next answers of the sources take so long.
    pub late: u64,
    /// Until when the state can't be written.
    pub broken_until: u64,
    queue: BTreeMap<(u64, u64), Task>,
    queued: u64,
    ports: BTreeMap<u32, Port>,
    next_port: u32,
    down_until: BTreeMap<Source, u64>,
    glitch: BTreeSet<Source>,
    glitched: BTreeSet<Source>,
    lossy_until: u64,
    garbled_until: u64,
    cri: bool,
    lie: Option<(Lie, u64)>,
    told_ready: BTreeMap<Address, u64>,
    beat: u64,
    longest_setup: u64,
    longest_pause: u64,
    longest_whisper: u64,
    /// What is drawn.
    pub random: fastrand::Rng,
}

impl Host {
    /// A host where nothing lives yet.
    pub fn new(plan: &Plan) -> std::io::Result<Self> {
        let nanoseconds = |duration: std::time::Duration| duration.as_nanos() as u64;
        let mut host = Self {
            now: 1000 * SECOND,
            booted: 999 * SECOND,
            boots: 1,
            up: true,
            leases: Leases::new(plan)?,
            machines: Vec::new(),
            leased: BTreeMap::new(),
            sightings: BTreeMap::new(),
            watched_since: None,
            news: Vec::new(),
            heard: BTreeMap::new(),
            trouble: [0; NETS],
            wrong: None,
            released: 0,
            budgeted: Vec::new(),
            restored: 0,
            contended: 0,
            lawless: false,
            doomed: None,
            late: 0,
            broken_until: 0,
            queue: BTreeMap::new(),
            queued: 0,
            ports: BTreeMap::new(),
            next_port: 10,
            down_until: BTreeMap::new(),
            glitch: BTreeSet::new(),
            glitched: BTreeSet::new(),
            lossy_until: 0,
            garbled_until: 0,
            cri: plan.cri,
            lie: None,
            told_ready: BTreeMap::new(),
            beat: plan.beat() * SECOND,
            longest_setup: nanoseconds(plan.longest_setup()),
            // So that whoever lives is heard within the shortest of all gates.
            longest_pause: nanoseconds(plan.settings().reboot_gate) * 9 / 10,
            longest_whisper: nanoseconds(plan.settings().reboot_gate) * 7 / 2,
            random: fastrand::Rng::with_seed(plan.seed),
        };
        host.plug_uplinks();
        Ok(host)
    }

    /// The kernel's clock.
    pub fn clock(&self) -> Timestamp {
        Timestamp(self.now - self.booted)
    }

    /// World time of a time of this boot.
    pub fn world(&self, at: u64) -> u64 {
        self.booted + at
    }

    /// When something happens next by itself.
    pub fn next(&self) -> Option<u64> {
        self.queue.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Lets everything happen until `until`.
    pub fn advance(&mut self, until: u64) {
        while let Some((&(at, n), &task)) = self.queue.first_key_value()
            && at <= until
        {
            self.queue.remove(&(at, n));
            self.now = self.now.max(at);
            self.perform(task);
        }
        self.now = self.now.max(until);
    }

    /// Something will happen.
    pub fn expect(&mut self, at: u64, what: What) {
        self.later(at, Task::Incident(what));
    }

    fn later(&mut self, at: u64, task: Task) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), task);
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Incident(what) => self.incident(what),
            Task::Plug(machine) => self.plug(machine),
            Task::Show(machine) if !self.machines[machine].dead => {
                self.machines[machine].shown = true;
                self.speak(machine);
            }
            Task::Speak(machine) if !self.machines[machine].dead => self.speak(machine),
            Task::Show(_) | Task::Speak(_) => {}
            Task::Free(machine) => {
                let Machine {
                    net, address, id, ..
                } = &self.machines[machine];
                if self.up && self.leases.free((*net, *address), id) {
                    self.news.push(News::Store);
                }
            }
            Task::Grant(machine) => self.grant(machine),
            Task::Fail(machine) => self.fail(machine),
            Task::Light(ifindex) => {
                if let Some(port) = self.ports.get_mut(&ifindex) {
                    port.carrier = true;
                    port.carrier_changes += 1;
                    self.news.extend([News::Links, News::Touched(ifindex)]);
                    self.troubled(ifindex);
                }
            }
            Task::Withdraw(ifindex) => {
                if let Some(port) = self.ports.get_mut(&ifindex) {
                    port.first = true;
                    port.revision += 1;
                }
            }
        }
    }

    /// The agent is gone; without pins its program and maps are too.
    pub fn abandon(&mut self, pinned: bool) {
        self.news.clear();
        self.leases.came_back.clear();
        if !pinned {
            self.watched_since = None;
            self.leased.clear();
            self.sightings.clear();
            for port in self.ports.values_mut() {
                port.program = false;
                port.watch = None;
            }
            self.trouble = [self.now; NETS];
        }
    }

    /// The power is cut: what ran here is gone, and what wasn't written.
    pub fn power_cut(&mut self, damaged: u8) {
        self.abandon(false);
        self.up = false;
        for number in 0..self.machines.len() {
            // Another host's machine lives on, once this host has set it up.
            if !self.machines[number].remote || !self.machines[number].shown {
                self.die(number);
            }
        }
        self.ports.clear();
        for key in self.leases.keys().collect::<Vec<_>>() {
            let age = self.now - self.leases.granted(key);
            let damage = if self.random.bool() {
                Damage::Empty
            } else {
                Damage::Nul
            };
            if age < UNWRITTEN {
                self.leases.lose(key);
            } else if age < HALF_WRITTEN {
                self.leases.spoil(key, damage);
            }
        }
        for _ in 0..damaged {
            let number = self.random.u8(..);
            if let Some(key) = self.any_lease(number) {
                self.leases.spoil(key, Damage::Truncated);
            }
        }
    }

    /// It boots: its clock begins anew, and its links have other numbers.
    pub fn boot(&mut self) {
        self.boots += 1;
        self.booted = self.now - SECOND;
        self.up = true;
        self.plug_uplinks();
        self.trouble = [self.now; NETS];
    }
}
