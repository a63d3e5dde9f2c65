//! What people ask of the daemon, and the plans that are carried out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use ipam_common::Address;

use super::{Daemon, Done};
use crate::{
    driver::clock,
    engine::{
        input::Input,
        lease::StoreName,
        plan::{Asker, Blocker, Outcome, OutcomeResult, Reason, ReclaimPlan},
        vigil::Vigil,
    },
    error::in_full,
    journal,
    report::{
        compose::history_entry,
        document::{
            Applied, ApplyRequest, ConfirmedRelease, Explain, OutcomeRecord, Plan, ReleaseResult,
        },
    },
    serve::{
        Query,
        metrics::{result, stage},
        query::Reply,
    },
};

/// How many questions for a plan wait at once; more are told to come back.
const MAX_ASKED: usize = 32;

/// How many releases of one address are told of.
const MAX_RELEASES_TOLD: usize = 100;

/// A question that needs fresh passes before it can be answered.
pub(super) struct Asked {
    pub passes: u32,
    pub question: Question,
}

pub(super) enum Question {
    Plan(Reply<Plan>),
    Apply(ApplyRequest, Reply<Applied>),
}

/// The plan that is being carried out for a person, and who waits for its outcome.
pub(super) struct Waiting {
    by: Option<String>,
    confirmed: Vec<ConfirmedRelease>,
    kept: Vec<OutcomeRecord>,
    reply: Reply<Applied>,
}

impl Daemon {
    pub(super) fn answer(&mut self, query: Query) {
        let composer = self.observer.composer(&[]);
        match query {
            Query::Report(reply) => drop(reply.send(composer.report())),
            Query::Leases(reply) => drop(reply.send(composer.leases())),
            Query::Addresses(reply) => drop(reply.send(composer.addresses())),
            Query::Segments(reply) => drop(reply.send(composer.segments())),
            Query::Events(reply) => drop(reply.send(composer.event_list())),
            Query::Overview(reply) => self.survey(reply),
            Query::History(reply) => self.history(reply),
            Query::Explain(address, reply) => {
                let explain = composer.explain(address);
                let state_dir = self.state_dir.clone();
                // A long journal takes its time.
                tokio::task::spawn_blocking(move || {
                    drop(reply.send(with_releases(explain, &state_dir)));
                });
            }
            Query::Watch(reply) => {
                drop(reply.send(self.watchers.join(|| composer.open_now())));
            }
            Query::Metrics(most, reply) => drop(reply.send(Box::new(self.snapshot(most)))),
            Query::Health(reply) => drop(reply.send(self.health())),
            Query::LastPlan(reply) => drop(reply.send(self.planned())),
            Query::Plan(reply) => self.ask(Question::Plan(reply)),
            Query::Apply(request, reply) => self.ask(Question::Apply(request, reply)),
            Query::Pause(request, reply) => self.pause(request, reply),
            Query::Resume(reply) => self.resume(reply),
            Query::Undo(request, reply) => self.undo(request, reply),
        }
    }

    /// Two fresh passes, then the answer.
    fn ask(&mut self, question: Question) {
        if self.asked.len() >= MAX_ASKED {
            return;
        }
        // One that is under way began before the question.
        let passes = if self.gathering { 3 } else { 2 };
        self.asked.push(Asked { passes, question });
        self.gather();
    }

    /// What would be released if a person asked now, by what the last pass found.
    fn planned(&self) -> Plan {
        let plan = self.observer.composer(&[]).plan();
        let paused = self.paused();
        Plan { paused, ..plan }
    }

    pub(super) fn reply(&mut self, question: Question) {
        match question {
            Question::Plan(reply) => drop(reply.send(self.planned())),
            Question::Apply(request, reply) => self.apply(request, reply),
        }
    }

    /// Carries out what is both confirmed and, after two more passes, still proven.
    fn apply(&mut self, request: ApplyRequest, reply: Reply<Applied>) {
        let now = clock::now();
        let mut plan = self.observer.engine.plan(Asker::Person, now);
        let confirmed = |store: &StoreName, address: Address| {
            request
                .confirmed
                .iter()
                .any(|confirmed| *confirmed.store == *store.0 && confirmed.address == address.ip())
        };
        plan.releases
            .retain(|release| confirmed(&release.lease().store, release.lease().address));
        plan.kept
            .retain(|kept| confirmed(&kept.store, kept.address));
        let composer = self.observer.composer(&[]);
        let kept = plan
            .kept
            .iter()
            .map(|kept| OutcomeRecord {
                store: kept.store.to_string(),
                address: kept.address.ip(),
                result: ReleaseResult::Kept,
                blocker: kept.blockers.first().map(|b| composer.blocker(b)),
                error: None,
            })
            .collect();
        let waiting = Waiting {
            by: request.by,
            confirmed: request.confirmed,
            kept,
            reply,
        };
        self.execute(plan, Some(waiting));
    }

