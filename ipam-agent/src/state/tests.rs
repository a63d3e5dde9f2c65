//! The memory across restarts, damage, a second process and a full disk.

use std::{fs, os::unix::fs::PermissionsExt};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::full_disk;

fn remembered(last: u8, content: &[u8]) -> Remembered {
    Remembered {
        store: StoreName("host-local:net".into()),
        address: Address::v4([10, 0, 0, last]).expect("claimable"),
        generation: Generation {
            inode: 7,
            modified: -5,
            content: content.into(),
        },
        boot_id: "0d7e7a6a-3c6d-4b5e-8f5e-2f6d3c1b0a99".into(),
        first_seen: Timestamp(1_000_000_007),
        at: "2026-11-01T10:00:00.123456789Z".parse().expect("a time"),
    }
}

fn key(lease: &Remembered) -> (StoreName, Address) {
    (lease.store.clone(), lease.address)
}

fn open(directory: &Path) -> State {
    let state = State::open(directory).expect("open");
    assert!(state.problem().is_none(), "{:?}", state.problem());
    state
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn nobody_else_may_look_into_the_state() {
    let base = tempfile::tempdir().expect("a directory");
    let database = |directory: &Path| directory.join(database::FILE);
    let chmod = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    };
    // As kubelet makes it, and as an older version left it.
    let own = base.path().join("own");
    fs::create_dir(&own).expect("made");
    chmod(&own, 0o755);
    drop(open(&own));
    assert_eq!((mode(&own), mode(&database(&own))), (0o700, 0o600));
    chmod(&own, 0o755);
    chmod(&database(&own), 0o644);
    drop(open(&own));
    assert_eq!((mode(&own), mode(&database(&own))), (0o700, 0o600));

    let shared = base.path().join("shared");
    fs::create_dir(&shared).expect("made");
    fs::write(shared.join("notes.txt"), "another's").expect("written");
    let sticky = base.path().join("sticky");
    fs::create_dir(&sticky).expect("made");
    for (directory, as_it_was) in [(shared, 0o755), (sticky, 0o1777)] {
        chmod(&directory, as_it_was);
        drop(open(&directory));
        assert_eq!(mode(&directory), as_it_was);
        assert_eq!(mode(&database(&directory)), 0o600);
        assert!(is_open_to_others(&directory));
    }
}

