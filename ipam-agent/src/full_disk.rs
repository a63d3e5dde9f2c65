//! For tests: a small disk of one's own, to fill.

use std::{fs, path::Path, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Runs `test` with a tmpfs of `size` bytes that only its thread sees. Needs the right to
/// mount; without it the test is skipped, visibly.
pub fn with_small_disk(size: usize, test: impl FnOnce(&Path) + Send) {
    let base = tempfile::tempdir().expect("a directory");
    let disk = base.path();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let own = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
                let none = None::<&str>;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
                mount(
                    Some("tmpfs"),
                    disk,
                    Some("tmpfs"),
                    MsFlags::empty(),
                    Some(format!("size={size}").as_str()),
                )
            });
            if let Err(error) = own {
                assert!(
                    std::env::var_os("IPAM_AGENT_NO_SKIP").is_none(),
                    "cannot mount: {error}"
                );
                eprintln!("skipped: cannot mount a tmpfs: {error}");
                return;
            }
            test(disk);
        });
        thread.join().expect("the test");
    });
}

/// Leaves no room on the disk.
pub fn fill(disk: &Path) {
    let file = disk.join("filler");
    let mut size = 0;
    while fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &[b'x'; 512]))
        .is_ok()
    {
        size += 512;
    }
    assert!(size > 0, "there was room");
}

/// Makes room again.
pub fn free(disk: &Path) {
    fs::remove_file(disk.join("filler")).expect("the filler");
}
