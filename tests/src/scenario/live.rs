//! A script on real veths before the real daemon, and what its report tells.
//!
//! Each script has a laboratory of its own: a bridge, a guest behind each port that is
//! named, the daemon with a lease file for each of the two stores. Its scenes happen at
//! their times, in the script's order. `up` is no veth, as the agent takes those for
//! guests': it is a VXLAN tunnel, into which frames are put as datagrams of the loopback.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use ipam_agent::{
    engine::{conflict::Kind, time::Timestamp},
    report::document::{Addresses, ConflictState, Report},
};
use ipam_common::Mac;

use super::{
    BRIDGE, Family, SECOND, Script, clock, place,
    recorded::{self, AFTER},
    seconds, words,
};
use crate::lab::{self, ip};

mod stage;

use stage::Stage;

/// Scenes later than this, in seconds of the script, are left out.
pub const LAST: u64 = 25;
/// How many laboratories are set up at the same time.
const AT_ONCE: usize = 4;

/// A script to be played on veths.
#[derive(Clone, Debug)]
pub struct Played {
    /// The protocols that its frames are of; of each one, one after the other.
    pub families: Vec<Family>,
    /// The script.
    pub script: String,
    /// What should be told of it, as [`expected`] has it.
    pub expected: Vec<String>,
}

impl Played {
    /// How long its frames take.
    pub fn length(&self) -> Result<Duration> {
        Ok(end_of(&self.script)?.since(Timestamp(SECOND)))
    }
}

/// What of a script can be played on veths in a short time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Live {
    /// This; and how many scenes at its end are left out.
    Script(String, usize),
    /// Nothing, and why.
    Nothing(&'static str),
}

impl Live {
    /// What of a script can be.
    pub fn of(script: &str) -> Result<Self> {
        let Script {
            setting,
            mut scenes,
        } = Script::read(script)?;
        let mut first = scenes
            .iter()
            .filter_map(|(_, l)| l.split_whitespace().next());
        let unplayable = first.find_map(|word| match word {
            "answers" => Some("what the daemon asks is answered by kernels alone"),
            "restart" => Some("a daemon that is started anew remembers"),
            _ => None,
        });
        if let Some(why) = unplayable {
            return Ok(Self::Nothing(why));
        }
        if setting.iter().any(|line| line.starts_with("quiet ")) {
            return Ok(Self::Nothing("its windows are configured otherwise"));
        }
        let all = scenes.len();
        let last = seconds(&LAST.to_string())?;
        scenes.retain(|(at, _)| *at <= last);
        if scenes.len() < all.clamp(1, 2) {
            return Ok(Self::Nothing("all but its beginning is late"));
        }
        let mut text: String = setting.iter().map(|line| format!("{line}\n")).collect();
        text.extend(
            scenes
                .iter()
                .map(|(at, line)| format!("{} {line}\n", clock(*at))),
        );
        Ok(Self::Script(text, all - scenes.len()))
    }
}

/// Whether the kernel's bridges know VLANs, which scripts with such ports need.
pub fn filters_vlans() -> Result<bool> {
    lab::try_in_lab(|_| {
        Ok(ip(&[
            "link",
            "add",
            BRIDGE,
            "type",
            "bridge",
            "vlan_filtering",
            "1",
        ])
        .is_ok())
    })
}

/// Whether a script has ports with VLANs.
pub fn has_vlans(script: &str) -> bool {
    let mut first = script.lines().filter_map(|l| l.split_whitespace().next());
    first.any(|word| ["access", "trunk"].contains(&word))
}

