//! The planner: every lease is either proven stale, step by step, or kept for reasons.
//!
//! Any single sign of life vetoes, and every doubt keeps the lease.

use std::{collections::BTreeMap, time::Duration};

use ipam_common::Address;
use ipnet::IpNet;

use super::{
    coverage::CoverageBook,
    evidence::Source,
    lease::{Mode, StoreName},
    leasebook::{LeaseBook, Origin, Record, Store},
    plan::{Asker, Blocker, Coverage, Kept, Reason, ReclaimPlan, Release, StaleProof},
    scope::{Scope, Scopes},
    segment::{Segment, Topology},
    table::Table,
    time::Timestamp,
};

/// What a release needs, in time and number.
#[derive(Clone, Debug)]
pub struct ReclaimSettings {
    /// Unasked.
    pub gate: Duration,
    /// Unasked, of a damaged lease.
    pub damaged_gate: Duration,
    /// Asked by a person.
    pub asked_gate: Duration,
    /// Asked by a person, of a damaged lease.
    pub asked_damaged_gate: Duration,
    /// Of a lease that the agent recorded in an earlier boot.
    pub reboot_gate: Duration,
    /// How often leases are judged.
    pub pass_interval: Duration,
    /// How many releases a pass may do unasked of leases not known to be of an earlier boot.
    pub max_per_pass: usize,
    /// How much of a pool they may be, in percent.
    pub max_percent: u8,
    /// Never released.
    pub keep: Vec<IpNet>,
    /// Whether IP packets stamp LEASED: without, a pod that talks but never asks is silent.
    pub data_plane: bool,
}

/// A lease's state, from what stands against its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseState {
    /// Heard, or a holder known.
    Active,
    /// Neither, and not proven stale.
    Quiet,
    /// Proven stale.
    Stale,
    /// Nobody can tell: no coverage, or a source down.
    Unknown,
}

/// What the last pass was told, beyond what is noted with each lease.
#[derive(Clone, Debug, Default)]
pub struct PassFacts {
    /// When it was.
    pub at: Option<Timestamp>,
    /// When every source answered for the first time in this run.
    pub answered_since: Option<Timestamp>,
    /// The sources that answered.
    pub sources: Vec<Source>,
    /// Those that did not, and why.
    pub down: Vec<(Source, String)>,
    /// Why the agent's state is not to be relied on.
    pub state: Option<String>,
}

/// Everything that the planner looks at.
pub struct Planner<'a> {
    /// What a release needs.
    pub settings: &'a ReclaimSettings,
    /// The leases.
    pub leases: &'a LeaseBook,
    /// Which wire they are on.
    pub scopes: &'a Scopes,
    /// The links.
    pub topology: &'a Topology,
    /// Who was heard.
    pub table: &'a Table,
    /// What was watched.
    pub coverage: &'a CoverageBook,
    /// The last pass.
    pub pass: &'a PassFacts,
    /// Now.
    pub now: Timestamp,
}

/// Place of an asker's count in [`Record::passes`].
pub const fn slot(asker: Asker) -> usize {
    match asker {
        Asker::Daemon => 0,
        Asker::Person => 1,
    }
}

