//! The agent beside other detectors: the same frames, on one wire, at one time, and what
//! each makes of them.
//!
//! A bridge with guests and an uplink, in namespaces of their own. The agent watches the
//! bridge's ports, the others the bridge, which shows them every frame. What is true of
//! each incident is known ([`incidents`]), what each detector's words mean is in
//! [`detectors`].

pub mod cost;
pub mod detectors;
pub mod incidents;
mod storm;
pub mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use self::{
    detectors::{Detector, LEASES, Running, Told, Weight},
    incidents::{END, INCIDENTS, Incident, RESTART, Truth},
};
use crate::{
    frames,
    lab::{Lab, Sender, ip},
    scenario::{Family, words},
};

/// The bridge.
const BRIDGE: &str = "br0";
/// The incidents' ports, and what they are called here: the agent watches `veth*` unasked.
const PORTS: [(&str, &str); 4] = [
    ("vA", "veth-a"),
    ("vB", "veth-b"),
    ("vC", "veth-c"),
    ("up", "veth-up"),
];
/// From a frame to the word about it, for tools that look at frames in batches.
const LINGER: Duration = Duration::from_secs(2);

/// What a detector made of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It told of the conflict, or of the event.
    Found,
    /// It told of a change, of a conflict or where nothing is wrong.
    Change,
    /// Nothing was said of a conflict or event.
    Missed,
    /// Nothing was said, and nothing is wrong.
    Quiet,
    /// It told of a conflict, and there is none.
    Invented,
}

/// A detector's answer to an incident.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// Its weight against what is true.
    pub outcome: Outcome,
    /// Its words.
    pub words: Vec<String>,
}

/// An incident, and everybody's answer.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What happened.
    pub incident: &'static str,
    /// "conflict", "event" or "nothing".
    pub truth: &'static str,
    /// By the detectors' names.
    pub answers: BTreeMap<&'static str, Answer>,
}

/// A detector's sums.
#[derive(Clone, Debug, Serialize)]
pub struct Sums {
    /// Its name and version.
    pub detector: String,
    /// Of conflicts and events.
    pub found: usize,
    /// Conflicts that it told of as a change only.
    pub as_change: usize,
    /// Conflicts and events.
    pub missed: usize,
    /// Conflicts that are none.
    pub invented: usize,
    /// Its process's CPU time for one ARP frame of a known address, µs; of the agent with its
    /// program's in the kernel.
    pub cpu_us_per_frame: Option<f64>,
    /// How it came through the storm.
    pub storm: Option<storm::Record>,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    schema: &'static str,
    /// Why a detector took no part.
    pub absent: Vec<String>,
    /// One for each detector.
    pub detectors: BTreeMap<&'static str, Sums>,
    /// One for each incident.
    pub incidents: Vec<Row>,
    /// The storm, if there was one.
    pub storm: Option<storm::Storm>,
}

impl Comparison {
    /// The incidents of which another detector told and the agent didn't, or not as plainly.
    pub fn only_by_others(&self) -> BTreeSet<&'static str> {
        let rank = |answer: &Answer| match answer.outcome {
            Outcome::Found => 2,
            Outcome::Change => 1,
            _ => 0,
        };
        let own = |row: &Row| row.answers.get(Detector::Agent.name()).map_or(0, rank);
        let rows = self.incidents.iter().filter(|row| row.truth != "nothing");
        rows.filter(|row| row.answers.values().any(|answer| rank(answer) > own(row)))
            .map(|row| row.incident)
            .collect()
    }

    /// The incidents of which the agent's answer is this.
    pub fn ours(&self, outcome: Outcome) -> Vec<&'static str> {
        let name = Detector::Agent.name();
        let rows = self.incidents.iter();
        rows.filter(|row| {
            row.answers
                .get(name)
                .is_some_and(|own| own.outcome == outcome)
        })
        .map(|row| row.incident)
        .collect()
    }
}

