//! The leases of CNI's host-local plugin: `<directory>/<network>/<address>`.
//!
//! May read the directory and CNI's own files, and unlink or put back one lease at a time
//! under host-local's lock. Never touches `lock`, `last_reserved_ip.*` or a directory.

pub(crate) mod directory;
mod fence;
mod lock;
mod put_back;
mod read;
mod record;
mod release;

#[cfg(test)]
mod tests;

pub use self::fence::HOLDER as FENCE_HOLDER;

use std::{
    ffi::{CString, OsStr},
    fs, io,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use ipam_common::Address;

use super::{
    FileOwner, Former, LeaseStore, Reading, Recheck, ReleaseError, StoreError,
    notes::{Note, Notes},
    watch::Root,
};
use crate::{
    cni::{self, Cni},
    engine::{
        lease::{Fencing, Generation, Holder, Lease, Mode, Place, Pool, StoreName, StoreView},
        plan::Release,
    },
};
use directory::Directory;

/// Where host-local keeps its networks unless its configuration names a `dataDir`.
pub const DIRECTORY: &str = "/var/lib/cni/networks";

/// One directory of host-local's, with all its networks.
pub struct HostLocal {
    directory: PathBuf,
    prefix: String,
    mode: Mode,
    pools: Vec<Pool>,
    fenced: bool,
    cni: Arc<cni::Reader>,
}

impl HostLocal {
    /// The networks in `directory`. `pools` are what its networks hand out of these prefixes,
    /// and on which wire, whatever CNI's own files say.
    pub fn new(directory: PathBuf, mode: Mode, pools: Vec<Pool>, cni: Arc<cni::Reader>) -> Self {
        Self {
            directory,
            prefix: "host-local:".to_owned(),
            mode,
            pools,
            fenced: false,
            cni,
        }
    }

    /// Has addresses that are used without a lease reserved, if `fenced`.
    #[must_use]
    pub fn fenced(mut self, fenced: bool) -> Self {
        self.fenced = fenced;
        self
    }

    /// Has the directory in its stores' names, for all but the first of several: networks
    /// may be called the same in both.
    #[must_use]
    pub fn qualified(mut self) -> Self {
        self.prefix = format!("host-local:{}/", self.directory.display());
        self
    }

    fn network<'a>(&self, store: &'a StoreName) -> Option<&'a str> {
        let network = store.0.strip_prefix(&self.prefix)?;
        is_network_name(network).then_some(network)
    }

    /// The directory of a store.
    fn path(&self, store: &StoreName) -> Result<PathBuf, ReleaseError> {
        let network = self.network(store);
        let network = network.ok_or_else(|| ReleaseError::Unknown(store.clone()))?;
        Ok(self.directory.join(network))
    }

    /// The names of the networks that have a directory.
    fn networks(&self, notes: &mut Notes) -> io::Result<Vec<String>> {
        let mut networks = Vec::new();
        let mut is_network = false;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // Links to directories count: host-local follows them.
            if !fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()) {
                is_network |= is_of_a_network(&entry.file_name());
                continue;
            }
            match entry.file_name().into_string() {
                Ok(name) if is_network_name(&name) => networks.push(name),
                Ok(name) => notes.add(&self.directory, Note::NetworkName, name),
                Err(name) => notes.add(&self.directory, Note::NetworkName, name.display()),
            }
        }
        if networks.is_empty() && is_network {
            let above = self.directory.parent().unwrap_or(&self.directory);
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "it looks like one network's own directory: name the one above it, {}",
                    above.display()
                ),
            ));
        }
        networks.sort();
        Ok(networks)
    }

    fn view(
        &self,
        network: &str,
        cni: &Cni,
        notes: &mut Notes,
    ) -> Result<Option<StoreView>, StoreError> {
        let store = StoreName(format!("{}{network}", self.prefix).into());
        let path = self.directory.join(network);
        let failed = |source| StoreError::Network {
            store: store.clone(),
            path: path.clone(),
            source,
        };
        let directory = match Directory::open(path.clone()) {
            Ok(directory) => directory,
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let file_system = directory.network_file_system().map_err(failed)?;
        let complete = |address, holder: &mut Holder| cni.complete(network, address, holder);
        let all = read::leases(&directory, &store, notes, complete)?;
        let is_fence = |lease: &Lease| *lease.generation().content == *fence::CONTENT;
        let (fences, leases): (Vec<_>, Vec<_>) = all.into_iter().partition(is_fence);
        let known = cni.network(network);
        let place = known.map_or(Place::Unknown, |network| network.place.clone());
        let pools = known.map_or(&[][..], |network| &network.pools);
        let pools = self.pools_of(&place, pools, &leases);
        Ok(Some(StoreView {
            store,
            mode: self.mode,
            writable: lock::unwritable(file_system).map_or(Ok(()), Err),
            place,
            pools,
            leases,
            fencing: Fencing {
                wanted: self.fenced,
                fences,
            },
        }))
    }

    /// The pools of one network, whose addresses are on this wire and whose pools these are as
    /// far as CNI's files know. A configured pool is this network's if one of its leases or of
    /// those pools lies in it: one directory holds several networks. It takes the place of no
    /// pool that it doesn't meet, and makes no link one that can be watched.
    fn pools_of(&self, place: &Place, known: &[Pool], leases: &[Lease]) -> Vec<Pool> {
        let meet = |one: &Pool, other: &Pool| {
            one.prefix.contains(&other.prefix) || other.prefix.contains(&one.prefix)
        };
        let is_of_network = |pool: &&Pool| {
            let leased = |lease: &Lease| pool.prefix.contains(&lease.address.ip());
            known.iter().any(|known| meet(pool, known)) || leases.iter().any(leased)
        };
        let mut pools: Vec<Pool> = self.pools.iter().filter(is_of_network).cloned().collect();
        if matches!(place, Place::Unwatchable(_)) {
            pools.iter_mut().for_each(|pool| pool.place = None);
        }
        let others = known.iter();
        let others = others.filter(|known| !pools.iter().any(|pool| meet(pool, known)));
        let others: Vec<Pool> = others.cloned().collect();
        pools.extend(others);
        pools
    }
}

