//! The evidence of a pass, gathered off the event loop.

use crate::{
    config::{Cri, Holders},
    engine::evidence::{Source, SourceReport},
    error::in_full,
    holder::namespaces,
};

/// What every configured source of holders says now. Blocks, a few seconds at most.
pub fn holders(holders: &Holders) -> Vec<SourceReport> {
    let mut reports = Vec::new();
    if holders.cri != Cri::Off {
        reports.push(SourceReport {
            source: Source::Cri,
            answer: Err(String::from(
                "this version can't ask the container runtime: where the addresses behind \
                 every veth are proof enough, set holders.cri: off",
            )),
        });
    }
    if holders.netns {
        reports.push(behind_ports());
    }
    reports
}

/// The addresses configured behind every host veth.
pub fn behind_ports() -> SourceReport {
    SourceReport {
        source: Source::Namespaces,
        answer: namespaces::addresses_behind_veths().map_err(|error| in_full(&error)),
    }
}
