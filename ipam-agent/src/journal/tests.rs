//! What is written is read back, whatever happens to a line.

use std::{fs, os::unix::fs::PermissionsExt};

use ipam_common::Address;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    engine::lease::{Damage, Generation, Holder, Lease, StoreName},
    full_disk,
};

fn when() -> When {
    When {
        at: "2026-11-01T10:00:00Z".parse().expect("a time"),
        uptime: 1_000_000_007,
    }
}

fn owned<'a>(
    releases: impl IntoIterator<Item = &'a Release>,
) -> impl Iterator<Item = (&'a Release, Option<FileOwner>)> {
    let owner = FileOwner {
        mode: 0o600,
        uid: 0,
        gid: 0,
        directory: Some("/var/lib/cni/networks/net".to_owned()),
    };
    releases
        .into_iter()
        .map(move |release| (release, Some(owner.clone())))
}

fn release(last: u8, content: &[u8]) -> Release {
    let holder = Holder {
        pod: Some("ns/name".into()),
        ..Holder::default()
    };
    let generation = Generation {
        inode: 7,
        modified: 5,
        content: content.into(),
    };
    Release::for_test(Lease::new(
        StoreName("host-local:net".into()),
        Address::v4([10, 0, 0, last]).expect("claimable"),
        &holder,
        &generation,
        content.is_empty().then_some(Damage::Empty),
    ))
}

fn released() -> Effect {
    Effect {
        result: EffectResult::Released,
        detail: None,
    }
}

fn journal() -> (TempDir, Journal) {
    let base = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(base.path(), "boot-1").expect("open");
    (base, journal)
}

fn intend(journal: &mut Journal, release: &Release) -> String {
    let ids = journal.append_intents(when(), Asker::Person, Some("ada"), owned([release]));
    ids.expect("written").remove(0)
}

#[test]
fn a_record_reads_as_documented() {
    let (base, mut journal) = journal();
    let id = intend(&mut journal, &release(7, b"4bd7\r\neth0"));
    journal
        .append_effects(when(), [(id.clone(), released())])
        .expect("written");
    let text = fs::read_to_string(base.path().join(FILE)).expect("the journal");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        lines,
        [
            serde_json::json!({
                "schema": "ipam-agent/journal/v1", "id": "00000001", "at": "2026-11-01T10:00:00Z", "uptime": 1_000_000_007, "boot_id": "boot-1",
                "phase": "intent", "asker": "person", "by": "ada", "store": "host-local:net", "address": "10.0.0.7",
                "holder": { "pod": "ns/name" },
                "generation": { "inode": 7, "modified": 5, "content": "4bd7\r\neth0", "file": { "mode": 0o600, "uid": 0, "gid": 0, "directory": "/var/lib/cni/networks/net" } },
                "reason": "10.0.0.7, leased to ns/name, was not heard for 16 min while its wire was watched without a gap, 6 probes out of 2 ports were not answered, no holder is known to namespaces, and 2 passes agree",
                "evidence": { "quiet_for": 960, "unchanged_for": 1000, "coverage": { "since": 0, "window": 900 }, "sources": ["namespaces"], "passes": 2,
                              "unanswered": { "sent": 6, "ports": 2 } },
            }),
            serde_json::json!({
                "schema": "ipam-agent/journal/v1", "id": "00000001", "at": "2026-11-01T10:00:00Z", "uptime": 1_000_000_007, "boot_id": "boot-1",
                "phase": "effect", "result": "released",
            }),
        ]
    );
    let mode = fs::metadata(base.path().join(FILE))
        .expect("metadata")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_written_after_somebody_cut_the_journal_off_is_whole() {
    for (cut, lines) in [(10, 1), (0, 2), (u64::MAX, 0)] {
        let (base, mut journal) = journal();
        let path = base.path().join(FILE);
        let first = intend(&mut journal, &release(1, b"a"));
        journal
            .append_effects(when(), [(first.clone(), released())])
            .expect("written");
        let file = File::options().write(true).open(&path).expect("open");
        let length = file.metadata().expect("metadata").len();
        file.set_len(length.saturating_sub(cut)).expect("cut off");
        let id = intend(&mut journal, &release(2, b"b"));
        assert_ne!(id, first);
        journal
            .append_effects(when(), [(id.clone(), released())])
            .expect("written");
        let told = history(base.path(), 10).expect("readable");
        let done = told.entries.iter().find(|entry| entry.id == id);
        assert!(done.is_some_and(Entry::is_released), "cut {cut}: {told:?}");
        let text = fs::read_to_string(&path).expect("the journal");
        let whole = text
            .lines()
            .filter(|line| serde_json::from_str::<Record>(line).is_ok());
        assert_eq!(whole.count(), lines + 2, "cut {cut}: {text}");
        let journal = Journal::open(base.path(), "boot-1").expect("open");
        let watched = journal.of_this_boot(10, |entry| entry.id == id);
        assert_eq!(watched.expect("readable").len(), 1);
    }
}

