//! What the journal has, as a document.

use jiff::{SignedDuration, Timestamp as WallTime};

use crate::{
    journal::{
        self, CacheEffect, CacheIntent, CacheResult, EffectResult, Entry, FenceEffect, FenceIntent,
        FenceResult, HolderRecord, PutBack, Step, When,
    },
    report::document::{
        CacheEntry, CacheOutcome, FenceChange, FenceEntry, FenceOutcome, HardwareAddress, History,
        HistoryEntry, HistorySchema, HolderName, ProofRecord, ReleaseResult, TakenRecord,
        UndoRecord,
    },
};

/// What the journal tells, in full.
pub fn history(journal: journal::History, generated_at: WallTime, host: String) -> History {
    History {
        schema: HistorySchema::V1,
        generated_at,
        host,
        damaged_lines: journal.damaged,
        entries: journal.entries.into_iter().map(history_entry).collect(),
        fences: journal.fences.into_iter().map(fence).collect(),
        caches: journal.caches.into_iter().map(cache).collect(),
    }
}

fn fence(step: Step<FenceIntent, FenceEffect>) -> FenceEntry {
    let (finished, effect) = step.effect.unzip();
    let squatter = step.intent.squatter.as_ref();
    FenceEntry {
        id: step.id,
        at: step.when.at,
        boot_id: step.boot_id,
        change: match step.intent.raise {
            true => FenceChange::Raised,
            false => FenceChange::Lowered,
        },
        store: step.intent.store,
        address: step.intent.address,
        squatter: squatter
            .and_then(|mac| mac.parse().ok())
            .map(HardwareAddress),
        reason: step.intent.reason,
        result: match effect.as_ref().map(|effect| effect.result) {
            Some(FenceResult::Done) => FenceOutcome::Done,
            Some(FenceResult::Failed) => FenceOutcome::Failed,
            None => FenceOutcome::Unknown,
        },
        finished_at: finished.map(|when| when.at),
        detail: effect.and_then(|effect| effect.detail),
    }
}

fn cache(step: Step<CacheIntent, CacheEffect>) -> CacheEntry {
    let (finished, effect) = step.effect.unzip();
    let intent = step.intent;
    CacheEntry {
        id: step.id,
        at: step.when.at,
        boot_id: step.boot_id,
        path: intent.path,
        container_id: intent.container_id,
        damage: intent.damage,
        record: intent.generation,
        unchanged_seconds: intent.unchanged_for,
        sources: intent.sources,
        reason: intent.reason,
        result: match effect.as_ref().map(|effect| effect.result) {
            Some(CacheResult::Removed) => CacheOutcome::Removed,
            Some(CacheResult::Kept) => CacheOutcome::Kept,
            Some(CacheResult::Failed) => CacheOutcome::Failed,
            None => CacheOutcome::Unknown,
        },
        finished_at: finished.map(|when| when.at),
        detail: effect.and_then(|effect| effect.detail),
    }
}

/// One release.
pub fn history_entry(entry: Entry) -> HistoryEntry {
    let intent = entry.intent;
    let (result, finished_at, detail) = match entry.effect {
        None => (ReleaseResult::Unknown, None, None),
        Some((when, effect)) => {
            let result = match effect.result {
                EffectResult::Released => ReleaseResult::Released,
                EffectResult::Kept => ReleaseResult::Kept,
                EffectResult::Failed => ReleaseResult::Failed,
            };
            (result, Some(when.at), effect.detail)
        }
    };
    let evidence = intent.evidence;
    HistoryEntry {
        id: entry.id,
        at: entry.when.at,
        boot_id: entry.boot_id,
        asker: intent.asker,
        by: intent.by,
        store: intent.store,
        address: intent.address,
        holder: holder_of(&intent.holder),
        damage: intent.damage,
        record: intent.generation,
        reason: intent.reason,
        evidence: ProofRecord {
            watched_since: wall_time(entry.when, evidence.coverage.since),
            gate_seconds: evidence.coverage.window,
            quiet_seconds: evidence.quiet_for,
            unchanged_seconds: evidence.unchanged_for,
            earlier_boot: evidence.earlier_boot,
            sources: evidence.sources,
            passes: evidence.passes,
            unanswered_probes: evidence.unanswered.map(|unanswered| unanswered.sent),
        },
        result,
        finished_at,
        detail,
        undo: entry.put_back.map(undo),
        taken: entry.taken.map(|(when, taken)| TakenRecord {
            at: when.at,
            holder: holder_of(&taken.holder),
        }),
    }
}

fn undo(put_back: PutBack) -> UndoRecord {
    let (asked, undo) = put_back.undo.unzip();
    let (finished, undone) = put_back.undone.unzip();
    UndoRecord {
        at: asked.map(|when| when.at),
        asker: undo.as_ref().map(|undo| undo.asker),
        by: undo.as_ref().and_then(|undo| undo.by.clone()),
        reason: undo.map(|undo| undo.reason),
        result: undone.as_ref().map(|undone| undone.result),
        finished_at: finished.map(|when| when.at),
        detail: undone.and_then(|undone| undone.detail),
    }
}

/// To whom an address was given, as the journal has it.
pub fn holder_of(holder: &HolderRecord) -> HolderName {
    let mac = holder.mac.as_ref().and_then(|mac| mac.parse().ok());
    HolderName {
        container_id: holder.container_id.clone(),
        interface: holder.interface.clone(),
        pod: holder.pod.clone(),
        mac: mac.map(HardwareAddress),
        host_interface: None,
    }
}

/// The wall time of an uptime of the same boot, by the clock as it was set then.
fn wall_time(when: When, uptime: u64) -> WallTime {
    let nanoseconds = |uptime| i64::try_from(uptime).unwrap_or(i64::MAX);
    let apart = nanoseconds(uptime).saturating_sub(nanoseconds(when.uptime));
    let apart = SignedDuration::from_nanos(apart);
    when.at.saturating_add(apart).unwrap_or(when.at)
}
