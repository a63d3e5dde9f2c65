//! Leases that are put back: because their address is in use after all, or because a person
//! asks.

use std::sync::Arc;

use super::{Daemon, Done};
use crate::{
    driver::{clock, release::PutBackError},
    engine::{
        input::Input,
        lease::{Holder, StoreName},
        plan::Asker,
        quarantine::PutBack,
    },
    error::in_full,
    executor::{Back, UndoError},
    journal::Undo,
    report::{
        compose::holder_of,
        document::{UndoOutcome, UndoRequest, Undone},
    },
    serve::{metrics::result, query::Reply},
};

/// What came of putting a lease back, and the person who waits to hear it.
pub(super) struct PuttingBack {
    id: String,
    result: Result<Back, PutBackError>,
    reply: Option<Reply<Undone>>,
}

impl Daemon {
    /// What earlier runs released in this boot is watched on.
    pub(super) fn watch_released(&mut self) {
        match self.releaser.released_before() {
            Ok(released) => self.observer.tell(released),
            Err(error) => tracing::error!(
                "what was released in this boot is not watched: {}",
                in_full(&error)
            ),
        }
    }

    /// The engine found a released address in use.
    pub(super) fn put_back(&mut self, id: Arc<str>, reason: String) {
        let undo = Undo {
            asker: Asker::Daemon,
            by: None,
            reason,
        };
        self.begin_to_put_back(id.to_string(), undo, None);
    }

    /// A person asks.
    pub(super) fn undo(&mut self, request: UndoRequest, reply: Reply<Undone>) {
        // As the journal writes it, however it was typed.
        let id = request.id.trim().parse::<u64>();
        let id = id.map_or(request.id, |number| format!("{number:08}"));
        let undo = Undo {
            asker: Asker::Person,
            by: request.by,
            reason: "as a person asked".to_owned(),
        };
        self.begin_to_put_back(id, undo, Some(reply));
    }

    fn begin_to_put_back(&mut self, id: String, undo: Undo, reply: Option<Reply<Undone>>) {
        let releaser = self.releaser.clone();
        self.tasks.spawn_blocking(move || {
            let result = releaser.put_back(&id, undo);
            Done::PutBack(Box::new(PuttingBack { id, result, reply }))
        });
    }

    pub(super) fn was_put_back(&mut self, done: PuttingBack) {
        let PuttingBack { id, result, reply } = done;
        let known = match &result {
            Ok(back) => PutBack::Done {
                lease: back.lease.clone(),
                record: back.record.clone(),
            },
            Err(PutBackError::Undo(UndoError::Taken(_))) => PutBack::Taken,
            Err(error) => PutBack::Failed(in_full(error)),
        };
        match &result {
            Ok(Back { entry, .. }) => {
                let name = StoreName(entry.intent.store.as_str().into());
                let meters = &mut self.metering.meters;
                meters.reclaimed(&name, result::PUT_BACK);
                let (store, address) = (&entry.intent.store, entry.intent.address);
                tracing::warn!(id, store, %address, "put back: the lease is there again");
            }
            Err(error) => tracing::warn!(id, "not put back: {}", in_full(error)),
        }
        if let Some(reply) = reply {
            drop(reply.send(self.undone(id.clone(), &result)));
        }
        self.observer.tell(Input::PutBack { id, result: known });
        self.read_stores();
    }

    fn undone(&self, id: String, result: &Result<Back, PutBackError>) -> Undone {
        let outcome = match result {
            Ok(_) => UndoOutcome::PutBack,
            Err(PutBackError::Undo(error)) if error.is_refusal() => UndoOutcome::Refused,
            Err(_) => UndoOutcome::Failed,
        };
        let lease = result.as_ref().ok().map(|back| &back.entry.intent);
        Undone {
            schema: Default::default(),
            generated_at: clock::wall_time(),
            host: self.observer.host.clone(),
            id,
            result: outcome,
            store: lease.map(|lease| lease.store.clone()),
            address: lease.map(|lease| lease.address),
            holder: lease.map(|lease| holder_of(&lease.holder)),
            detail: result.as_ref().err().map(|error| in_full(error)),
        }
    }

    /// A released address has a new lease.
    pub(super) fn taken(&mut self, id: Arc<str>, holder: Holder) {
        let releaser = self.releaser.clone();
        // Whoever carries out a plan has the journal for some time.
        self.tasks.spawn_blocking(move || {
            let written = releaser.taken(&id, &holder);
            Done::Noted(written.map_err(|error| in_full(&error)))
        });
    }
}
