//! Carrying out a plan, off the event loop: the journal, the executor, and what is asked
//! again under a store's lock.

mod caches;
mod earlier;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use ipam_common::Address;

use super::{clock, stores::Stores};
use crate::{
    config::{Cri, Holders},
    engine::{
        Engine,
        evidence::PortCheck,
        fence::{Fence, Fenced},
        holders::SandboxBook,
        lease::{Holder, StoreName},
        plan::{Asker, Blocker, Outcome, OutcomeResult, Reason, ReclaimPlan, Release},
        time::Timestamp,
    },
    error::in_full,
    executor::{self, Back, UndoError},
    holder::{
        cri,
        namespaces::{self, NamespacesError},
    },
    journal::{HolderRecord, Journal, JournalError, Taken, Undo},
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
    holders: Holders,
    paused: Arc<AtomicBool>,
    /// Since when the configuration is what it is; [`BEING_CONFIGURED`]: it is being changed.
    configured: Arc<AtomicU64>,
}

/// Nothing is written.
const BEING_CONFIGURED: u64 = u64::MAX;

impl Releaser {
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

    /// Whether to release nothing unasked, from this moment on.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Another configuration: nothing is written until [`Self::configured`].
    pub fn reconfigure(&mut self, stores: Stores, holders: Holders) {
        self.configured.store(BEING_CONFIGURED, Ordering::SeqCst);
        (self.stores, self.holders) = (stores, holders);
    }

    /// All that is decided after `at` is of the configuration that counts.
    pub fn configured(&self, at: Timestamp) {
        self.configured.store(at.0, Ordering::SeqCst);
    }

    fn is_of_this_configuration(&self, decided: Timestamp) -> Result<(), Blocker> {
        if self.configured.load(Ordering::SeqCst) > decided.0 {
            let why = "the configuration was changed since it was judged";
            return Err(Blocker::new(Reason::Changed, why));
        }
        Ok(())
    }

