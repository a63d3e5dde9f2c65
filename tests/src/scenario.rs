//! A small language for judgements: frames on the ports of a bridge, and what becomes of
//! leases, links and addresses meanwhile, one line each. Frames are built as bytes and go
//! through the parser that the kernel runs; the engine's own timers drive its clock.
//!
//! ```text
//! live                       not to be played as a capture: that its ports are this host's counts
//! lease X A                  at the start, host-local leases X to the MAC A
//! 0 vA ANN A X               at 0 s, A announces X on port vA
//! 5.0 vB ANN B X
//! 10,20 vB REQ B X G         twice: B, whose address is X, asks for G
//! 60 grant Y A               at 60 s, Y is leased to A
//! 65 answers X A B           asked by the agent, A and B both say that they have X
//! 67 restart                 the agent stops, and starts anew
//! 70 end                     the clock goes on until 70 s
//! ```
//!
//! Frames, of MAC `m` and addresses `s`, `t`: `ANN m s` gratuitous request, `GREP m s`
//! gratuitous reply, `REQ m s t` request, `REP m s n t` reply to `n`, `PROBE m t` probe,
//! `REPALL m s n t` reply to `n` that is broadcast, `UPROBE m t n` probe sent to `n` alone,
//! `FORGED m s n` announcement and `FPROBE m t n` probe of `m` in a frame of `n`; in IPv6 the
//! advertisement or solicitation that says the same, `NPROBE m t n` a probe and `NREQ m s t n` a
//! request with a nonce, `WEAK m s` an advertisement and `WREP m s n t` a reply without
//! Override, `FAR m s` one that came through a router. `tag 100` at the end tags the frame.
//!
//! Names: ports `vA` to `vF` (a guest's veth each) and `up` (a bond); MACs and addresses
//! are one letter, or a letter and a digit; the MAC of a letter and a prime is that of a
//! virtual router, `EE` is Calico's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ipam_agent::engine::{
    Engine,
    confirm::Question,
    conflict::Conflict,
    input::{Command, Input, Notice, Seen},
    lease::StoreView,
    owner::Owners,
    segment::{Segment, Topology},
    time::Timestamp,
};
use ipam_common::{
    Address, Captured, Parsed, Refusal, parse,
    sighting::{SightingKey, Tally},
};

use crate::frames;

mod lease_file;
pub mod live;
mod recorded;
mod setting;
pub mod vlans;
pub(crate) mod words;

pub use recorded::{Recording, recorded};
pub use setting::settings;
pub use words::Family;

/// How the engine learns what was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Each frame as an event, at once.
    Events,
    /// The frames of each second at its end, as events, the latest first.
    Backwards,
    /// No events: the table of sightings at the end of each second.
    Snapshots,
}

/// A wire, a host on it, and the engine that judges it.
#[derive(Debug)]
pub struct World {
    family: Family,
    /// The engine.
    pub engine: Engine,
    /// Frames that the parser refused, by reason.
    pub refused: BTreeMap<&'static str, u32>,
    /// What the engine asked claimants.
    pub asked: Vec<Question>,
    now: Timestamp,
    topology: Topology,
    view: StoreView,
    /// A second store that speaks for the same bridge.
    other: StoreView,
    owners: Owners,
    grants: i64,
    ids: Vec<Arc<str>>,
    told: String,
    tallies: BTreeMap<SightingKey, Tally>,
}

/// A script's lines.
struct Script<'a> {
    /// Those without a time.
    setting: Vec<&'a str>,
    /// The others, in the order of time.
    scenes: Vec<(Timestamp, &'a str)>,
}

impl<'a> Script<'a> {
    fn read(script: &'a str) -> Result<Self> {
        let (mut setting, mut scenes) = (Vec::new(), Vec::new());
        for line in script.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            let times: Result<Vec<Timestamp>, _> = first.split(',').map(seconds).collect();
            match times {
                _ if line.is_empty() => {}
                Ok(times) => scenes.extend(times.into_iter().map(|at| (at, rest))),
                Err(_) => setting.push(line),
            }
        }
        scenes.sort_by_key(|(at, _)| *at);
        Ok(Self { setting, scenes })
    }
}

/// The frame that a scene's words behind the port say.
fn frame_of(family: Family, what: &[&str]) -> Result<Vec<u8>> {
    match *what {
        [ref what @ .., "tag", vlan] => {
            let frame = family.frame(what)?;
            Ok(frames::tagged(&frame, &[(frames::DOT1Q, vlan.parse()?)]))
        }
        ref what => family.frame(what),
    }
}

/// Plays a script and gives back what the engine told, one line each: when, which
/// conflict, what, how bad, who and since when; at the end what moved.
pub fn play(family: Family, script: &str) -> Result<World> {
    World::play(family, Telling::Events, script)
}

