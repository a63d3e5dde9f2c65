//! What a daemon and a scan have in common: the engine on the live wire, with the program
//! on every port that is wanted and LEASED filled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    DriverError, clock,
    release::lock,
    settings,
    stores::{Readings, Stores},
};
use crate::{
    config::Config,
    engine::{
        Engine,
        evidence::PortCheck,
        input::{Command, Input, Seen},
        segment::Topology,
        time::Timestamp,
    },
    error::in_full,
    report::compose::Composer,
    source::{
        links::{LinkEvent, Links, NameFilter, Touch},
        live::{AttachError, Events, Live, Options, Pins, TableError, Tables},
    },
    store::Notes,
};
use ipam_common::sighting::Counter;

/// A port whose program somebody pushes aside is attached to again no more often.
const REATTACH: Duration = Duration::from_secs(1);
/// More ports than these are attached to at once first, so that none waits for the others.
const CROWD: usize = 8;

/// So much news of the links is taken in before it is another's turn.
const MOST_NEWS: usize = 64;
/// As long as a port may be unwatched: of one that came longer ago all has to be known.
const BEHIND: Duration = Duration::from_secs(1);

/// How a port is attached to.
type Attach = fn(&mut Live, u32, &str) -> Result<Timestamp, AttachError>;

/// The engine, and its eyes.
pub struct Observer {
    /// The engine.
    pub engine: Engine,
    /// The program and where it is.
    pub live: Arc<Mutex<Live>>,
    /// Its maps.
    pub tables: Arc<Tables>,
    /// The configured sources of leases.
    pub stores: Stores,
    /// The host's name.
    pub host: String,
    /// The boot id.
    pub boot: String,
    /// Which interfaces are to be watched.
    pub filter: NameFilter,
    /// All that the host's links were before is known.
    pub heard: Timestamp,
    topology: Arc<Topology>,
    tried: BTreeMap<u32, Timestamp>,
    /// Wanted ports that our program isn't on, and why, as far as that was told.
    missing: BTreeMap<u32, String>,
    counted_lost: u64,
    notes: Notes,
}

/// What the observer hears.
pub struct Ears {
    /// The links.
    pub links: Links,
    /// The program's events.
    pub events: Events,
}

impl Observer {
    /// Loads the program and opens the links. Nothing is attached yet, but what an agent before
    /// us left in `pins` is at work.
    pub fn new(
        config: &Config,
        boot: String,
        pins: Option<Pins>,
    ) -> Result<(Self, Ears), DriverError> {
        let filter = NameFilter::new(&config.interfaces.include, &config.interfaces.exclude)
            .map_err(|error| DriverError::Interfaces(error.to_string()))?;
        let options = Options {
            data_plane: config.observe.data_plane,
            ..Options::default()
        };
        let (live, events) = Live::load(options, pins, clock::now)?;
        let tables = live.tables();
        // What went on without us may have lost some too: the look at SIGHTINGS repairs that.
        let counted_lost = lost(&tables).unwrap_or(0);
        let mut engine = Engine::new(settings(config, &boot));
        let since = live.since();
        engine.handle(Input::WatchedSince(since), clock::now());
        let observer = Self {
            engine,
            live: Arc::new(Mutex::new(live)),
            tables,
            stores: Stores::new(&config.stores),
            host: super::host_name(),
            boot,
            filter: filter.clone(),
            heard: clock::now(),
            topology: Arc::default(),
            tried: BTreeMap::new(),
            missing: BTreeMap::new(),
            counted_lost,
            notes: Notes::default(),
        };
        let links = Links::open(filter)?;
        Ok((observer, Ears { links, events }))
    }

    /// Learns the links as they are and attaches to every port that is wanted.
    pub async fn begin(&mut self, ears: &mut Ears) -> Result<(), DriverError> {
        loop {
            let event = ears.links.next().await?;
            let known = matches!(event, LinkEvent::Topology(_));
            self.link_event(event);
            if known {
                return Ok(());
            }
        }
    }

