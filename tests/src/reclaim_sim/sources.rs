//! What the sources of holders said to a pass, and what it comes to.

use std::collections::{BTreeMap, BTreeSet};

use ipam_agent::engine::{
    evidence::SourceReport,
    holders::{RuntimeReport, Sandbox, SocketAnswer},
};
use ipam_common::Address;

/// What the sources of holders said.
#[derive(Clone)]
pub struct Answers {
    /// The container runtime, if it is asked.
    pub runtime: Option<RuntimeReport>,
    /// The others.
    pub sources: Vec<SourceReport>,
}

impl Answers {
    /// The runtime's list, if it gave one.
    pub fn sandboxes(&self) -> Option<&[Sandbox]> {
        let (_, answer) = self.runtime.as_ref()?.sockets.first()?;
        match answer {
            SocketAnswer::Sandboxes(sandboxes) => Some(sandboxes),
            SocketAnswer::Absent | SocketAnswer::Failed(_) => None,
        }
    }
}

/// What the sources named, where all of them can be believed.
pub struct Listed {
    ids: BTreeSet<String>,
    addresses: BTreeSet<Address>,
}

impl Listed {
    /// What these answers name; `None` where one is none, or they contradict each other.
    pub fn of(answers: &Answers) -> Option<Self> {
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for report in &answers.sources {
            let held = report.answer.as_ref().ok()?;
            addresses.extend(held.iter().map(|held| held.address));
        }
        let mut known: Vec<Address> = Vec::new();
        if answers.runtime.is_some() {
            let sandboxes = answers.sandboxes()?;
            // Where an id is there twice, the last counts.
            let by_id: BTreeMap<_, _> = sandboxes.iter().map(|one| (&one.id, one)).collect();
            for sandbox in by_id.into_values() {
                let unshown = |address| !addresses.contains(address);
                if sandbox.ready && !sandbox.guest && sandbox.addresses.iter().any(unshown) {
                    return None;
                }
                ids.insert(sandbox.id.to_string());
                known.extend(&sandbox.addresses);
            }
        }
        addresses.extend(known);
        Some(Self { ids, addresses })
    }

    /// Whether a lease is nobody's by this.
    pub fn frees(&self, id: Option<&str>, address: Address) -> bool {
        !self.addresses.contains(&address) && !id.is_some_and(|id| self.ids.contains(id))
    }
}
