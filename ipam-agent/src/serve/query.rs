//! What the API asks of the driver.

use std::sync::Arc;

use ipam_common::Address;
use tokio::sync::{mpsc, oneshot};

use super::{health::Health, metrics::Snapshot, watch::Watching};
use crate::report::{
    compose::Overview,
    document::{
        Addresses, Applied, ApplyRequest, EventList, Explain, History, Leases, PauseRequest,
        Pausing, Plan, Report, Segments, UndoRequest, Undone,
    },
};

/// How many queries wait at most; who asks further waits with their connection.
const DEPTH: usize = 16;

/// Where the answer goes. Nobody may be waiting for it any more.
pub type Reply<T> = oneshot::Sender<T>;

/// An overview, for all who asked while it was made.
pub type Overviewed = Arc<Overview>;

/// One question, with where its answer goes. A query that is dropped unanswered tells the
/// client that the daemon is stopping.
#[derive(Debug)]
pub enum Query {
    /// Conflicts, events and coverage.
    Report(Reply<Report>),
    /// Every lease with its state.
    Leases(Reply<Leases>),
    /// Who is on the wires.
    Addresses(Reply<Addresses>),
    /// What is watched.
    Segments(Reply<Segments>),
    /// What happened that is no conflict.
    Events(Reply<EventList>),
    /// All that the status page shows of the engine.
    Overview(Reply<Overviewed>),
    /// What was released, or why the journal can't be read.
    History(Reply<Result<History, String>>),
    /// All that is known of one address.
    Explain(Address, Reply<Explain>),
    /// To be told what happens; `None`: there are enough who are.
    Watch(Reply<Option<Watching>>),
    /// What would be released if a person asked now: the wire is asked first.
    Plan(Reply<Plan>),
    /// The same by what the last pass found; nobody is asked anything.
    LastPlan(Reply<Plan>),
    /// The numbers, with at most so many conflicts by address.
    Metrics(usize, Reply<Box<Snapshot>>),
    /// How the daemon is.
    Health(Reply<Health>),
    /// A person confirmed these releases.
    Apply(ApplyRequest, Reply<Applied>),
    /// A person wants unattended releases to stop.
    Pause(PauseRequest, Reply<Pausing>),
    /// A person wants them to go on.
    Resume(Reply<Pausing>),
    /// A person wants a released lease back.
    Undo(UndoRequest, Reply<Undone>),
}

/// The queue from the API to the driver.
pub fn channel() -> (mpsc::Sender<Query>, mpsc::Receiver<Query>) {
    mpsc::channel(DEPTH)
}
