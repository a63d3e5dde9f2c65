//! One look at the live wire, without a daemon: what `run` does, for a while, and nothing
//! that writes.

use std::time::Duration;

use tokio::time::{Instant, interval, sleep_until};

use super::{
    DriverError,
    alone::{Alone, NotAlone},
    boot_id, clock, gather,
    observer::{Ears, Observer},
};
use crate::{
    config::Config,
    engine::input::{Command, Input},
    error::in_full,
    report::document::Report,
};

/// How often the engine's own time goes on.
const STEP: Duration = Duration::from_millis(100);

/// Watches for as long as is said, and reports.
///
/// # Errors
/// What it can't look without is missing.
pub async fn scan(config: &Config, length: Duration) -> Result<Report, DriverError> {
    // Beside a daemon it would cost the leases all that is proven of them.
    let _alone = match Alone::take() {
        Ok(alone) => Some(alone),
        Err(error @ NotAlone::Another(_)) => return Err(DriverError::Beside(error)),
        Err(NotAlone::Unknown(_)) => None,
    };
    let (mut observer, mut ears) = Observer::new(config, boot_id()?, None)?;
    let readings = observer.stores.read();
    observer.stores_read(readings);
    obey(&mut observer);
    let looked = look(&mut observer, &mut ears, length).await;
    observer.end();
    looked?;
    let mut blind = Vec::new();
    if observer.wanted().is_empty() {
        blind.push(format!(
            "no interface of this host fits {}: name yours with --interface, or in \
             interfaces.include",
            config.interfaces
        ));
    }
    Ok(observer.composer(&blind).report())
}

async fn look(
    observer: &mut Observer,
    ears: &mut Ears,
    length: Duration,
) -> Result<(), DriverError> {
    observer.begin(ears).await?;
    let end = Instant::now() + length;
    let mut step = interval(STEP);
    let mut seen = Vec::new();
    loop {
        obey(observer);
        observer.catch_up(ears).await?;
        tokio::select! {
            heard = ears.events.next(&mut seen) => {
                heard.map_err(DriverError::Events)?;
                observer.seen(&mut seen);
            }
            event = ears.links.next() => observer.link_event(event?),
            _ = step.tick() => {
                observer.retry();
                observer.engine.handle_timeout(clock::now());
            }
            () = sleep_until(end) => break,
        }
    }
    observer.count_lost();
    match observer.tables.sweep() {
        Ok(table) => observer.tell(Input::Snapshot(table)),
        Err(error) => tracing::warn!("{}", in_full(&error)),
    }
    obey(observer);
    Ok(())
}

fn obey(observer: &mut Observer) {
    while let Some(command) = observer.engine.next_command() {
        // A scan releases and remembers nothing.
        if let Some(Command::LookBehindPorts) = observer.obey(command) {
            let report = gather::behind_ports();
            observer.tell(Input::Held(report));
        }
    }
}
