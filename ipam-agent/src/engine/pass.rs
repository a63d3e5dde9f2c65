//! A pass of judgement over the leases: the answers that it gathered, and what became of its
//! plan.

use std::collections::{BTreeMap, BTreeSet};

use ipam_common::Address;

use super::{
    Engine,
    evidence::{Held, PassEvidence, Source, SourceReport},
    holders::{HeardSocket, RuntimeReport},
    input::Command,
    leasebook::Record,
    plan::{Asker, Kept, Outcome, OutcomeResult, ReclaimPlan, Release},
    reclaim::{Clear, slot},
    scope::Scope,
    table::Place,
    time::Timestamp,
};

impl Engine {
    pub(super) fn evidence(&mut self, evidence: PassEvidence, now: Timestamp) {
        for (ifindex, check) in &evidence.ports {
            self.coverage.checked(*ifindex, check, now, &self.topology);
        }
        let stamps: BTreeMap<_, _> = evidence.stamps.into_iter().collect();
        let mut held: BTreeMap<Address, Option<u32>> = BTreeMap::new();
        self.pass.at = Some(now);
        self.pass.number += 1;
        self.probing.begin_pass();
        self.pass.sources.clear();
        self.pass.down.clear();
        if let Some(report) = evidence.runtimes {
            self.runtimes(report, now);
        }
        for report in evidence.sources {
            match report.answer {
                Ok(addresses) => {
                    match self.contradicted(&addresses) {
                        None => self.pass.sources.push(report.source),
                        Some(why) => self.pass.down.push((report.source, why)),
                    }
                    held.extend(addresses.iter().map(|held| (held.address, held.ifindex)));
                    self.look_behind(&addresses, now);
                }
                Err(why) => self.pass.down.push((report.source, why)),
            }
        }
        // What this host itself has is no lease's to lose.
        for address in self.topology.local.keys() {
            held.entry(*address).or_insert(None);
        }
        if self.pass.down.is_empty() {
            self.pass.answered_since.get_or_insert(now);
        }
        self.pass.held = held.keys().copied().collect();
        let mut unwatched = Vec::new();
        for record in self.leases.iter_mut() {
            let address = record.lease.address;
            match stamps.get(&address) {
                Some(stamps) => {
                    let since = match stamps.since {
                        0 => record.watched_since().unwrap_or(now),
                        since => Timestamp(since),
                    };
                    record.stamps = *stamps;
                    record.watch_since(since);
                }
                // It was not being watched for, whatever we thought.
                None => {
                    record.unwatch();
                    unwatched.push(address);
                }
            }
            record.held = held.get(&address).copied();
        }
        unwatched.extend(self.look_at_quarantined(&stamps, &held, now));
        // An agent before us may have watched for addresses that nobody has a lease of now.
        let unleased = stamps.into_keys();
        let unleased: Vec<_> = unleased
            .filter(|address| self.leases.of(address).is_empty())
            .filter(|address| !self.quarantine.watches(address))
            .collect();
        if !unwatched.is_empty() || !unleased.is_empty() {
            self.commands.push_back(Command::Watch {
                add: unwatched,
                remove: unleased,
            });
        }
        let clear = self.count_passes(now);
        let interval = self.settings.reclaim.pass_interval;
        self.pass.spent.forget(now - interval);
        let plan = self.plan(Asker::Daemon, now);
        self.judge_states(now);
        self.count_leases(now);
        self.count_blocked(&plan.kept);
        self.schedule(&plan, now);
        let mut going = BTreeSet::new();
        if !plan.releases.is_empty() && self.executing.is_none() {
            let leases = plan.releases.iter().map(Release::lease);
            let keys: Vec<_> = leases.map(|l| (l.store.clone(), l.address)).collect();
            going = keys.iter().cloned().collect();
            self.executing = Some(keys);
            self.pass.spent.plan(&plan);
            self.commands.push_back(Command::Execute(plan));
        }
        self.ask_the_wire(&clear, evidence.person, &going, now);
        self.clean_caches(now);
    }

    /// The next pass: in an interval or, should a lease lack nothing but time until shortly
    /// after that or before it, when that is over.
    fn schedule(&mut self, plan: &ReclaimPlan, now: Timestamp) {
        let settings = &self.settings.reclaim;
        let (least, regular) = (settings.between_passes(), now + settings.pass_interval);
        let dues = plan.kept.iter().filter_map(due);
        let next = dues.min().filter(|at| *at <= regular + least);
        let calm = self.calm_until.max(now + least).min(regular);
        self.next_pass = Some(next.map_or(regular, |at| at.max(calm)));
    }

