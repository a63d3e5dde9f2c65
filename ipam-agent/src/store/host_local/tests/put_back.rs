//! Putting a lease back: byte by byte, whole, and never over another's.

use super::*;

fn former(lease: &Lease, file: Option<FileOwner>) -> Former {
    Former {
        store: lease.store.clone(),
        address: lease.address,
        content: lease.generation().content,
        file,
    }
}

#[test]
fn it_is_what_it_was_whatever_it_was() {
    let (base, source, _) = one_lease();
    let network = base.path().join("net");
    let records: [(&str, &[u8], u32); 4] = [
        ("10.0.0.7", b"4bd7\r\neth0", 0o600),
        ("10.0.0.20", b"", 0o644),
        ("10.0.0.21", &[0; 17], 0o600),
        ("fd00::5", &[0xff, b'x'], 0o640),
    ];
    for (name, content, mode) in records {
        let path = network.join(name);
        fs::write(&path, content).expect("a lease");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions");
        // As far as this process may.
        let _ = std::os::unix::fs::chown(&path, Some(1234), Some(5678));
        let before = fs::metadata(&path).expect("metadata");
        let lease = only(&source, name);
        let former = former(&lease, source.owner(&lease));
        release(&source, &lease).expect("released");
        assert!(!path.exists());
        source.put_back(&former).expect("put back");
        assert_eq!(fs::read(&path).expect("content"), content, "{name}");
        let after = fs::metadata(&path).expect("metadata");
        let owner = |file: &fs::Metadata| (file.mode(), file.uid(), file.gid());
        assert_eq!(owner(&after), owner(&before), "{name}");
        let again = source.put_back(&former).expect_err("it is there");
        assert!(matches!(again, ReleaseError::Taken { .. }), "{again}");
    }
    let mut names: Vec<String> = contents(&network).into_keys().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "10.0.0.20",
            "10.0.0.21",
            "10.0.0.7",
            "10.0.0.8",
            "fd00::5",
            "last_reserved_ip.0",
            "lock"
        ]
    );
}

#[test]
fn a_new_lease_stays_however_it_is_spelled() {
    let (base, source, _) = one_lease();
    let network = base.path().join("net");
    for (name, spelled) in [("10.0.0.7", "10.0.0.7"), ("fd00::5", "FD00:0:0::5")] {
        let path = network.join(name);
        fs::write(&path, format!("{ID}\r\neth0")).expect("a lease");
        let lease = only(&source, name);
        fs::remove_file(&path).expect("released");
        fs::write(network.join(spelled), "newcomer\r\neth0").expect("a new lease");
        let before = contents(&network);
        let error = source
            .put_back(&former(&lease, None))
            .expect_err("another has it");
        assert!(
            error.to_string().contains("of container newcomer"),
            "{error}"
        );
        assert_eq!(contents(&network), before);
    }
}

#[test]
fn without_a_directory_or_its_lock_nothing_is_put_back() {
    let (base, source, lease) = one_lease();
    let network = base.path().join("net");
    let former = former(&lease, None);
    release(&source, &lease).expect("released");
    let lock = File::open(network.join("lock")).expect("the lock");
    lock.lock().expect("held");
    let error = source.put_back(&former).expect_err("locked");
    let process = format!("(process {})", std::process::id());
    assert!(error.to_string().contains(&process), "{error}");
    drop(lock);
    fs::remove_dir_all(&network).expect("removed");
    let error = source.put_back(&former).expect_err("gone");
    assert!(matches!(error, ReleaseError::Replaced { .. }), "{error}");
    assert!(!network.exists(), "it is not ours to make");
}
