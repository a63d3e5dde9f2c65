//! The evidence of a pass, gathered off the event loop.

use crate::{
    config::Holders,
    engine::{
        evidence::{Source, SourceReport},
        holders::RuntimeReport,
    },
    error::in_full,
    holder::{cri, namespaces},
};

/// What every configured source of holders says now.
#[derive(Debug)]
pub struct Gathered {
    /// Of the addresses that are held.
    pub sources: Vec<SourceReport>,
    /// Of the container runtimes.
    pub runtimes: Option<RuntimeReport>,
}

/// Asks every configured source. Blocks, a few seconds at most.
pub fn holders(holders: &Holders) -> Gathered {
    // Runtimes first: what they list as READY is configured by then.
    let runtimes = cri::report(&holders.cri, cri::PATIENCE);
    let sources = holders.netns.then(behind_ports).into_iter().collect();
    Gathered { sources, runtimes }
}

/// The addresses configured behind every host veth.
pub fn behind_ports() -> SourceReport {
    SourceReport {
        source: Source::Namespaces,
        answer: namespaces::addresses_behind_veths().map_err(|error| in_full(&error)),
    }
}
