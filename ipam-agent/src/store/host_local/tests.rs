//! Reading every form, and releasing while others read, write, hold the lock, replace the
//! directory, and while the real host-local allocates and frees.

mod put_back;
mod real;

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    time::{Duration, Instant},
};

use ipam_common::Address;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::engine::{
    lease::{Damage, Lease},
    plan::{Blocker, Reason},
};

const ID: &str = "247610f4dedd4ab7247d07dbda19c81ca9817f85820742cad49d407ffae9e4ed";

/// A source over `directory` that knows nothing of CNI's own files.
fn source(directory: &Path) -> HostLocal {
    let paths = cni::Paths {
        configurations: Vec::new(),
        caches: Vec::new(),
        flannel: directory.join("no-flannel"),
    };
    HostLocal::new(
        directory.to_owned(),
        Mode::Observe,
        Vec::new(),
        Arc::new(cni::Reader::new(paths)),
    )
}

/// A source over one network, `net`, which CNI's files know as `plugin` with 10.0.0.0/24, with
/// these pools configured and these leases.
fn known_to_cni(plugin: &str, pools: Vec<Pool>, leases: &[&str]) -> (TempDir, HostLocal) {
    let base = tempfile::tempdir().expect("a directory");
    let (networks, configurations) = (base.path().join("networks"), base.path().join("net.d"));
    fs::create_dir_all(networks.join("net")).expect("a network");
    fs::create_dir(&configurations).expect("a directory");
    for lease in leases {
        fs::write(networks.join("net").join(lease), format!("{ID}\r\neth0")).expect("a lease");
    }
    let configuration = serde_json::json!({ "name": "net", "plugins": [{
        "type": plugin, "bridge": "br100",
        "ipam": { "type": "host-local", "subnet": "10.0.0.0/24" },
    }] });
    let file = configurations.join("net.conflist");
    fs::write(file, configuration.to_string()).expect("a configuration");
    let reader = cni::Reader::new(cni::Paths {
        configurations: vec![configurations],
        caches: Vec::new(),
        flannel: base.path().join("no-flannel"),
    });
    let source = HostLocal::new(networks, Mode::Observe, pools, Arc::new(reader));
    (base, source)
}

fn pool_on(prefix: &str, segment: &str) -> Pool {
    Pool {
        prefix: prefix.parse().expect("a prefix"),
        range: None,
        gateway: None,
        gateway_mac: None,
        exclude: Vec::new(),
        place: Some(Place::Segment {
            name: segment.into(),
            vlan: None,
        }),
    }
}

/// A directory with one network of one whole lease.
fn one_lease() -> (TempDir, HostLocal, Lease) {
    let base = tempfile::tempdir().expect("a directory");
    let network = base.path().join("net");
    fs::create_dir(&network).expect("a network");
    fs::write(network.join("lock"), "").expect("a lock");
    fs::write(network.join("last_reserved_ip.0"), "10.0.0.7").expect("an index");
    fs::write(network.join("10.0.0.7"), format!("{ID}\r\neth0")).expect("a lease");
    fs::write(network.join("10.0.0.8"), "another\r\neth0").expect("another lease");
    let source = source(base.path());
    let lease = only(&source, "10.0.0.7");
    (base, source, lease)
}

#[test]
fn a_networks_own_directory_is_no_host_without_networks() {
    let (base, ..) = one_lease();
    let reading = source(&base.path().join("net")).read();
    let [Err(error)] = &reading.views[..] else {
        panic!("{:?}", reading.views);
    };
    let error = crate::error::in_full(error);
    let above = format!("name the one above it, {}", base.path().display());
    assert!(error.ends_with(&above), "{error}");
    // A stray file beside networks hides none of them.
    fs::write(base.path().join("lock"), "").expect("written");
    view(&source(base.path()));
}

fn view(source: &HostLocal) -> StoreView {
    let mut reading = source.read();
    assert_eq!(reading.views.len(), 1);
    reading.views.remove(0).expect("a view")
}

fn only(source: &HostLocal, address: &str) -> Lease {
    let address = Address::from_ip(address.parse().expect("an address")).expect("claimable");
    let mut of_address: Vec<Lease> = view(source)
        .leases
        .into_iter()
        .filter(|lease| lease.address == address)
        .collect();
    assert_eq!(of_address.len(), 1);
    of_address.remove(0)
}

fn release(source: &HostLocal, lease: &Lease) -> Result<(), ReleaseError> {
    source.release(&Release::for_test(lease.clone()), &mut |_| Ok(()))
}

/// Everything in a directory: name, inode, content.
fn contents(directory: &Path) -> BTreeMap<String, (u64, Vec<u8>)> {
    let entries = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().expect("a name");
            (
                name,
                (
                    entry.metadata().expect("metadata").ino(),
                    fs::read(entry.path()).expect("content"),
                ),
            )
        })
        .collect()
}