#[test]
fn an_intent_without_an_effect_is_found_at_the_next_start() {
    let (base, mut journal) = journal();
    let releases = [release(1, b"a"), release(2, b""), release(3, &[0xff, 0])];
    let ids = journal
        .append_intents(when(), Asker::Daemon, None, owned(&releases))
        .expect("written");
    journal
        .append_effects(when(), [(ids[0].clone(), released())])
        .expect("written");
    drop(journal);

    let mut journal = Journal::open(base.path(), "boot-2").expect("open");
    let unfinished = journal.unfinished().expect("read");
    assert_eq!(unfinished.len(), 2);
    for (entry, (id, release)) in unfinished.iter().zip(ids.iter().zip(&releases).skip(1)) {
        assert_eq!(entry.id, *id);
        assert_eq!(entry.intent.lease().as_ref(), Some(release.lease()));
    }
    let next = intend(&mut journal, &release(4, b"d"));
    assert!(next > ids[2], "{next}");
}

#[test]
fn a_line_cut_off_by_a_power_cut_spoils_no_other() {
    let (base, mut journal) = journal();
    let first = intend(&mut journal, &release(1, b"a"));
    let second = intend(&mut journal, &release(2, b"b"));
    drop(journal);
    let path = base.path().join(FILE);
    let text = fs::read(&path).expect("the journal");
    fs::write(&path, &text[..text.len() - 20]).expect("cut off");

    let mut journal = Journal::open(base.path(), "boot-2").expect("open");
    let third = intend(&mut journal, &release(3, b"c"));
    assert!(third > first && third >= second);
    journal
        .append_effects(when(), [(third.clone(), released())])
        .expect("written");
    let history = history(base.path(), 10).expect("read");
    assert_eq!((history.damaged, history.first_damaged), (1, Some(2)));
    let told: Vec<(&str, bool)> = history
        .entries
        .iter()
        .map(|entry| (&*entry.id, entry.effect.is_some()))
        .collect();
    assert_eq!(told, [(&*third, true), (&*first, false)]);
}

#[test]
fn the_history_of_an_address_is_its_own() {
    let (base, mut journal) = journal();
    let first = intend(&mut journal, &release(1, b"a"));
    intend(&mut journal, &release(2, b"b"));
    let third = intend(&mut journal, &release(1, b"c"));
    journal
        .append_effects(when(), [(first.clone(), released())])
        .expect("written");
    let address = release(1, b"").lease().address.ip();
    let of = |limit| {
        history_of(base.path(), address, limit)
            .expect("read")
            .entries
    };
    let told: Vec<(String, bool)> = { of(10).into_iter() }
        .map(|entry| (entry.id, entry.effect.is_some()))
        .collect();
    assert_eq!(told, [(third.clone(), false), (first, true)]);
    assert_eq!(of(1)[0].id, third);
}

#[test]
fn history_is_newest_first_and_no_longer_than_asked() {
    let (base, mut journal) = journal();
    let releases: Vec<Release> = (1..=100).map(|last| release(last, b"x")).collect();
    let ids = journal
        .append_intents(when(), Asker::Daemon, None, owned(&releases))
        .expect("written");
    for id in &ids {
        journal
            .append_effects(when(), [(id.clone(), released())])
            .expect("written");
    }
    let history = history(base.path(), 3).expect("read");
    let told: Vec<&str> = history.entries.iter().map(|entry| &*entry.id).collect();
    assert_eq!(told, ["00000100", "00000099", "00000098"]);
    assert!(
        history
            .entries
            .iter()
            .all(|entry| entry.effect == Some((when(), released())))
    );
    assert_eq!(super::history(base.path(), 0).expect("read").entries, []);
    assert_eq!(
        super::history(&base.path().join("none"), 3).expect("read"),
        History::default()
    );
}

#[test]
fn fences_are_told_apart_from_releases_and_as_many_as_asked() {
    let (base, mut journal) = journal();
    let fence = |last: u8| FenceIntent {
        raise: true,
        store: "host-local:net".to_owned(),
        address: [10, 0, 0, last].into(),
        squatter: Some("02:00:00:00:00:07".to_owned()),
        reason: "somebody uses it".to_owned(),
    };
    let ids = journal.append_fences(when(), (1..=3).map(fence));
    let ids = ids.expect("written");
    let released_id = intend(&mut journal, &release(4, b"d"));
    for id in &ids[..2] {
        let done = FenceEffect {
            result: FenceResult::Done,
            detail: None,
        };
        journal
            .append_fence_effect(when(), id, done)
            .expect("written");
    }
    // Of the first two the older is not asked for any more, and neither is its end.
    let told = history(base.path(), 2).expect("read");
    let fences: Vec<_> = { told.fences.iter() }
        .map(|step| (&step.id, step.intent.address, step.effect.is_some()))
        .collect();
    assert_eq!(
        fences,
        [
            (&ids[2], [10, 0, 0, 3].into(), false),
            (&ids[1], [10, 0, 0, 2].into(), true)
        ]
    );
    assert_eq!(told.entries.len(), 1);
    assert_eq!(told.entries[0].id, released_id);
    assert_eq!((told.caches.len(), told.damaged), (0, 0));
}