/// Plays the incidents to the agent and to every other detector that is here; with `storm`
/// also what a frame costs each, and a storm.
///
/// # Errors
///
/// If the laboratory can't be made, or a detector doesn't run.
pub fn run(lab: &Lab, storm: bool) -> Result<Comparison> {
    let mut absent = Vec::new();
    let mut all = vec![Detector::Agent];
    for peer in Detector::PEERS {
        match peer.available() {
            Ok(()) => all.push(peer),
            Err(why) => absent.push(why),
        }
    }
    let wire = Wire::new(lab)?;
    eprintln!("comparing {} incidents, {END} s …", INCIDENTS.len());
    let told = wire.play(&lab.disk().join("incidents"), &all)?;
    let rows: Vec<Row> = INCIDENTS
        .iter()
        .map(|incident| row(incident, &told))
        .collect::<Result<_>>()?;
    let costs = match storm {
        true => cost::of(&wire, &lab.disk().join("cost"), &all)?,
        false => BTreeMap::new(),
    };
    let storm = match storm {
        true => Some(storm::run(&wire, &lab.disk().join("storm"), &all)?),
        false => None,
    };
    let detectors = all.iter().map(|&detector| {
        let name = detector.name();
        let count = |outcome| {
            let answers = rows.iter().filter_map(|row| row.answers.get(name));
            answers.filter(|answer| answer.outcome == outcome).count()
        };
        let conflicts = rows.iter().filter(|row| row.truth == "conflict");
        let as_change = conflicts
            .filter_map(|row| row.answers.get(name))
            .filter(|answer| answer.outcome == Outcome::Change);
        let sums = Sums {
            detector: detectors::version(detector).unwrap_or_else(|| name.to_owned()),
            found: count(Outcome::Found),
            as_change: as_change.count(),
            missed: count(Outcome::Missed),
            invented: count(Outcome::Invented),
            cpu_us_per_frame: costs.get(name).copied(),
            storm: storm.as_ref().and_then(|storm| storm.of(name)),
        };
        (name, sums)
    });
    Ok(Comparison {
        schema: "ipam-agent/compare/v1",
        absent,
        detectors: detectors.collect(),
        incidents: rows,
        storm,
    })
}

fn row(incident: &Incident, told: &BTreeMap<&'static str, Told>) -> Result<Row> {
    let addresses: Vec<IpAddr> = incident
        .addresses
        .char_indices()
        .map(|(at, letter)| &incident.addresses[at..at + letter.len_utf8()])
        .map(|letter| Ok(incident.family.address(letter)?.ip()))
        .collect::<Result<_>>()?;
    let answers = told.iter().map(|(&name, told)| {
        let words = addresses.iter().filter_map(|address| told.get(address));
        let words: Vec<&(Weight, String)> = words.flatten().collect();
        let weight = words.iter().map(|(weight, _)| *weight).max();
        let outcome = match (incident.truth, weight) {
            (Truth::Conflict, Some(Weight::Conflict)) | (Truth::Event, Some(_)) => Outcome::Found,
            (Truth::Conflict | Truth::Nothing, Some(Weight::Change)) => Outcome::Change,
            (Truth::Conflict | Truth::Event, None) => Outcome::Missed,
            (Truth::Nothing, None) => Outcome::Quiet,
            (Truth::Nothing, Some(Weight::Conflict)) => Outcome::Invented,
        };
        let words = words.iter().map(|(_, word)| word.clone()).collect();
        (name, Answer { outcome, words })
    });
    Ok(Row {
        incident: incident.name,
        truth: match incident.truth {
            Truth::Conflict => "conflict",
            Truth::Event => "event",
            Truth::Nothing => "nothing",
        },
        answers: answers.collect(),
    })
}

