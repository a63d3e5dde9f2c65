//! Who is connected, and who has to go when there are too many.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

/// How many clients of one address are connected at once.
pub(super) const PLACES: usize = 256;
/// Who connects has so long to say what it wants before others may take its place.
const WELCOME: Duration = Duration::from_millis(100);

const ASKING: u8 = 0;
const ANSWERING: u8 = 1;
const STALLED: u8 = 2;

/// How far a connection is.
#[derive(Clone, Debug, Default)]
pub struct Phase(Arc<AtomicU8>);

impl Phase {
    /// The request's head is there; its answer is made, or taken by the client.
    pub(super) fn set_answering(&self) {
        self.0.store(ANSWERING, Ordering::Relaxed);
    }

    /// The client doesn't take what is ready for it.
    pub(super) fn set_stalled(&self) {
        self.0.store(STALLED, Ordering::Relaxed);
    }

    /// The client took it.
    pub(super) fn set_flowing(&self) {
        let _ = self
            .0
            .compare_exchange(STALLED, ANSWERING, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn is(&self, phase: u8) -> bool {
        self.0.load(Ordering::Relaxed) == phase
    }
}

/// The connections of one address, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Crowd(Vec<Guest>);

#[derive(Debug)]
struct Guest {
    phase: Phase,
    connection: AbortHandle,
    since: Instant,
}

impl Crowd {
    /// Whether there is room for one more, made if need be. Who sends its request at once and
    /// takes the answer is never hung up on for another: first goes who has been connected
    /// longest without a whole request, then who has not taken its answer.
    pub(super) fn makes_room(&mut self) -> bool {
        self.0.retain(|guest| !guest.connection.is_finished());
        if self.0.len() < PLACES {
            return true;
        }
        let silent = |guest: &Guest| guest.phase.is(ASKING) && guest.since.elapsed() >= WELCOME;
        let place = self.0.iter().position(silent);
        let stalled = || self.0.iter().position(|guest| guest.phase.is(STALLED));
        let Some(place) = place.or_else(stalled) else {
            return false;
        };
        self.0.remove(place).connection.abort();
        true
    }

    /// One more.
    pub(super) fn enter(&mut self, phase: Phase, connection: AbortHandle) {
        self.0.push(Guest {
            phase,
            connection,
            since: Instant::now(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    async fn full(crowd: &mut Crowd) -> Vec<(Phase, tokio::task::JoinHandle<()>)> {
        let mut clients = Vec::new();
        for _ in 0..PLACES {
            assert!(crowd.makes_room());
            let (phase, task) = (Phase::default(), tokio::spawn(pending::<()>()));
            crowd.enter(phase.clone(), task.abort_handle());
            clients.push((phase, task));
        }
        clients
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_come_may_speak_first() {
        let mut crowd = Crowd::default();
        let clients = full(&mut crowd).await;
        assert!(!crowd.makes_room());
        tokio::time::sleep(WELCOME).await;
        assert!(crowd.makes_room());
        tokio::task::yield_now().await;
        assert!(clients[0].1.is_finished() && !clients[1].1.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_goes_first_then_who_takes_nothing_and_nobody_else() {
        let mut crowd = Crowd::default();
        let mut clients = full(&mut crowd).await;
        for (phase, _) in &clients {
            phase.set_answering();
        }
        assert!(!crowd.makes_room(), "all are being answered");
        clients[3].0.set_stalled();
        clients[7].0.set_stalled();
        clients[7].0.set_flowing();
        let newcomer = Phase::default();
        assert!(crowd.makes_room());
        let gone = clients.remove(3).1.await;
        assert!(gone.is_err_and(|error| error.is_cancelled()));
        let task = tokio::spawn(pending::<()>());
        crowd.enter(newcomer, task.abort_handle());
        tokio::time::sleep(WELCOME).await;
        clients[0].0.set_stalled();
        assert!(crowd.makes_room());
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
        assert!(clients.iter().all(|(_, task)| !task.is_finished()));
    }

    #[tokio::test]
    async fn a_place_is_free_when_its_client_is_done() {
        let mut crowd = Crowd::default();
        let mut clients = full(&mut crowd).await;
        for (phase, _) in &clients {
            phase.set_answering();
        }
        let (_, done) = clients.remove(5);
        done.abort();
        let _ = done.await;
        assert!(crowd.makes_room());
    }
}
