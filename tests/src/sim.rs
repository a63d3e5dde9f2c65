//! A simulated network: machines that live as machines do on a host's wire, and what is true
//! of them.
//!
//! A world is a handful of [`Life`]s, one for each address, unfolded by a seed into a script
//! of [`crate::scenario`]: frames as bytes, grants, links that go. Beside it stands the
//! truth: what has to be told of an address, and what may be. So a world that is judged
//! wrong is printed as a script that can be played again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use proptest::prelude::*;

use crate::scenario::Family;

/// How long a world lasts, in milliseconds.
const LENGTH: u64 = 900_000;

/// How the machines around one address live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// One machine has it, now chatty, now silent for a minute.
    Owner,
    /// One goes, its lease is given back and granted to another.
    Reassigned,
    /// A VIP that fails over, and back later.
    Failover,
    /// Two have it and both speak.
    Contested,
    /// The holder is there and another takes it without a word from the holder.
    Stolen,
    /// One uses what nobody leased it.
    Squatted,
    /// One asks for it, is answered, and goes away.
    Asked,
    /// Its machine migrates to another host.
    Migrated,
    /// One machine that has two MACs, as the configuration says.
    TwoMacs,
    /// A router that is exempt answers for it, beside its machine.
    Proxied,
    /// A virtual router that moves between its masters' ports.
    VirtualRouter,
}

const LIVES: [Life; 11] = [
    Life::Owner,
    Life::Reassigned,
    Life::Failover,
    Life::Contested,
    Life::Stolen,
    Life::Squatted,
    Life::Asked,
    Life::Migrated,
    Life::TwoMacs,
    Life::Proxied,
    Life::VirtualRouter,
];

/// What the world does to frames and to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Frames that nobody hears, of a hundred.
    pub lost: u8,
    /// When the agent is started anew, in seconds.
    pub restart: Option<u16>,
}

/// A world, before it is unfolded.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of which protocol its frames are.
    pub family: Family,
    /// Whether its addresses belong to a pool.
    pub managed: bool,
    /// The lives of its addresses.
    pub lives: Vec<Life>,
    /// What happens besides.
    pub weather: Weather,
    /// What the rest is drawn from.
    pub seed: u64,
}

/// What is true of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Kinds of conflict that must be told of.
    pub must: BTreeSet<&'static str>,
    /// Kinds that may be told of besides.
    pub may: BTreeSet<&'static str>,
}

/// A world: what happens in it, and what is true.
#[derive(Clone, Debug)]
pub struct World {
    /// The script.
    pub script: String,
    /// The truth, by the address's name.
    pub truth: BTreeMap<String, Truth>,
}

/// Any world.
pub fn plans() -> impl Strategy<Value = Plan> {
    let family = prop::sample::select(vec![Family::V4, Family::V6]);
    let lives = prop::collection::vec(prop::sample::select(LIVES.to_vec()), 1..8);
    let weather = (
        prop_oneof![3 => Just(0u8), 1 => 1u8..15],
        any::<Option<u16>>(),
    );
    (family, any::<bool>(), lives, weather, any::<u64>()).prop_map(
        |(family, managed, lives, (lost, restart), seed)| Plan {
            family,
            managed,
            lives,
            weather: Weather {
                lost,
                restart: restart.map(|at| at % 900),
            },
            seed,
        },
    )
}

impl Plan {
    /// What happens, line by line, and what is true.
    pub fn unfold(&self) -> World {
        let mut stage = Stage {
            plan: self,
            random: fastrand::Rng::with_seed(self.seed),
            setting: String::new(),
            scenes: Vec::new(),
            truth: BTreeMap::new(),
        };
        if self.managed {
            stage.setting.push_str("pool\n");
        }
        for (number, &life) in (0u8..).zip(&self.lives) {
            stage.live(number, life);
        }
        if let Some(at) = self.weather.restart {
            stage
                .scenes
                .push((u64::from(at) * 1000, String::from("restart")));
        }
        stage.scenes.push((LENGTH, String::from("end")));
        stage.scenes.sort();
        let mut script = stage.setting;
        for (at, scene) in stage.scenes {
            let _ = writeln!(script, "{}.{:03} {scene}", at / 1000, at % 1000);
        }
        World {
            script,
            truth: stage.truth,
        }
    }
}

