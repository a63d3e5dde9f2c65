//! Entries of libcni's and multus's caches that a power cut left empty or cut off. A runtime
//! that finds one can't undo the attachment: with libcni's DEL fails for ever
//! (containernetworking/cni#1055), with multus's it frees nothing (multus-cni#1087).

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::de::IgnoredAny;

use super::{Paths, content, files};
use crate::{
    engine::lease::Damage,
    store::notes::{Note, Notes},
};

/// Where multus keeps what it delegated, one file a container.
const DELEGATED: &str = "/var/lib/cni/multus";
/// An entry is written in less: one that is half there for longer is not being written.
const WRITING: Duration = Duration::from_millis(200);

/// A cache's entry that can't be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadEntry {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub damage: Damage,
}

/// The dead entries of this host's caches, by path; empty where there are none. Blocks on
/// file I/O.
pub fn dead_entries() -> Vec<DeadEntry> {
    let mut directories = Paths::default().caches;
    directories.push(DELEGATED.into());
    dead_in(&directories)
}

fn dead_in(directories: &[PathBuf]) -> Vec<DeadEntry> {
    let mut paths = Vec::new();
    for directory in directories {
        // What can't be listed is not known to be dead.
        paths.extend(files(directory, &mut Notes::default()));
    }
    let mut dead: Vec<DeadEntry> = paths
        .into_iter()
        .filter_map(|path| {
            let damage = damage(&path)?;
            Some(DeadEntry { path, damage })
        })
        .collect();
    if !dead.is_empty() {
        thread::sleep(WRITING);
        dead.retain(|entry| damage(&entry.path) == Some(entry.damage));
    }
    dead.sort_by(|a, b| a.path.cmp(&b.path));
    dead
}

/// What is wrong with a cache's entry, if it is known to be dead: what can't be read, or is
/// larger than is read, isn't.
fn damage(path: &Path) -> Option<Damage> {
    let mut notes = Notes::default();
    match content(path, &mut notes) {
        None => (notes.count(Note::Empty) > 0 && path.is_file()).then_some(Damage::Empty),
        Some(content) if content.contains(&0) => Some(Damage::Nul),
        Some(content) => {
            let read = serde_json::from_slice::<IgnoredAny>(&content);
            read.is_err().then_some(Damage::Truncated)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cni::FILE_LIMIT;

    #[test]
    fn what_power_cuts_leave_is_told_from_what_can_be_read() {
        let base = tempfile::tempdir().expect("a directory");
        let (results, multus) = (base.path().join("results"), base.path().join("multus"));
        for directory in [&results, &multus, &multus.join("results")] {
            fs::create_dir(directory).expect("made");
        }
        let write = |name: &str, content: &[u8]| {
            fs::write(base.path().join(name), content).expect("written");
        };
        let whole = br#"{"kind":"cniCacheV1","containerId":"a","ifName":"eth0","networkName":"n"}"#;
        write("results/n-whole-eth0", whole);
        write("results/n-other-kind", b"{}");
        write("results/n-empty-eth0", b"");
        write("results/n-nul-eth0", &[0; 17]);
        write("results/n-cut-eth0", &whole[..40]);
        write("results/n-large-eth0", &vec![b'x'; FILE_LIMIT as usize + 1]);
        write("multus/empty", b"");
        write("multus/whole", b"[{\"name\":\"n\"}]");
        std::os::unix::fs::symlink("nowhere", results.join("n-link-eth0")).expect("linked");
        nix::unistd::mkfifo(&results.join("n-pipe-eth0"), nix::sys::stat::Mode::S_IRUSR)
            .expect("a pipe");
        let missing = base.path().join("missing");
        let found = dead_in(&[results, multus, missing]);
        let found: Vec<_> = found
            .iter()
            .map(|dead| {
                let path = dead.path.strip_prefix(base.path()).expect("inside");
                (path.to_str().expect("text"), dead.damage)
            })
            .collect();
        let expected = [
            ("multus/empty", Damage::Empty),
            ("results/n-cut-eth0", Damage::Truncated),
            ("results/n-empty-eth0", Damage::Empty),
            ("results/n-nul-eth0", Damage::Nul),
        ];
        assert_eq!(found, expected);
    }
}
