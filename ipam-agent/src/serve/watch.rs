//! Telling clients what happens, as it happens. Whoever is too slow is told how much it
//! missed, and holds up nobody.

use std::{sync::Arc, vec};

use jiff::Timestamp;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::report::document::{Happening, WatchLine, WatchSchema};

/// How many clients may watch at once: fewer than are served, so that questions are too.
pub const WATCHERS: usize = 8;
/// How many lines a client may be behind.
pub const BACKLOG: usize = 1024;

/// Those who watch. When it goes, they are told that the daemon stops.
#[derive(Debug)]
pub struct Watchers {
    news: broadcast::Sender<Arc<WatchLine>>,
    host: String,
    clock: fn() -> Timestamp,
}

impl Watchers {
    /// Nobody yet.
    pub fn new(host: &str, clock: fn() -> Timestamp) -> Self {
        Self {
            news: broadcast::Sender::new(BACKLOG),
            host: host.to_owned(),
            clock,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.news.receiver_count()
    }

    /// Tells a line to all, if there is anybody. Never waits.
    pub fn tell(&self, line: impl FnOnce() -> WatchLine) {
        if self.news.receiver_count() > 0 {
            // All may have gone this moment.
            let _ = self.news.send(Arc::new(line()));
        }
    }

    /// One more, who is told `first` and then what happens; `None` if there are enough.
    pub fn join(&self, first: impl FnOnce() -> Vec<WatchLine>) -> Option<Watching> {
        (self.news.receiver_count() < WATCHERS).then(|| Watching {
            first: first().into_iter(),
            news: Some(self.news.subscribe()),
            host: self.host.clone(),
            clock: self.clock,
        })
    }
}

/// What one client is told.
#[derive(Debug)]
pub struct Watching {
    first: vec::IntoIter<WatchLine>,
    news: Option<broadcast::Receiver<Arc<WatchLine>>>,
    host: String,
    clock: fn() -> Timestamp,
}

impl Watching {
    /// The next line; `None` after the last.
    pub async fn next(&mut self) -> Option<Arc<WatchLine>> {
        if let Some(line) = self.first.next() {
            return Some(Arc::new(line));
        }
        match self.news.as_mut()?.recv().await {
            Ok(line) => Some(line),
            Err(RecvError::Lagged(missed)) => Some(self.line(Happening::Missed, Some(missed))),
            Err(RecvError::Closed) => {
                self.news = None;
                Some(self.line(Happening::Stopping, None))
            }
        }
    }

    fn line(&self, what: Happening, missed: Option<u64>) -> Arc<WatchLine> {
        Arc::new(WatchLine {
            schema: WatchSchema::V1,
            at: (self.clock)(),
            host: self.host.clone(),
            what,
            conflict: None,
            release: None,
            event: None,
            missed,
        })
    }
}
