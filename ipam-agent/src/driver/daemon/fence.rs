//! Fences, raised and lowered off the event loop.

use super::{Daemon, Done};
use crate::{
    driver::clock,
    engine::{
        fence::{Change, Fence, Fenced},
        input::Input,
    },
};

impl Daemon {
    pub(super) fn fence(&mut self, fences: Vec<Fence>) {
        let releaser = self.releaser.clone();
        let decided = clock::now();
        self.tasks
            .spawn_blocking(move || Done::Fenced(releaser.fence(fences, decided)));
    }

    pub(super) fn fenced(&mut self, fenced: Vec<Fenced>) {
        for Fenced { fence, result } in &fenced {
            let (store, address) = (&fence.store, fence.address);
            match (&fence.change, result) {
                (Change::Raise { squatter, port }, Ok(())) => tracing::info!(
                    %store, %address, %squatter, %port,
                    "fenced: it is used without a lease"
                ),
                (Change::Lower(..), Ok(())) => tracing::info!(%store, %address, "no longer fenced"),
                (_, Err(error)) => tracing::warn!(%store, %address, "not fenced: {error}"),
            }
        }
        self.observer.tell(Input::Fenced(fenced));
        self.read_stores();
    }
}