impl Planner<'_> {
    /// Judge every lease.
    pub fn plan(&self, asker: Asker) -> ReclaimPlan {
        let mut releases = Vec::new();
        let mut kept = Vec::new();
        for record in self.leases.iter() {
            match self.prove(record, asker) {
                Ok(proof) => releases.push(Release::new(record.lease.clone(), proof)),
                Err(blockers) => kept.push(keep(record, blockers)),
            }
        }
        // Leases of an earlier boot first; damaged ones, whose evidence is emptiest, last.
        releases.sort_by_key(|release| {
            (
                release.proof().earlier_boot().is_none(),
                release.lease().damage.is_some(),
            )
        });
        if asker == Asker::Daemon {
            self.apply_budget(&mut releases, &mut kept);
        }
        ReclaimPlan {
            asker,
            at: self.now,
            releases,
            kept,
        }
    }

    /// Whether nothing stands against a release but the count of passes that agree.
    pub fn is_clear(&self, record: &Record, asker: Asker) -> bool {
        self.evidence(record, asker).is_ok()
    }

    /// What stands against a release that a person asks for; empty: nothing.
    pub fn plan_blockers(&self, record: &Record) -> Vec<Blocker> {
        self.prove(record, Asker::Person).err().unwrap_or_default()
    }

    /// A lease's state. A lease is stale once a person could have it released.
    pub fn state(&self, record: &Record) -> LeaseState {
        let blockers = match self.prove(record, Asker::Person) {
            Ok(_) => return LeaseState::Stale,
            Err(blockers) => blockers,
        };
        let by = |reasons: &[Reason]| {
            blockers
                .iter()
                .any(|blocker| reasons.contains(&blocker.reason))
        };
        if by(&[Reason::Seen, Reason::Holder, Reason::ProbeAnswered]) {
            return LeaseState::Active;
        }
        let heard = self.last_life(record);
        if heard.is_some_and(|at| self.now.since(at) < self.settings.gate)
            && !by(&[
                Reason::Coverage,
                Reason::SegmentUnwatched,
                Reason::SourceDown,
            ])
            && !self.is_provable(&blockers)
        {
            return LeaseState::Active;
        }
        let blind = blockers.iter().any(|blocker| match blocker.reason {
            Reason::SegmentUnwatched | Reason::SourceDown => true,
            // What time alone will mend is no blindness.
            Reason::Coverage => blocker.until.is_none(),
            _ => false,
        });
        if blind {
            LeaseState::Unknown
        } else if self.is_provable(&blockers) {
            LeaseState::Stale
        } else {
            LeaseState::Quiet
        }
    }

    /// The last sign of life of the lease's address, wherever.
    pub fn last_life(&self, record: &Record) -> Option<Timestamp> {
        let stamp = record.stamps.last();
        let address = record.lease.address;
        let claims = self
            .table
            .places_of(address)
            .filter_map(|place| self.table.get(&place)?.last_seen())
            .max();
        (stamp > 0).then_some(Timestamp(stamp)).max(claims)
    }

    /// The segment of a lease or, in words, why it has none that can be watched.
    pub fn segment(&self, record: &Record) -> Result<Segment, String> {
        match self.scopes.of(&record.lease) {
            Scope::Segment(segment) => Ok(segment.clone()),
            Scope::Nowhere(why) => Err(why.clone()),
            Scope::Anywhere | Scope::Unknown => Err(format!(
                "nothing says which wire {} is on: no network of that name in /etc/cni/net.d \
                 and no libcni cache of it; name its segment in `pools`",
                record.lease.store
            )),
        }
    }

    /// Whether nothing but the asker's leave and the count of passes is missing.
    fn is_provable(&self, blockers: &[Blocker]) -> bool {
        blockers.iter().all(|blocker| {
            matches!(
                blocker.reason,
                Reason::Mode
                    | Reason::BootUnknown
                    | Reason::Kept
                    | Reason::Budget
                    | Reason::StateNotPersistent
            )
        })
    }

    fn prove(&self, record: &Record, asker: Asker) -> Result<StaleProof, Vec<Blocker>> {
        let mut proof = self.evidence(record, asker)?;
        proof.passes = record.passes[slot(asker)];
        if proof.passes < 2 {
            return Err(vec![Blocker {
                reason: Reason::SecondPass,
                detail: format!("{} of 2 passes agree", proof.passes),
                until: self
                    .pass
                    .at
                    .map(|at| at + self.settings.pass_interval)
                    .filter(|_| proof.passes == 1),
            }]);
        }
        Ok(proof)
    }

    fn evidence(&self, record: &Record, asker: Asker) -> Result<StaleProof, Vec<Blocker>> {
        let mut blockers = Vec::new();
        let window = self.window(record, asker);
        let store = self.leases.stores().get(&record.lease.store);
        self.leave(record, store, asker, &mut blockers);
        self.holders(record, &mut blockers);
        self.silence(record, window, &mut blockers);
        let coverage = self.coverage(record, window, &mut blockers);
        let unchanged_for = self.age(record, window, &mut blockers);
        if !blockers.is_empty() {
            return Err(blockers);
        }
        let Some(coverage) = coverage else {
            return Err(blockers);
        };
        Ok(StaleProof {
            coverage,
            quiet_for: self
                .now
                .since(self.last_life(record).unwrap_or(coverage.since())),
            unchanged_for,
            earlier_boot: match &record.origin {
                Origin::EarlierBoot(boot) => Some(boot.to_string()),
                _ => None,
            },
            sources: self
                .pass
                .sources
                .iter()
                .map(|source| source.name())
                .collect(),
            passes: 0,
        })
    }

    /// How long the lease must have been unchanged, covered and silent.
    fn window(&self, record: &Record, asker: Asker) -> Duration {
        let settings = self.settings;
        let (gate, damaged) = match asker {
            Asker::Daemon => (settings.gate, settings.damaged_gate),
            Asker::Person => (settings.asked_gate, settings.asked_damaged_gate),
        };
        if record.lease.damage.is_some() {
            damaged
        } else if matches!(record.origin, Origin::EarlierBoot(_)) {
            settings.reboot_gate.min(gate)
        } else {
            gate
        }
    }

    /// Mode, keep list, and whether store and state can be relied on.
    fn leave(
        &self,
        record: &Record,
        store: Option<&Store>,
        asker: Asker,
        blockers: &mut Vec<Blocker>,
    ) {
        let mut block = |reason, detail: String| blockers.push(Blocker::new(reason, detail));
        let address = record.lease.address.ip();
        if let Some(net) = self.settings.keep.iter().find(|net| net.contains(&address)) {
            block(Reason::Kept, format!("`keep` names {net}"));
        }
        let Some(store) = store else {
            return block(Reason::SourceDown, String::from("its store is gone"));
        };
        if let Some(why) = &store.failed {
            block(Reason::SourceDown, format!("{}: {why}", record.lease.store));
        }
        if let Err(why) = &store.writable {
            block(Reason::Mode, why.clone());
        }
        if !self.settings.data_plane {
            let why = "observe.data_plane is off: a pod that talks and never asks is not heard";
            block(Reason::Coverage, why.into());
        }
        if let Some(why) = &self.pass.state {
            block(Reason::StateNotPersistent, why.clone());
        }
        if asker == Asker::Daemon {
            match (store.mode, &record.origin) {
                (Mode::Observe, _) => block(Reason::Mode, "the store's mode is observe".into()),
                (Mode::AfterReboot, Origin::Unknown) => block(
                    Reason::BootUnknown,
                    "it was there before the agent first looked; `reclaim apply` judges it by \
                     evidence alone"
                        .into(),
                ),
                (Mode::AfterReboot, Origin::ThisBoot) => block(
                    Reason::Mode,
                    "granted in this boot; the store's mode is after-reboot".into(),
                ),
                (Mode::AfterReboot, Origin::EarlierBoot(_)) | (Mode::Continuous, _) => {}
            }
        }
    }

    fn holders(&self, record: &Record, blockers: &mut Vec<Blocker>) {
        if let Some(port) = record.held {
            let name = port.and_then(|ifindex| self.topology.ports.get(&ifindex));
            let place = name.map_or_else(
                || String::from("in a network namespace of this host"),
                |port| format!("behind {}", port.name),
            );
            let detail = format!("the address is configured {place}");
            blockers.push(Blocker::new(Reason::Holder, detail));
        }
        if self.pass.at.is_none() {
            let detail = "no source of holders was asked yet";
            blockers.push(Blocker::new(Reason::SourceDown, detail));
        } else if self.pass.sources.is_empty() && self.pass.down.is_empty() {
            let detail = "no source of holders is configured: set holders.netns or holders.cri";
            blockers.push(Blocker::new(Reason::SourceDown, detail));
        }
        for (source, why) in &self.pass.down {
            let detail = format!("{}: {why}", source.name());
            blockers.push(Blocker::new(Reason::SourceDown, detail));
        }
    }

    fn silence(&self, record: &Record, window: Duration, blockers: &mut Vec<Blocker>) {
        let Some(at) = self.last_life(record) else {
            return;
        };
        let quiet = self.now.since(at);
        if quiet < window {
            blockers.push(Blocker {
                reason: Reason::Seen,
                detail: format!("quiet for {}", of(quiet, window)),
                until: Some(at + window),
            });
        }
    }

    fn coverage(
        &self,
        record: &Record,
        window: Duration,
        blockers: &mut Vec<Blocker>,
    ) -> Option<Coverage> {
        let segment = match self.segment(record) {
            Ok(segment) => segment,
            Err(why) => {
                blockers.push(Blocker::new(Reason::SegmentUnwatched, why));
                return None;
            }
        };
        let Some(watched) = record.watched_since else {
            let why = "the kernel isn't watching for the address yet";
            blockers.push(Blocker::new(Reason::Coverage, why));
            return None;
        };
        match self.coverage.since(self.topology, &segment, self.now) {
            Err(why) => {
                blockers.push(Blocker::new(Reason::Coverage, why));
                None
            }
            Ok(since) => {
                let since = since.max(watched);
                let coverage = Coverage::of(since, window, self.now);
                if coverage.is_none() {
                    blockers.push(Blocker {
                        reason: Reason::Coverage,
                        detail: format!(
                            "{segment} watched for {}",
                            of(self.now.since(since), window)
                        ),
                        until: Some(since + window),
                    });
                }
                coverage
            }
        }
    }

    fn age(&self, record: &Record, window: Duration, blockers: &mut Vec<Blocker>) -> Duration {
        // An earlier boot's lease is judged sooner, and by the sources: they must have
        // been answering for that long.
        let answered = match (&record.origin, self.pass.answered_since) {
            (Origin::EarlierBoot(_), Some(at)) => at,
            (Origin::EarlierBoot(_), None) => self.now,
            _ => record.since,
        };
        let since = record.since.max(answered);
        let unchanged = self.now.since(since);
        if unchanged < window {
            blockers.push(Blocker {
                reason: Reason::Age,
                detail: format!("seen unchanged for {}", of(unchanged, window)),
                until: Some(since + window),
            });
        }
        unchanged
    }

    /// Unasked, and of leases not known to be of an earlier boot: so many a pass, and so
    /// much of each pool.
    fn apply_budget(&self, releases: &mut Vec<Release>, kept: &mut Vec<Kept>) {
        let mut sizes: BTreeMap<StoreName, usize> = BTreeMap::new();
        for record in self.leases.iter() {
            *sizes.entry(record.lease.store.clone()).or_default() += 1;
        }
        let mut spent: BTreeMap<StoreName, usize> = BTreeMap::new();
        let mut total = 0;
        let percent = usize::from(self.settings.max_percent);
        releases.retain(|release| {
            if release.proof().earlier_boot().is_some() {
                return true;
            }
            let lease = release.lease();
            let pool = self.pool_size(&lease.store, lease.address);
            let size = pool.unwrap_or_else(|| sizes.get(&lease.store).copied().unwrap_or(0));
            let share = (size.saturating_mul(percent)).div_ceil(100).max(1);
            let spent = spent.entry(lease.store.clone()).or_default();
            let within = total < self.settings.max_per_pass && *spent < share;
            if within {
                total += 1;
                *spent += 1;
            } else {
                kept.push(Kept {
                    store: lease.store.clone(),
                    address: lease.address,
                    blockers: vec![Blocker {
                        reason: Reason::Budget,
                        detail: format!(
                            "this pass releases no more than {} leases and {share} of {}",
                            self.settings.max_per_pass, lease.store
                        ),
                        until: Some(self.now + self.settings.pass_interval),
                    }],
                });
            }
            within
        });
    }

    fn pool_size(&self, store: &StoreName, address: Address) -> Option<usize> {
        let pools = &self.leases.stores().get(store)?.pools;
        let pool = pools
            .iter()
            .find(|pool| pool.prefix.contains(&address.ip()))?;
        let bits = u32::from(pool.prefix.max_prefix_len() - pool.prefix.prefix_len());
        1usize.checked_shl(bits)
    }
}

fn keep(record: &Record, blockers: Vec<Blocker>) -> Kept {
    Kept {
        store: record.lease.store.clone(),
        address: record.lease.address,
        blockers,
    }
}

/// `7 min of 15 min`.
fn of(have: Duration, need: Duration) -> String {
    format!("{} of {}", words(have), words(need))
}

/// A duration as people say it, rounded down.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if !duration.is_zero() => format!("{} ms", duration.as_millis()),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
