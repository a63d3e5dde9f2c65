//! The real host-local gives and frees addresses of a small pool at full speed, while another
//! process releases what leaked, and is killed again and again: what is held is never released,
//! never given twice, never touched; what leaked goes.
//!
//! `IPAM_AGENT_RUNS=1000 cargo test -p tests --test host_local -- --nocapture` takes minutes.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    process::{Child, Command},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use tests::{
    host_local::{Bench, exactly},
    plugins::Plugins,
};

const WORKERS: usize = 3;
/// What each worker asks of the plugin in a run.
const CALLS: usize = 14;

/// What was done, over all runs.
#[derive(Default)]
struct Counts {
    given: AtomicUsize,
    full: AtomicUsize,
    again: AtomicUsize,
    killed: AtomicUsize,
    released: AtomicUsize,
    kept: AtomicUsize,
    unfinished: AtomicUsize,
}

struct Run<'a> {
    bench: Bench,
    /// Who holds what, by what the plugin answered.
    live: Mutex<BTreeMap<IpAddr, String>>,
    counts: &'a Counts,
}

#[test]
fn what_is_held_stays_and_what_leaked_goes_while_host_local_works() -> Result<()> {
    let versions = Plugins::all();
    if versions.is_empty() {
        return Ok(());
    }
    let runs = std::env::var("IPAM_AGENT_RUNS").ok();
    let runs: u64 = runs.map_or(Ok(60), |runs| runs.parse())?;
    let counts = Counts::default();
    for (seed, plugins) in (0..runs).zip(versions.iter().cycle()) {
        let what = || format!("run {seed}, {} plugins", plugins.suite);
        run(seed, plugins, &counts).with_context(what)?;
    }
    let said = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let Counts {
        given,
        full,
        again,
        killed,
        released,
        kept,
        unfinished,
    } = &counts;
    println!(
        "{runs} runs: {} addresses given ({} to an id once more), {} times the pool was full; \
         {} leaked leases released, {} stale plans kept what they named, {} releasers killed, \
         {} releases left undone by one",
        said(given),
        said(again),
        said(full),
        said(released),
        said(kept),
        said(killed),
        said(unfinished),
    );
    ensure!(said(released) > 0 && said(kept) > 0 && said(killed) > 0);
    Ok(())
}

fn run(seed: u64, plugins: &Plugins, counts: &Counts) -> Result<()> {
    // In memory it is quick; a disk's file system gives the same inode numbers again.
    let base = match seed % 8 {
        0 => tempfile::tempdir(),
        _ => tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()),
    }?;
    let mut random = fastrand::Rng::with_seed(seed);
    let prefix = if random.bool() {
        "10.9.0.0/28"
    } else {
        "10.9.0.0/26"
    };
    let run = Run {
        bench: Bench::new(base.path(), prefix.parse()?, plugins)?,
        live: Mutex::default(),
        counts,
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| (worker, random.fork()))
            .map(|(worker, random)| {
                let run = &run;
                scope.spawn(move || run.work(worker, random))
            })
            .collect();
        let killer = scope.spawn(|| run.release_and_kill(base.path(), random.fork(), &done));
        let worked: Vec<Result<()>> = workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a worker failed")))
            })
            .collect();
        done.store(true, Ordering::Release);
        killer.join().map_err(|_| anyhow!("the killer failed"))??;
        worked.into_iter().collect::<Result<()>>()
    })?;
    let drained = releaser(base.path(), true)?.wait()?;
    ensure!(drained.success(), "the releaser failed: {drained}");
    let live = run
        .live
        .into_inner()
        .map_err(|_| anyhow!("a worker failed"))?;
    exactly(&run.bench.files()?, &live)?;
    for entry in run.bench.history()?.entries {
        let (_, effect) = entry
            .effect
            .with_context(|| format!("{} has no effect", entry.id))?;
        match effect.result {
            ipam_agent::journal::EffectResult::Released => &counts.released,
            ipam_agent::journal::EffectResult::Kept => &counts.kept,
            // What a killed one left undone.
            ipam_agent::journal::EffectResult::Failed => &counts.unfinished,
        }
        .fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn releaser(directory: &Path, drain: bool) -> Result<Child> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_releaser"));
    command.arg(directory);
    if drain {
        command.arg("drain");
    }
    Ok(command.spawn()?)
}

impl Run<'_> {
    /// Has addresses given and freed, and lets some leak.
    fn work(&self, worker: usize, mut random: fastrand::Rng) -> Result<()> {
        let mut mine: Vec<(IpAddr, String)> = Vec::new();
        let mut leaked: Vec<(IpAddr, String)> = Vec::new();
        for call in 0..CALLS {
            let free = random.u8(..100) < 35;
            if free && !mine.is_empty() {
                let (address, id) = mine.swap_remove(random.usize(..mine.len()));
                self.stands(address, &id)?;
                self.live().remove(&address);
                self.bench.delete(&id)?;
                continue;
            }
            let gone = leaked
                .iter()
                .position(|(address, id)| !self.is_there(*address, id));
            let id = match gone {
                // A pod of the same id: its lease says the same, to the byte.
                Some(gone) if random.bool() => {
                    let (_, id) = leaked.swap_remove(gone);
                    self.bench.tell(&id, false)?;
                    self.counts.again.fetch_add(1, Ordering::Relaxed);
                    id
                }
                _ => format!("{worker:032x}{call:032x}"),
            };
            let Some(address) = self.bench.add(&id)? else {
                self.counts.full.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            self.counts.given.fetch_add(1, Ordering::Relaxed);
            let before = self.live().insert(address, id.clone());
            ensure!(
                before.is_none(),
                "{address} was given to {id} and is {before:?}'s"
            );
            self.stands(address, &id)?;
            if random.u8(..100) < 55 {
                self.live().remove(&address);
                self.bench.tell(&id, true)?;
                leaked.push((address, id));
            } else {
                mine.push((address, id));
            }
        }
        mine.iter()
            .try_for_each(|(address, id)| self.stands(*address, id))
    }

    fn live(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, String>> {
        self.live
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn is_there(&self, address: IpAddr, id: &str) -> bool {
        self.bench.file(address) == Some(format!("{id}\r\neth0").into_bytes())
    }

    fn stands(&self, address: IpAddr, id: &str) -> Result<()> {
        ensure!(
            self.is_there(address, id),
            "{address} is {id}'s, and its file says {:?}",
            self.bench.file(address)
        );
        Ok(())
    }

    /// Starts releasers and kills them, wherever they are.
    fn release_and_kill(
        &self,
        directory: &Path,
        mut random: fastrand::Rng,
        done: &AtomicBool,
    ) -> Result<()> {
        while !done.load(Ordering::Acquire) {
            let mut child = releaser(directory, false)?;
            let lives = Duration::from_millis(random.u64(5..120));
            thread::sleep(lives);
            ensure!(child.try_wait()?.is_none(), "the releaser ended by itself");
            child.kill()?;
            child.wait()?;
            self.counts.killed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