/// CNI specification 1.0, "Network configuration format": an alphanumeric character, then
/// any of alphanumeric characters, `_`, `.` and `-`.
fn is_network_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Whether host-local has a file of this name in a network's directory.
fn is_of_a_network(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name == directory::LOCK.to_bytes()
        || name.starts_with(directory::LAST_RESERVED)
        || str::from_utf8(name).is_ok_and(|name| name.parse::<IpAddr>().is_ok())
}

impl LeaseStore for HostLocal {
    fn read(&self) -> Reading {
        let mut reading = Reading::default();
        let networks = match self.networks(&mut reading.notes) {
            Ok(networks) => networks,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                reading.notes.add(&self.directory, Note::NoDirectoryYet, "");
                return reading;
            }
            Err(source) => {
                let path = self.directory.clone();
                reading
                    .views
                    .push(Err(StoreError::Directory { path, source }));
                return reading;
            }
        };
        let cni = self.cni.read();
        for network in networks {
            let view = self.view(&network, &cni, &mut reading.notes).transpose();
            reading.views.extend(view);
        }
        reading.notes.merge(cni.notes);
        reading
    }

    fn has(&self, store: &StoreName) -> bool {
        self.network(store).is_some()
    }

    fn owner(&self, lease: &Lease) -> Option<FileOwner> {
        let path = self.path(&lease.store).ok()?;
        let directory = Some(path.display().to_string());
        let name = CString::new(lease.address.to_string()).ok()?;
        let owner = Directory::open(path).ok()?.owner(&name).ok()?;
        Some(FileOwner { directory, ..owner })
    }

    fn release(&self, release: &Release, recheck: &mut Recheck<'_>) -> Result<(), ReleaseError> {
        release::release(&self.path(&release.lease().store)?, release, recheck)
    }

    fn flush(&self, store: &StoreName) -> Result<(), ReleaseError> {
        lock::flush(self.path(store)?)
    }

    fn put_back(&self, former: &Former) -> Result<Option<Generation>, ReleaseError> {
        let path = self.path(&former.store)?;
        let now = path.display().to_string();
        match former.file.as_ref().and_then(|file| file.directory.clone()) {
            Some(before) if before != now => Err(ReleaseError::Elsewhere {
                store: former.store.clone(),
                address: former.address,
                before,
                now,
            }),
            _ => put_back::put_back(&path, former),
        }
    }

    fn raise_fence(&self, store: &StoreName, address: Address) -> Result<(), ReleaseError> {
        fence::raise(&self.path(store)?, store, address)
    }

    fn lower_fence(&self, fence: &Lease) -> Result<(), ReleaseError> {
        fence::lower(&self.path(&fence.store)?, fence)
    }

    fn watched(&self) -> Vec<Root> {
        let mut roots = vec![Root::Tree(self.directory.clone())];
        roots.extend(self.cni.watched());
        roots
    }
}
