//! What the daemon is told by signals.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::DriverError;

/// What it is to do.
pub(super) enum Told {
    /// Read the configuration again.
    Reload,
    /// End.
    End(End),
}

/// How it ends.
pub(super) enum End {
    /// For good: nothing of ours is left on any interface.
    Stop,
    /// For the agent that comes next: what is pinned goes on.
    HandOver,
}

/// The signals that mean something. What comes before anybody asks is kept: a start that is
/// told to stop half-way ends as any other run does, and leaves no more behind.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hand_over: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(super) fn listen() -> Result<Self, DriverError> {
        let on = |kind| signal(kind).map_err(DriverError::Signals);
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hand_over: on(SignalKind::user_defined2())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// The next one; none is lost where this is not waited for to its end.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End(End::Stop),
            _ = self.interrupt.recv() => Told::End(End::Stop),
            _ = self.hand_over.recv() => Told::End(End::HandOver),
            _ = self.hang_up.recv() => Told::Reload,
        }
    }
}
