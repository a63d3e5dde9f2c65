//! Removing dead entries of CNI's caches, with the container runtimes asked again.

use super::{Releaser, is_stale, lock};
use crate::{
    driver::clock,
    engine::{
        caches::{Cleaned, NOBODY_KNOWS_IDS, NotRemoved, Removal},
        holders::SandboxBook,
        plan::{Blocker, Reason},
        time::Timestamp,
    },
    error::in_full,
    executor,
    holder::cri,
};

impl Releaser {
    /// Removes what was decided with these sandboxes known. Blocks on files and container
    /// runtimes.
    pub fn clean(
        &self,
        removals: Vec<Removal>,
        mut sandboxes: SandboxBook,
        decided: Timestamp,
    ) -> Vec<Cleaned> {
        let mut journal = lock(&self.journal);
        let journal = match journal.as_mut() {
            Ok(journal) => journal,
            Err(error) => {
                let failed = |removal| Cleaned {
                    removal,
                    result: Err(NotRemoved::Failed(in_full(error))),
                };
                return removals.into_iter().map(failed).collect();
            }
        };
        let mut asked = None;
        executor::clean(removals, journal, &clock::when, &mut |removal| {
            self.is_of_this_configuration(decided)?;
            self.may_release_unasked()?;
            self.ask_again(&mut sandboxes, &mut asked)?;
            let (now, container) = (clock::now(), &removal.subject().container);
            let holder = sandboxes.holder_of(container, now);
            let doubt = || sandboxes.doubt(removal.gate(), now);
            holder.or_else(doubt).map_or(Ok(()), Err)
        })
    }

    fn ask_again(
        &self,
        sandboxes: &mut SandboxBook,
        asked: &mut Option<Timestamp>,
    ) -> Result<(), Blocker> {
        if is_stale(*asked, clock::now()) {
            let report = cri::report(&self.holders.cri, cri::LAST_PATIENCE);
            let report =
                report.ok_or_else(|| Blocker::new(Reason::SourceDown, NOBODY_KNOWS_IDS))?;
            let now = clock::now();
            sandboxes.hear(report, now);
            *asked = Some(now);
        }
        match sandboxes.problem() {
            Some(why) => Err(Blocker::new(Reason::SourceDown, format!("cri: {why}"))),
            None => Ok(()),
        }
    }
}