struct Stage<'a> {
    plan: &'a Plan,
    random: fastrand::Rng,
    setting: String,
    /// When, in milliseconds, and what.
    scenes: Vec<(u64, String)>,
    truth: BTreeMap<String, Truth>,
}

/// Where machines are that don't move: of these ports none ever goes.
const PORTS: [&str; 4] = ["vA", "vB", "vC", "up"];

impl Stage<'_> {
    fn live(&mut self, number: u8, life: Life) {
        let address = char::from(b'H' + number).to_string();
        // Of each address its own machines.
        let [a, b] = ["1", "2"].map(|digit| format!("{}{digit}", char::from(b'A' + number)));
        let x = address.as_str();
        let [here, there] = self.two_ports();
        let truth = match life {
            Life::Owner => {
                self.lease(x, &a);
                self.speak(here, &a, x, 0..LENGTH, 60_000);
                Truth::default()
            }
            Life::Reassigned => {
                let change = self.random.u64(100_000..700_000);
                self.lease(x, &a);
                self.speak(here, &a, x, 0..change, 40_000);
                self.scene(change + 500, format!("revoke {x}"));
                self.scene(change + 900, format!("grant {x} {b}"));
                self.speak(there, &b, x, change + 1_000..LENGTH, 40_000);
                Truth::default()
            }
            Life::Failover => {
                // Far enough apart that nobody's return looks like a defence.
                let over = self.random.u64(120_000..250_000);
                let back = over + self.random.u64(250_000..400_000);
                self.speak("up", &a, x, 0..over, 20_000);
                self.speak("up", &b, x, over + 12_000..back, 20_000);
                self.speak("up", &a, x, back + 12_000..LENGTH, 20_000);
                self.unmanaged(Truth::default())
            }
            Life::Contested => {
                let from = self.random.u64(20_000..500_000);
                let to = from + self.random.u64(100_000..300_000);
                let leased = self.plan.managed || self.random.bool();
                if leased {
                    self.lease(x, &a);
                }
                self.speak(here, &a, x, 0..LENGTH, 8_000);
                self.speak(there, &b, x, from..to, 8_000);
                Truth {
                    must: self.watched(from..to, &["duplicate-address"]),
                    may: ["duplicate-address", "lease-mismatch"].into(),
                }
            }
            Life::Stolen => {
                let from = self.random.u64(20_000..400_000);
                self.lease(x, &a);
                self.speak(here, &a, x, 0..from / 2, 20_000);
                self.speak(there, &b, x, from..LENGTH, 20_000);
                Truth {
                    must: self.watched(from..LENGTH, &["lease-mismatch"]),
                    may: ["lease-mismatch"].into(),
                }
            }
            Life::Squatted => {
                let from = self.random.u64(0..400_000);
                self.speak(here, &a, x, from..LENGTH, 30_000);
                match self.plan.managed {
                    true => Truth {
                        must: self.watched(from..LENGTH, &["unleased-address"]),
                        may: ["unleased-address"].into(),
                    },
                    false => Truth::default(),
                }
            }
            Life::Asked => {
                let at = self.random.u64(50_000..800_000);
                self.lease(x, &a);
                self.speak(here, &a, x, 0..LENGTH, 60_000);
                for n in 0..3 {
                    let at = at + n * 1_300;
                    self.scene(at, format!("{there} PROBE {b} {x}"));
                    let answer = match self.plan.family {
                        Family::V4 => format!("{here} REP {a} {x} {b} -"),
                        Family::V6 => format!("{here} ANN {a} {x}"),
                    };
                    self.scene(at + 1, answer);
                }
                Truth::default()
            }
            Life::Migrated => {
                let at = self.random.u64(50_000..800_000);
                let [from, to] = match self.random.bool() {
                    true => ["vC", "up"],
                    false => ["up", "vB"],
                };
                self.lease(x, &a);
                self.speak(from, &a, x, 0..at, 30_000);
                self.speak(to, &a, x, at + 200..LENGTH, 30_000);
                Truth::default()
            }
            Life::TwoMacs => {
                let _ = writeln!(self.setting, "owner {a} {b}");
                self.lease(x, &a);
                self.speak("up", &a, x, 0..LENGTH, 15_000);
                self.speak("up", &b, x, 0..LENGTH, 15_000);
                Truth::default()
            }
            Life::Proxied => {
                let _ = writeln!(self.setting, "exempt {b} {x}");
                self.lease(x, &a);
                self.speak(here, &a, x, 0..LENGTH, 15_000);
                self.speak("up", &b, x, 0..LENGTH, 15_000);
                Truth::default()
            }
            Life::VirtualRouter => {
                let a = format!("{}'", char::from(b'A' + number));
                let over = self.random.u64(50_000..800_000);
                self.speak("up", &a, x, 0..over, 5_000);
                self.speak("vB", &a, x, over..LENGTH, 5_000);
                self.unmanaged(Truth::default())
            }
        };
        self.truth.insert(address, truth);
    }

    /// What a pool says of an address that nobody leases.
    fn unmanaged(&self, mut truth: Truth) -> Truth {
        if self.plan.managed {
            truth.may.insert("unleased-address");
        }
        truth
    }

    /// What must be told of, if the agent watched for long enough without a break, and
    /// enough was heard.
    fn watched(
        &self,
        when: std::ops::Range<u64>,
        kinds: &[&'static str],
    ) -> BTreeSet<&'static str> {
        const ENOUGH: u64 = 90_000;
        let restart = self.plan.weather.restart.map(|at| u64::from(at) * 1000);
        let long = |from: u64, to: u64| to.saturating_sub(from) >= ENOUGH;
        let seen = match restart.filter(|at| when.contains(at)) {
            Some(at) => long(when.start, at) || long(at, when.end),
            None => long(when.start, when.end),
        };
        kinds.iter().copied().filter(|_| seen).collect()
    }

    /// Two ports, for two machines.
    fn two_ports(&mut self) -> [&'static str; 2] {
        let one = self.random.usize(0..PORTS.len());
        let other = (one + self.random.usize(1..PORTS.len())) % PORTS.len();
        [PORTS[one], PORTS[other]]
    }

    fn lease(&mut self, address: &str, holder: &str) {
        let _ = writeln!(self.setting, "lease {address} {holder}");
    }

    fn scene(&mut self, at: u64, scene: String) {
        if at < LENGTH {
            self.scenes.push((at, scene));
        }
    }

    /// A machine announces itself, and then says something every `pause` milliseconds at
    /// most.
    fn speak(
        &mut self,
        port: &str,
        mac: &str,
        address: &str,
        when: std::ops::Range<u64>,
        pause: u64,
    ) {
        let mut at = when.start;
        let mut first = true;
        while at < when.end {
            let said = match self.random.u8(0..4) {
                _ if first => format!("ANN {mac} {address}"),
                0 => format!("ANN {mac} {address}"),
                1 => format!("REP {mac} {address} Z Y"),
                2 => format!("GREP {mac} {address}"),
                _ => format!("REQ {mac} {address} G"),
            };
            first = false;
            if self.random.u8(0..100) >= self.plan.weather.lost {
                self.scene(at, format!("{port} {said}"));
            }
            at += self.random.u64(pause / 8..pause).max(1);
        }
    }
}
