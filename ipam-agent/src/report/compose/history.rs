//! What the journal has, as a document.

use crate::{
    journal::{EffectResult, Entry},
    report::document::{HardwareAddress, HistoryEntry, HolderName, ReleaseResult},
};

/// One release.
pub fn history_entry(entry: Entry) -> HistoryEntry {
    let intent = entry.intent;
    let mac = intent.holder.mac.and_then(|mac| mac.parse().ok());
    let (result, detail) = match entry.effect {
        None => (ReleaseResult::Unknown, None),
        Some(effect) => {
            let result = match effect.result {
                EffectResult::Released => ReleaseResult::Released,
                EffectResult::Kept => ReleaseResult::Kept,
                EffectResult::Failed => ReleaseResult::Failed,
            };
            (result, effect.detail)
        }
    };
    HistoryEntry {
        id: entry.id,
        at: entry.at,
        boot_id: entry.boot_id,
        asker: intent.asker,
        store: intent.store,
        address: intent.address,
        holder: HolderName {
            container_id: intent.holder.container_id,
            interface: intent.holder.interface,
            pod: intent.holder.pod,
            mac: mac.map(HardwareAddress),
            host_interface: None,
        },
        damage: intent.damage,
        reason: intent.reason,
        result,
        detail,
    }
}