#[test]
fn what_is_remembered_is_there_after_a_restart_and_what_is_forgotten_is_not() {
    let base = tempfile::tempdir().expect("a directory");
    let directory = base.path().join("made/if/need/be");
    let (a, b, c) = (
        remembered(1, b"id\r\neth0"),
        remembered(2, b""),
        remembered(3, &[0, 255]),
    );
    let mut state = open(&directory);
    assert_eq!(state.load(), []);
    state
        .remember(&[a.clone(), b.clone(), c.clone()], &[])
        .expect("remembered");
    state.remember(&[], &[key(&b)]).expect("forgotten");
    drop(state);
    assert_eq!(
        fs::metadata(&directory)
            .expect("metadata")
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
    let mut state = open(&directory);
    assert_eq!(state.load(), [a.clone(), c.clone()]);
    assert_eq!(state.load(), []);
    // Both at once: the lease was granted anew.
    let anew = remembered(1, b"other\r\neth0");
    state
        .remember(std::slice::from_ref(&anew), &[key(&a)])
        .expect("remembered");
    drop(state);
    assert_eq!(open(&directory).load(), [anew, c]);
}

fn heard(path: &str, filled: bool) -> HeardSocket {
    let path = path.into();
    HeardSocket { path, filled }
}

#[test]
fn what_runtimes_were_heard_in_a_boot_is_known_until_the_next() {
    let base = tempfile::tempdir().expect("a directory");
    let mut state = open(base.path());
    assert_eq!(
        state.heard("now"),
        Some(vec![]),
        "no agent ran in this boot"
    );
    let both = vec![heard("/a", true), heard("/b", false)];
    state.remember_heard("now", both.clone()).expect("written");
    drop(state);
    let mut state = open(base.path());
    assert_eq!(state.heard("now"), Some(both));
    // A run that knew less takes nothing back.
    let less = vec![heard("/a", false), heard("/c", false)];
    state.remember_heard("now", less).expect("written");
    let known = vec![heard("/a", true), heard("/b", false), heard("/c", false)];
    assert_eq!(state.heard("now"), Some(known));
    assert_eq!(state.heard("next"), Some(vec![]));
    state
        .remember_heard("next", vec![heard("/b", true)])
        .expect("written");
    assert_eq!(state.heard("next"), Some(vec![heard("/b", true)]));
    assert_eq!(state.heard("now"), Some(vec![]), "no boot comes again");
}

#[test]
fn what_an_agent_heard_that_kept_no_record_of_it_is_not_known() {
    let base = tempfile::tempdir().expect("a directory");
    let lease = remembered(1, b"x");
    open(base.path())
        .remember(std::slice::from_ref(&lease), &[])
        .expect("remembered");
    let mut state = open(base.path());
    assert_eq!(state.heard(&lease.boot_id), None);
    assert_eq!(state.heard("next"), Some(vec![]));
    state
        .remember_heard(&lease.boot_id, vec![heard("/a", false)])
        .expect("written");
    assert_eq!(
        open_again(state, base.path()).heard(&lease.boot_id),
        Some(vec![heard("/a", false)])
    );
    let blocked = base.path().join("file");
    fs::write(&blocked, "").expect("a file");
    let state = State::open(&blocked.join("state")).expect("no reason to stop");
    assert_eq!(state.heard("now"), None, "it can't be read");
}

fn open_again(state: State, directory: &Path) -> State {
    drop(state);
    open(directory)
}

#[test]
fn a_second_process_is_told_who_has_it() {
    let base = tempfile::tempdir().expect("a directory");
    let state = open(base.path());
    let Err(error) = State::open(base.path()) else {
        panic!("opened twice");
    };
    let process = format!("(process {})", std::process::id());
    assert!(error.to_string().contains(&process), "{error}");
    drop(state);
    open(base.path());
}

#[test]
fn a_damaged_database_is_moved_aside_and_a_new_one_begun() {
    let base = tempfile::tempdir().expect("a directory");
    for n in 0..2 {
        fs::write(base.path().join(database::FILE), "not a database at all").expect("written");
        let mut state = open(base.path());
        assert_eq!(state.load(), []);
        let warnings = state.warnings();
        let aside = base.path().join(format!("state.redb.damaged-{n}"));
        assert!(
            warnings.len() == 1 && warnings[0].contains(&*aside.to_string_lossy()),
            "{warnings:?}"
        );
        assert!(state.warnings().is_empty(), "it was told");
        assert_eq!(state.heard("now"), None, "it may have been in there");
        assert_eq!(fs::read(aside).expect("kept"), b"not a database at all");
        state
            .remember(&[remembered(1, b"x")], &[])
            .expect("remembered");
        assert!(state.problem().is_none());
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_a_problem_until_it_can() {
    let base = tempfile::tempdir().expect("a directory");
    let blocked = base.path().join("file");
    fs::write(&blocked, "").expect("a file");
    let directory = blocked.join("state");
    let mut state = State::open(&directory).expect("no reason to stop");
    assert!(state.problem().is_some());
    state
        .remember(&[remembered(1, b"x")], &[])
        .expect("kept for later");
    assert!(state.problem().is_some());
    let runtimes = vec![heard("/a", true)];
    state
        .remember_heard("now", runtimes.clone())
        .expect("kept for later");
    state.retry().expect("kept for later");
    assert!(state.problem().is_some());
    fs::remove_file(&blocked).expect("removed");
    state.retry().expect("written now");
    assert!(state.problem().is_none());
    drop(state);
    let mut state = open(&directory);
    assert_eq!(state.load(), [remembered(1, b"x")]);
    assert_eq!(state.heard("now"), Some(runtimes));
}

#[test]
fn a_full_disk_is_a_problem_until_it_is_not() {
    full_disk::with_small_disk(1 << 20, |disk| {
        let directory = disk.join("state");
        let mut state = open(&directory);
        state
            .remember(&[remembered(1, b"before")], &[])
            .expect("remembered");
        assert!(state.problem().is_none());
        full_disk::fill(disk);
        let many: Vec<Remembered> = (2..=250)
            .map(|last| remembered(last, &[b'x'; 4096]))
            .collect();
        state.remember(&many[..200], &[]).expect("kept for later");
        assert!(state.problem().is_some());
        state.remember(&[], &[]).expect("kept for later");
        assert!(state.problem().is_some());
        full_disk::free(disk);
        state
            .remember(
                &[remembered(1, b"after")],
                &many.iter().map(key).collect::<Vec<_>>(),
            )
            .expect("written");
        assert!(state.problem().is_none(), "{:?}", state.problem());
        drop(state);
        assert_eq!(open(&directory).load(), [remembered(1, b"after")]);
    });
}

#[test]
fn what_a_full_disk_left_of_a_new_database_is_no_damaged_one() {
    full_disk::with_small_disk(1 << 20, |disk| {
        let directory = disk.join("state");
        make_directory(&directory).expect("a directory");
        full_disk::fill(disk);
        let mut state = State::open(&directory).expect("no reason to stop");
        for _ in 0..3 {
            assert!(state.problem().is_some());
            state.retry().expect("kept for later");
        }
        full_disk::free(disk);
        state
            .remember(&[remembered(1, b"x")], &[])
            .expect("written");
        assert!(state.problem().is_none(), "{:?}", state.problem());
        assert_eq!(state.warnings(), [""; 0]);
        drop(state);
        let files = fs::read_dir(&directory).expect("listed");
        let names = files.map(|file| file.expect("a file").file_name());
        let names: BTreeSet<_> = names.collect();
        assert_eq!(names, BTreeSet::from([LOCK.into(), database::FILE.into()]));
        assert_eq!(open(&directory).load(), [remembered(1, b"x")]);
    });
}

/// A database with some rows, as bytes.
fn database() -> (TempDir, Vec<Remembered>, Vec<u8>) {
    let base = tempfile::tempdir().expect("a directory");
    let rows: Vec<Remembered> = (1..=50)
        .map(|last| remembered(last, b"id\r\neth0"))
        .collect();
    open(base.path()).remember(&rows, &[]).expect("remembered");
    let bytes = fs::read(base.path().join(database::FILE)).expect("bytes");
    (base, rows, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a disk does to the database: no abort, no row that was never written.
    #[test]
    fn damage_makes_the_memory_shorter_and_never_false(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        early in any::<bool>(),
    ) {
        let (base, rows, mut bytes) = database();
        for (place, byte) in flips {
            // Most of the file is unused: damage the front of it, too.
            let end = if early { 8192.min(bytes.len()) } else { bytes.len() };
            bytes[place.index(end)] ^= byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(base.path().join(database::FILE), &bytes).expect("written");
        let mut state = State::open(base.path()).expect("no reason to stop");
        for row in state.load() {
            prop_assert!(rows.contains(&row));
        }
        state.remember(&[remembered(99, b"x")], &[]).expect("remembered");
        prop_assert!(state.problem().is_none(), "{:?}", state.problem());
    }
}

#[test]
fn claims_are_there_after_a_restart_and_gone_after_a_boot() {
    let base = tempfile::tempdir().expect("a directory");
    let claim = |last: u8, last_seen| {
        let key = SightingKey {
            ifindex: 7,
            outer_vlan: 3,
            vlan: 4,
            address: Address::v4([10, 0, 0, last]).expect("claimable").mapped(),
            mac: [2, 0, 0, 0, 0, last],
            probe: 0,
            reserved: 0,
        };
        let tally = Tally {
            first_seen: 1,
            last_seen,
            last_strong: 2,
            frames: 5,
            kinds: 9,
            ..Tally::default()
        };
        (key, tally)
    };
    for kept in [vec![claim(1, 30), claim(2, 20)], vec![claim(3, 10)]] {
        let mut state = open(base.path());
        state.keep_claims("boot", kept.clone()).expect("kept");
        drop(state);
        assert_eq!(open(base.path()).claims("boot"), kept);
        assert_eq!(open(base.path()).claims("another"), []);
    }
    // Of too many the latest.
    let many: Vec<_> = (0..MAX_CLAIMS as u64 + 10)
        .map(|number| {
            let (mut key, tally) = claim(1, number);
            key.ifindex = u32::try_from(number).expect("an index");
            (key, tally)
        })
        .collect();
    let mut state = open(base.path());
    state.keep_claims("boot", many).expect("kept");
    let kept = state.claims("boot");
    assert_eq!(kept.len(), MAX_CLAIMS);
    assert_eq!(
        kept.iter().map(|(_, tally)| tally.last_seen).min(),
        Some(10)
    );
}
