//! The host and all that lives on it: machines, ports, what the kernel keeps, the stores.
//! What is true of an address is known here, and nowhere in the agent.

use std::collections::{BTreeMap, BTreeSet};

use ipam_agent::engine::{
    evidence::{Held, PortCheck, Source, SourceReport},
    lease::Damage,
    time::Timestamp,
};
use ipam_common::{
    Address, Evidence, Mac, Sighting,
    sighting::{SightingKey, Stamps, Tally},
};

use super::{
    leases::{Key, Leases},
    net::{self, net, nets},
    plan::{Habit, NETS, Plan, What},
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
    /// Its id at the container runtime.
    pub id: String,
    port: Option<u32>,
    remote: bool,
    shown: bool,
    mac: Mac,
    pause: u64,
}

/// A port as the kernel has it.
#[derive(Clone, Debug)]
struct Port {
    name: String,
    net: Option<usize>,
    carrier: bool,
    /// Our program is there, and whether it is first.
    program: bool,
    first: bool,
    refused_until: u64,
    revision: u64,
    carrier_changes: u64,
    watch: Option<Watch>,
    /// The agent has been told of it, and could attach at once.
    welcome: bool,
}

/// What the agent noted of its program on a port: pinned, or its own.
#[derive(Clone, Copy, Debug)]
struct Watch {
    since: u64,
    revision: u64,
    carrier_changes: u64,
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
    cri: bool,
    beat: u64,
    longest_setup: u64,
    longest_pause: u64,
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
            cri: plan.cri,
            beat: plan.beat() * SECOND,
            longest_setup: nanoseconds(plan.longest_setup()),
            // So that whoever lives is heard within the shortest of all gates.
            longest_pause: nanoseconds(plan.settings().reboot_gate) * 9 / 10,
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
            Task::Light(ifindex) => {
                if let Some(port) = self.ports.get_mut(&ifindex) {
                    port.carrier = true;
                    port.carrier_changes += 1;
                    self.news.push(News::Links);
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

    fn incident(&mut self, what: What) {
        let beat = self.beat;
        let time = |beats: u16| u64::from(beats) * beat;
        match what {
            // What the host has is all gone; what it would do comes to nothing.
            What::Start { .. } | What::Regrant { .. } | What::Return { .. } if !self.up => {}
            What::Start {
                net,
                habit,
                setup,
                same_id,
            } => {
                let net = usize::from(net) % NETS;
                let id = self.id(same_id);
                if let Some(address) = self.leases.grant(net, &id, self.now, self.boots) {
                    self.news.push(News::Store);
                    let setup = self.longest_setup * u64::from(setup) / 100;
                    self.begin(net, address, habit, id, setup, self.now);
                }
            }
            What::Die {
                machine,
                freed_after,
            } => {
                let alive: Vec<usize> = self.living().collect();
                if let Some(&machine) = alive.get(usize::from(machine) % alive.len().max(1)) {
                    self.die(machine);
                    if let Some(after) = freed_after {
                        self.later(self.now + time(after), Task::Free(machine));
                    }
                }
            }
            What::Return { lease, habit } => {
                if let Some((net, address)) = self.forsaken(lease) {
                    let shown = self.now + PLUGGED_BEFORE;
                    let id = self.id(false);
                    self.begin(net, address, habit, id, 0, shown);
                }
            }
            What::Regrant {
                lease,
                habit,
                same_id,
            } => {
                if let Some((net, address)) = self.forsaken(lease) {
                    let id = match self.leases.id((net, address)) {
                        Some(id) if same_id => id,
                        _ => self.id(false),
                    };
                    self.leases
                        .regrant((net, address), &id, self.now, self.boots);
                    self.news.push(News::Store);
                    let setup = self.random.u64(0..=self.longest_setup);
                    self.begin(net, address, habit, id, setup, self.now);
                }
            }
            What::Spoil { lease, damage } => {
                if let Some(key) = self.any_lease(lease) {
                    self.leases.spoil(key, damage);
                    self.news.push(News::Store);
                }
            }
            What::Probe { lease } => {
                if let Some((net, address)) = self.any_lease(lease) {
                    let ports: Vec<u32> = self.ports_of(net).collect();
                    if let Some(&port) = ports.get(usize::from(lease) % ports.len().max(1)) {
                        let mac = mac(60_000);
                        let kind = if address.is_ipv4() {
                            Evidence::ArpProbe
                        } else {
                            Evidence::DadProbe
                        };
                        self.frame(port, net, address, mac, Some(kind));
                    }
                }
            }
            What::Detach {
                port,
                beats: for_,
                told,
            } => {
                if let Some(ifindex) = self.any_port(port) {
                    let until = self.now + time(for_);
                    self.with_port(ifindex, |port| {
                        port.program = false;
                        port.revision += 1;
                        port.refused_until = until;
                    });
                    self.troubled(ifindex);
                    self.tell_touched(ifindex, told);
                }
            }
            What::Intrude {
                port,
                beats: for_,
                told,
            } => {
                if let Some(ifindex) = self.any_port(port) {
                    self.with_port(ifindex, |port| {
                        port.first = false;
                        port.revision += 1;
                    });
                    self.later(self.now + time(for_), Task::Withdraw(ifindex));
                    self.troubled(ifindex);
                    self.tell_touched(ifindex, told);
                }
            }
            What::Dark {
                uplink,
                beats: for_,
            } => {
                let uplinks: Vec<u32> = self.uplinks().collect();
                if let Some(&ifindex) = uplinks.get(usize::from(uplink) % uplinks.len().max(1)) {
                    self.with_port(ifindex, |port| {
                        port.carrier = false;
                        port.carrier_changes += 1;
                    });
                    self.later(self.now + time(for_), Task::Light(ifindex));
                    self.troubled(ifindex);
                    self.news.push(News::Links);
                }
            }
            What::Lossy { beats: for_ } => self.lossy_until = self.now + time(for_),
            What::Down {
                source,
                beats: for_,
            } => {
                self.down_until.insert(source, self.now + time(for_));
            }
            What::Late { beats: for_ } => self.late = time(for_),
            What::Glitch { source } => drop(self.glitch.insert(source)),
            What::Unreadable { net, beats: for_ } => {
                self.leases
                    .unreadable(net.map(usize::from), self.now + time(for_));
            }
            What::BrokenState { beats: for_ } => self.broken_until = self.now + time(for_),
            What::Contended { seconds } => self.contended = u64::from(seconds) * SECOND,
            What::Lawless => self.lawless = true,
            What::KilledReleasing { before, pinned } => self.doomed = Some((before, pinned)),
            What::Jump { seconds: by } => self.leases.wall += i64::from(by) * SECOND as i64,
            // The agent's.
            What::Restart { .. } | What::PowerCut { .. } | What::Apply => {}
        }
    }

    fn living(&self) -> impl Iterator<Item = usize> {
        let machines = self.machines.iter().enumerate();
        machines
            .filter(|(_, machine)| !machine.dead)
            .map(|(number, _)| number)
    }

    /// Who is alive with this address on this network, and since when.
    pub fn alive(&self, (net, address): Key) -> Option<u64> {
        let machines = self.machines.iter();
        let here = machines
            .filter(|machine| !machine.dead && machine.net == net && machine.address == address);
        here.map(|machine| machine.born)
            .min()
            .filter(|born| *born <= self.now)
    }

    /// Whether the kernel watches less than the whole of a network's wire.
    pub fn is_troubled(&self, net: usize) -> bool {
        let mut ports = self.ports_of(net).map(|ifindex| &self.ports[&ifindex]);
        ports.any(|port| !port.sees() || !port.carrier || !port.is_as_noted())
    }

    fn any_lease(&self, number: u8) -> Option<Key> {
        let keys: Vec<Key> = self.leases.keys().collect();
        keys.get(usize::from(number) % keys.len().max(1)).copied()
    }

    /// A lease whose holder is gone, and nobody is about to come with its address.
    fn forsaken(&self, number: u8) -> Option<Key> {
        let is_taken = |&(net, address): &Key| {
            let mut living = self.machines.iter().filter(|machine| !machine.dead);
            living.any(|machine| machine.net == net && machine.address == address)
        };
        let keys: Vec<Key> = self.leases.keys().filter(|key| !is_taken(key)).collect();
        keys.get(usize::from(number) % keys.len().max(1)).copied()
    }

    fn any_port(&self, number: u8) -> Option<u32> {
        let ports: Vec<u32> = self.ports.keys().copied().collect();
        ports.get(usize::from(number) % ports.len().max(1)).copied()
    }

    fn ports_of(&self, net: usize) -> impl Iterator<Item = u32> {
        let uplink = self::net(net).uplink;
        let ports = self.ports.iter().filter(move |(_, port)| {
            port.net == Some(net) || (port.net.is_none() && uplink == Some(&*port.name))
        });
        ports.map(|(&ifindex, _)| ifindex)
    }

    fn uplinks(&self) -> impl Iterator<Item = u32> {
        let ports = self.ports.iter().filter(|(_, port)| port.net.is_none());
        ports.map(|(&ifindex, _)| ifindex)
    }

    fn with_port(&mut self, ifindex: u32, act: impl FnOnce(&mut Port)) {
        self.ports.get_mut(&ifindex).map(act);
    }

    /// A new id, or one that was another's before.
    fn id(&mut self, used: bool) -> String {
        let gone: Vec<&Machine> = self
            .machines
            .iter()
            .filter(|machine| machine.dead)
            .collect();
        match self.random.choice(gone) {
            Some(machine) if used => machine.id.clone(),
            _ => format!("{:032x}{:032x}", self.random.u128(..), self.random.u128(..)),
        }
    }

    fn begin(
        &mut self,
        net: usize,
        address: Address,
        habit: Habit,
        id: String,
        setup: u64,
        born: u64,
    ) {
        let number = self.machines.len();
        let uplink = self::net(net).uplink.is_some();
        let remote = uplink && (!self::net(net).local || self.random.u8(0..4) == 0);
        let habit = match habit {
            // Of another host's machine nothing shows but what it says.
            Habit::Configured | Habit::Known | Habit::Ordinary if remote => Habit::Talks,
            Habit::Known if !self.cri => Habit::Configured,
            habit => habit,
        };
        let shortest = self.longest_pause / 3;
        self.machines.push(Machine {
            net,
            address,
            habit,
            born,
            dead: false,
            id,
            port: None,
            remote,
            shown: false,
            mac: mac(number),
            pause: self.random.u64(shortest..=self.longest_pause),
        });
        let shown = self.now + PLUGGED_BEFORE + setup;
        self.later(shown - PLUGGED_BEFORE, Task::Plug(number));
        self.later(shown, Task::Show(number));
    }

    /// A pod's link comes; a macvlan's is nowhere to be seen.
    fn plug(&mut self, number: usize) {
        let Machine {
            net, remote, dead, ..
        } = self.machines[number];
        if dead || remote || !self::net(net).watchable {
            return;
        }
        let name = format!("veth{number}");
        self.machines[number].port = Some(self.new_port(&name, Some(net)));
        self.news.push(News::Links);
    }

    fn new_port(&mut self, name: &str, net: Option<usize>) -> u32 {
        self.next_port += 1;
        let port = Port {
            name: name.to_owned(),
            net,
            carrier: true,
            program: false,
            first: true,
            refused_until: 0,
            revision: 1,
            carrier_changes: 1,
            watch: None,
            welcome: false,
        };
        self.ports.insert(self.next_port, port);
        self.next_port
    }

    fn plug_uplinks(&mut self) {
        for net in nets() {
            if let Some(name) = net.uplink {
                self.new_port(name, None);
            }
        }
    }

    fn die(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        machine.dead = true;
        if let Some(port) = machine.port.take()
            && self.ports.remove(&port).is_some()
        {
            self.news.push(News::Links);
        }
    }

    fn speak(&mut self, number: usize) {
        let machine = self.machines[number].clone();
        let port = machine.port.or_else(|| {
            let mut uplinks = self
                .ports_of(machine.net)
                .filter(|port| self.ports[port].net.is_none());
            uplinks.next().filter(|_| machine.remote)
        });
        let words = if machine.address.is_ipv4() {
            [
                Evidence::ArpAnnouncement,
                Evidence::ArpRequest,
                Evidence::ArpReply,
            ]
        } else {
            [
                Evidence::NeighborAdvertisement,
                Evidence::NeighborSolicitation,
                Evidence::WeakAdvertisement,
            ]
        };
        let word = words[self.random.usize(..words.len())];
        let say = match machine.habit {
            Habit::Packets => None,
            Habit::Ordinary if self.random.bool() => None,
            _ => Some(word),
        };
        // Who comes with an address that isn't granted to it announces it, however silent
        // it is afterwards; a pod's set-up may be without a word.
        let is_silent = matches!(machine.habit, Habit::Configured | Habit::Known);
        let granted = self.leases.id((machine.net, machine.address)) == Some(machine.id.clone());
        if let Some(port) = port
            && !(is_silent && granted)
        {
            self.frame(port, machine.net, machine.address, machine.mac, say);
        }
        if !is_silent {
            let pause = self.random.u64(machine.pause / 2..=machine.pause);
            self.later(self.now + pause, Task::Speak(number));
        }
    }

    /// A frame comes in by a port; `None`: an IP packet.
    fn frame(
        &mut self,
        ifindex: u32,
        net: usize,
        address: Address,
        mac: Mac,
        said: Option<Evidence>,
    ) {
        let at = self.clock().0;
        let Some(port) = self.ports.get(&ifindex) else {
            return;
        };
        if !self.up || !port.sees() || !port.carrier {
            return;
        }
        self.heard.insert(address, self.now);
        if let Some(stamps) = self.leased.get_mut(&address) {
            match said {
                None => stamps.packet = at,
                Some(evidence) if evidence.is_probe() => stamps.probe = at,
                Some(_) => stamps.assertion = at,
            }
        }
        let Some(evidence) = said else {
            return;
        };
        let tags = self::net(net).tags(&port.name);
        let sighting = Sighting {
            address,
            mac,
            evidence,
            asked: None,
            tags,
            ether_src: mac.bytes(),
            ether_dst: [0xff; 6],
            nonce: None,
        };
        let key = SightingKey {
            ifindex,
            outer_vlan: tags.outer,
            vlan: tags.vlan,
            address: address.mapped(),
            mac: mac.bytes(),
            probe: evidence.is_probe().into(),
            reserved: 0,
        };
        let tally = self.sightings.entry(key);
        tally
            .and_modify(|tally| tally.add(&sighting, at))
            .or_insert_with(|| Tally::first(&sighting, at));
        self.news.push(if self.now < self.lossy_until {
            News::Lost
        } else {
            News::Seen {
                at,
                ifindex,
                sighting,
            }
        });
    }

    fn tell_touched(&mut self, ifindex: u32, told: bool) {
        if told {
            self.news.push(News::Touched(ifindex));
        }
    }

    fn troubled(&mut self, ifindex: u32) {
        for net in 0..NETS {
            if self.ports_of(net).any(|port| port == ifindex) {
                self.trouble[net] = self.now;
            }
        }
    }

    /// What netlink says.
    pub fn topology(&self) -> std::sync::Arc<ipam_agent::engine::segment::Topology> {
        let ports = self
            .ports
            .iter()
            .map(|(&ifindex, port)| (ifindex, net::port(&port.name, port.net, port.carrier)));
        net::topology(ports.collect())
    }

    /// Puts the program on a port, and gives since when it sees every frame.
    pub fn attach(&mut self, ifindex: u32) -> Option<Result<Timestamp, String>> {
        let now = self.clock();
        if self.check(ifindex) == PortCheck::Attached {
            let watch = self.ports.get(&ifindex)?.watch?;
            return Some(Ok(Timestamp(watch.since)));
        }
        let world = self.now;
        let port = self.ports.get_mut(&ifindex)?;
        let fresh = port.watch.is_none() && !port.welcome;
        port.welcome = true;
        if port.refused_until > world {
            port.watch = None;
            return Some(Err("the kernel refuses".into()));
        }
        port.program = true;
        port.first = true;
        port.revision += 1;
        port.watch = Some(Watch {
            since: now.0,
            revision: port.revision,
            carrier_changes: port.carrier_changes,
        });
        if !fresh {
            self.troubled(ifindex);
        }
        Some(Ok(now))
    }

    /// What the daemon's loop does while releases wait for a lock: new ports are attached to.
    pub fn welcome(&mut self) {
        let new = self.ports.iter().filter(|(_, port)| !port.welcome);
        for ifindex in new.map(|(&ifindex, _)| ifindex).collect::<Vec<_>>() {
            let _ = self.attach(ifindex);
        }
    }

    /// Asks the kernel for the program on a port.
    pub fn check(&mut self, ifindex: u32) -> PortCheck {
        let now = self.clock().0;
        let blind = |why: &str| PortCheck::Blind(why.into());
        let Some(port) = self.ports.get_mut(&ifindex) else {
            return blind("gone");
        };
        let Some(watch) = &mut port.watch else {
            return blind("not attached");
        };
        if !port.program {
            return blind("the program is gone");
        }
        if !port.first {
            return blind("another is first");
        }
        if port.revision != watch.revision {
            return blind("changed meanwhile");
        }
        if port.carrier_changes != watch.carrier_changes {
            watch.carrier_changes = port.carrier_changes;
            watch.since = now;
        }
        PortCheck::Attached
    }

    /// An agent begins: what one before it left goes on, where nothing came between.
    pub fn take_over(&mut self) -> Timestamp {
        let now = self.clock();
        let since = *self.watched_since.get_or_insert(now.0);
        for port in self.ports.values_mut() {
            let as_left = port.sees() && port.is_as_noted() && port.is_carrier_as_noted();
            if !as_left {
                port.watch = None;
                // No first look is a new port's.
                port.welcome = true;
            }
        }
        // That a port was new when it was attached to, the one before knew alone.
        for number in 0..NETS {
            let watches = self
                .ports_of(number)
                .filter_map(|ifindex| self.ports[&ifindex].watch);
            let youngest = watches.map(|watch| self.world(watch.since)).max();
            self.trouble[number] = self.trouble[number].max(youngest.unwrap_or(0));
        }
        Timestamp(since)
    }

    /// The agent is gone; without pins its program and maps are too.
    pub fn abandon(&mut self, pinned: bool) {
        self.news.clear();
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

    /// What a source of holders says to a pass. It leaves out what it should name at most once
    /// in a row.
    pub fn ask(&mut self, source: Source) -> SourceReport {
        let glitch = !self.glitched.remove(&source) && self.glitch.remove(&source);
        let mut report = self.look(source);
        if glitch && let Ok(held) = &mut report.answer {
            self.glitched.insert(source);
            held.clear();
        }
        report
    }

    /// What a source of holders knows.
    pub fn look(&self, source: Source) -> SourceReport {
        let until = self.down_until.get(&source).copied();
        if until.is_some_and(|until| until > self.now) {
            return SourceReport {
                source,
                answer: Err("it does not answer".into()),
            };
        }
        let names = |machine: &&Machine| {
            !machine.dead
                && machine.shown
                && !machine.remote
                && match source {
                    Source::Cri => matches!(machine.habit, Habit::Known | Habit::Ordinary),
                    Source::Namespaces => {
                        matches!(machine.habit, Habit::Configured | Habit::Ordinary)
                            && machine.port.is_some()
                    }
                }
        };
        let held = self.machines.iter().filter(names).map(|machine| Held {
            address: machine.address,
            ifindex: machine.port.filter(|_| source == Source::Namespaces),
        });
        SourceReport {
            source,
            answer: Ok(held.collect()),
        }
    }
}

impl Port {
    fn sees(&self) -> bool {
        self.program && self.first
    }

    fn is_as_noted(&self) -> bool {
        self.watch
            .is_some_and(|watch| watch.revision == self.revision)
    }

    fn is_carrier_as_noted(&self) -> bool {
        self.watch
            .is_some_and(|watch| watch.carrier_changes == self.carrier_changes)
    }
}

fn mac(number: usize) -> Mac {
    let [.., high, low] = number.to_be_bytes();
    Mac::new([2, 0, 0, 0, high, low]).expect("unicast")
}