#[test]
fn every_form_on_a_host_that_lost_power_is_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/cni/networks");
    let reading = source(&fixtures).read();
    let views: Vec<StoreView> = reading
        .views
        .into_iter()
        .map(|view| view.expect("a view"))
        .collect();
    let names: Vec<&str> = views.iter().map(|view| &*view.store.0).collect();
    assert_eq!(
        names,
        ["host-local:k8s-pod-network", "host-local:storage-hl"]
    );
    let leases: Vec<(String, Option<Damage>)> = views[0]
        .leases
        .iter()
        .map(|lease| (lease.address.to_string(), lease.damage))
        .collect();
    let expected = [
        ("10.52.0.86", None),
        ("10.52.0.87", None),
        ("10.52.0.88", Some(Damage::IdOnly)),
        ("10.52.0.89", Some(Damage::Empty)),
        ("10.52.0.90", Some(Damage::Truncated)),
        ("10.52.0.91", None),
        ("10.52.0.92", None),
        ("fd00:52::5c", None),
    ];
    let mut expected = expected
        .map(|(address, damage)| (address.to_owned(), damage))
        .to_vec();
    expected.sort_by_key(|(address, _)| Address::from_ip(address.parse().expect("an address")));
    assert_eq!(leases, expected);
    assert_eq!(views[0].place, Place::Unknown);
    assert!(reading.notes.is_empty(), "{:?}", reading.notes);
}

#[test]
fn one_old_lease_in_a_pool_of_another_wire_moves_no_other() {
    let pools = vec![pool_on("192.168.60.0/24", "br60")];
    let (_base, source) = known_to_cni("bridge", pools, &["10.0.0.7", "192.168.60.7"]);
    let view = view(&source);
    let own = Place::Bridge {
        bridge: "br100".into(),
        vlan: None,
    };
    assert_eq!(view.place, own);
    let pools: Vec<_> = { view.pools.iter() }
        .map(|pool| (pool.prefix.to_string(), pool.place.is_some()))
        .collect();
    let told = [("192.168.60.0/24", true), ("10.0.0.0/24", false)];
    assert_eq!(
        pools,
        told.map(|(prefix, placed)| (prefix.to_owned(), placed))
    );
}

#[test]
fn a_configured_pool_is_instead_of_what_cni_says_of_its_prefix() {
    let pools = vec![pool_on("10.0.0.0/24", "up")];
    let (_base, source) = known_to_cni("bridge", pools.clone(), &["10.0.0.7"]);
    assert_eq!(view(&source).pools, pools);
}

#[test]
fn no_configured_pool_makes_a_link_one_that_can_be_watched() {
    let pools = vec![pool_on("10.0.0.0/24", "br100")];
    let (_base, source) = known_to_cni("macvlan", pools, &["10.0.0.7"]);
    let view = view(&source);
    assert!(
        matches!(view.place, Place::Unwatchable(_)),
        "{:?}",
        view.place
    );
    assert_eq!(view.pools.len(), 1);
    assert_eq!(view.pools[0].place, None);
}