    /// The wire was asked. Where nobody answered for leases that the daemon may release then,
    /// the next pass has all that it needs.
    pub(super) fn hurry(&mut self, now: Timestamp) {
        let (Some(at), Some(next)) = (self.pass.at, self.next_pass) else {
            return;
        };
        let soon = at + self.settings.reclaim.between_passes();
        let soon = soon.max(self.calm_until).max(now);
        if soon < next && self.planner(now).any_to_go(soon) {
            self.next_pass = Some(soon);
        }
    }

    fn runtimes(&mut self, report: RuntimeReport, now: Timestamp) {
        let before: Vec<HeardSocket> = self.pass.sandboxes.heard().collect();
        self.pass.sandboxes.hear(report, now);
        if !self.pass.sandboxes.heard().eq(before) {
            let heard = self.pass.sandboxes.heard().collect();
            self.commands.push_back(Command::RememberHeard(heard));
        }
        match self.pass.sandboxes.problem() {
            None => self.pass.sources.push(Source::Cri),
            Some(why) => self.pass.down.push((Source::Cri, why)),
        }
    }

    /// How the runtimes contradict who says that these addresses are held, and no others.
    fn contradicted(&self, held: &[Held]) -> Option<String> {
        let shown = held.iter().map(|held| held.address).collect();
        let unwatchable =
            |record: &Record| matches!(self.scopes.of(&record.lease), Scope::Nowhere(_));
        let elsewhere = |address| self.leases.of(&address).iter().any(unwatchable);
        self.pass.sandboxes.unshown(&shown, elsewhere)
    }

    /// Count, for each lease and asker, how many passes in a row found nothing against it.
    fn count_passes(&mut self, now: Timestamp) -> Clear {
        let mut found = Clear::default();
        for asker in [Asker::Daemon, Asker::Person] {
            let planner = self.planner(now);
            let clear: Vec<bool> = self
                .leases
                .iter()
                .map(|record| planner.is_clear(record, asker))
                .collect();
            let keys = match asker {
                Asker::Daemon => &mut found.daemon,
                Asker::Person => &mut found.person,
            };
            for (record, clear) in self.leases.iter_mut().zip(clear) {
                if clear {
                    keys.push((record.lease.store.clone(), record.lease.address));
                }
                let passes = &mut record.passes[slot(asker)];
                *passes = if clear { passes.saturating_add(1) } else { 0 };
            }
        }
        found
    }

    pub(super) fn held(&mut self, report: SourceReport, now: Timestamp) {
        if let Ok(addresses) = report.answer {
            self.look_behind(&addresses, now);
        }
    }

    /// An address that is configured behind two ports of one segment is contested.
    fn look_behind(&mut self, addresses: &[Held], now: Timestamp) {
        let mut behind: BTreeMap<Address, BTreeSet<u32>> = BTreeMap::new();
        for held in addresses {
            if let Some(ifindex) = held.ifindex {
                behind.entry(held.address).or_default().insert(ifindex);
            }
        }
        behind.retain(|_, ports| ports.len() > 1);
        for (address, ports) in behind {
            let places: Vec<Place> = self.table.places_of(address).collect();
            for place in places {
                self.found(place, now, |judge, entry| judge.behind(entry, &ports, now));
            }
        }
    }

    pub(super) fn outcomes(&mut self, outcomes: Vec<Outcome>, now: Timestamp) {
        let keys = outcomes.iter().map(|done| (&done.store, done.address));
        // And not a person's.
        let unasked = self.executing.as_ref().is_some_and(|own| {
            let own = own.iter().map(|(store, address)| (store, *address));
            own.eq(keys)
        });
        if unasked {
            self.executing = None;
            self.pass.spent.ended(now);
        }
        let mut kept = BTreeSet::new();
        for outcome in outcomes {
            let is_released = outcome.result == OutcomeResult::Released;
            let id = outcome.id.as_deref().filter(|_| is_released);
            self.release_ended(&outcome.store, outcome.address, id);
            if !is_released {
                kept.insert((outcome.address, outcome.store));
            }
        }
        if kept.is_empty() {
            return;
        }
        // It would be tried again and again.
        let interval = self.settings.reclaim.pass_interval;
        self.calm_until = now + interval;
        for record in self.leases.iter_mut() {
            let lease = &record.lease;
            if kept.contains(&(lease.address, lease.store.clone())) {
                record.passes = [0; 2];
                if unasked {
                    record.tries.failed(interval, now);
                }
            }
        }
    }
}

/// When a lease lacks nothing any more that time alone brings; `None`: it lacks more.
fn due(kept: &Kept) -> Option<Timestamp> {
    let mut blockers = kept.blockers.iter();
    blockers.try_fold(Timestamp(0), |latest, blocker| {
        Some(latest.max(blocker.until?))
    })
}