/// Guests on a bridge, and an uplink.
struct Wire(BTreeMap<&'static str, crate::lab::Netns>);

impl Wire {
    fn new(lab: &Lab) -> Result<Self> {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        // The incidents' address H.
        let own = Family::V4.address("H")?.ip();
        ip(&["addr", "add", &format!("{own}/24"), "dev", BRIDGE])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        let guests = PORTS.iter().map(|&(port, name)| {
            let guest = lab.guest(&format!("guest-{port}"), name, BRIDGE)?;
            Ok((port, guest))
        });
        guests.collect::<Result<_>>().map(Self)
    }

    /// Out of which frames go in by this port.
    fn sender(&self, port: &str) -> Result<Sender> {
        let guest = self
            .0
            .get(port)
            .with_context(|| format!("no port {port}"))?;
        guest.inside(|| Sender::open("eth0"))
    }

    /// Starts the detectors, plays every incident, and ends them; what each told.
    fn play(&self, dir: &Path, all: &[Detector]) -> Result<BTreeMap<&'static str, Told>> {
        let mut leases = Leases::new(dir)?;
        let mut scenes: Vec<(f64, Family, &str)> = Vec::new();
        for incident in INCIDENTS {
            for line in incident.script.lines().map(str::trim) {
                let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
                let times: Result<Vec<f64>, _> = first.split(',').map(str::parse).collect();
                match times {
                    Ok(times) => {
                        scenes.extend(times.into_iter().map(|at| (at, incident.family, rest)));
                    }
                    Err(_) => leases.set(line)?,
                }
            }
        }
        leases.write()?;
        scenes.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (before, after) = scenes.split_at(scenes.partition_point(|(at, ..)| *at < RESTART));
        let mut told: BTreeMap<&'static str, Told> = BTreeMap::new();
        for (begin, end, scenes) in [(0.0, RESTART, before), (RESTART, END, after)] {
            let running = start(all, dir)?;
            self.perform(scenes, begin, end, &mut leases)?;
            thread::sleep(LINGER);
            for detector in running {
                let own = told.entry(detector.detector().name()).or_default();
                for (address, words) in detector.end()? {
                    own.entry(address).or_default().extend(words);
                }
            }
        }
        Ok(told)
    }

    fn perform(
        &self,
        scenes: &[(f64, Family, &str)],
        begin: f64,
        end: f64,
        leases: &mut Leases,
    ) -> Result<()> {
        let mut senders = BTreeMap::new();
        for (port, _) in PORTS {
            senders.insert(port, self.sender(port)?);
        }
        let started = Instant::now();
        let wait = |at: f64| {
            let due = started + Duration::from_secs_f64(at - begin);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        };
        for &(at, family, line) in scenes {
            wait(at);
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["grant", address, holder] = words[..] {
                leases.grant(address, holder)?;
                leases.write()?;
                continue;
            }
            let (words, tag) = match words[..] {
                [ref words @ .., "tag", vlan] => (words, Some(vlan.parse::<u16>()?)),
                ref words => (words, None),
            };
            let (port, what) = words.split_first().context("nothing happens")?;
            let mut frame = family.frame(what)?;
            if let Some(vlan) = tag {
                frame = frames::tagged(&frame, &[(frames::DOT1Q, vlan)]);
            }
            let sender = senders
                .get_mut(port)
                .with_context(|| format!("no port {port}"))?;
            sender.send(&frame)?;
        }
        wait(end);
        Ok(())
    }
}

fn start(all: &[Detector], dir: &Path) -> Result<Vec<Running>> {
    all.iter()
        .map(|&detector| Running::start(detector, dir))
        .collect()
}

/// What the agent is told beside the frames: leases, a pool, who is one machine.
struct Leases {
    file: std::path::PathBuf,
    leases: BTreeMap<String, String>,
    owners: Vec<String>,
}

impl Leases {
    fn new(dir: &Path) -> Result<Self> {
        let dir = dir.join(Detector::Agent.name());
        fs::create_dir_all(&dir)?;
        Ok(Self {
            file: dir.join(LEASES),
            leases: BTreeMap::new(),
            owners: Vec::new(),
        })
    }

    fn set(&mut self, line: &str) -> Result<()> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["lease", address, holder] => self.grant(address, holder),
            ["owner", ref macs @ ..] => {
                let macs = macs
                    .iter()
                    .map(|mac| Ok(format!("\"{}\"", words::mac(mac)?)));
                self.owners
                    .push(macs.collect::<Result<Vec<_>>>()?.join(", "));
                Ok(())
            }
            _ => anyhow::bail!("{line:?} is no setting"),
        }
    }

    fn grant(&mut self, address: &str, holder: &str) -> Result<()> {
        let address = Family::V4.address(address)?.ip().to_string();
        self.leases.insert(address, words::mac(holder)?.to_string());
        Ok(())
    }

    /// Y and Z are in a pool, whose gateway is elsewhere.
    fn write(&self) -> Result<()> {
        let mut text =
            format!("pools:\n  - {{ cidr: 10.0.0.88/29, segment: {BRIDGE} }}\nleases:\n");
        for (address, mac) in &self.leases {
            writeln!(text, "  - {{ address: {address}, mac: \"{mac}\" }}")?;
        }
        writeln!(text, "owners:")?;
        for (number, macs) in self.owners.iter().enumerate() {
            writeln!(text, "  - {{ name: owner-{number}, macs: [{macs}] }}")?;
        }
        // At once, as who edits leases does.
        let beside = self.file.with_extension("new");
        fs::write(&beside, text)?;
        Ok(fs::rename(beside, &self.file)?)
    }
}
