//! Plans carried out against host-local's directories, with the journal beside.

mod undo;

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::*;
use crate::{
    cni,
    engine::{
        lease::{Lease, Mode, StoreView},
        plan::{Asker, Reason},
        time,
    },
    full_disk,
    journal::{self, Entry, UndoResult, history},
    store::{file::LeaseFile, host_local::HostLocal},
};

struct Host {
    base: TempDir,
    stores: Vec<Arc<dyn LeaseStore>>,
}

impl Host {
    /// Two networks of host-local, two leases each, and a lease file with one.
    fn new() -> Self {
        let base = tempfile::tempdir().expect("a directory");
        let networks = base.path().join("networks");
        for (name, prefix) in [("a", "10.1.0"), ("b", "10.2.0")] {
            fs::create_dir_all(networks.join(name)).expect("a network");
            for last in 1..=2 {
                fs::write(
                    networks.join(name).join(format!("{prefix}.{last}")),
                    "id\r\neth0",
                )
                .expect("a lease");
            }
        }
        let file = base.path().join("leases.yaml");
        fs::write(&file, "leases: [{ address: 10.3.0.1 }]").expect("a lease file");
        let paths = cni::Paths {
            configurations: Vec::new(),
            caches: Vec::new(),
            flannel: base.path().join("none"),
        };
        let reader = Arc::new(cni::Reader::new(paths));
        let stores: Vec<Arc<dyn LeaseStore>> = vec![
            Arc::new(HostLocal::new(networks, Mode::Observe, Vec::new(), reader)),
            Arc::new(LeaseFile::new(file, Vec::new())),
        ];
        Self { base, stores }
    }

    fn views(&self) -> Vec<StoreView> {
        self.stores
            .iter()
            .flat_map(|store| store.read().views)
            .map(|view| view.expect("a view"))
            .collect()
    }

    fn leases(&self) -> Vec<Lease> {
        self.views()
            .into_iter()
            .flat_map(|view| view.leases)
            .collect()
    }

    fn left(&self) -> Vec<String> {
        self.leases()
            .iter()
            .map(|lease| lease.address.to_string())
            .collect()
    }

    fn state(&self) -> PathBuf {
        self.base.path().join("state")
    }

    fn execute(
        &self,
        journal: &mut Journal,
        leases: Vec<Lease>,
        recheck: &mut Recheck<'_>,
    ) -> Vec<OutcomeResult> {
        let plan = ReclaimPlan {
            asker: Asker::Person,
            at: time::Timestamp(0),
            releases: leases.into_iter().map(Release::for_test).collect(),
            kept: Vec::new(),
        };
        let outcomes = execute(&plan, None, &self.stores, journal, &clock, recheck);
        let planned = plan.releases.iter().map(|release| release.lease().address);
        assert!(outcomes.iter().map(|outcome| outcome.address).eq(planned));
        outcomes.into_iter().map(|outcome| outcome.result).collect()
    }
}

fn clock() -> When {
    When {
        at: "2026-11-01T10:00:00Z".parse().expect("a time"),
        uptime: 1_000_000_007,
    }
}

fn open(directory: &Path) -> Journal {
    Journal::open(directory, "boot-1").expect("open")
}

#[test]
fn every_release_is_carried_out_and_written_down_whatever_becomes_of_the_others() {
    let host = Host::new();
    let mut journal = open(&host.state());
    let mut leases = host.leases();
    let mut elsewhere = leases[0].clone();
    elsewhere.store = crate::engine::lease::StoreName("kea:x".into());
    leases.push(elsewhere);
    // One is granted anew after it was judged, one is heard of at the last moment.
    fs::write(
        host.base.path().join("networks/a/10.1.0.2"),
        "other\r\neth0",
    )
    .expect("granted anew");
    let seen = leases[2].address;
    let results = host.execute(&mut journal, leases, &mut |release| {
        if release.lease().address == seen {
            return Err(Blocker::new(Reason::Seen, "just now"));
        }
        Ok(())
    });
    let [first, second, third, fourth, file, unknown] = &results[..] else {
        panic!("{results:?}");
    };
    assert_eq!(first, &OutcomeResult::Released);
    assert!(
        matches!(
            second,
            OutcomeResult::Kept(Blocker {
                reason: Reason::Changed,
                ..
            })
        ),
        "{second:?}"
    );
    assert!(
        matches!(
            third,
            OutcomeResult::Kept(Blocker {
                reason: Reason::Seen,
                ..
            })
        ),
        "{third:?}"
    );
    assert_eq!(fourth, &OutcomeResult::Released);
    assert!(
        matches!(file, OutcomeResult::Failed(why) if why.contains("only read")),
        "{file:?}"
    );
    assert!(
        matches!(unknown, OutcomeResult::Failed(why) if why.contains("kea:x")),
        "{unknown:?}"
    );
    assert_eq!(host.left(), ["10.1.0.2", "10.2.0.1", "10.3.0.1"]);

    let history = history(&host.state(), 10).expect("read");
    let told = history
        .entries
        .iter()
        .rev()
        .map(|entry| entry.effect.as_ref().expect("an effect").1.result);
    use EffectResult::{Failed, Kept, Released};
    assert_eq!(
        told.collect::<Vec<_>>(),
        [Released, Kept, Kept, Released, Failed, Failed]
    );
    assert!(journal.unfinished().expect("read").is_empty());
}

