//! What is done to the stores: releases, and leases that are put back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex},
};

use ipam_agent::{
    engine::{
        holders::{Sandbox, SocketAnswer},
        input::Input,
        lease::Holder,
        plan::{Asker, Blocker, Outcome, OutcomeResult, Reason, ReclaimPlan, Release},
        quarantine::{MAX_QUARANTINED, PutBack},
        time::Timestamp,
        vigil::Vigil,
    },
    error::in_full,
    executor::{self, Back, UndoError},
    journal::{HolderRecord, Taken, Undo, When},
};

use super::{
    super::{
        host::Host,
        shop::{Killed, lock, silence},
    },
    Agent, Job, Step, views,
};

/// A plan that is carried out.
pub(super) struct Execution {
    pub(super) plan: ReclaimPlan,
    vigil: Vigil,
    next: usize,
    outcomes: Vec<Outcome>,
}

impl Agent {
    pub(super) fn execute(&mut self, plan: ReclaimPlan) {
        let vigil = Vigil::of(&self.engine, &plan, self.heard());
        self.carry_out(plan, vigil);
    }

    fn carry_out(&mut self, plan: ReclaimPlan, vigil: Vigil) {
        if self.execution.is_some() {
            self.plans.push_back((plan, vigil));
            return;
        }
        self.tell(Input::Releasing(plan.releases.clone()));
        self.execution = Some(Execution {
            plan,
            vigil,
            next: 0,
            outcomes: Vec::new(),
        });
        self.soon(1000, Job::Release);
    }

    /// Some releases of the plan under way.
    pub(super) fn release(&mut self, step: &mut Step) {
        let Some(execution) = &mut self.execution else {
            return;
        };
        let left = execution.plan.releases.len() - execution.next;
        let count = self.random.usize(1..=4).min(left);
        let part = ReclaimPlan {
            releases: execution.plan.releases[execution.next..execution.next + count].to_vec(),
            kept: Vec::new(),
            ..execution.plan
        };
        execution.next += count;
        let is_last = count == left;
        *self.shop.asker.lock().expect("no panic") = part.asker;
        let vigil = &mut execution.vigil;
        let (host, journal, stores) = (&self.host, &mut self.journal, &self.stores);
        let mut recheck = |release: &Release| last_look(host, release, vigil);
        let began = lock(&self.host).now;
        let done = catch_unwind(AssertUnwindSafe(|| {
            executor::execute(&part, None, stores, journal, &clocks(host), &mut recheck)
        }));
        let outcomes = match done {
            Ok(outcomes) => outcomes,
            Err(panic) => match panic.downcast::<Killed>() {
                Ok(killed) => {
                    let mut host = lock(&self.host);
                    for release in &part.releases {
                        if let Some((key, quiet_since)) = silence(&host, release, began) {
                            let generation = release.lease().generation();
                            host.leases.intended(key, &generation, quiet_since, began);
                        }
                    }
                    drop(host);
                    step.killed = Some(*killed);
                    return;
                }
                Err(panic) => resume_unwind(panic),
            },
        };
        if let Some(execution) = &mut self.execution {
            execution.outcomes.extend(outcomes);
        }
        if !is_last {
            self.soon(3000, Job::Release);
            return;
        }
        let outcomes = self
            .execution
            .take()
            .map(|execution| execution.outcomes)
            .unwrap_or_default();
        lock(&self.host).contended = 0;
        let undone = outcomes
            .iter()
            .filter(|outcome| outcome.result != OutcomeResult::Released);
        step.undone
            .extend(undone.map(|outcome| (part.asker, outcome.clone())));
        self.tell(Input::Outcomes(outcomes));
        self.read_stores();
        if let Some((plan, vigil)) = self.plans.pop_front() {
            self.carry_out(plan, vigil);
        }
    }

    /// What earlier runs released in this boot is watched on.
    pub(super) fn watch_released(&mut self) -> Result<(), String> {
        let entries = self.journal.of_this_boot(MAX_QUARANTINED, |_| true);
        let entries = entries.map_err(|error| in_full(&error))?;
        self.tell(executor::quarantined(entries));
        Ok(())
    }