    pub(super) fn execute(&mut self, plan: ReclaimPlan, waiting: Option<Waiting>) {
        // Of now: it may have to wait for another.
        let vigil = Vigil::of(&self.observer.engine, &plan, self.observer.heard);
        self.carry_out(plan, vigil, waiting);
    }

    fn carry_out(&mut self, plan: ReclaimPlan, vigil: Vigil, waiting: Option<Waiting>) {
        if self.executing.is_some() {
            self.plans.push_back((plan, vigil, waiting));
            return;
        }
        let by = waiting.as_ref().and_then(|waiting| waiting.by.clone());
        self.executing = Some(waiting);
        self.metering.begin(stage::EXECUTE);
        let releases = plan.releases.clone();
        self.observer.tell(Input::Releasing(releases));
        let sandboxes = self.observer.engine.last_pass().sandboxes.clone();
        let releaser = self.releaser.clone();
        self.tasks.spawn_blocking(move || {
            let execute = || releaser.execute(&plan, by.as_deref(), vigil, sandboxes);
            // A panic is a defect of ours: whoever waits is told, and the next plan has its turn.
            let outcomes = catch_unwind(AssertUnwindSafe(execute));
            let outcomes = outcomes.unwrap_or_else(|_| releaser.broke_off(&plan));
            Done::Executed(plan, outcomes)
        });
    }

    pub(super) fn executed(&mut self, plan: &ReclaimPlan, outcomes: Vec<Outcome>) {
        self.metering.end(stage::EXECUTE);
        for (release, outcome) in plan.releases.iter().zip(&outcomes) {
            let (store, address) = (&outcome.store, outcome.address);
            let meters = &mut self.metering.meters;
            meters.reclaimed(store, result_of(&outcome.result));
            match &outcome.result {
                OutcomeResult::Released => {
                    self.released(release);
                }
                OutcomeResult::Kept(blocker) => {
                    tracing::info!(%store, %address, "kept at the last moment: {blocker}");
                }
                OutcomeResult::Failed(error) => {
                    tracing::error!(%store, %address, "not released: {error}");
                }
            }
        }
        if let Some(Some(waiting)) = self.executing.take() {
            let applied = self.applied(waiting.kept, &waiting.confirmed, &outcomes);
            drop(waiting.reply.send(applied));
        }
        self.observer.tell(Input::Outcomes(outcomes));
        self.read_stores();
        if let Some((plan, vigil, waiting)) = self.plans.pop_front() {
            self.carry_out(plan, vigil, waiting);
        }
    }

    fn applied(
        &self,
        kept: Vec<OutcomeRecord>,
        confirmed: &[ConfirmedRelease],
        outcomes: &[Outcome],
    ) -> Applied {
        let composer = self.observer.composer(&[]);
        let mut records = kept;
        records.extend(outcomes.iter().map(|outcome| {
            let (result, blocker, error) = match &outcome.result {
                OutcomeResult::Released => (ReleaseResult::Released, None, None),
                OutcomeResult::Kept(blocker) => {
                    (ReleaseResult::Kept, Some(composer.blocker(blocker)), None)
                }
                OutcomeResult::Failed(error) => (ReleaseResult::Failed, None, Some(error.clone())),
            };
            OutcomeRecord {
                store: outcome.store.to_string(),
                address: outcome.address.ip(),
                result,
                blocker,
                error,
            }
        }));
        for confirmed in confirmed {
            let told = records
                .iter()
                .any(|r| r.store == confirmed.store && r.address == confirmed.address);
            if !told {
                // Not leased any more: somebody else gave it back meanwhile.
                records.push(OutcomeRecord {
                    store: confirmed.store.clone(),
                    address: confirmed.address,
                    result: ReleaseResult::Kept,
                    blocker: Some(composer.blocker(&Blocker::new(
                        Reason::Changed,
                        "there is no such lease any more",
                    ))),
                    error: None,
                });
            }
        }
        records.sort_by(|a, b| (&a.store, a.address).cmp(&(&b.store, b.address)));
        Applied {
            schema: Default::default(),
            generated_at: clock::wall_time(),
            host: self.observer.host.clone(),
            blind: composer.plan().blind,
            outcomes: records,
        }
    }
}

fn result_of(result: &OutcomeResult) -> &'static str {
    match result {
        OutcomeResult::Released => result::RELEASED,
        OutcomeResult::Kept(_) => result::KEPT,
        OutcomeResult::Failed(_) => result::FAILED,
    }
}

/// With what the journal has of the address.
fn with_releases(mut explain: Explain, state_dir: &Path) -> Explain {
    match journal::history_of(state_dir, explain.address, MAX_RELEASES_TOLD) {
        Ok(history) => {
            if history.damaged > 0 {
                let damaged = history.damaged;
                let damaged = format!("{damaged} lines of the journal can't be read");
                explain.blind.push(damaged);
            }
            explain.tell_releases(history.entries.into_iter().map(history_entry));
        }
        Err(error) => explain.blind.push(in_full(&error)),
    }
    explain
}
