//! Removing dead entries of CNI's caches, with the container runtimes asked again.

use super::{Releaser, last_look::ask_again, lock};
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
        let runtimes = &self.holders.cri;
        executor::clean(removals, journal, &clock::when, &mut |removal| {
            self.is_of_this_configuration(decided)?;
            self.may_release_unasked()?;
            if !ask_again(runtimes, &mut sandboxes, &mut asked)? {
                return Err(Blocker::new(Reason::SourceDown, NOBODY_KNOWS_IDS));
            }
            let (now, container) = (clock::now(), &removal.subject().container);
            let holder = sandboxes.holder_of(container, now);
            let doubt = || sandboxes.doubt(removal.gate(), now);
            holder.or_else(doubt).map_or(Ok(()), Err)
        })
    }
}
