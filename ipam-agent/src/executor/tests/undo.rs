//! Putting back what was released, with the journal beside.

use std::time::Duration;

use super::*;
use crate::{
    engine::{input::Input, lease::Generation, time::Timestamp},
    journal::Undo,
};

fn undo(asker: Asker) -> Undo {
    Undo {
        asker,
        by: None,
        reason: "it is in use".to_owned(),
    }
}

fn put_back(host: &Host, journal: &mut Journal, id: &str) -> Result<Entry, UndoError> {
    let undo = undo(Asker::Person);
    let back = super::super::put_back(id, undo, &host.stores, journal, &clock)?;
    let leases = host.leases().into_iter();
    let mut records = leases.map(|lease| Some(lease.generation()));
    assert!(records.any(|there| there == back.record), "{back:?}");
    Ok(back.entry)
}

/// A host whose first lease was released.
fn released() -> (Host, Journal, PathBuf) {
    let host = Host::new();
    let mut journal = open(&host.state());
    let file = host.base.path().join("networks/a/10.1.0.1");
    let results = host.execute(&mut journal, vec![host.leases().remove(0)], &mut |_| Ok(()));
    assert_eq!(results, [OutcomeResult::Released]);
    assert!(!file.exists());
    (host, journal, file)
}

fn refusal(result: Result<Entry, UndoError>) -> (String, bool) {
    let error = result.expect_err("refused");
    (in_full(&error), error.is_refusal())
}

#[test]
fn what_was_released_is_put_back_once() {
    let (host, mut journal, file) = released();
    let id = "00000001";
    put_back(&host, &mut journal, id).expect("put back");
    assert_eq!(fs::read(&file).expect("a lease"), b"id\r\neth0");
    let (why, refused) = refusal(put_back(&host, &mut journal, id));
    assert!(refused && why.contains("already"), "{why}");
    // Its holder gives it back in its own way: still it is no more to be undone.
    fs::remove_file(&file).expect("freed");
    let (why, _) = refusal(put_back(&host, &mut journal, id));
    assert!(why.contains("already"), "{why}");
    assert!(!file.exists());

    let entry = history(&host.state(), 10).expect("read").entries.remove(0);
    assert!(entry.is_put_back() && !entry.is_released());
    let put_back = entry.put_back.expect("told");
    assert_eq!(put_back.undo, Some((clock(), undo(Asker::Person))));
}

#[test]
fn what_cannot_be_put_back_is_refused_in_words() {
    let (host, mut journal, file) = released();
    let (why, refused) = refusal(put_back(&host, &mut journal, "00000009"));
    assert!(
        !refused && why.contains("no release has the id 00000009"),
        "{why}"
    );

    let kept = host.leases().remove(0);
    host.execute(&mut journal, vec![kept], &mut |_| {
        Err(Blocker::new(Reason::Seen, "just now"))
    });
    let (why, refused) = refusal(put_back(&host, &mut journal, "00000002"));
    assert!(refused && why.contains("released nothing"), "{why}");

    fs::write(&file, "newcomer\r\neth0").expect("a new lease");
    let (why, refused) = refusal(put_back(&host, &mut journal, "00000001"));
    assert!(refused && why.contains("of container newcomer"), "{why}");
    assert_eq!(fs::read(&file).expect("a lease"), b"newcomer\r\neth0");
    // The newcomer goes, and what was refused may be asked for again.
    fs::remove_file(&file).expect("freed");
    put_back(&host, &mut journal, "00000001").expect("put back");
    assert!(file.exists());
}

#[test]
fn a_lease_is_not_put_back_into_another_directory() {
    let (mut host, mut journal, file) = released();
    // The configuration names another directory first, with a network of the same name.
    let other = host.base.path().join("other");
    fs::create_dir_all(other.join("a")).expect("a network");
    let paths = cni::Paths {
        configurations: Vec::new(),
        caches: Vec::new(),
        flannel: host.base.path().join("none"),
    };
    let reader = Arc::new(cni::Reader::new(paths));
    let first = HostLocal::new(other.clone(), Mode::Observe, Vec::new(), reader);
    let before = std::mem::replace(&mut host.stores[0], Arc::new(first));
    let (why, _) = refusal(put_back(&host, &mut journal, "00000001"));
    let was = host.base.path().join("networks/a");
    assert!(why.contains(&*was.to_string_lossy()), "{why}");
    assert!(!other.join("a/10.1.0.1").exists());
    host.stores[0] = before;
    put_back(&host, &mut journal, "00000001").expect("put back");
    assert!(file.exists());
}

#[test]
fn a_damaged_lease_comes_back_as_damaged_as_it_was() {
    let host = Host::new();
    let mut journal = open(&host.state());
    let file = host.base.path().join("networks/b/10.2.0.9");
    for (id, content) in [("00000001", &[][..]), ("00000002", &[0, 0xfe, b'x'])] {
        fs::write(&file, content).expect("a damaged lease");
        let leases = host.leases().into_iter();
        let damaged = leases.filter(|lease| lease.damage.is_some()).collect();
        let results = host.execute(&mut journal, damaged, &mut |_| Ok(()));
        assert_eq!(results, [OutcomeResult::Released]);
        put_back(&host, &mut journal, id).expect("put back");
        assert_eq!(fs::read(&file).expect("a lease"), content);
    }
}

