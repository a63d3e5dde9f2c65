//! What the host's CNI files say: which wire a network is on, what it hands out, and whose
//! a lease is.
//!
//! Reads network configurations and libcni's caches, never writes. Both may be damaged or
//! left over from another boot, so what comes from here gives names and places; it is
//! neither a veto nor a proof.

mod cache;
mod dead;
mod network;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ipam_common::Address;

use crate::{
    engine::lease::{Holder, Place},
    regular,
    store::{
        notes::{Note, Notes},
        watch::Root,
    },
};
use cache::Attachment;
pub use dead::{dead_entries, settled_dead_entries};
pub use network::Network;

/// The largest file that is read, in bytes: a configuration or a cached result.
const FILE_LIMIT: u64 = 256 * 1024;
/// How many files of one directory are read.
const FILES_LIMIT: usize = 200_000;

/// Where CNI's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Directories of network configurations.
    pub configurations: Vec<PathBuf>,
    /// Directories of libcni's cached results.
    pub caches: Vec<PathBuf>,
    /// What flannel writes about this node's subnet.
    pub flannel: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            configurations: vec!["/etc/cni/net.d".into()],
            caches: vec![
                "/var/lib/cni/results".into(),
                "/var/lib/cni/multus/results".into(),
                "/var/lib/cni/cache/results".into(),
            ],
            flannel: "/run/flannel/subnet.env".into(),
        }
    }
}

/// Reads CNI's files, each cached result once for as long as it doesn't change.
pub struct Reader {
    paths: Paths,
    parsed: Mutex<HashMap<PathBuf, Parsed>>,
}

/// A cached result as it was when last read; `None`: it isn't one.
type Parsed = (Stamp, Option<Arc<Attachment>>);

/// By what a file is taken for unchanged. Good enough for names.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

/// CNI's files, as they were when read.
#[derive(Debug, Default)]
pub struct Cni {
    networks: BTreeMap<Arc<str>, Arc<Network>>,
    attachments: BTreeMap<Key, Arc<Attachment>>,
    /// What was passed over.
    pub notes: Notes,
}

/// Network, container id, interface.
type Key = (Arc<str>, Arc<str>, Arc<str>);

impl Cni {
    /// What is known of a network.
    pub fn network(&self, name: &str) -> Option<&Network> {
        self.networks.get(name).map(Arc::as_ref)
    }

    /// Every network that a file names, in the order of their names.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values().map(Arc::as_ref)
    }

    /// Adds to the holder of a lease of `address` in `network` what libcni cached when it
    /// was attached. The MAC and the host's interface only if that attachment has the
    /// address.
    pub fn complete(&self, network: &str, address: Address, holder: &mut Holder) {
        let Some(id) = &holder.container_id else {
            return;
        };
        let first: Key = (network.into(), id.clone(), "".into());
        let mut of_container = self
            .attachments
            .range(first..)
            .take_while(|((of, container, _), _)| **of == *network && container == id)
            .map(|(_, attachment)| attachment);
        let found = match &holder.interface {
            Some(interface) => of_container.find(|attachment| attachment.interface == *interface),
            // An old record, without the interface: which it is shows by the address.
            None => of_container.find(|attachment| attachment.carries(address)),
        };
        let Some(attachment) = found else {
            return;
        };
        holder.pod = attachment.pod.clone();
        if attachment.carries(address) {
            holder.mac = attachment.mac(address);
            holder.host_interface = attachment.host_interface.clone();
        }
    }
}