impl World {
    /// Plays a script.
    pub fn play(family: Family, telling: Telling, script: &str) -> Result<Self> {
        let mut world = Self::new(family);
        let Script { setting, scenes } = Script::read(script)?;
        for line in setting {
            world.set(line).with_context(|| format!("in {line:?}"))?;
        }
        world.tell_links();
        world.tell_leases();
        let mut told = Told::new(telling);
        for (at, line) in scenes {
            world
                .scene(at, line, &mut told)
                .with_context(|| format!("in {line:?}"))?;
        }
        world.deliver(&mut told);
        let moved: Vec<String> = world
            .engine
            .events()
            .map(|event| {
                let [from, to] =
                    [0, 1].map(|i| event.macs.get(i).map_or("?".into(), |&m| words::name_of(m)));
                format!(
                    "{} {} {} {from} {to}\n",
                    clock(event.at),
                    event.kind.name(),
                    place(&event.segment, event.address)
                )
            })
            .collect();
        world.told.extend(moved);
        Ok(world)
    }

    /// What the engine told.
    pub fn told(&self) -> &str {
        &self.told
    }

    /// The conflicts that were ever told of and are known, as address and kind.
    pub fn conflicts(&self) -> BTreeSet<(Address, &'static str)> {
        let conflicts = self.engine.conflicts();
        conflicts
            .map(|case| (case.address, case.conflict.verdict.kind().name()))
            .collect()
    }

    /// Lets the clock go on, timer by timer.
    pub fn advance(&mut self, to: Timestamp) {
        self.advance_until(to);
        self.engine.handle_timeout(self.now);
        self.listen();
    }

    /// The same, but for what is due at that very moment: first is heard what is said then.
    fn advance_until(&mut self, to: Timestamp) {
        while let Some(at) = self.engine.poll_timeout()
            && at < to
        {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.listen();
        }
        self.now = self.now.max(to);
    }

    /// A frame comes in by a port, now.
    pub fn hear(&mut self, port: &str, frame: &[u8]) -> Result<()> {
        if let Some(seen) = self.seen(port, frame, self.now)? {
            self.tell(Input::Seen(seen));
        }
        Ok(())
    }

    fn seen(&mut self, port: &str, frame: &[u8], at: Timestamp) -> Result<Option<Seen>> {
        let mut ports = self.topology.ports.iter();
        let (&ifindex, _) = ports
            .find(|(_, known)| *known.name == *port)
            .with_context(|| format!("no port {port}"))?;
        Ok(match parse(&Captured::new(frame)) {
            Parsed::Sighting(sighting) => Some(Seen {
                again: false,
                at,
                ifindex,
                sighting,
            }),
            Parsed::Refused(refusal) => {
                *self.refused.entry(Refusal::name(refusal)).or_default() += 1;
                None
            }
            Parsed::Other => None,
        })
    }