#[test]
fn an_undo_that_a_crash_cut_off_is_settled_by_looking() {
    let cases: [(Option<&str>, UndoResult); 3] = [
        (None, UndoResult::Failed),
        (Some("id\r\neth0"), UndoResult::PutBack),
        (Some("newcomer\r\neth0"), UndoResult::Taken),
    ];
    for (there, expected) in cases {
        let (host, mut journal, file) = released();
        journal
            .append_undo(clock(), "00000001", undo(Asker::Daemon))
            .expect("written");
        drop(journal);
        if let Some(content) = there {
            fs::write(&file, content).expect("written");
        }
        let mut journal = open(&host.state());
        let views = host.views();
        let views: Vec<&StoreView> = views.iter().collect();
        assert_eq!(
            settle(&mut journal, &views, &clock)
                .expect("settled")
                .ids
                .len(),
            1
        );
        assert_eq!(
            settle(&mut journal, &views, &clock)
                .expect("settled")
                .ids
                .len(),
            0
        );
        let entry = journal.entry("00000001").expect("read").expect("there");
        let undone = entry.put_back.clone().and_then(|put_back| put_back.undone);
        assert_eq!(undone.map(|(_, undone)| undone.result), Some(expected));
        assert_eq!(entry.is_released(), expected != UndoResult::PutBack);
    }
}

#[test]
fn what_was_put_back_is_known_with_the_silence_that_was_broken() {
    let at = |seconds: u64| {
        move || When {
            uptime: seconds * 1_000_000_000,
            ..clock()
        }
    };
    for (asker, silence) in [
        // Silent for 960 s when it was released, and for a minute afterwards.
        (Asker::Daemon, Some(Duration::from_secs(960 + 60))),
        (Asker::Person, None),
    ] {
        let host = Host::new();
        let mut journal = open(&host.state());
        let lease = host.leases().remove(0);
        let plan = ReclaimPlan {
            asker: Asker::Daemon,
            at: Timestamp(0),
            releases: vec![Release::for_test(lease.clone())],
            kept: Vec::new(),
        };
        let stores = &host.stores;
        execute(
            &plan,
            None,
            stores,
            &mut journal,
            &at(2000),
            &mut |_| Ok(()),
        );
        let entries = |journal: &Journal| {
            let entries = journal.of_this_boot(10, |_| true).expect("read");
            let Input::Released {
                quarantined,
                returned,
                ..
            } = quarantined(entries)
            else {
                panic!("something else");
            };
            (quarantined, returned)
        };
        let (quarantined, returned) = entries(&journal);
        assert_eq!(returned, []);
        assert_eq!(
            quarantined[0].quiet_since,
            Timestamp((2000 - 960) * 1_000_000_000)
        );
        super::super::put_back("00000001", undo(asker), stores, &mut journal, &at(2060))
            .expect("put back");
        let (quarantined, returned) = entries(&journal);
        assert_eq!(quarantined, []);
        assert_eq!((&returned[0].lease, returned[0].silence), (&lease, silence));
    }
}

#[test]
fn without_a_journal_nothing_is_put_back() {
    let host = Host::new();
    full_disk::with_small_disk(64 << 10, |disk| {
        let mut journal = open(&disk.join("state"));
        let file = host.base.path().join("networks/a/10.1.0.1");
        host.execute(&mut journal, vec![host.leases().remove(0)], &mut |_| Ok(()));
        full_disk::fill(disk);
        // What is left of the journal's last page holds some lines, but not this.
        let undo = Undo {
            reason: "x".repeat(8192),
            ..undo(Asker::Person)
        };
        let error = super::super::put_back("00000001", undo, &host.stores, &mut journal, &clock);
        let error = error.expect_err("full");
        assert!(in_full(&error).contains("No space left"), "{error}");
        assert!(!file.exists());
    });
}

/// A store whose lock is never to be had; it counts how often that was tried.
struct Held(std::sync::atomic::AtomicUsize);

impl LeaseStore for Held {
    fn read(&self) -> crate::store::Reading {
        crate::store::Reading::default()
    }

    fn has(&self, store: &StoreName) -> bool {
        &*store.0 == "host-local:a"
    }

    fn owner(&self, _: &Lease) -> Option<FileOwner> {
        None
    }

    fn release(&self, _: &Release, _: &mut Recheck<'_>) -> Result<(), ReleaseError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Err(ReleaseError::Locked {
            path: PathBuf::from("/pods/lock"),
            holder: "sleeper (process 7)".to_owned(),
            seconds: 5,
        })
    }

    fn flush(&self, _: &StoreName) -> Result<(), ReleaseError> {
        Ok(())
    }

    fn put_back(&self, _: &crate::store::Former) -> Result<Option<Generation>, ReleaseError> {
        Ok(None)
    }

    fn raise_fence(&self, _: &StoreName, _: ipam_common::Address) -> Result<(), ReleaseError> {
        Ok(())
    }

    fn lower_fence(&self, _: &Lease) -> Result<(), ReleaseError> {
        Ok(())
    }

    fn watched(&self) -> Vec<crate::store::watch::Root> {
        Vec::new()
    }
}

#[test]
fn a_lock_that_is_held_is_waited_for_once_in_a_plan() {
    let mut host = Host::new();
    let mut journal = open(&host.state());
    let held = Arc::new(Held(Default::default()));
    let leases: Vec<Lease> = host.leases().into_iter().take(4).collect();
    host.stores
        .insert(0, Arc::clone(&held) as Arc<dyn LeaseStore>);
    let results = host.execute(&mut journal, leases, &mut |_| Ok(()));
    for result in &results[..2] {
        assert!(
            matches!(result, OutcomeResult::Failed(why) if why.contains("sleeper (process 7)")),
            "{result:?}"
        );
    }
    assert_eq!(
        results[2..],
        [OutcomeResult::Released, OutcomeResult::Released]
    );
    assert_eq!(held.0.load(std::sync::atomic::Ordering::Relaxed), 1);
}
