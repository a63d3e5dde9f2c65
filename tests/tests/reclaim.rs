//! Leases of the real host-local, power cuts, and the real daemon that gives leaked
//! addresses back: exactly those, and never a live one.

#[path = "reclaim/after.rs"]
mod after;
#[path = "reclaim/blockers.rs"]
mod blockers;
#[path = "reclaim/continuity.rs"]
mod continuity;
#[path = "reclaim/faults.rs"]
mod faults;
#[path = "reclaim/fences.rs"]
mod fences;
#[path = "reclaim/floods.rs"]
mod floods;
#[path = "reclaim/incident.rs"]
mod incident;
#[path = "reclaim/lock.rs"]
mod lock;
#[path = "reclaim/lost.rs"]
mod lost;
#[path = "reclaim/own.rs"]
mod own;
#[path = "reclaim/passing.rs"]
mod passing;
#[path = "reclaim/probes.rs"]
mod probes;
#[path = "reclaim/reuse.rs"]
mod reuse;
#[path = "reclaim/store.rs"]
mod store;
#[path = "reclaim/suites.rs"]
mod suites;
#[path = "reclaim/volatile.rs"]
mod volatile;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use serde_json::Value;
use tests::{
    daemon::Daemon,
    lab::{Lab, Netns},
    runtime::{Network, Pod},
    skip,
    testrun::OBJECT,
};

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// Gates of seconds: what a laboratory is for.
const GATES: &str = "reclaim: { lab: true, gate: 2s, damaged_gate: 2500ms, asked_gate: 2s, \
                     asked_damaged_gate: 2500ms, reboot_gate: 2s, pass_interval: 500ms }";

fn state(lab: &Lab) -> PathBuf {
    lab.disk().join("state")
}

/// A configuration that releases, but for what `more` says.
fn config(lab: &Lab, mode: &str, more: &str) -> String {
    format!(
        "state_dir: {}\nholders: {{ cri: off }}\n\
         stores: [{{ kind: host-local, dir: /var/lib/cni/networks, reclaim: {mode} }}]\n\
         {GATES}\n{more}\n",
        state(lab).display()
    )
}

fn start(lab: &Lab, config: &str) -> Result<Daemon> {
    Daemon::start(&lab.disk().join("daemon"), config)
}

fn pods(lab: &Lab, net: &Network, names: &[&str]) -> Result<Vec<Pod>> {
    names.iter().map(|name| net.start(lab, name)).collect()
}

fn list<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten()
}

fn address(record: &Value) -> Option<IpAddr> {
    record["address"].as_str()?.parse().ok()
}

/// The addresses in a list of a document.
fn addresses(document: &Value, key: &str) -> BTreeSet<IpAddr> {
    list(document, key).filter_map(address).collect()
}

/// The addresses that host-local holds as leased.
fn on_disk(net: &Network) -> Result<BTreeSet<IpAddr>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(net.leases())? {
        found.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<IpAddr>().ok()),
        );
    }
    Ok(found)
}

fn all(pods: &[Pod]) -> BTreeSet<IpAddr> {
    pods.iter().flat_map(|pod| pod.addresses.clone()).collect()
}

/// What stands against the release of each lease that is kept.
fn reasons(plan: &Value, key: &str) -> BTreeMap<IpAddr, BTreeSet<String>> {
    let of = |kept: &Value| {
        let blockers = list(kept, "blockers");
        blockers
            .filter_map(|b| b["reason"].as_str().map(str::to_owned))
            .collect()
    };
    list(plan, key)
        .filter_map(|kept| Some((address(kept)?, of(kept))))
        .collect()
}

/// The words with which a lease is kept for this reason.
fn detail(plan: &Value, lease: IpAddr, reason: &str) -> Option<String> {
    let kept = list(plan, "kept").find(|kept| address(kept) == Some(lease))?;
    let blocker = list(kept, "blockers").find(|blocker| blocker["reason"] == *reason)?;
    blocker["detail"].as_str().map(str::to_owned)
}

/// Waits until a person's plan would release exactly these.
fn planned(daemon: &Daemon, expected: &BTreeSet<IpAddr>) -> Result<Value> {
    daemon.wait_for("the plan", PATIENCE, "reclaim plan", |plan| {
        (addresses(plan, "releases") == *expected).then(|| plan.clone())
    })
}

/// The releases that the journal tells of.
fn history(daemon: &Daemon, lab: &Lab) -> Result<Value> {
    let state = state(lab).display().to_string();
    daemon.query("reclaim history", &["--state-dir", &state])
}

/// Waits until `count` leases have been released.
fn released(daemon: &Daemon, lab: &Lab, count: usize) -> Result<Value> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let history = history(daemon, lab)?;
        let released = list(&history, "entries").filter(|entry| entry["result"] == "released");
        if released.count() >= count {
            return Ok(history);
        }
        anyhow::ensure!(
            std::time::Instant::now() < deadline,
            "waited for {count} releases: {history:#}\n{:#}\n{}",
            daemon.query("reclaim plan", &[])?,
            daemon.log()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// A program of somebody else's that takes a port's frames before all others, for as long as
/// this is.
struct Intruder {
    _object: Ebpf,
}

impl Intruder {
    /// `None`, and told: this kernel has no TCX.
    fn before_all(port: &str) -> Result<Option<Self>> {
        let mut object = EbpfLoader::new().load_file(OBJECT)?;
        let program = object.program_mut("empty").context("the program")?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let attached = program.attach_with_options(port, TcAttachType::Ingress, first);
        if attached.is_err() {
            skip::skip("this kernel has no TCX");
            return Ok(None);
        }
        Ok(Some(Self { _object: object }))
    }
}

/// A machine that sends the same frames again and again.
type Talker<'a> = (&'a Netns, Vec<Vec<u8>>);

/// Does `act` while they talk.
fn while_talking<T>(talkers: &[Talker<'_>], act: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = AtomicBool::new(false);
    let talk = |(guest, frames): &Talker<'_>| {
        while !done.load(Ordering::Relaxed) {
            guest.send("eth0", frames)?;
            thread::sleep(Duration::from_millis(200));
        }
        anyhow::Ok(())
    };
    thread::scope(|scope| {
        let talking: Vec<_> = talkers
            .iter()
            .map(|talker| scope.spawn(|| talk(talker)))
            .collect();
        let result = act();
        done.store(true, Ordering::Relaxed);
        for talker in talking {
            talker.join().map_err(|_| anyhow!("a talker failed"))??;
        }
        result
    })
}

/// Cuts the power, and makes the bridge again as the first pod after boot would.
fn power_cut(lab: &mut Lab) -> Result<()> {
    lab.power_cut().context("the power cut")?;
    tests::lab::ip(&["link", "add", "cni0", "type", "bridge"])?;
    tests::lab::ip(&["link", "set", "cni0", "up"])
}