#[test]
fn the_intent_is_written_down_before_the_store_is_touched() {
    let host = Host::new();
    let mut journal = open(&host.state());
    let state = host.state();
    let mut asked = 0;
    host.execute(&mut journal, host.leases(), &mut |release| {
        asked += 1;
        let history = history(&state, 10).expect("read");
        let address = release.lease().address.ip();
        assert!(
            history
                .entries
                .iter()
                .any(|entry| entry.intent.address == address && entry.effect.is_none())
        );
        Ok(())
    });
    assert_eq!(asked, 4);
}

#[test]
fn without_a_journal_nothing_is_released() {
    let host = Host::new();
    full_disk::with_small_disk(64 << 10, |disk| {
        let mut journal = open(&disk.join("state"));
        full_disk::fill(disk);
        // More than fits into what is left of the journal's last page.
        let leases: Vec<Lease> = host.leases().into_iter().cycle().take(40).collect();
        let results = host.execute(&mut journal, leases, &mut |_| {
            panic!("nothing is to be asked")
        });
        for result in results {
            assert!(
                matches!(&result, OutcomeResult::Failed(why) if why.contains("No space left")),
                "{result:?}"
            );
        }
        assert_eq!(host.left().len(), 5);
    });
}

#[test]
fn what_a_crash_left_open_is_settled_by_looking() {
    let host = Host::new();
    let leases = host.leases();
    let releases: Vec<Release> = leases[..4].iter().cloned().map(Release::for_test).collect();
    let mut journal = open(&host.state());
    journal
        .append_intents(
            clock(),
            Asker::Daemon,
            None,
            releases.iter().map(|r| (r, None)),
        )
        .expect("written");
    drop(journal);
    // The crash came after the first unlink; the second address has a new lease by now, the
    // second network can't be read yet.
    let networks = host.base.path().join("networks");
    fs::remove_file(networks.join("a/10.1.0.1")).expect("unlinked");
    fs::write(networks.join("a/10.1.0.2"), "other\r\neth0").expect("granted anew");

    let mut journal = open(&host.state());
    let views = host.views();
    assert_eq!(
        settle(&mut journal, &[&views[0]], &clock)
            .expect("settled")
            .ids
            .len(),
        2
    );
    assert_eq!(
        settle(&mut journal, &[&views[0], &views[1]], &clock)
            .expect("settled")
            .ids
            .len(),
        2
    );
    assert_eq!(
        settle(&mut journal, &[&views[0], &views[1]], &clock)
            .expect("settled")
            .ids
            .len(),
        0
    );
    let history = history(&host.state(), 10).expect("read");
    let told: Vec<(String, journal::EffectResult)> = history
        .entries
        .iter()
        .rev()
        .map(|entry| {
            (
                entry.intent.address.to_string(),
                entry.effect.as_ref().expect("an effect").1.result,
            )
        })
        .collect();
    use EffectResult::{Failed, Released};
    let expected = [
        ("10.1.0.1", Released),
        ("10.1.0.2", Released),
        ("10.2.0.1", Failed),
        ("10.2.0.2", Failed),
    ];
    assert_eq!(
        told,
        expected.map(|(address, result)| (address.to_owned(), result))
    );
}
