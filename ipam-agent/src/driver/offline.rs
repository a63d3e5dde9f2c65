//! What the sources of leases say by themselves: no daemon, no wire, so no judgement.

use std::path::PathBuf;

use ipam_common::Address;

use super::{
    clock, host_name, settings,
    stores::{self, Stores},
};
use crate::{
    config::Config,
    engine::Engine,
    report::{
        compose::Composer,
        document::{Explain, Leases},
    },
};

/// Why every lease's state is unknown here.
const NOT_JUDGED: &str = "read from the stores themselves: without the daemon nobody watches, so \
                          no lease is judged";

/// A source that somebody named has no leases to tell of.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// It is there, and can't be read.
    #[error("{0}")]
    Unread(String),
    /// host-local's directory isn't there; where nobody named it, that is a host without pods.
    #[error("there is no {}: name host-local's directory, host-local:DIR", .0.display())]
    NoDirectory(PathBuf),
}

/// Every lease of the configured sources.
///
/// # Errors
/// One of them isn't there or can't be read.
pub fn leases(config: &Config) -> Result<Leases, OfflineError> {
    let engine = read(config)?;
    let mut leases = composer(&engine, &host_name()).leases();
    leases.blind.insert(0, NOT_JUDGED.to_owned());
    for record in &mut leases.leases {
        record.reason = "without a daemon nobody watches".to_owned();
    }
    Ok(leases)
}

/// The leases of one address in the configured sources.
///
/// # Errors
/// As [`leases`].
pub fn explain(config: &Config, address: Address) -> Result<Explain, OfflineError> {
    let engine = read(config)?;
    let mut explain = composer(&engine, &host_name()).explain(address);
    explain.verdict = match explain.leases.as_slice() {
        [] => format!("no store that was read leased {address}"),
        leases => {
            let stores: Vec<&str> = leases.iter().map(|l| l.lease.store.as_str()).collect();
            format!(
                "{address} is leased by {}; {NOT_JUDGED}",
                stores.join(" and ")
            )
        }
    };
    Ok(explain)
}

fn read(config: &Config) -> Result<Engine, OfflineError> {
    if let Some(directory) = stores::missing(&config.stores) {
        return Err(OfflineError::NoDirectory(directory.to_owned()));
    }
    let mut engine = Engine::new(settings(config, ""));
    let readings = Stores::new(&config.stores).read();
    if let Some((_, why)) = readings.failures().next() {
        return Err(OfflineError::Unread(why));
    }
    for input in readings.inputs {
        engine.handle(input, clock::now());
    }
    Ok(engine)
}

fn composer<'a>(engine: &'a Engine, host: &'a str) -> Composer<'a> {
    Composer {
        engine,
        clock: clock::wall(),
        now: clock::now(),
        host,
        boot: None,
        blind: &[],
    }
}
