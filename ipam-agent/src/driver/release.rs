//! Carrying out a plan, off the event loop: the journal, the executor, and what is asked
//! again under a store's lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use ipam_common::Address;

use super::{clock, stores::Stores};
use crate::{
    engine::{
        Engine,
        evidence::PortCheck,
        fence::{Fence, Fenced},
        lease::StoreName,
        plan::{Blocker, Outcome, OutcomeResult, Reason, ReclaimPlan, Release},
        time::Timestamp,
    },
    error::in_full,
    executor,
    holder::namespaces,
    journal::{Journal, JournalError},
    source::live::{Live, Tables},
};

/// An answer given so long ago needn't be asked for again: a pass of many releases asks
/// for each answer some times a second.
const FRESH: Duration = Duration::from_millis(200);

/// Ports by the lease whose address could be heard there.
type Ports = BTreeMap<(StoreName, Address), Arc<[u32]>>;

/// Releases leases, one plan after the other.
#[derive(Clone)]
pub struct Releaser {
    /// `Err`: why the journal can't be opened.
    journal: Arc<Mutex<Result<Journal, JournalError>>>,
    stores: Stores,
    live: Arc<Mutex<Live>>,
    tables: Arc<Tables>,
    netns: bool,
}

impl Releaser {
    /// Opens the journal in the state directory, and writes down what became of releases
    /// that an earlier run left open.
    pub fn new(
        state_dir: &Path,
        boot: &str,
        stores: Stores,
        live: Arc<Mutex<Live>>,
        tables: Arc<Tables>,
        netns: bool,
    ) -> Self {
        let mut journal = Journal::open(state_dir, boot);
        if let Ok(open) = &mut journal {
            let readings = stores.read();
            let views = readings.views();
            let settled = executor::settle(open, &views, &clock::wall_time).and_then(|releases| {
                let fences = executor::settle_fences(open, &views, &clock::wall_time)?;
                Ok(releases + fences)
            });
            match settled {
                Ok(0) => {}
                Ok(settled) => {
                    tracing::warn!(
                        settled,
                        "an earlier run ended in the middle of releases or fences; \
                         the journal now says what became of them"
                    );
                }
                Err(error) => journal = Err(error),
            }
        }
        Self {
            journal: Arc::new(Mutex::new(journal)),
            stores,
            live,
            tables,
            netns,
        }
    }

    /// Why nothing can be released, if the journal can't be written. Never waits: whoever
    /// carries out a plan has the journal, and may be waiting for a store's lock.
    pub fn problem(&self) -> Option<String> {
        let journal = match self.journal.try_lock() {
            Ok(journal) => journal,
            Err(TryLockError::Poisoned(journal)) => journal.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        journal.as_ref().err().map(|error| in_full(error))
    }

    /// Which ports the last look has to ask for, for each planned release.
    pub fn ports(engine: &Engine, plan: &ReclaimPlan, now: Timestamp) -> Ports {
        let planner = engine.planner(now);
        let mut of_segment = BTreeMap::new();
        let mut ports = Ports::new();
        for release in &plan.releases {
            let lease = release.lease();
            let records = engine.leases().of(&lease.address).iter();
            let mut same = records.filter(|record| record.lease.store == lease.store);
            let Some(Ok(segment)) = same.next().map(|record| planner.segment(record)) else {
                continue;
            };
            let of = of_segment.entry(segment.clone()).or_insert_with(|| {
                let ports = engine.topology().ports_of(&segment);
                Arc::from(ports.map(|(ifindex, _)| ifindex).collect::<Vec<_>>())
            });
            ports.insert((lease.store.clone(), lease.address), Arc::clone(of));
        }
        ports
    }

    /// Carries the plan out. Blocks on files, locks and netlink.
    pub fn execute(&self, plan: &ReclaimPlan, ports: &Ports) -> Vec<Outcome> {
        let mut journal = lock(&self.journal);
        let journal = match journal.as_mut() {
            Ok(journal) => journal,
            Err(error) => {
                let failed = |release: &Release| Outcome {
                    store: release.lease().store.clone(),
                    address: release.lease().address,
                    result: OutcomeResult::Failed(in_full(error)),
                };
                return plan.releases.iter().map(failed).collect();
            }
        };
        let mut look = LastLook {
            releaser: self,
            ports,
            blind: None,
            held: None,
        };
        executor::execute(
            plan,
            self.stores.sources(),
            journal,
            &clock::wall_time,
            &mut |release| look.at(release),
        )
    }
}

impl Releaser {
    /// Raises and lowers fences. Blocks on files and locks.
    pub fn fence(&self, fences: Vec<Fence>) -> Vec<Fenced> {
        match lock(&self.journal).as_mut() {
            Ok(journal) => {
                executor::fence(fences, self.stores.sources(), journal, &clock::wall_time)
            }
            Err(error) => {
                let error = in_full(error);
                let failed = |fence| Fenced {
                    fence,
                    result: Err(error.clone()),
                };
                fences.into_iter().map(failed).collect()
            }
        }
    }
}

/// What is asked again under the store's lock, and when it was asked last.
struct LastLook<'a> {
    releaser: &'a Releaser,
    ports: &'a Ports,
    blind: Option<(Timestamp, BTreeMap<u32, String>)>,
    held: Option<(Timestamp, Vec<Address>)>,
}

