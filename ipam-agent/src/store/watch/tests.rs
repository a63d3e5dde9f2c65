//! Changes where leases are kept, as they happen on hosts.

use std::{fs, time::Duration};

use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::*;

fn base() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// That a change is told: it must take under a second, and a loaded machine gets another.
async fn told(watcher: &mut Watcher) {
    let told = timeout(Duration::from_secs(2), watcher.changed()).await;
    told.expect("told in time").expect("watched");
}

/// That nothing is told.
async fn silent(watcher: &mut Watcher) {
    let told = timeout(Duration::from_millis(300), watcher.changed()).await;
    assert!(told.is_err(), "nothing changed");
}

fn watcher(base: &TempDir) -> Watcher {
    let roots = vec![
        Root::Tree(base.path().join("lib/cni/networks")),
        Root::File(base.path().join("leases.yaml")),
    ];
    Watcher::new(roots).expect("a watcher")
}

#[tokio::test]
async fn a_directory_is_followed_through_its_making_its_going_and_its_making_again() {
    let base = base();
    let networks = base.path().join("lib/cni/networks");
    let network = networks.join("net");
    let mut watcher = watcher(&base);
    for _ in 0..3 {
        silent(&mut watcher).await;
        fs::create_dir_all(&network).expect("made");
        told(&mut watcher).await;
        silent(&mut watcher).await;
        fs::write(network.join("10.0.0.7"), "id\r\neth0").expect("a lease");
        told(&mut watcher).await;
        fs::remove_file(network.join("10.0.0.7")).expect("freed");
        told(&mut watcher).await;
        let other = networks.join("other");
        fs::create_dir(&other).expect("a network");
        fs::write(other.join("10.1.0.7"), "id\r\neth0").expect("a lease");
        told(&mut watcher).await;
        fs::write(other.join("10.1.0.8"), "id\r\neth0").expect("a lease");
        told(&mut watcher).await;
        fs::remove_dir_all(base.path().join("lib")).expect("rm -rf");
        told(&mut watcher).await;
    }
    assert_eq!(watcher.problem(), None);
}

#[tokio::test]
async fn a_directory_moved_away_from_above_is_noticed() {
    let base = base();
    fs::create_dir_all(base.path().join("lib/cni/networks/net")).expect("made");
    let mut watcher = watcher(&base);
    fs::rename(base.path().join("lib"), base.path().join("lib.old")).expect("moved");
    told(&mut watcher).await;
    fs::write(base.path().join("lib.old/cni/networks/net/10.0.0.7"), "").expect("a file");
    silent(&mut watcher).await;
    fs::create_dir_all(base.path().join("lib/cni/networks/net")).expect("made again");
    told(&mut watcher).await;
}

#[tokio::test]
async fn a_file_is_told_however_it_is_replaced_and_its_neighbours_are_not() {
    let base = base();
    let mut watcher = watcher(&base);
    fs::write(base.path().join("other.yaml"), "x").expect("written");
    silent(&mut watcher).await;
    fs::write(base.path().join("leases.yaml"), "x").expect("written");
    told(&mut watcher).await;
    fs::rename(
        base.path().join("other.yaml"),
        base.path().join("leases.yaml"),
    )
    .expect("renamed over");
    told(&mut watcher).await;
    fs::remove_file(base.path().join("leases.yaml")).expect("removed");
    told(&mut watcher).await;
}

#[tokio::test]
async fn constant_change_is_told_all_the_same() {
    let base = base();
    let network = base.path().join("lib/cni/networks/net");
    fs::create_dir_all(&network).expect("made");
    let mut watcher = watcher(&base);
    let churn = tokio::spawn(async move {
        loop {
            fs::write(network.join("10.0.0.7"), "id\r\neth0").expect("a lease");
            sleep(Duration::from_millis(5)).await;
        }
    });
    for _ in 0..3 {
        told(&mut watcher).await;
    }
    churn.abort();
}

#[tokio::test]
async fn a_change_is_told_though_the_wait_for_it_was_broken_off() {
    let base = base();
    let network = base.path().join("lib/cni/networks/net");
    fs::create_dir_all(&network).expect("made");
    let mut watcher = watcher(&base);
    fs::write(network.join("10.0.0.7"), "id\r\neth0").expect("a lease");
    // Long enough to take the event, too short for the quiet after it.
    let broken_off = timeout(Duration::from_millis(50), watcher.changed()).await;
    assert!(broken_off.is_err());
    told(&mut watcher).await;
}

#[tokio::test]
async fn more_events_than_the_kernel_keeps_are_one_change() {
    let base = base();
    let network = base.path().join("lib/cni/networks/net");
    fs::create_dir_all(&network).expect("made");
    let mut watcher = watcher(&base);
    for n in 0..20_000 {
        fs::write(network.join(format!("10.0.{}.{}", n / 256, n % 256)), "").expect("a lease");
    }
    told(&mut watcher).await;
    // The queue held 16,384 events: what is left of them is a change at most once more.
    let _ = timeout(Duration::from_secs(1), watcher.changed()).await;
    silent(&mut watcher).await;
    fs::write(network.join("10.1.0.1"), "").expect("a lease");
    told(&mut watcher).await;
}
