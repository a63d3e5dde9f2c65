//! The planner: every lease is either proven stale, step by step, or kept for reasons.
//!
//! Any single sign of life vetoes, and every doubt keeps the lease.

mod budget;
mod conditions;
mod probes;
mod tries;

pub use budget::Spent;
pub use tries::Tries;

use std::time::Duration;

use ipam_common::Address;
use ipnet::IpNet;

use super::{
    attempt::Attempts,
    coverage::CoverageBook,
    evidence::Source,
    holders::SandboxBook,
    lease::{Lease, StoreName},
    leasebook::{LeaseBook, Origin, Record},
    plan::{Asker, Blocker, Kept, Reason, ReclaimPlan, Release, StaleProof},
    probing::Probing,
    quarantine::{Quarantine, Restored},
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
    /// How often leases are judged, if nothing is due sooner.
    pub pass_interval: Duration,
    /// How many releases may be done unasked in such an interval, of leases not known to be of
    /// an earlier boot.
    pub max_per_pass: usize,
    /// How much of a pool they may be, in percent.
    pub max_percent: u8,
    /// Never released.
    pub keep: Vec<IpNet>,
    /// Whether IP packets stamp LEASED: without, a pod that talks but never asks is silent.
    pub data_plane: bool,
}

impl ReclaimSettings {
    /// From one unasked pass to the next, at the least.
    pub fn between_passes(&self) -> Duration {
        self.pass_interval / 6
    }
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
    /// Which it was, counted from 1.
    pub number: u64,
    /// When it was.
    pub at: Option<Timestamp>,
    /// When every source answered for the first time in this run.
    pub answered_since: Option<Timestamp>,
    /// The sources that answered.
    pub sources: Vec<Source>,
    /// Those that did not, and why.
    pub down: Vec<(Source, String)>,
    /// What container runtimes said, in this run.
    pub sandboxes: SandboxBook,
    /// The addresses that somebody was found to hold, in order.
    pub held: Vec<Address>,
    /// Why the agent's state is not to be relied on.
    pub state: Option<String>,
    /// That a person paused unattended releases, in words.
    pub paused: Option<String>,
    /// What the daemon has released of its budget.
    pub spent: Spent,
}

impl PassFacts {
    /// Whether somebody was found to hold the address.
    pub fn holds(&self, address: &Address) -> bool {
        self.held.binary_search(address).is_ok()
    }
}

/// The leases against which a pass found nothing, for each asker.
#[derive(Clone, Debug, Default)]
pub struct Clear {
    /// For the daemon.
    pub daemon: Vec<(StoreName, Address)>,
    /// For a person.
    pub person: Vec<(StoreName, Address)>,
}

impl Clear {
    /// For either.
    pub fn keys(&self) -> impl Iterator<Item = &(StoreName, Address)> {
        self.daemon.iter().chain(&self.person)
    }
}

