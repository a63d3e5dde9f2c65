//! Whole worlds of leases that leak, and faults of every kind: no live address is ever
//! released, nothing is lost, and all that leaked goes.
//!
//! `PROPTEST_CASES=100000 cargo test --release -p tests --test reclaim_simulation` looks for
//! longer; what it finds is made small and kept beside this file.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use tests::reclaim_sim::{self, Tally};

static RELEASED: AtomicUsize = AtomicUsize::new(0);
static UNDONE: AtomicUsize = AtomicUsize::new(0);
static KILLED: AtomicUsize = AtomicUsize::new(0);
static PASSES: AtomicUsize = AtomicUsize::new(0);
static ASKED: AtomicUsize = AtomicUsize::new(0);
static RESTORED: AtomicUsize = AtomicUsize::new(0);

fn count(tally: Tally) {
    RELEASED.fetch_add(tally.released, Ordering::Relaxed);
    UNDONE.fetch_add(tally.undone, Ordering::Relaxed);
    KILLED.fetch_add(tally.killed, Ordering::Relaxed);
    PASSES.fetch_add(tally.passes, Ordering::Relaxed);
    ASKED.fetch_add(tally.asked, Ordering::Relaxed);
    RESTORED.fetch_add(tally.restored, Ordering::Relaxed);
}

#[test]
fn what_lives_stays_and_what_leaked_goes() {
    let cases = match std::env::var_os("PROPTEST_CASES") {
        // As many as it says.
        Some(_) => ProptestConfig::default().cases,
        None => 512,
    };
    let config = ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        max_shrink_iters: 4096,
        ..ProptestConfig::default()
    };
    proptest!(config, |(plan in reclaim_sim::plans())| {
        let tally = reclaim_sim::play(&plan);
        count(tally.map_err(TestCaseError::fail)?);
    });
    let counts = [&RELEASED, &UNDONE, &KILLED, &PASSES, &ASKED, &RESTORED];
    let [released, undone, killed, passes, asked, restored] =
        counts.map(|count| count.load(Ordering::Relaxed));
    println!(
        "{cases} worlds, {passes} passes, {released} leases released, {restored} of them put back, \
         {undone} planned releases not done, {killed} agents killed in one, {asked} addresses \
         asked for"
    );
    // Worlds in which nothing is released prove nothing.
    assert!(
        released > cases as usize && undone > 0 && asked > released && restored > 0,
        "nothing happens in these worlds"
    );
}