    /// What was left open because a store could not be read is looked at once it can.
    pub(super) fn settle(&mut self, readings: &[Input]) -> Option<Input> {
        let (views, open) = (views(readings), self.journal.open_stores());
        if !views.iter().any(|view| open.contains(&*view.store.0)) {
            return None;
        }
        let settled = executor::settle(&mut self.journal, &views, &clocks(&self.host));
        let settled = settled.expect("the journal can be written");
        self.journal.settled(settled.left);
        let entries = self
            .journal
            .of_this_boot(MAX_QUARANTINED, |entry| settled.ids.contains(&entry.id));
        Some(executor::quarantined(entries.expect("readable")))
    }

    pub(super) fn put_back(&mut self, id: &str, reason: String) {
        let undo = Undo {
            asker: Asker::Daemon,
            by: None,
            reason,
        };
        let clocks = clocks(&self.host);
        let done = executor::put_back(id, undo, &self.stores, &mut self.journal, &clocks);
        let result = match done {
            Ok(Back { lease, record, .. }) => PutBack::Done { lease, record },
            Err(UndoError::Taken(_)) => PutBack::Taken,
            Err(error) => PutBack::Failed(in_full(&error)),
        };
        // The store's watch may be faster.
        self.soon(1000, Job::PutBack(id.to_owned(), result));
    }

    pub(super) fn was_put_back(&mut self, id: String, result: PutBack) {
        self.tell(Input::PutBack { id, result });
        self.read_stores();
    }

    pub(super) fn taken(&mut self, id: &str, holder: &Holder) {
        let holder = HolderRecord::from(holder);
        let when = clocks(&self.host)();
        // Lost, it is watched for longer than need be.
        let _ = self.journal.append_taken(when, id, Taken { holder });
    }
}

/// What is asked again under the store's lock.
fn last_look(host: &Mutex<Host>, release: &Release, vigil: &mut Vigil) -> Result<(), Blocker> {
    let mut host = lock(host);
    let address = release.lease().address;
    let now = host.clock();
    vigil.links((*host.topology()).clone(), now, now);
    for ifindex in vigil.ports() {
        let check = host.check(ifindex);
        vigil.checked(ifindex, &check, now);
    }
    vigil.is_kept(release, now)?;
    let Some(stamps) = host.leased.get(&address) else {
        return Err(Blocker::new(Reason::Coverage, "not watched for"));
    };
    let quiet = host.clock().since(Timestamp(stamps.last()));
    if stamps.last() > 0 && quiet < release.proof().coverage().window() {
        return Err(Blocker::new(Reason::Seen, "heard"));
    }
    for (_, answer) in host
        .look_at_runtime()
        .into_iter()
        .flat_map(|report| report.sockets)
    {
        let SocketAnswer::Sandboxes(sandboxes) = answer else {
            return Err(Blocker::new(Reason::SourceDown, "cri"));
        };
        let id = release.lease().holder().container_id;
        let holds = |sandbox: &Sandbox| {
            sandbox.ready
                && (sandbox.addresses.contains(&address)
                    || id.as_ref().is_some_and(|id| **id == *sandbox.id))
        };
        if sandboxes.iter().any(holds) {
            return Err(Blocker::new(Reason::Holder, "listed"));
        }
    }
    match host.look_into_namespaces().answer {
        Err(why) => Err(Blocker::new(Reason::SourceDown, why)),
        Ok(held) if held.iter().any(|held| held.address == address) => {
            Err(Blocker::new(Reason::Holder, "configured"))
        }
        Ok(_) => Ok(()),
    }
}

/// Both clocks.
pub(super) fn clocks(host: &Arc<Mutex<Host>>) -> impl Fn() -> When + use<> {
    let host = Arc::clone(host);
    move || {
        let host = lock(&host);
        let wall = host.leases.wall_time(host.now);
        let at = jiff::Timestamp::from_nanosecond(wall.into());
        When {
            at: at.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            uptime: host.clock().0,
        }
    }
}