    /// Takes in what has happened to the links until now. Whatever the caller does next, what
    /// happens to them meanwhile is known to be younger.
    pub async fn catch_up(&mut self, ears: &mut Ears) -> Result<(), DriverError> {
        for _ in 0..MOST_NEWS {
            let now = clock::now();
            match ears.links.waiting().await? {
                Some(event) => self.link_event(event),
                None => {
                    if ears.links.is_current() {
                        self.heard = now;
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether too little is known of the links to judge by it.
    pub fn is_behind(&self) -> bool {
        clock::now().since(self.heard) >= BEHIND
    }

    /// Tells the engine.
    pub fn tell(&mut self, input: Input) {
        self.engine.handle(input, clock::now());
    }

    /// Tells the engine what was seen.
    pub fn seen(&mut self, seen: &mut Vec<Seen>) {
        let now = clock::now();
        for seen in seen.drain(..) {
            self.engine.handle(Input::Seen(seen), now);
        }
    }

    /// Follows the links.
    pub fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Topology(topology) => {
                self.topology = Arc::clone(&topology);
                let since = self.heard;
                self.tell(Input::Links { topology, since });
                self.forget_gone_ports();
                self.attach_all();
            }
            LinkEvent::Touched(ifindex, touch) => self.look_at(ifindex, touch),
            LinkEvent::Lost => {
                tracing::warn!(
                    "the kernel dropped news of the host's links: what came and went can't be \
                     known, and all coverage begins anew"
                );
                let since = {
                    let mut live = lock(&self.live);
                    live.begin_anew();
                    live.since()
                };
                self.tell(Input::WatchedSince(since));
                for ifindex in self.wanted() {
                    self.look_at(ifindex, Touch::Xdp);
                }
            }
        }
    }

    /// The sources of leases were read.
    pub fn stores_read(&mut self, readings: Readings) {
        for input in readings.inputs {
            self.tell(input);
        }
        if readings.notes != self.notes {
            self.notes = readings.notes;
            for note in self.notes.lines() {
                tracing::info!("{note}");
            }
        }
    }

    /// Puts addresses into LEASED or out of it.
    pub fn watch(&mut self, add: Vec<ipam_common::Address>, remove: &[ipam_common::Address]) {
        if let Err(error) = self.tables.leased_remove(remove) {
            tracing::warn!("{}", in_full(&error));
        }
        match self.tables.leased_insert(&add, clock::now()) {
            Ok(()) => self.tell(Input::Watching(add)),
            // Which of them are in there the next pass will see; until then none counts.
            Err(error) => tracing::warn!("{}", in_full(&error)),
        }
    }

    /// Counts what was lost since the last time; whether anything was.
    pub fn count_lost(&mut self) -> bool {
        let lost = match lost(&self.tables) {
            Ok(lost) => lost,
            Err(error) => {
                tracing::warn!("{}", in_full(&error));
                return false;
            }
        };
        let more = lost.saturating_sub(self.counted_lost);
        self.counted_lost = lost;
        if more > 0 {
            self.tell(Input::Lost(more));
        }
        more > 0
    }

    /// Documents of the engine's state now.
    pub fn composer<'a>(&'a self, blind: &'a [String]) -> Composer<'a> {
        Composer {
            engine: &self.engine,
            clock: clock::wall(),
            now: clock::now(),
            host: &self.host,
            boot: Some(&self.boot),
            blind,
        }
    }

    /// The ports that are to be watched.
    pub fn wanted(&self) -> Vec<u32> {
        let ports = self.topology.ports.iter();
        ports
            .filter(|(_, port)| port.wanted)
            .map(|(&ifindex, _)| ifindex)
            .collect()
    }

    /// The wanted ports that aren't watched, by name, and why not.
    pub fn missing(&self) -> impl Iterator<Item = (&str, &str)> {
        self.missing.iter().filter_map(|(ifindex, why)| {
            let port = self.topology.ports.get(ifindex)?;
            Some((&*port.name, why.as_str()))
        })
    }

    /// What the kernel says of every wanted port.
    pub fn check_all(&self) -> Vec<(u32, PortCheck)> {
        let live = lock(&self.live);
        let wanted = self.wanted().into_iter();
        wanted
            .map(|ifindex| (ifindex, live.check(ifindex)))
            .collect()
    }

    /// Puts the program back where a check found it missing.
    pub fn mend(&mut self, checks: &[(u32, PortCheck)]) {
        for (ifindex, check) in checks {
            if let PortCheck::Blind(_) = check {
                self.attach(*ifindex);
            }
        }
    }

    /// Takes the program off every port: nothing of ours is left.
    pub fn end(&mut self) {
        lock(&self.live).end();
    }

    /// Leaves the program at work for the agent that comes next, if that is possible.
    pub fn hand_over(&mut self) {
        lock(&self.live).hand_over();
    }

    /// Does what a command says that needs nothing but the observer; gives back the others.
    pub fn obey(&mut self, command: Command) -> Option<Command> {
        match command {
            Command::Watch { add, remove } => {
                self.watch(add, &remove);
                None
            }
            other => Some(other),
        }
    }

    fn forget_gone_ports(&mut self) {
        let ports: BTreeSet<u32> = self.wanted().into_iter().collect();
        lock(&self.live).keep_only(&ports);
        self.tried.retain(|ifindex, _| ports.contains(ifindex));
        self.missing.retain(|ifindex, _| ports.contains(ifindex));
    }

    fn attach_all(&mut self) {
        let attached: BTreeSet<u32> = {
            let live = lock(&self.live);
            live.ports().map(|(ifindex, _)| ifindex).collect()
        };
        let mut missing = self.wanted();
        missing.retain(|ifindex| !attached.contains(ifindex));
        let attach = match missing.len() > CROWD {
            true => Live::attach_at_once,
            false => Live::attach,
        };
        for ifindex in missing {
            self.attach_by(attach, ifindex);
        }
    }

    /// Whether a port of a crowd is left for [`Self::settle`].
    pub fn is_unsettled(&self) -> bool {
        lock(&self.live).is_unsettled()
    }

    /// Puts the program where it belongs on one of the ports of a crowd.
    pub fn settle(&mut self) {
        let settled = lock(&self.live).settle();
        if let Some((ifindex, attached)) = settled {
            self.attached(ifindex, attached);
        }
    }

    fn look_at(&mut self, ifindex: u32, touch: Touch) {
        if !self
            .topology
            .ports
            .get(&ifindex)
            .is_some_and(|port| port.wanted)
        {
            return;
        }
        let check = lock(&self.live).touched(ifindex, touch);
        match check {
            PortCheck::Attached(since) => self.tell(Input::Attached { ifindex, since }),
            PortCheck::Blind(why) => {
                self.tell(Input::Unattached { ifindex, why });
                self.attach(ifindex);
            }
        }
    }

    fn attach(&mut self, ifindex: u32) {
        self.attach_by(Live::attach, ifindex);
    }

    fn attach_by(&mut self, attach: Attach, ifindex: u32) {
        let Some(port) = self.topology.ports.get(&ifindex) else {
            return;
        };
        let name = Arc::clone(&port.name);
        let now = clock::now();
        let tried = self.tried.get(&ifindex);
        if tried.is_some_and(|&at| now.since(at) < REATTACH) {
            self.missing.entry(ifindex).or_default();
            return;
        }
        self.tried.insert(ifindex, now);
        let attached = attach(&mut lock(&self.live), ifindex, &name);
        self.attached(ifindex, attached);
    }

    fn attached(&mut self, ifindex: u32, attached: Result<Timestamp, AttachError>) {
        let Some(port) = self.topology.ports.get(&ifindex) else {
            return;
        };
        let name = Arc::clone(&port.name);
        match attached {
            Ok(since) => {
                self.missing.remove(&ifindex);
                tracing::debug!(interface = %name, "watched");
                self.tell(Input::Attached { ifindex, since });
            }
            Err(AttachError::Vanished { .. }) => {
                self.missing.remove(&ifindex);
                tracing::debug!(interface = %name, "gone before it could be watched");
            }
            Err(error) => {
                let why = in_full(&error);
                if self.missing.get(&ifindex) != Some(&why) {
                    tracing::warn!(interface = %name, "not watched: {why}");
                }
                self.missing.insert(ifindex, why.clone());
                self.tell(Input::Unattached { ifindex, why });
            }
        }
    }

    /// Tries again where attaching failed or had to wait.
    pub fn retry(&mut self) {
        for ifindex in self.missing.keys().copied().collect::<Vec<_>>() {
            self.attach(ifindex);
        }
    }
}

/// How many claims were not told of, or not even noted.
fn lost(tables: &Tables) -> Result<u64, TableError> {
    let counters = [
        Counter::EventsLimited,
        Counter::EventsLost,
        Counter::SightingsOverShare,
        Counter::SightingsFailed,
    ];
    let mut counts = counters.iter().map(|&counter| tables.counter(counter));
    counts.try_fold(0, |sum: u64, count| Ok(sum.saturating_add(count?)))
}
