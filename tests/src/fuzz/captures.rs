//! Captures, through a whole replay.

use std::{cell::RefCell, fs, path::PathBuf};

use ipam_agent::{
    config::Config,
    driver::{ReplayOptions, replay},
    report::document::{ConflictKind, Report},
};
use tempfile::TempDir;

thread_local! {
    static DESK: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// A file with these bytes, the same one each time.
pub(super) fn file(name: &str, bytes: &[u8]) -> PathBuf {
    DESK.with_borrow_mut(|desk| {
        let desk = desk.get_or_insert_with(|| tempfile::tempdir().expect("a directory"));
        let path = desk.path().join(name);
        fs::create_dir_all(path.parent().expect("in the desk")).expect("a directory");
        fs::write(&path, bytes).expect("a file");
        path
    })
}

pub(super) fn run(bytes: &[u8]) {
    let config = Config::without_file(Vec::new()).expect("nothing is configured");
    let options = ReplayOptions {
        captures: vec![file("capture", bytes).into()],
        ..ReplayOptions::default()
    };
    if let Ok(replayed) = replay(&config, &options) {
        check(&replayed.report, bytes.len());
    }
}

/// Nothing is made up: every frame is counted once, and who is said to claim was heard.
fn check(report: &Report, length: usize) {
    let [read] = &report.captures[..] else {
        panic!("one capture: {:?}", report.captures);
    };
    let not_judged: u64 = read.refused.values().chain(read.skipped.values()).sum();
    assert!(read.arp + read.nd + not_judged <= read.frames, "{read:?}");
    // What is unpacked may be a thousand times longer.
    assert!(read.frames <= length as u64 * 1100, "{read:?}");
    for conflict in &report.conflicts {
        assert_eq!(conflict.kind, ConflictKind::DuplicateAddress, "no leases");
        assert!(conflict.claims.len() >= 2, "{conflict:?}");
        let frames: u64 = conflict.claims.iter().map(|claim| claim.frames).sum();
        assert!(frames <= read.arp + read.nd, "{conflict:?}");
    }
    serde_json::to_vec(report).expect("a document");
}