#[test]
fn what_is_no_lease_is_passed_over_and_counted() {
    let (base, source, _) = one_lease();
    let network = base.path().join("net");
    fs::write(base.path().join("a-file"), "").expect("a file");
    fs::create_dir(base.path().join("no network")).expect("a directory");
    for name in ["x", "10.0.0.300", "010.0.0.1", "10.0.0.9.tmp"] {
        fs::write(network.join(name), "id\r\neth0").expect("a file");
    }
    fs::write(network.join("224.0.0.1"), "id\r\neth0").expect("a file");
    symlink("10.0.0.7", network.join("10.0.0.20")).expect("a link");
    fs::create_dir(network.join("10.0.0.21")).expect("a directory");
    nix::unistd::mkfifo(&network.join("10.0.0.22"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let _socket =
        std::os::unix::net::UnixListener::bind(network.join("10.0.0.23")).expect("a socket");
    fs::write(network.join("10.0.0.24"), vec![b'x'; 1 << 20]).expect("a file");

    let reading = source.read();
    let view = reading.views[0].as_ref().expect("a view");
    let addresses: Vec<String> = view
        .leases
        .iter()
        .map(|lease| lease.address.to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.7", "10.0.0.8", "10.0.0.24"]);
    assert_eq!(reading.notes.count(Note::NotAnAddress), 4);
    assert_eq!(reading.notes.count(Note::NotClaimable), 1);
    assert_eq!(reading.notes.count(Note::SymbolicLink), 1);
    assert_eq!(reading.notes.count(Note::NotAFile), 3);
    assert_eq!(reading.notes.count(Note::Oversized), 1);
    assert_eq!(reading.notes.count(Note::NetworkName), 1);

    let oversized = view.leases[2].clone();
    assert!(matches!(
        release(&source, &oversized),
        Err(ReleaseError::Changed { .. })
    ));
    assert!(network.join("10.0.0.24").exists());
}

#[test]
fn a_directory_that_is_not_there_yet_is_no_error_and_one_that_cannot_be_read_is() {
    let base = tempfile::tempdir().expect("a directory");
    let reading = source(&base.path().join("later/networks")).read();
    assert!(reading.views.is_empty());
    assert_eq!(reading.notes.count(Note::NoDirectoryYet), 1);

    fs::write(base.path().join("file"), "").expect("a file");
    let reading = source(&base.path().join("file")).read();
    assert!(matches!(
        reading.views[..],
        [Err(StoreError::Directory { .. })]
    ));
}

#[test]
fn an_unreadable_network_hides_no_other() {
    let (base, source, _) = one_lease();
    let closed = base.path().join("closed");
    fs::create_dir(&closed).expect("a network");
    fs::write(closed.join("10.1.0.1"), "id\r\neth0").expect("a lease");
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("permissions");
    // Of this thread alone, so that even root meets permissions.
    let reading = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        source.read()
    });
    let reading = reading.join().expect("a reading");
    let [Err(error), Ok(open)] = &reading.views[..] else {
        panic!("{:?}", reading.views);
    };
    assert_eq!(
        error.store().map(|store| &*store.0),
        Some("host-local:closed")
    );
    assert_eq!(open.leases.len(), 2);
}

#[test]
fn a_lease_that_cannot_be_read_is_named() {
    let (base, source, _) = one_lease();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let file = base.path().join("net/10.0.0.7");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("permissions");
    let reading = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        source.read()
    });
    let reading = reading.join().expect("a reading");
    let [Err(StoreError::Network { path, .. })] = &reading.views[..] else {
        panic!("{:?}", reading.views);
    };
    assert_eq!(*path, file);
}

#[test]
fn a_release_unlinks_one_file_and_touches_nothing_else() {
    let (base, source, lease) = one_lease();
    let network = base.path().join("net");
    let mut expected = contents(&network);
    release(&source, &lease).expect("released");
    expected.remove("10.0.0.7");
    assert_eq!(contents(&network), expected);
    assert!(matches!(
        release(&source, &lease),
        Err(ReleaseError::Changed {
            what: "it is gone",
            ..
        })
    ));
}

#[test]
fn without_a_lock_file_one_is_made_as_host_local_does() {
    let (base, source, lease) = one_lease();
    fs::remove_file(base.path().join("net/lock")).expect("no lock");
    release(&source, &lease).expect("released");
    assert!(base.path().join("net/lock").is_file());
}

#[test]
fn another_spelling_of_an_address_is_released_by_its_own_name() {
    let base = tempfile::tempdir().expect("a directory");
    let network = base.path().join("net");
    fs::create_dir(&network).expect("a network");
    fs::write(network.join("fd00:52:0:0::5c"), format!("{ID}\r\neth0")).expect("a lease");
    let source = source(base.path());
    let lease = only(&source, "fd00:52::5c");

    fs::write(network.join("fd00:52::5c"), "another\r\neth0").expect("another lease");
    assert_eq!(
        view(&source).leases.len(),
        2,
        "two leases of one address are both told"
    );
    release(&source, &lease).expect("released");
    let left: Vec<String> = contents(&network).into_keys().collect();
    assert_eq!(left, ["fd00:52::5c", "lock"]);
}

#[test]
fn a_lease_granted_anew_is_never_released() {
    // The same container, interface and length: only the grant differs.
    let (base, source, lease) = one_lease();
    let file = base.path().join("net/10.0.0.7");
    let content = fs::read(&file).expect("content");
    fs::write(base.path().join("net/new"), &content).expect("a new file");
    fs::rename(base.path().join("net/new"), &file).expect("renamed");
    assert!(matches!(
        release(&source, &lease),
        Err(ReleaseError::Changed {
            what: "it was granted anew",
            ..
        })
    ));
    assert!(file.exists());
}

#[test]
fn what_writes_without_the_lock_at_the_last_moment_is_noticed() {
    let (base, source, lease) = one_lease();
    let file = base.path().join("net/10.0.0.7");
    let asked = Cell::new(0);
    let result = source.release(&Release::for_test(lease), &mut |_| {
        asked.set(asked.get() + 1);
        fs::write(&file, "another\r\neth0").expect("written");
        Ok(())
    });
    assert!(
        matches!(result, Err(ReleaseError::Changed { .. })),
        "{result:?}"
    );
    assert_eq!(asked.get(), 1);
    assert_eq!(fs::read(&file).expect("content"), b"another\r\neth0");
}

