//! Removals from a cache's directory, with the journal beside.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tempfile::TempDir;

use super::*;
use crate::{
    engine::{
        caches::{DeadEntry, Subject},
        lease::Damage,
    },
    full_disk,
};

struct Host {
    base: TempDir,
}

impl Host {
    fn new() -> Self {
        let base = tempfile::tempdir().expect("a directory");
        fs::create_dir(base.path().join("results")).expect("a cache");
        Self { base }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join("results").join(name)
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.base.path().join("state"), "boot").expect("a journal")
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.base.path().join("state/journal.jsonl"));
        let text = text.expect("a journal");
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().expect("JSON lines")
    }

    /// Writes an entry; its removal.
    fn dead(&self, name: &str, content: &[u8]) -> Removal {
        let path = self.path(name);
        fs::write(&path, content).expect("written");
        let there = fs::metadata(&path).expect("there");
        let entry = DeadEntry {
            path: path.into(),
            damage: Damage::Nul,
            subject: Ok(Subject {
                container: Arc::from(name),
                generation: Generation {
                    inode: there.ino(),
                    modified: there.mtime() * 1_000_000_000 + there.mtime_nsec(),
                    content: content.into(),
                },
            }),
        };
        Removal::for_test(entry).expect("a removal")
    }
}

fn when() -> When {
    When {
        at: jiff::Timestamp::UNIX_EPOCH,
        uptime: 0,
    }
}

fn clean_all(host: &Host, removals: Vec<Removal>) -> Vec<Result<(), NotRemoved>> {
    let mut journal = host.journal();
    let cleaned = clean(removals, &mut journal, &when, &mut |_| Ok(()));
    cleaned.into_iter().map(|cleaned| cleaned.result).collect()
}

fn changed(result: &Result<(), NotRemoved>) -> bool {
    matches!(result, Err(NotRemoved::Kept(blocker)) if blocker.reason == Reason::Changed)
}

#[test]
fn exactly_what_was_judged_goes_and_the_journal_has_all_of_it() {
    let host = Host::new();
    let content = b"{\"kind\":\"cni\xff\x00\x00";
    let removal = host.dead("dead", content);
    let beside = host.dead("beside", b"");
    assert_eq!(clean_all(&host, vec![removal]), [Ok(())]);
    assert!(!host.path("dead").exists() && beside.path().exists());
    let lines = host.lines();
    let [intent, effect] = &lines[..] else {
        panic!("{lines:#?}")
    };
    assert_eq!(intent["phase"], "clean");
    assert_eq!(intent["path"], host.path("dead").display().to_string());
    let bytes = &intent["generation"]["content"]["base64"];
    let bytes = BASE64_STANDARD.decode(bytes.as_str().expect("text"));
    assert_eq!(bytes.expect("base64"), content);
    assert_eq!(effect["phase"], "cleaned");
    assert_eq!(
        (&effect["id"], &effect["result"]),
        (&intent["id"], &"removed".into())
    );
}

#[test]
fn what_was_written_to_meanwhile_stays() {
    let host = Host::new();
    let rewritten = host.dead("rewritten", &[0; 17]);
    fs::write(rewritten.path(), b"{}").expect("written");
    // The same bytes, in another file or at another time.
    let replaced = host.dead("replaced", b"");
    fs::write(host.path("new"), b"").expect("written");
    fs::rename(host.path("new"), host.path("replaced")).expect("renamed");
    let touched = host.dead("touched", b"");
    let file = fs::File::open(touched.path()).expect("open");
    let before = file.metadata().and_then(|m| m.modified()).expect("a time");
    let later = before + std::time::Duration::from_nanos(1);
    file.set_modified(later).expect("touched");
    let linked = host.dead("linked", b"");
    fs::rename(linked.path(), host.path("elsewhere")).expect("renamed");
    std::os::unix::fs::symlink("elsewhere", linked.path()).expect("linked");
    let names = ["rewritten", "replaced", "touched", "linked", "elsewhere"];
    let results = clean_all(&host, vec![rewritten, replaced, touched, linked]);
    assert!(results.iter().all(changed), "{results:?}");
    let there = |name: &str| host.path(name).symlink_metadata().is_ok();
    assert!(names.iter().all(|name| there(name)));
    assert!(
        host.lines()
            .iter()
            .filter(|line| line["result"] == "kept")
            .count()
            == 4
    );
}

#[test]
fn a_directory_that_became_a_link_is_not_entered() {
    let host = Host::new();
    let removal = host.dead("dead", b"");
    let (results, moved) = (host.path(""), host.base.path().join("moved"));
    fs::rename(&results, &moved).expect("renamed");
    std::os::unix::fs::symlink(&moved, host.base.path().join("results")).expect("linked");
    let results = clean_all(&host, vec![removal]);
    assert!(
        matches!(&results[..], [Err(NotRemoved::Failed(_))]),
        "{results:?}"
    );
    assert!(moved.join("dead").exists());
}

#[test]
fn what_the_last_look_finds_keeps_its_entry_alone() {
    let host = Host::new();
    let removals = vec![host.dead("held", b""), host.dead("gone", b"")];
    let mut journal = host.journal();
    let cleaned = clean(
        removals,
        &mut journal,
        &when,
        &mut |removal| match &*removal.subject().container {
            "held" => Err(Blocker::new(Reason::Holder, "READY")),
            _ => Ok(()),
        },
    );
    assert_eq!(cleaned.len(), 2);
    assert!(host.path("held").exists() && !host.path("gone").exists());
}

#[test]
fn without_a_journal_nothing_goes() {
    full_disk::with_small_disk(16 * 1024, |disk| {
        let host = Host::new();
        let removal = host.dead("dead", b"");
        let mut journal = Journal::open(disk, "boot").expect("a journal");
        full_disk::fill(disk);
        let cleaned = clean(vec![removal], &mut journal, &when, &mut |_| Ok(()));
        assert!(matches!(cleaned[0].result, Err(NotRemoved::Failed(_))));
        assert!(host.path("dead").exists());
    });
}

#[test]
fn the_largest_entry_that_goes_can_be_read_in_the_journal() {
    let host = Host::new();
    // What takes the most room as JSON.
    let removal = host.dead("large", &[1; CACHE_LIMIT]);
    let mut journal = host.journal();
    let ids = journal.append_cleanings(when(), [&removal]);
    let ids = ids.expect("written");
    let open = journal.unfinished_cleanings().expect("read");
    let generation = open[&ids[0]].generation.generation();
    assert_eq!(generation.as_ref(), Some(&removal.subject().generation));
}

#[test]
fn the_next_start_finds_what_became_of_it() {
    let host = Host::new();
    let names = ["there", "gone", "anew"];
    let removals = names.map(|name| host.dead(name, &[0; 17]));
    let mut journal = host.journal();
    journal
        .append_cleanings(when(), &removals)
        .expect("written");
    drop(journal);
    fs::remove_file(host.path("gone")).expect("removed");
    fs::write(host.path("anew"), b"{}").expect("written");
    let mut journal = host.journal();
    assert_eq!(settle(&mut journal, &when).expect("settled").ids.len(), 3);
    assert_eq!(settle(&mut journal, &when).expect("settled").ids.len(), 0);
    let lines = host.lines();
    let results: Vec<_> = { lines.iter() }
        .filter_map(|line| line["result"].as_str())
        .collect();
    assert_eq!(results, ["failed", "removed", "removed"]);
    assert_eq!(fs::read(host.path("there")).expect("there"), [0; 17]);
    assert_eq!(fs::read(host.path("anew")).expect("there"), b"{}");
}