impl LastLook<'_> {
    fn at(&mut self, release: &Release) -> Result<(), Blocker> {
        let now = clock::now();
        self.is_watched(release, now)?;
        self.is_silent(release, now)?;
        self.is_unheld(release, now)
    }

    fn is_watched(&mut self, release: &Release, now: Timestamp) -> Result<(), Blocker> {
        let lease = release.lease();
        let key = (lease.store.clone(), lease.address);
        let Some(ports) = self.ports.get(&key) else {
            return Err(Blocker::new(Reason::Changed, "its segment is gone"));
        };
        if is_stale(self.blind.as_ref(), now) {
            self.blind = Some((now, BTreeMap::new()));
            let live = lock(&self.releaser.live);
            let wanted: BTreeSet<u32> = self
                .ports
                .values()
                .flat_map(|ports| ports.iter().copied())
                .collect();
            for ifindex in wanted {
                if let PortCheck::Blind(why) = live.check(ifindex)
                    && let Some((_, blind)) = &mut self.blind
                {
                    blind.insert(ifindex, why);
                }
            }
        }
        let blind = self.blind.iter().flat_map(|(_, blind)| blind);
        match { blind }.find(|(ifindex, _)| ports.contains(ifindex)) {
            Some((_, why)) => Err(Blocker::new(Reason::Coverage, why.clone())),
            None => Ok(()),
        }
    }

    fn is_silent(&self, release: &Release, now: Timestamp) -> Result<(), Blocker> {
        match self.releaser.tables.stamp_of(release.lease().address) {
            Err(error) => Err(Blocker::new(Reason::Coverage, in_full(&error))),
            Ok(None) => Err(Blocker::new(
                Reason::Coverage,
                "the kernel isn't watching for the address any more",
            )),
            Ok(Some(stamps)) => {
                let quiet = now.since(Timestamp(stamps.last()));
                if stamps.last() > 0 && quiet < release.proof().coverage().window() {
                    let detail = format!("heard {} ms ago", quiet.as_millis());
                    return Err(Blocker::new(Reason::Seen, detail));
                }
                Ok(())
            }
        }
    }

    fn is_unheld(&mut self, release: &Release, now: Timestamp) -> Result<(), Blocker> {
        if !self.releaser.netns {
            return Ok(());
        }
        if is_stale(self.held.as_ref(), now) {
            let held = namespaces::addresses_behind_veths()
                .map_err(|error| Blocker::new(Reason::SourceDown, in_full(&error)))?;
            let held = held.iter().map(|held| held.address).collect();
            self.held = Some((now, held));
        }
        let mut held = self.held.iter().flat_map(|(_, held)| held);
        if held.any(|address| *address == release.lease().address) {
            return Err(Blocker::new(
                Reason::Holder,
                "the address is configured in a network namespace of this host",
            ));
        }
        Ok(())
    }
}

/// Whether what was asked has to be asked again.
fn is_stale<T>(answer: Option<&(Timestamp, T)>, now: Timestamp) -> bool {
    answer.is_none_or(|(at, _)| now.since(*at) >= FRESH)
}

/// A lock that a panicked thread held is as good as any: what it guards is told anew.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