#[test]
fn a_sign_of_life_at_the_last_moment_keeps_the_lease() {
    let (base, source, lease) = one_lease();
    let before = contents(&base.path().join("net"));
    let result = source.release(&Release::for_test(lease), &mut |release| {
        Err(Blocker::new(
            Reason::Seen,
            format!("{} was heard just now", release.lease().address),
        ))
    });
    assert!(matches!(
        result,
        Err(ReleaseError::Blocked(Blocker {
            reason: Reason::Seen,
            ..
        }))
    ));
    assert_eq!(contents(&base.path().join("net")), before);
}

#[test]
fn the_last_question_is_asked_under_host_locals_lock() {
    let (base, source, lease) = one_lease();
    let lock = File::open(base.path().join("net/lock")).expect("the lock");
    let held = Cell::new(false);
    let result = source.release(&Release::for_test(lease), &mut |_| {
        held.set(lock.try_lock().is_err());
        Ok(())
    });
    assert!(result.is_ok() && held.get());
    lock.try_lock().expect("given free after");
}

#[test]
fn a_lock_that_another_holds_for_ever_is_given_up_on() {
    let (base, source, lease) = one_lease();
    let lock = File::open(base.path().join("net/lock")).expect("the lock");
    lock.lock().expect("held");
    let began = Instant::now();
    let error = release(&source, &lease).expect_err("locked");
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert!(
        error
            .to_string()
            .contains(&format!("(process {}) for 5 s", std::process::id())),
        "{error}"
    );
    assert!(base.path().join("net/10.0.0.7").exists());

    // The lock that was put in its place is the one that counts.
    fs::remove_file(base.path().join("net/lock")).expect("no lock");
    release(&source, &lease).expect("released");
}

#[test]
fn a_directory_put_in_place_of_the_judged_one_is_left_alone() {
    let (base, source, lease) = one_lease();
    let network = base.path().join("net");
    let result = source.release(&Release::for_test(lease.clone()), &mut |_| {
        fs::remove_dir_all(&network).expect("removed");
        fs::create_dir(&network).expect("made again");
        fs::write(network.join("10.0.0.7"), format!("{ID}\r\neth0")).expect("a lease");
        Ok(())
    });
    assert!(
        matches!(result, Err(ReleaseError::Replaced { .. })),
        "{result:?}"
    );
    assert!(network.join("10.0.0.7").exists());

    fs::remove_dir_all(&network).expect("removed");
    assert!(matches!(
        release(&source, &lease),
        Err(ReleaseError::Replaced { .. })
    ));
    assert!(!network.exists(), "no directory is made");
}

#[test]
fn stores_of_other_names_are_not_ours() {
    let base = tempfile::tempdir().expect("a directory");
    let source = source(base.path());
    let has = |name: &str| source.has(&StoreName(name.into()));
    assert!(has("host-local:net"));
    for foreign in [
        "file:net",
        "host-local:",
        "host-local:..",
        "host-local:../net",
        "host-local:a/b",
    ] {
        assert!(!has(foreign), "{foreign}");
    }
    let qualified = source.qualified();
    let name = format!("host-local:{}/net", base.path().display());
    assert!(qualified.has(&StoreName(name.into())));
    assert!(!qualified.has(&StoreName("host-local:net".into())));
}

#[test]
fn a_hundred_thousand_leases_are_read_in_seconds() {
    let base = tempfile::tempdir().expect("a directory");
    let network = base.path().join("net");
    fs::create_dir(&network).expect("a network");
    let record = format!("{ID}\r\neth0");
    for n in 0..100_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        fs::write(network.join(format!("10.{a}.{b}.{c}")), &record).expect("a lease");
    }
    let source = source(base.path());
    let began = Instant::now();
    let view = view(&source);
    let elapsed = began.elapsed();
    assert_eq!(view.leases.len(), 100_000);
    println!("100,000 leases read in {elapsed:?}");
    // A guard against what grows with the square; the benchmark has the figures.
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to a lease between judgement and release: it is unlinked if nothing
    /// did, and otherwise everything stays as it is.
    #[test]
    fn only_exactly_what_was_judged_is_released(
        before in proptest::collection::vec(any::<u8>(), 0..100),
        after in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100)),
        anew in any::<bool>(),
    ) {
        let (base, source, _) = one_lease();
        let network = base.path().join("net");
        let file = network.join("10.0.0.7");
        fs::write(&file, &before).expect("written");
        let lease = only(&source, "10.0.0.7");
        if let Some(after) = &after {
            if anew {
                fs::remove_file(&file).expect("removed");
            }
            fs::write(&file, after).expect("written");
        }
        let stands = contents(&network);
        match release(&source, &lease) {
            Ok(()) => {
                prop_assert_eq!(after.unwrap_or_else(|| before.clone()), before);
                prop_assert!(!file.exists());
            }
            Err(_) => {
                prop_assert!(after.is_some());
                prop_assert_eq!(contents(&network), stands);
            }
        }
    }
}