impl Reader {
    /// Reads from `paths`; nothing is read yet.
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            parsed: Mutex::default(),
        }
    }

    /// What to watch.
    pub fn watched(&self) -> Vec<Root> {
        let directories = self
            .paths
            .configurations
            .iter()
            .chain(&self.paths.caches)
            .cloned();
        let flannel = Root::File(self.paths.flannel.clone());
        directories.map(Root::Directory).chain([flannel]).collect()
    }

    /// Reads all there is. What can't be read is passed over, with a note. Blocks on file I/O.
    pub fn read(&self) -> Cni {
        let mut cni = Cni::default();
        let node = content(&self.paths.flannel, &mut cni.notes)
            .map(|content| network::NodeSubnets::parse(&content))
            .unwrap_or_default();
        for directory in &self.paths.configurations {
            for path in files(directory, &mut cni.notes) {
                let extension = path.extension().and_then(|extension| extension.to_str());
                if !matches!(extension, Some("conflist" | "conf" | "json")) {
                    continue;
                }
                let Some(content) = content(&path, &mut cni.notes) else {
                    continue;
                };
                match network::parse(&content, &node) {
                    // libcni takes the first file that names a network.
                    Ok(networks) => networks.into_iter().for_each(|network| {
                        cni.networks
                            .entry(network.name.clone())
                            .or_insert_with(|| Arc::new(network));
                    }),
                    Err(error) => cni.notes.add(
                        directory,
                        Note::Damaged,
                        format_args!("{}: {error}", path.display()),
                    ),
                }
            }
        }
        self.read_caches(&node, &mut cni);
        cni
    }

    fn read_caches(&self, node: &network::NodeSubnets, cni: &mut Cni) {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = HashMap::with_capacity(parsed.len());
        let mut cached: BTreeMap<Arc<str>, Arc<Network>> = BTreeMap::new();
        for directory in &self.paths.caches {
            for path in files(directory, &mut cni.notes) {
                let Some(stamp) = stamp(&path) else {
                    continue;
                };
                let attachment = match parsed.remove(&path).filter(|(known, _)| *known == stamp) {
                    Some((_, attachment @ Some(_))) => attachment,
                    _ => content(&path, &mut cni.notes).and_then(|content| {
                        let attachment = Attachment::parse(&content, node);
                        if let Err(error) = &attachment {
                            cni.notes.add(
                                directory,
                                Note::Damaged,
                                format_args!("{}: {error}", path.display()),
                            );
                        }
                        attachment.ok().map(Arc::new)
                    }),
                };
                if let Some(attachment) = &attachment {
                    if let Some(network) = &attachment.network {
                        merge(&mut cached, network);
                    }
                    let key = (
                        attachment.network_name.clone(),
                        attachment.container_id.clone(),
                        attachment.interface.clone(),
                    );
                    cni.attachments
                        .entry(key)
                        .or_insert_with(|| attachment.clone());
                }
                seen.insert(path, (stamp, attachment));
            }
        }
        *parsed = seen;
        drop(parsed);
        for (name, network) in cached {
            let place = network.place.clone();
            let known = cni.networks.entry(name).or_insert(network);
            // Pods that were attached by another configuration than today's still live where
            // that one put them: nobody can say where all of the network's addresses are.
            if known.place != place && known.place != Place::Unknown {
                Arc::make_mut(known).place = Place::Unknown;
            }
        }
    }
}

/// Puts together what several cached results say of one network.
fn merge(networks: &mut BTreeMap<Arc<str>, Arc<Network>>, network: &Arc<Network>) {
    let Some(known) = networks.get_mut(&network.name) else {
        networks.insert(network.name.clone(), network.clone());
        return;
    };
    if Arc::ptr_eq(known, network) || **known == **network {
        return;
    }
    let known = Arc::make_mut(known);
    if known.place != network.place {
        known.place = Place::Unknown;
    }
    for pool in &network.pools {
        if !known.pools.contains(pool) {
            known.pools.push(pool.clone());
        }
    }
}

/// The files of a directory, sorted by name, as libcni does. Not there: none.
fn files(directory: &Path, notes: &mut Notes) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            notes.add(directory, Note::Unreadable, error);
            return Vec::new();
        }
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                notes.add(directory, Note::Unreadable, error);
                break;
            }
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if paths.len() == FILES_LIMIT {
            notes.add(directory, Note::TooMany, FILES_LIMIT);
            break;
        }
        paths.push(entry.path());
    }
    paths.sort();
    paths
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        size: metadata.size(),
    })
}

/// A file's bytes, unless there are none or too many.
fn content(path: &Path, notes: &mut Notes) -> Option<Vec<u8>> {
    let place = path.parent().unwrap_or(path);
    let shown = path.file_name().unwrap_or_default().display();
    let mut content = Vec::new();
    match regular::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut content)) {
        Ok(0) => notes.add(place, Note::Empty, shown),
        Ok(length) if length as u64 > FILE_LIMIT => notes.add(place, Note::TooLarge, shown),
        Ok(_) => return Some(content),
        // Removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => notes.add(place, Note::Unreadable, format_args!("{shown}: {error}")),
    }
    None
}

#[cfg(test)]
mod tests;
