//! What would be released, and why the rest stays.

use super::Composer;
use crate::{
    engine::plan::{Asker, Blocker, Release},
    report::document::{BlockerRecord, KeptLease, Plan, PlannedRelease, ProofRecord},
};

impl Composer<'_> {
    /// What would be released if a person asked now.
    pub fn plan(&self) -> Plan {
        let plan = self.engine.plan(Asker::Person, self.now);
        let blind = self.plan_blind();
        let mut releases: Vec<PlannedRelease> =
            plan.releases.iter().map(|r| self.release(r)).collect();
        releases.sort_by(|a, b| (&a.store, a.address).cmp(&(&b.store, b.address)));
        let mut kept: Vec<KeptLease> = plan
            .kept
            .iter()
            .map(|kept| KeptLease {
                store: kept.store.to_string(),
                address: kept.address.ip(),
                blockers: kept.blockers.iter().map(|b| self.blocker(b)).collect(),
            })
            .collect();
        kept.sort_by(|a, b| (&a.store, a.address).cmp(&(&b.store, b.address)));
        Plan {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            complete: blind.is_empty(),
            blind,
            paused: None,
            releases,
            kept,
        }
    }

    /// A blocker, dated.
    pub fn blocker(&self, blocker: &Blocker) -> BlockerRecord {
        BlockerRecord {
            reason: blocker.reason,
            detail: blocker.detail.clone(),
            ready_at: blocker.until.map(|at| self.clock.at(at)),
        }
    }

    pub(super) fn release(&self, release: &Release) -> PlannedRelease {
        let (lease, proof) = (release.lease(), release.proof());
        PlannedRelease {
            store: lease.store.to_string(),
            address: lease.address.ip(),
            holder: self.holder_name(&lease.holder()),
            damage: lease.damage,
            reason: release.sentence(),
            evidence: ProofRecord {
                watched_since: self.clock.at(proof.coverage().since()),
                gate_seconds: proof.coverage().window().as_secs(),
                quiet_seconds: proof.quiet_for().as_secs(),
                unchanged_seconds: proof.unchanged_for().as_secs(),
                earlier_boot: proof.earlier_boot().map(str::to_owned),
                sources: proof.sources().iter().map(|&s| s.to_owned()).collect(),
                passes: proof.passes(),
                unanswered_probes: proof.unanswered().map(|unanswered| unanswered.sent),
            },
        }
    }

    pub(super) fn plan_blind(&self) -> Vec<String> {
        let mut blind = self.blind();
        let pass = self.engine.last_pass();
        let down = pass.down.iter();
        blind.extend(down.map(|(source, why)| format!("{}: {why}", source.name())));
        blind.extend(pass.state.clone());
        blind
    }
}

impl Release {
    /// Why, in one sentence.
    pub fn sentence(&self) -> String {
        let proof = self.proof();
        let origin = match proof.earlier_boot() {
            Some(_) => "recorded before the last boot",
            None => "unchanged",
        };
        let unanswered = match proof.unanswered() {
            Some(unanswered) if unanswered.sent > 0 => format!("{unanswered}, "),
            _ => String::new(),
        };
        format!(
            "{origin}, nobody heard for {} s of unbroken watch, {unanswered}no holder in {}, {} passes agree",
            proof.quiet_for().as_secs(),
            proof.sources().join(" and "),
            proof.passes()
        )
    }
}
