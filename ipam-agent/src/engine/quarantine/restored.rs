//! Leases that were put back, and what it takes until one may go again.
//!
//! Silence had been taken for proof, and was none: it was broken. From then on silence proves
//! something only once it has lasted [`TIMES`] as long as the longest that the address has
//! broken, watched without a gap, with everything else that a release needs. So a pod that never was
//! more than set up leaves no lease for ever, whoever speaks once in an hour isn't
//! taken for gone twice, and each time it takes longer.

use std::{sync::Arc, time::Duration};

use ipam_common::Address;

use super::{Key, QUARANTINE, Quarantine, Returned};
use crate::engine::{
    Engine,
    input::Command,
    lease::{Generation, Lease},
};

/// So many times as long as what was broken: who was watched from the middle of a pause on
/// was silent for longer than is known.
const TIMES: u32 = 4;

/// A lease that was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The journal's id of its release.
    pub id: Arc<str>,
    /// The record's bytes.
    pub(super) content: Box<[u8]>,
    /// A person wanted it back: unasked it stays.
    pub wanted: bool,
    /// The longest silence that the address has broken.
    pub silence: Duration,
    /// The record as it was put back, and the earlier boot that it is of.
    pub(super) origin: Option<(Generation, Arc<str>)>,
}

impl Restored {
    /// For how long its address must be silent to be taken for nobody's, if that is longer
    /// than for any other: a day at most, as released ones are watched. `None`: it broke no
    /// silence.
    pub fn enough(&self) -> Option<Duration> {
        let enough = self.silence.saturating_mul(TIMES).min(QUARANTINE);
        (!enough.is_zero()).then_some(enough)
    }
}

impl Quarantine {
    /// What is known of this lease, if it was put back.
    pub fn restored(&self, lease: &Lease) -> Option<&Restored> {
        let key = (lease.address, lease.store.clone());
        let restored = self.restored.get(&key)?;
        // Damaged since, it says no more whose it is: it may be this one.
        let same = lease.damage.is_some() || restored.content == lease.generation().content;
        same.then_some(restored)
    }

    /// A lease was put back, perhaps not for the first time.
    pub(super) fn restore(&mut self, key: Key, mut restored: Restored) {
        if let Some(before) = self.restored.get(&key) {
            restored.silence = restored.silence.max(before.silence);
            restored.wanted |= before.wanted;
        }
        self.restored.insert(key, restored);
    }
}

impl Engine {
    /// An earlier run put it back, which recorded of which boot it is.
    pub(super) fn returned(&mut self, returned: Returned) {
        let Returned { id, lease, silence } = returned;
        let restored = Restored {
            id,
            content: lease.generation().content,
            wanted: silence.is_none(),
            silence: silence.unwrap_or_default(),
            origin: None,
        };
        self.quarantine
            .restore((lease.address, lease.store), restored);
    }

    /// What was put back is of the boot that it was of before.
    pub(in crate::engine) fn keep_origins(&mut self, addresses: impl IntoIterator<Item = Address>) {
        if self.quarantine.restored.is_empty() {
            return;
        }
        let mut kept = Vec::new();
        for address in addresses {
            for ((_, store), restored) in self.quarantine.restored_of(address) {
                if let Some((generation, boot)) = &restored.origin
                    && self.leases.keep_origin(store, address, generation, boot)
                {
                    kept.push((store.clone(), address));
                }
            }
        }
        if !kept.is_empty() {
            self.commands.push_back(Command::Remember {
                leases: kept,
                forget: Vec::new(),
            });
        }
    }
}
