//! Entries of libcni's and multus's caches that a power cut left empty or cut off. A runtime
//! that finds one can't undo the attachment: with libcni's DEL fails for ever
//! (containernetworking/cni#1055), with multus's it frees nothing (multus-cni#1087).

use std::{
    ffi::{CStr, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::dir::Type;
use serde::de::IgnoredAny;

use super::{FILE_LIMIT, FILES_LIMIT, Paths};
use crate::{
    engine::{
        caches::{DeadEntry, Subject},
        lease::{Damage, Generation},
    },
    journal::CACHE_LIMIT,
    store::host_local::directory::{Directory, Entry},
};

/// Where multus keeps what it delegated, one file a container.
const DELEGATED: &str = "/var/lib/cni/multus";
/// An entry is written in less: one that is half there for longer is not being written.
const WRITING: Duration = Duration::from_millis(200);
/// So many dead entries of a cache are known at once; the others come when those are gone.
const DEAD_LIMIT: usize = 1024;

/// How the entries of a cache are named.
#[derive(Clone, Copy)]
enum Naming {
    /// `NETWORK-CONTAINER-INTERFACE` (libcni/api.go, `getCacheFilePath`).
    Result,
    /// The container's id (multus, `saveScratchNetConf`).
    Delegates,
}

/// The dead entries of this host's caches, by path; empty where there are none. One that is
/// being written at this moment may be among them. Blocks on file I/O.
pub fn dead_entries() -> Vec<DeadEntry> {
    dead_in(&Paths::default().caches, Path::new(DELEGATED))
}

/// The same, without what is being written.
pub fn settled_dead_entries() -> Vec<DeadEntry> {
    let mut dead = dead_entries();
    if !dead.is_empty() {
        thread::sleep(WRITING);
        let still = dead_entries();
        dead.retain(|entry| still.contains(entry));
    }
    dead
}

fn dead_in(results: &[PathBuf], delegated: &Path) -> Vec<DeadEntry> {
    let results = results
        .iter()
        .map(|directory| (&**directory, Naming::Result));
    let mut dead: Vec<DeadEntry> = results
        .chain([(delegated, Naming::Delegates)])
        .flat_map(|(directory, naming)| dead_of(directory, naming))
        .collect();
    dead.sort_by(|a, b| a.path.cmp(&b.path));
    dead
}

/// What can't be listed or read is not known to be dead.
fn dead_of(directory: &Path, naming: Naming) -> Vec<DeadEntry> {
    let opened = Directory::open_itself(directory.to_owned());
    let Ok((opened, mut names)) = opened.and_then(|opened| {
        let names = opened.names()?;
        Ok((opened, names))
    }) else {
        return Vec::new();
    };
    names.retain(|(_, kind)| kind.is_none_or(|kind| kind == Type::File));
    names.truncate(FILES_LIMIT);
    names.sort_by(|(a, _), (b, _)| a.cmp(b));
    let dead = names
        .iter()
        .filter_map(|(name, _)| match opened.entry(name, FILE_LIMIT as usize) {
            Ok(Some(Entry::File(found))) => dead(directory, naming, name, found),
            Ok(_) | Err(_) => None,
        });
    dead.take(DEAD_LIMIT).collect()
}

fn dead(directory: &Path, naming: Naming, name: &CStr, found: Generation) -> Option<DeadEntry> {
    let damage = damage(&found.content)?;
    let container = str::from_utf8(name.to_bytes()).ok();
    let container = container.and_then(|name| naming.container(name));
    let subject = match container {
        None => Err("its name tells of no container, so nobody can say that it is gone"),
        Some(_) if found.content.len() > CACHE_LIMIT => {
            Err("it is larger than the journal could keep")
        }
        Some(container) => Ok(Subject {
            container: container.into(),
            generation: found,
        }),
    };
    Some(DeadEntry {
        path: directory.join(OsStr::from_bytes(name.to_bytes())).into(),
        damage,
        subject,
    })
}

/// What is wrong with an entry, if it is known to be dead: what is larger than is read isn't.
fn damage(content: &[u8]) -> Option<Damage> {
    if content.is_empty() {
        Some(Damage::Empty)
    } else if content.len() as u64 > FILE_LIMIT {
        None
    } else if content.contains(&0) {
        Some(Damage::Nul)
    } else {
        let read = serde_json::from_slice::<IgnoredAny>(content);
        read.is_err().then_some(Damage::Truncated)
    }
}

impl Naming {
    /// The container that an entry of this name is about, if there is no doubt which.
    fn container(self, name: &str) -> Option<&str> {
        match self {
            Self::Delegates => Some(name).filter(|name| is_id(name)),
            Self::Result => {
                // Networks and interfaces may have hyphens in their names, ids have none.
                let mut ids = name.split('-').filter(|part| is_id(part));
                let id = ids.next().filter(|_| ids.next().is_none())?;
                let (network, interface) = name.split_once(id)?;
                (network.len() > 1 && interface.len() > 1).then_some(id)
            }
        }
    }
}

/// What every container runtime's ids are: 32 bytes in hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
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
        let (id, other) = ("a1".repeat(32), "b2".repeat(32));
        write(&format!("results/my-net-{id}-net-1"), b"");
        write(&format!("results/{id}"), b"");
        write(&format!("results/n-{id}-{other}"), b"");
        write(&format!("results/n-{id}-eth1"), &[b'['; CACHE_LIMIT + 1]);
        write(&format!("multus/{id}"), &[0; 17]);
        write("multus/whole", b"[{\"name\":\"n\"}]");
        std::os::unix::fs::symlink("nowhere", results.join("n-link-eth0")).expect("linked");
        nix::unistd::mkfifo(&results.join("n-pipe-eth0"), nix::sys::stat::Mode::S_IRUSR)
            .expect("a pipe");
        let missing = base.path().join("missing");
        let found = dead_in(&[results, missing], &multus);
        let found: Vec<_> = found
            .iter()
            .map(|dead| {
                let path = dead.path.strip_prefix(base.path()).expect("inside");
                let container = dead.subject.as_ref().map(|subject| &*subject.container);
                (path.to_str().expect("text"), dead.damage, container.ok())
            })
            .collect();
        let named = |name: &str| name.replace("ID", &id).replace("OTHER", &other);
        let expected = [
            ("multus/ID", Damage::Nul, Some(&*id)),
            ("multus/empty", Damage::Empty, None),
            ("results/ID", Damage::Empty, None),
            ("results/my-net-ID-net-1", Damage::Empty, Some(&*id)),
            ("results/n-ID-OTHER", Damage::Empty, None),
            // Larger than the journal keeps.
            ("results/n-ID-eth1", Damage::Truncated, None),
            ("results/n-cut-eth0", Damage::Truncated, None),
            ("results/n-empty-eth0", Damage::Empty, None),
            ("results/n-nul-eth0", Damage::Nul, None),
        ]
        .map(|(name, damage, container)| (named(name), damage, container));
        let found: Vec<_> = { found.into_iter() }
            .map(|(path, damage, container)| (path.to_owned(), damage, container))
            .collect();
        assert_eq!(found, expected);
        let link = base.path().join("linked");
        std::os::unix::fs::symlink(&multus, &link).expect("linked");
        assert_eq!(dead_in(&[], &link), []);
    }
}