    fn scene(&mut self, at: Timestamp, line: &str, told: &mut Told) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let second = Timestamp(at.0 / SECOND * SECOND);
        if told.telling != Telling::Events && told.second != second {
            self.deliver(told);
            told.second = second;
        }
        match words[..] {
            ["end"] => self.advance(at),
            ["restart"] => {
                self.advance(at);
                self.restart();
            }
            ["grant", address, holder] => {
                self.advance(at);
                self.grant(address, holder)?;
                self.tell_leases();
            }
            ["revoke", address] => {
                self.advance(at);
                let address = self.family.address(address)?;
                self.view.leases.retain(|lease| lease.address != address);
                self.tell_leases();
            }
            ["disown", address] => {
                self.advance(at);
                let address = self.family.address(address)?;
                self.topology
                    .own_addresses
                    .retain(|own| own.address != address);
                self.tell_links();
            }
            ["answers", address, ref who @ ..] => {
                self.advance(at);
                let address = self.family.address(address)?;
                let asked = self.asked.iter().rfind(|asked| asked.address == address);
                let segment = asked.context("nobody was asked")?.segment.clone();
                let answered: Result<Vec<_>> = who.iter().map(|name| words::mac(name)).collect();
                self.tell(Input::Answers {
                    segment,
                    address,
                    answered: answered?,
                });
            }
            ["link", port, "gone"] => {
                self.advance(at);
                self.topology.ports.retain(|_, known| *known.name != *port);
                self.tell_links();
            }
            ["other", "grant", address, holder] => {
                self.advance(at);
                self.grant_other(address, holder)?;
                self.tell_leases();
            }
            ["other", "revoke", address] => {
                self.advance(at);
                let address = self.family.address(address)?;
                self.other.leases.retain(|lease| lease.address != address);
                self.tell_leases();
            }
            [port, ref what @ ..] => {
                let frame = frame_of(self.family, what)?;
                if told.telling == Telling::Events {
                    self.advance_until(at);
                    self.hear(port, &frame)?;
                } else if let Some(seen) = self.seen(port, &frame, at)? {
                    told.heard.push(seen);
                }
            }
            [] => bail!("nothing happens"),
        }
        Ok(())
    }

    /// Tells what was kept back.
    fn deliver(&mut self, told: &mut Told) {
        if told.heard.is_empty() {
            return;
        }
        self.advance(told.second + Duration::from_secs(1));
        let heard = std::mem::take(&mut told.heard);
        if told.telling == Telling::Backwards {
            for seen in heard.into_iter().rev() {
                self.tell(Input::Seen(seen));
            }
            return;
        }
        for seen in heard {
            let sighting = seen.sighting;
            let key = SightingKey {
                ifindex: seen.ifindex,
                outer_vlan: sighting.tags.outer,
                vlan: sighting.tags.vlan,
                address: sighting.address.mapped(),
                mac: sighting.mac.bytes(),
                probe: sighting.evidence.is_probe().into(),
                reserved: 0,
            };
            self.tallies
                .entry(key)
                .and_modify(|tally| {
                    tally.add(&sighting, seen.at.0);
                })
                .or_insert_with(|| Tally::first(&sighting, seen.at.0));
        }
        let table = self.tallies.iter().map(|(&key, &tally)| (key, tally));
        self.tell(Input::Snapshot(table.collect()));
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        self.listen();
    }

    /// The agent is started anew: it knows the links and the leases, and heard nothing.
    fn restart(&mut self) {
        self.engine = Engine::new(settings());
        self.tallies.clear();
        self.tell_links();
        self.tell_leases();
    }

    fn tell_links(&mut self) {
        self.tell(Input::Links {
            topology: Arc::new(self.topology.clone()),
            since: self.now,
        });
    }

    fn tell_leases(&mut self) {
        self.tell(Input::Stores {
            source: 0,
            views: vec![self.view.clone(), self.other.clone()],
            failed: Vec::new(),
            owners: self.owners.clone(),
        });
    }

    /// Writes down what the engine publishes.
    fn listen(&mut self) {
        while let Some(command) = self.engine.next_command() {
            match command {
                Command::Publish(
                    Notice::Opened(segment, address, conflict)
                    | Notice::Resolved(segment, address, conflict),
                ) => {
                    let line = self.line(&segment, address, &conflict);
                    self.told.push_str(&line);
                }
                Command::Ask(question) => self.asked.push(question),
                _ => {}
            }
        }
    }

    fn line(&mut self, segment: &Segment, address: Address, conflict: &Conflict) -> String {
        let known = self.ids.iter().position(|id| *id == conflict.id);
        let number = known.unwrap_or_else(|| {
            self.ids.push(Arc::clone(&conflict.id));
            self.ids.len() - 1
        });
        let at = conflict.steps.last().map_or(self.now, |step| step.at);
        let what = match conflict.is_active() {
            true => conflict.verdict.kind().name(),
            false => "over",
        };
        let mut line = format!(
            "{} #{} {what} {} {:?}",
            clock(at),
            number + 1,
            place(segment, address),
            conflict.severity,
        );
        for &mac in conflict.verdict.macs() {
            let _ = write!(line, " {}", words::name_of(mac));
        }
        let _ = writeln!(line, " since {}", clock(conflict.first_seen));
        line
    }
}

/// Frames kept back until their second is over.
#[derive(Debug)]
struct Told {
    telling: Telling,
    second: Timestamp,
    heard: Vec<Seen>,
}

impl Told {
    fn new(telling: Telling) -> Self {
        Self {
            telling,
            second: Timestamp(0),
            heard: Vec::new(),
        }
    }
}

/// The bridge that every port is in.
const BRIDGE: &str = "br0";

const SECOND: u64 = 1_000_000_000;

/// An address by its name, with its VLAN if it has one.
fn place(segment: &Segment, address: Address) -> String {
    let name = words::name_of_address(address.ip());
    match segment.vlan {
        Some(vlan) => format!("{name}.{vlan}"),
        None => name,
    }
}

fn seconds(text: &str) -> Result<Timestamp> {
    let seconds: f64 = text.parse()?;
    ensure!(seconds.is_finite() && seconds >= 0.0, "no time");
    // The engine takes zero for never, as the kernel's tables do.
    Ok(Timestamp(SECOND) + Duration::from_micros((seconds * 1e6).round() as u64))
}

/// Seconds as a script has them.
fn clock(at: Timestamp) -> String {
    let seconds = at.since(Timestamp(SECOND)).as_secs_f64();
    format!("{seconds}")
}