/// What the engine tells of a script, 5 s after its last scene: of each conflict what it was
/// one after another and who claims, of each event who took part, and who was
/// heard: that nothing is told of what isn't heard proves nothing. No times.
pub fn expected(family: Family, script: &str) -> Result<Vec<String>> {
    let end = Timestamp(end_of(script)?.0 + AFTER);
    let world = super::play(family, &format!("{script}\n{} end", clock(end)))?;
    let mut told: Vec<String> = Vec::new();
    let v4 = family == Family::V4;
    for case in world.engine.conflicts() {
        let steps = case.conflict.steps.iter().map(|step| match step.active {
            true => format!("{} {:?}", step.kind.name(), step.severity),
            false => format!("over {:?}", step.severity),
        });
        let own = case.conflict.verdict.macs().iter().copied();
        let own = own.filter(|mac| world.topology.own_macs.contains(mac));
        let macs = case.claims.iter().map(|claim| claim.mac).chain(own);
        let place = place(case.segment, case.address);
        told.push(conflict(v4, &place, steps, macs.map(words::name_of)));
    }
    told.extend(world.engine.events().map(|event| {
        let place = place(&event.segment, event.address);
        let macs = event.macs.iter().map(|&mac| words::name_of(mac));
        happened(v4, event.kind.name(), &place, macs)
    }));
    for (segment, address, entry) in world.engine.entries() {
        let place = place(segment, address);
        let claims = entry.claims.iter();
        told.extend(claims.map(|claim| heard(v4, &place, claim.mac)));
    }
    told.sort();
    Ok(told)
}

/// The same of what a daemon reports.
fn reported(report: &Report, addresses: &Addresses) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for record in &report.conflicts {
        let steps = record.history.iter().map(|step| match step.state {
            ConflictState::Active => format!("{} {:?}", step.kind, step.severity),
            ConflictState::Resolved => format!("over {:?}", step.severity),
        });
        let macs = record
            .claims
            .iter()
            .map(|claim| words::name_of(claim.mac.0));
        let place = recorded::place(&record.segment, &words::name_of_address(record.address));
        told.push(conflict(record.address.is_ipv4(), &place, steps, macs));
    }
    told.extend(report.events.iter().map(|event| {
        let place = recorded::place(&event.segment, &words::name_of_address(event.address));
        let macs = event.macs.iter().map(|mac| words::name_of(mac.0));
        happened(event.address.is_ipv4(), event.kind.name(), &place, macs)
    }));
    told.extend(addresses.addresses.iter().map(|one| {
        let place = recorded::place(&one.segment, &words::name_of_address(one.address));
        heard(one.address.is_ipv4(), &place, one.claim.mac.0)
    }));
    told.sort();
    told
}

fn conflict(
    v4: bool,
    place: &str,
    steps: impl Iterator<Item = String>,
    macs: impl Iterator<Item = String>,
) -> String {
    let steps = steps.collect::<Vec<_>>().join(", ");
    // Of leases that contradict each other, who says something is no part; and a lease file
    // doesn't say on which wire it would be.
    let macs: BTreeSet<String> = match steps.starts_with(Kind::DuplicateLease.name()) {
        true => BTreeSet::new(),
        false => macs.collect(),
    };
    let macs: Vec<String> = macs.into_iter().collect();
    format!("{} {place}: {steps}; by {}", protocol(v4), macs.join(" "))
}

fn happened(v4: bool, kind: &str, place: &str, macs: impl Iterator<Item = String>) -> String {
    let macs: Vec<String> = macs.collect();
    format!("{} {place}: {kind}; by {}", protocol(v4), macs.join(" "))
}

fn heard(v4: bool, place: &str, mac: Mac) -> String {
    let mac = words::name_of(mac);
    format!("{} {place}: heard {mac}", protocol(v4))
}

fn protocol(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

fn end_of(script: &str) -> Result<Timestamp> {
    let scenes = Script::read(script)?.scenes;
    Ok(scenes.last().context("no scene")?.0)
}

/// Plays scripts at the same time, each in a laboratory of its own, and compares what the
/// daemon reports with what should be told; in the order of the scripts. A few are set up at
/// once, the first first. For `patience` after its end a script's report is asked for what
/// isn't told in time.
pub fn play_all(scripts: Vec<Played>, patience: Duration) -> Vec<Result<()>> {
    let turns: Arc<[Mutex<()>; AT_ONCE]> = Arc::default();
    let play = |(number, played): (usize, Played)| {
        let turns = Arc::clone(&turns);
        thread::spawn(move || {
            lab::try_in_lab(move |lab| {
                let turn = turns[number % AT_ONCE].lock();
                let turn = turn.unwrap_or_else(PoisonError::into_inner);
                let stage = Stage::set_up(lab, &played)?;
                drop(turn);
                stage.play(&played, patience)
            })
        })
    };
    let players: Vec<_> = scripts.into_iter().enumerate().map(play).collect();
    let results = players.into_iter().map(|player| match player.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    });
    results.collect()
}
