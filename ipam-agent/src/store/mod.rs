//! Where leases are kept: one trait over all kinds of store, and what every kind shares.
//!
//! Reading never changes a store and never fails as a whole because one network of it
//! does. The one way to change a store is [`LeaseStore::release`], and the one caller of
//! that is the executor.

pub mod file;
pub mod host_local;
pub mod notes;
pub mod source;
pub mod spec;
pub mod watch;

use std::{io, path::PathBuf};

use ipam_common::Address;

use crate::engine::{
    lease::{Lease, StoreName, StoreView},
    owner::Owners,
    plan::{Blocker, Release},
};

pub use notes::Notes;

/// What is asked again at the last moment, under the store's lock and after the lease was
/// found unchanged. It must answer in under a second: the store's other writers wait.
pub type Recheck<'a> = dyn FnMut(&Release) -> Result<(), Blocker> + 'a;

/// One configured source of leases, with any number of stores in it.
pub trait LeaseStore: Send + Sync {
    /// Everything that is in it now. Blocks on file I/O.
    fn read(&self) -> Reading;

    /// Whether a store of this name is in it.
    fn has(&self, store: &StoreName) -> bool;

    /// Takes this one lease out of its store, if it still is exactly what was judged and
    /// `recheck` has nothing against it. Anything else leaves the store as it was. Blocks,
    /// at most some seconds for a lock that another holds.
    fn release(&self, release: &Release, recheck: &mut Recheck<'_>) -> Result<(), ReleaseError>;

    /// Reserves this address, so that the store gives it to nobody. Blocks as
    /// [`Self::release`] does.
    fn raise_fence(&self, store: &StoreName, address: Address) -> Result<(), FenceError>;

    /// Gives back what was reserved, if it still is exactly this.
    fn lower_fence(&self, fence: &Lease) -> Result<(), FenceError>;

    /// What to watch so that a change is known at once.
    fn watched(&self) -> Vec<watch::Root>;
}

/// What one source holds.
#[derive(Debug, Default)]
pub struct Reading {
    /// Its stores, in the order of their names. One that could not be read is an error of
    /// its own: its leases are unknown, not gone.
    pub views: Vec<Result<StoreView, StoreError>>,
    /// The owners and exemptions that it declares.
    pub owners: Owners,
    /// What was passed over, for people.
    pub notes: Notes,
}

/// A store, or a source with all its stores, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory with all stores of a source.
    #[error("cannot read {path}: the leases of all its networks are unknown until it can be read")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One network's directory.
    #[error("cannot read {path}: the leases of {store} are unknown until it can be read")]
    Network {
        /// The store.
        store: StoreName,
        /// The directory or the lease in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A lease file.
    #[error(transparent)]
    File(#[from] file::FileError),
}

impl StoreError {
    /// The store that could not be read; `None`: all stores of the source.
    pub fn store(&self) -> Option<&StoreName> {
        match self {
            Self::Network { store, .. } => Some(store),
            Self::Directory { .. } | Self::File(_) => None,
        }
    }
}

/// A fence was not raised or lowered. The store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// Somebody got the address meanwhile.
    #[error("{address} is leased in {store}: what is leased is not fenced")]
    Taken {
        /// The store.
        store: StoreName,
        /// The address.
        address: Address,
    },
    /// The store can't be written, or isn't what it was.
    #[error(transparent)]
    Store(#[from] ReleaseError),
}

/// A lease was not released. The store is as it was, but for [`ReleaseError::NotDurable`].
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The lease isn't what was judged any more.
    #[error("{address} in {store} changed since it was judged: {what}")]
    Changed {
        /// The store.
        store: StoreName,
        /// The lease's address.
        address: ipam_common::Address,
        /// What is there instead.
        what: &'static str,
    },
    /// What was asked at the last moment stood against it.
    #[error("{0}")]
    Blocked(Blocker),
    /// The store isn't for writing.
    #[error("{store} can't be written: {reason}")]
    ReadOnly {
        /// The store.
        store: StoreName,
        /// Why.
        reason: String,
    },
    /// Another process held the store's lock all the time.
    #[error("{lock} was held by another process for {seconds} s; `fuser {lock}` names it", lock = .path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// For how long it was tried.
        seconds: u64,
    },
    /// The store's directory was taken away or replaced meanwhile.
    #[error("{path} was removed or replaced meanwhile; nothing was released")]
    Replaced {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lease is gone, but a power cut in the next seconds may bring it back.
    #[error(
        "released, but {path} could not be flushed to disk: a power cut may bring the lease back"
    )]
    NotDurable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No source has a store of this name.
    #[error("no store {0} is configured any more")]
    Unknown(StoreName),
}