#[test]
fn on_a_full_disk_nothing_is_half_said() {
    full_disk::with_small_disk(256 << 10, |disk| {
        let directory = disk.join("state");
        let mut journal = Journal::open(&directory, "boot-1").expect("open");
        let first = intend(&mut journal, &release(1, b"a"));
        full_disk::fill(disk);
        let many: Vec<Release> = (1..=200).map(|last| release(last, b"x")).collect();
        let error = journal
            .append_intents(when(), Asker::Daemon, None, owned(&many))
            .expect_err("full");
        assert!(
            crate::error::in_full(&error).contains("No space left"),
            "{error:?}"
        );
        full_disk::free(disk);
        let second = intend(&mut journal, &release(2, b"b"));
        let history = history(&directory, 10).expect("read");
        assert_eq!(history.damaged, 0);
        let told: Vec<&str> = history.entries.iter().map(|entry| &*entry.id).collect();
        assert_eq!(told, [&*second, &*first]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_content_comes_back_as_it_was(content in proptest::collection::vec(any::<u8>(), 0..4097)) {
        let (base, mut journal) = journal();
        intend(&mut journal, &release(1, &content));
        let history = history(base.path(), 1).expect("read");
        let back = history.entries[0].intent.generation.generation().expect("readable");
        prop_assert_eq!(&*back.content, &*content);
    }

    /// Any damage: no abort, and what can be read was written.
    #[test]
    fn damage_never_invents_a_release(places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let (base, mut journal) = journal();
        for last in 1..=3 {
            intend(&mut journal, &release(last, b"x"));
        }
        let written = history(base.path(), 10).expect("read").entries.len() as u64;
        let path = base.path().join(FILE);
        let mut bytes = fs::read(&path).expect("the journal");
        for (place, byte) in places {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        fs::write(&path, bytes).expect("damaged");
        let mut journal = Journal::open(base.path(), "boot-2").expect("open");
        let damaged = history(base.path(), 10).expect("read");
        prop_assert!(damaged.entries.len() as u64 <= written);
        let id = intend(&mut journal, &release(9, b"y"));
        prop_assert_eq!(&history(base.path(), 1).expect("read").entries[0].id, &id);
    }
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let (base, mut journal) = journal();
    let holder = Holder {
        pod: Some("p".repeat(40_000).into()),
        ..Holder::default()
    };
    let lease = release(7, b"id\r\neth0").lease().clone();
    let generation = lease.generation();
    let long = Lease::new(lease.store, lease.address, &holder, &generation, None);
    let long = Release::for_test(long);
    let refused = journal.append_intents(when(), Asker::Daemon, None, owned([&long]));
    let error = crate::error::in_full(&refused.expect_err("too long"));
    assert!(error.contains("could not be read back"), "{error}");

    let id = intend(&mut journal, &release(8, b"id\r\neth0"));
    let told = history(base.path(), 10).expect("readable");
    assert_eq!((told.entries.len(), told.damaged), (1, 0));
    assert_eq!(told.entries[0].id, id);
}

#[test]
fn a_number_that_no_agent_wrote_is_damage_and_keeps_none_from_starting() {
    for number in [u64::MAX, u64::MAX - 1, read::LAST_NUMBER + 1] {
        let (base, mut journal) = journal();
        intend(&mut journal, &release(7, b"a"));
        let path = base.path().join(FILE);
        let text = fs::read_to_string(&path).expect("the journal");
        fs::write(&path, text.replace("00000001", &number.to_string())).expect("damaged");

        let mut journal = Journal::open(base.path(), "boot-1").expect("open");
        let id = intend(&mut journal, &release(8, b"b"));
        let told = history(base.path(), 10).expect("readable");
        assert_eq!((told.entries.len(), told.damaged), (1, 1));
        assert_eq!(told.entries[0].id, id);
    }
}

#[test]
fn a_journal_that_was_taken_away_takes_no_intent() {
    let state = TempDir::new().expect("a directory");
    let mut journal = Journal::open(state.path(), "boot").expect("opened");
    let release = release(7, b"id\r\neth0");
    let intent = |journal: &mut Journal| {
        journal.append_intents(when(), Asker::Daemon, None, owned([&release]))
    };
    intent(&mut journal).expect("written");
    let file = state.path().join(FILE);
    fs::rename(&file, state.path().join("journal.1")).expect("rotated");
    let gone = intent(&mut journal).expect_err("it is gone");
    assert!(crate::error::in_full(&gone).contains("restart the agent"));
    fs::write(&file, "").expect("another");
    intent(&mut journal).expect_err("it is another");
    fs::remove_dir_all(state.path()).expect("removed");
    intent(&mut journal).expect_err("all is gone");

    let mut journal = Journal::open(state.path(), "boot").expect("made again");
    intent(&mut journal).expect("written");
}
