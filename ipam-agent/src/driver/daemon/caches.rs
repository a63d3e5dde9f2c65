//! Dead entries of CNI's caches, removed off the event loop.

use super::{Daemon, Done};
use crate::{
    driver::clock,
    engine::{
        caches::{Cleaned, NotRemoved, Removal},
        input::Input,
    },
};

impl Daemon {
    pub(super) fn clean(&mut self, removals: Vec<Removal>) {
        let sandboxes = self.observer.engine.last_pass().sandboxes.clone();
        let releaser = self.releaser.clone();
        let decided = clock::now();
        self.tasks
            .spawn_blocking(move || Done::Cleaned(releaser.clean(removals, sandboxes, decided)));
    }

    pub(super) fn cleaned(&mut self, cleaned: Vec<Cleaned>) {
        for Cleaned { removal, result } in &cleaned {
            let path = removal.path().display();
            match result {
                Ok(()) => tracing::info!(
                    container = &*removal.subject().container,
                    damage = removal.damage().name(),
                    "removed the dead entry {path}: its container is gone"
                ),
                Err(NotRemoved::Kept(blocker)) => {
                    tracing::info!("{path} was kept at the last moment: {blocker}");
                }
                Err(NotRemoved::Failed(error)) => {
                    tracing::error!("{path} was not removed: {error}");
                }
            }
        }
        self.observer.tell(Input::Cleaned(cleaned));
    }
}
