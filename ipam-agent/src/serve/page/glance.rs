//! One look at the daemon's state, shared by all who look at the page.

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use jiff::Timestamp;
use tokio::{sync::Mutex, task::spawn_blocking, time::Instant};

use super::{PageError, html, tag};
use crate::{
    report::document::{History, Pools, Report},
    serve::{
        query::Query,
        router::{PATIENCE, Queries, answer},
    },
};

/// How long a look is good for, at least.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// And at least so many times as long as it took: whoever looks leaves the daemon its time.
const SHARE: u32 = 20;
/// But no longer than this.
const STALE: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Debug)]
pub(super) struct Glance {
    /// How full the pools are.
    pub pools: Pools,
    /// The page.
    pub html: Bytes,
    /// What tells it from another, whenever it was made.
    pub tag: String,
}

/// The last look, if it is still good.
#[derive(Debug)]
pub(super) struct Glances {
    queries: Queries,
    since: Timestamp,
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    good_until: Instant,
    seen: Result<Arc<Glance>, PageError>,
}

impl Glances {
    pub fn new(queries: Queries, since: Timestamp) -> Self {
        Self {
            queries,
            since,
            last: Mutex::new(None),
        }
    }

    pub fn queries(&self) -> &Queries {
        &self.queries
    }

    /// What is seen now, or was a moment ago. Of many who ask at once one looks, and the
    /// others wait for what it sees.
    pub async fn latest(&self) -> Result<Arc<Glance>, PageError> {
        let mut last = self.last.lock().await;
        let began = Instant::now();
        if let Some(last) = last.as_ref()
            && began < last.good_until
        {
            return last.seen.clone();
        }
        let seen = self.look().await.map(Arc::new);
        let good_for = (began.elapsed() * SHARE).clamp(GOOD_FOR, STALE);
        *last = Some(Last {
            good_until: Instant::now() + good_for,
            seen: seen.clone(),
        });
        seen
    }

    async fn look(&self) -> Result<Glance, PageError> {
        let overview = answer(&self.queries, PATIENCE, Query::Overview).await?;
        let history = answer(&self.queries, PATIENCE, Query::History).await?;
        let since = self.since;
        // Milliseconds for 100,000 leases: not on the thread that watches the wire.
        let written = spawn_blocking(move || {
            let pools = overview.charts.pools();
            Glance::of(&overview.report, pools, &history, since)
        });
        written.await.map_err(|_| PageError::Stopping)
    }
}

impl Glance {
    pub fn of(
        report: &Report,
        pools: Pools,
        history: &Result<History, String>,
        since: Timestamp,
    ) -> Self {
        let main = html::overview(report, &pools, history.as_ref(), since);
        let tag = tag(&main.0);
        let page = html::overview_page(report, main);
        Self {
            html: Bytes::from(page.into_string()),
            pools,
            tag,
        }
    }
}
