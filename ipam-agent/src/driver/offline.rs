//! What the sources of leases say by themselves: no daemon, no wire, so no judgement.

use ipam_common::Address;

use super::{clock, host_name, settings, stores::Stores};
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

/// Every lease of the configured sources.
pub fn leases(config: &Config) -> Leases {
    let engine = read(config);
    let mut leases = composer(&engine, &host_name()).leases();
    leases.blind.insert(0, NOT_JUDGED.to_owned());
    for record in &mut leases.leases {
        record.reason = "without a daemon nobody watches".to_owned();
    }
    leases
}

/// The leases of one address in the configured sources.
pub fn explain(config: &Config, address: Address) -> Explain {
    let engine = read(config);
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
    explain
}

fn read(config: &Config) -> Engine {
    let mut engine = Engine::new(settings(config, ""));
    for input in Stores::new(&config.stores).read().inputs {
        engine.handle(input, clock::now());
    }
    engine
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