    fn may_release_unasked(&self) -> Result<(), Blocker> {
        if self.paused.load(Ordering::Relaxed) {
            let why = "a person has just paused unattended releases";
            return Err(Blocker::new(Reason::Mode, why));
        }
        Ok(())
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

    /// Carries the plan out, which was made with these sandboxes known; `by` is the person
    /// who asked. Blocks on files, locks, netlink and container runtimes.
    pub fn execute(
        &self,
        plan: &ReclaimPlan,
        by: Option<&str>,
        ports: &Ports,
        sandboxes: SandboxBook,
    ) -> Vec<Outcome> {
        let mut journal = lock(&self.journal);
        let journal = match journal.as_mut() {
            Ok(journal) => journal,
            Err(error) => {
                let failed = |release: &Release| Outcome {
                    id: None,
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
            judged_at: plan.at,
            blind: None,
            sandboxes,
            runtimes_asked: None,
            held: None,
            own: None,
        };
        executor::execute(
            plan,
            by,
            self.stores.sources(),
            journal,
            &clock::when,
            &mut |release| {
                self.is_of_this_configuration(plan.at)?;
                if plan.asker == Asker::Daemon {
                    self.may_release_unasked()?;
                }
                look.at(release)
            },
        )
    }

    /// Puts a released lease back. Blocks on files and locks.
    pub fn put_back(&self, id: &str, undo: Undo) -> Result<Back, PutBackError> {
        let mut journal = lock(&self.journal);
        match journal.as_mut() {
            Ok(journal) => {
                let stores = self.stores.sources();
                let done = executor::put_back(id, undo, stores, journal, &clock::when);
                Ok(done?)
            }
            Err(error) => Err(PutBackError::NoJournal(in_full(error))),
        }
    }

    /// Writes down that released addresses have new leases. Blocks on files.
    pub fn taken(&self, id: &str, holder: &Holder) -> Result<(), JournalError> {
        let taken = Taken {
            holder: HolderRecord::from(holder),
        };
        match lock(&self.journal).as_mut() {
            Ok(journal) => journal.append_taken(clock::when(), id, taken),
            // That was told, and holds up every release.
            Err(_) => Ok(()),
        }
    }

    /// Raises and lowers fences. Blocks on files and locks.
    pub fn fence(&self, fences: Vec<Fence>, decided: Timestamp) -> Vec<Fenced> {
        if let Err(blocker) = self.is_of_this_configuration(decided) {
            let kept = |fence| Fenced {
                fence,
                result: Err(blocker.to_string()),
            };
            return fences.into_iter().map(kept).collect();
        }
        match lock(&self.journal).as_mut() {
            Ok(journal) => executor::fence(fences, self.stores.sources(), journal, &clock::when),
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

/// A lease was not put back.
#[derive(Debug, thiserror::Error)]
pub enum PutBackError {
    /// By the executor.
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// There is no journal to write it down in.
    #[error("nothing can be put back: {0}")]
    NoJournal(String),
}

/// What is asked again under the store's lock, and when it was asked last.
struct LastLook<'a> {
    releaser: &'a Releaser,
    ports: &'a Ports,
    /// When the plan was made.
    judged_at: Timestamp,
    blind: Option<(Timestamp, BTreeMap<u32, String>)>,
    sandboxes: SandboxBook,
    runtimes_asked: Option<Timestamp>,
    held: Option<(Timestamp, BTreeSet<Address>)>,
    own: Option<(Timestamp, BTreeSet<Address>)>,
}

impl LastLook<'_> {
    fn at(&mut self, release: &Release) -> Result<(), Blocker> {
        let now = clock::now();
        self.is_watched(release, now)?;
        self.is_silent(release, now)?;
        self.has_no_sandbox(release)?;
        self.is_not_own(release, now)?;
        self.is_unheld(release, now)
    }

    fn has_no_sandbox(&mut self, release: &Release) -> Result<(), Blocker> {
        let runtimes = &self.releaser.holders.cri;
        if !ask_again(runtimes, &mut self.sandboxes, &mut self.runtimes_asked)? {
            return Ok(());
        }
        let window = release.proof().coverage().window();
        let now = clock::now();
        let doubt = self.sandboxes.doubt(window, now);
        let holder = self.sandboxes.holder(release.lease(), now);
        holder.or(doubt).map_or(Ok(()), Err)
    }

    fn is_watched(&mut self, release: &Release, now: Timestamp) -> Result<(), Blocker> {
        let lease = release.lease();
        let key = (lease.store.clone(), lease.address);
        let Some(ports) = self.ports.get(&key) else {
            return Err(Blocker::new(Reason::Changed, "its segment is gone"));
        };
        if is_stale(self.blind.as_ref().map(|(at, _)| *at), now) {
            self.blind = Some((now, BTreeMap::new()));
            let live = lock(&self.releaser.live);
            let wanted: BTreeSet<u32> = self
                .ports
                .values()
                .flat_map(|ports| ports.iter().copied())
                .collect();
            for ifindex in wanted {
                let why = match live.check(ifindex) {
                    PortCheck::Blind(why) => Some(why),
                    // In the gap before it somebody may have been missed.
                    PortCheck::Attached => (live.attached_since(ifindex) > Some(self.judged_at))
                        .then(|| {
                            String::from("a port was attached anew since the lease was judged")
                        }),
                };
                if let (Some(why), Some((_, blind))) = (why, &mut self.blind) {
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
            Ok(Some(stamps)) if Timestamp(stamps.since) > self.judged_at => Err(Blocker::new(
                Reason::Coverage,
                "the kernel watches for the address only since it was judged",
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
        if !self.releaser.holders.netns {
            return Ok(());
        }
        let behind = || {
            let held = namespaces::addresses_behind_veths()?;
            Ok(held.iter().map(|held| held.address).collect())
        };
        is_not_among(
            &mut self.held,
            release,
            now,
            "in a network namespace",
            behind,
        )
    }

    fn is_not_own(&mut self, release: &Release, now: Timestamp) -> Result<(), Blocker> {
        let own = namespaces::own_addresses;
        is_not_among(&mut self.own, release, now, "on a link", own)
    }
}

/// Asks the container runtimes, unless they were asked just now; whether there is any to ask.
/// What waits for them may be a locked store, and with it whoever wants an address of it: a
/// runtime that is slow keeps the lease, and isn't asked for the next at once.
fn ask_again(
    runtimes: &Cri,
    sandboxes: &mut SandboxBook,
    asked: &mut Option<Timestamp>,
) -> Result<bool, Blocker> {
    if is_stale(*asked, clock::now()) {
        let Some(report) = cri::report(runtimes, cri::LAST_PATIENCE) else {
            return Ok(false);
        };
        let now = clock::now();
        sandboxes.hear(report, now);
        *asked = Some(now);
    }
    match sandboxes.problem() {
        Some(why) => Err(Blocker::new(Reason::SourceDown, format!("cri: {why}"))),
        None => Ok(true),
    }
}

/// Whether the address of a lease isn't configured at a place of this host.
fn is_not_among(
    known: &mut Option<(Timestamp, BTreeSet<Address>)>,
    release: &Release,
    now: Timestamp,
    place: &str,
    ask: impl FnOnce() -> Result<BTreeSet<Address>, NamespacesError>,
) -> Result<(), Blocker> {
    let (_, configured) = match known {
        Some(fresh) if !is_stale(Some(fresh.0), now) => fresh,
        _ => {
            let asked = ask();
            let asked = asked.map_err(|e| Blocker::new(Reason::SourceDown, in_full(&e)))?;
            known.insert((now, asked))
        }
    };
    if configured.contains(&release.lease().address) {
        let detail = format!("the address is configured {place} of this host");
        return Err(Blocker::new(Reason::Holder, detail));
    }
    Ok(())
}

/// Whether what was asked has to be asked again.
fn is_stale(answered: Option<Timestamp>, now: Timestamp) -> bool {
    answered.is_none_or(|at| now.since(at) >= FRESH)
}

/// A lock that a panicked thread held is as good as any: what it guards is told anew.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
