//! A pool of 65,536 leases, all of them stale: how long a pass and a person's plan take, and
//! how fast the executor gives them back.
//!
//! They are of routed pods, whose wires are not asked before a release: of a bridge's, 2,048 are
//! asked about at once, and the time on the wire is most of it.
//!
//! The leases are files as host-local writes them, on this machine's disk, and so is the
//! journal: what is to be on disk before a store is touched is synced for real.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ipam_agent::{
    cni,
    engine::{
        Engine,
        evidence::{PassEvidence, PortCheck, Source, SourceReport},
        input::{Command, Input},
        lease::{Mode, Place, Pool},
        owner::Owners,
        plan::{Asker, OutcomeResult, ReclaimPlan},
        segment::{Port, PortKind, Topology, Wiring},
        time::Timestamp,
    },
    executor,
    journal::{Journal, When},
    state,
    store::{LeaseStore, host_local::HostLocal},
};
use ipam_common::{Address, sighting::Stamps};

use super::{Figure, judge::cpu_time};
use crate::scenario;

const LEASES: u32 = 65_536;
/// Of them are given back, while the clock runs.
const RELEASED: usize = 32_768;
const SECOND: u64 = 1_000_000_000;

/// `plan_65536_s`, `release_per_s`.
pub fn figures() -> Result<Vec<Figure>> {
    let disk = tempfile::tempdir_in("/var/tmp")?;
    state::persistence(disk.path()).context("the disk must be one")?;
    let store = pool(disk.path())?;
    let (mut plan, planned) = planned(&store)?;
    ensure!(
        plan.releases.len() == LEASES as usize,
        "{} would be released, not all",
        plan.releases.len()
    );
    plan.releases.truncate(RELEASED);
    let mut journal = Journal::open(&disk.path().join("state"), "boot")?;
    let stores: [Arc<dyn LeaseStore>; 1] = [Arc::new(store)];
    let clock = || When {
        at: jiff::Timestamp::UNIX_EPOCH,
        uptime: 0,
    };
    let begin = Instant::now();
    let outcomes = executor::execute(&plan, None, &stores, &mut journal, &clock, &mut |_| Ok(()));
    let took = begin.elapsed();
    let is_released = |result: &OutcomeResult| *result == OutcomeResult::Released;
    ensure!(
        outcomes.len() == RELEASED && outcomes.iter().all(|o| is_released(&o.result)),
        "not all were released"
    );
    let left = fs::read_dir(disk.path().join("networks/pods"))?.count();
    // And the lock.
    ensure!(
        left == LEASES as usize - RELEASED + 1,
        "{left} files are left"
    );
    let rate = outcomes.len() as f64 / took.as_secs_f64();
    Ok(vec![
        Figure {
            name: "plan_65536_s",
            value: planned.as_secs_f64(),
            unit: "s",
            target: Some(1.0),
            least: None,
            baseline: None,
        },
        Figure {
            name: "release_per_s",
            value: rate,
            unit: "1/s",
            target: None,
            least: Some(5000.0),
            baseline: None,
        },
    ])
}

/// The pool, on disk.
fn pool(disk: &Path) -> Result<HostLocal> {
    let networks = disk.join("networks");
    let network = networks.join("pods");
    fs::create_dir_all(&network)?;
    for number in 0..LEASES {
        let record = format!("{number:064x}\r\neth0");
        fs::write(network.join(ip(number).to_string()), record)?;
    }
    let pool = Pool {
        prefix: ipnet::Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 15)?.into(),
        range: None,
        gateway: None,
        gateway_mac: None,
        exclude: Vec::new(),
        place: Some(Place::Routed),
    };
    let paths = cni::Paths {
        configurations: Vec::new(),
        caches: Vec::new(),
        flannel: disk.join("none"),
    };
    let reader = Arc::new(cni::Reader::new(paths));
    Ok(HostLocal::new(networks, Mode::Observe, vec![pool], reader))
}

fn ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0001 + number)
}

/// What a person would be told could go, and the time of the thread for the last pass and
/// the plan.
fn planned(store: &HostLocal) -> Result<(ReclaimPlan, Duration)> {
    let mut engine = Engine::new(scenario::settings());
    let mut now = Timestamp(SECOND);
    engine.handle(Input::State(Ok(())), now);
    engine.handle(
        Input::Links {
            topology: Arc::new(topology()),
            since: now,
        },
        now,
    );
    engine.handle(
        Input::Attached {
            ifindex: 1,
            since: now,
        },
        now,
    );
    let views = store.read().views.into_iter();
    let stores = Input::Stores {
        source: 0,
        views: views.collect::<Result<_, _>>()?,
        failed: Vec::new(),
        owners: Owners::default(),
    };
    engine.handle(stores, now);
    while let Some(command) = engine.next_command() {
        if let Command::Watch { add, .. } = command {
            engine.handle(Input::Watching(add), now);
        }
    }
    let addresses: Option<Vec<Address>> = (0..LEASES)
        .map(|number| Address::from_ip(ip(number).into()))
        .collect();
    let addresses = addresses.context("an address")?;
    let mut took = Duration::ZERO;
    for _ in 0..3 {
        now = Timestamp(now.0 + 600 * SECOND);
        let stamps = addresses
            .iter()
            .map(|&address| (address, Stamps::default()));
        let evidence = Input::Evidence(PassEvidence {
            runtimes: None,
            person: true,
            ports: vec![(1, PortCheck::Attached(Timestamp(0)))],
            stamps: stamps.collect(),
            sources: vec![SourceReport {
                source: Source::Namespaces,
                answer: Ok(Vec::new()),
            }],
        });
        let begin = cpu_time()?;
        engine.handle(evidence, now);
        took = cpu_time()? - begin;
    }
    let begin = cpu_time()?;
    let plan = engine.plan(Asker::Person, now);
    Ok((plan, took + (cpu_time()? - begin)))
}

fn topology() -> Topology {
    let mut topology = Topology::default();
    let port = Port::new("veth1", PortKind::Veth, Wiring::Routed);
    topology.ports.insert(1, port);
    topology
}