/// Whether silence has to be of the pass that a release is decided in, or whether any will do
/// that nothing has contradicted since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    OfThisPass,
    OfAny,
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
    /// What was released.
    pub quarantine: &'a Quarantine,
    /// The last pass.
    pub pass: &'a PassFacts,
    /// What was asked on the wire, and what came of it.
    pub probing: &'a Probing,
    /// Who is heard probing.
    pub(super) attempts: &'a Attempts,
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
            match self.prove(record, asker, Silence::OfThisPass) {
                Ok(proof) => releases.push(Release::new(record.lease.clone(), proof)),
                Err(blockers) => kept.push(keep(record, blockers)),
            }
        }
        // The oldest boot first, and last what is of no known one; of each, damaged leases,
        // whose evidence is emptiest, last.
        releases.sort_by_cached_key(|release| {
            let boot = release.proof().earlier_boot();
            (
                boot.map_or(usize::MAX, |boot| self.leases.boot_order(boot)),
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

    /// Whether nothing stands against a release but the count of passes that agree, and what
    /// the wire is still to be asked.
    pub fn is_clear(&self, record: &Record, asker: Asker) -> bool {
        self.evidence(record, asker).is_ok()
    }

    /// What stands against a release that a person asks for; empty: nothing.
    pub fn plan_blockers(&self, record: &Record) -> Vec<Blocker> {
        let proven = self.prove(record, Asker::Person, Silence::OfAny);
        proven.err().unwrap_or_default()
    }

    /// A lease's state. A lease is stale once a person could have it released.
    pub fn state(&self, record: &Record) -> LeaseState {
        let blockers = match self.prove(record, Asker::Person, Silence::OfAny) {
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
        self.segment_of(&record.lease)
    }

    /// The same of what is no lease.
    pub fn segment_of(&self, lease: &Lease) -> Result<Segment, String> {
        match self.scopes.of(lease) {
            Scope::Segment(segment) => match self.scopes.absence(segment) {
                None => Ok(segment.clone()),
                Some(why) => Err(why.to_owned()),
            },
            Scope::Nowhere(why) => Err(why.clone()),
            Scope::Anywhere | Scope::Unknown => Err(format!(
                "nothing says which wire {} is on: no network of that name in /etc/cni/net.d \
                 and no libcni cache of it; name its segment in `pools`",
                lease.store
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

    fn prove(
        &self,
        record: &Record,
        asker: Asker,
        silence: Silence,
    ) -> Result<StaleProof, Vec<Blocker>> {
        let mut proof = self.evidence(record, asker)?;
        proof.passes = record.passes[slot(asker)].into();
        let mut blockers = Vec::new();
        match self.unanswered(record, asker, silence) {
            Ok(unanswered) => proof.unanswered = unanswered,
            Err(blocker) => blockers.push(blocker),
        }
        if proof.passes < 2 {
            // The wire is asked after the first.
            blockers.retain(|blocker| blocker.reason != Reason::SecondPass);
            blockers.push(Blocker {
                reason: Reason::SecondPass,
                detail: format!("{} of 2 passes agree", proof.passes),
                until: self
                    .pass
                    .at
                    .map(|at| at + self.settings.between_passes())
                    .filter(|_| proof.passes == 1),
            });
        }
        if !blockers.is_empty() {
            return Err(blockers);
        }
        Ok(proof)
    }

    fn evidence(&self, record: &Record, asker: Asker) -> Result<StaleProof, Vec<Blocker>> {
        let mut blockers = Vec::new();
        let window = self.window(record, asker);
        let store = self.leases.stores().get(&record.lease.store);
        self.leave(record, store, asker, &mut blockers);
        self.holders(record, asker, &mut blockers);
        self.silence(record, window, &mut blockers);
        self.answered(record, window, &mut blockers);
        let coverage = self.coverage(record, window, &mut blockers);
        let unchanged_for = self.age(record, window, &mut blockers);
        self.tried(record, asker, &mut blockers);
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
            unanswered: None,
        })
    }

    /// How long the lease must have been unchanged, covered and silent.
    fn window(&self, record: &Record, asker: Asker) -> Duration {
        let settings = self.settings;
        let (gate, damaged) = match asker {
            Asker::Daemon => (settings.gate, settings.damaged_gate),
            Asker::Person => (settings.asked_gate, settings.asked_damaged_gate),
        };
        let restored = self.quarantine.restored(&record.lease);
        let enough = restored.and_then(Restored::enough);
        let window = if record.lease.damage.is_some() {
            damaged
        } else if matches!(record.origin, Origin::EarlierBoot(_)) && enough.is_none() {
            settings.reboot_gate.min(gate)
        } else {
            gate
        };
        window.max(enough.unwrap_or_default())
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
pub(super) fn of(have: Duration, need: Duration) -> String {
    format!("{} of {}", words(have), words(need))
}

/// A duration as people say it, rounded down.
pub(super) fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if !duration.is_zero() => format!("{} ms", duration.as_millis()),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests;
