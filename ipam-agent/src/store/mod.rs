//! Where leases are kept: one trait over all kinds of store, and what every kind shares.
//!
//! Reading never changes a store and never fails as a whole because one network of it
//! does. The ways to change a store are [`LeaseStore::release`] and
//! [`LeaseStore::put_back`], and the one caller of both is the executor.

pub mod file;
pub mod host_local;
pub mod notes;
pub mod source;
pub mod spec;
pub mod watch;

use std::{io, path::PathBuf};

use ipam_common::Address;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::{
    lease::{Generation, Lease, StoreName, StoreView},
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

    /// Whose file a lease is, to be put back as it was. `None`: it is no file, or gone.
    fn owner(&self, lease: &Lease) -> Option<FileOwner>;

    /// Takes this one lease out of its store, if it still is exactly what was judged and
    /// `recheck` has nothing against it. Anything else leaves the store as it was. Blocks,
    /// at most some seconds for a lock that another holds. Durable after
    /// [`LeaseStore::flush`].
    fn release(&self, release: &Release, recheck: &mut Recheck<'_>) -> Result<(), ReleaseError>;

    /// Has what was released from a store on disk.
    fn flush(&self, store: &StoreName) -> Result<(), ReleaseError>;

    /// Puts a released lease back, byte by byte and all at once, if its address has no lease
    /// there; on disk when it returns. Gives the new record, where that can be told. Blocks as
    /// [`LeaseStore::release`] does.
    fn put_back(&self, former: &Former) -> Result<Option<Generation>, ReleaseError>;

    /// Reserves this address, so that the store gives it to nobody. Blocks as
    /// [`Self::release`] does.
    fn raise_fence(&self, store: &StoreName, address: Address) -> Result<(), ReleaseError>;

    /// Gives back what was reserved, if it still is exactly this.
    fn lower_fence(&self, fence: &Lease) -> Result<(), ReleaseError>;

    /// What to watch so that a change is known at once.
    fn watched(&self) -> Vec<watch::Root>;
}

/// Where a lease's file is, and who may read and write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileOwner {
    /// The permission bits, 384 for 0600.
    pub mode: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Its directory: a store's name may be another's after the configuration has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// A lease as it was before it was released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Whose it was.
    pub store: StoreName,
    /// Of which address.
    pub address: Address,
    /// The record's bytes.
    pub content: Box<[u8]>,
    /// Whose file it was, as far as known.
    pub file: Option<FileOwner>,
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

/// A lease was not released, or not put back. The store is as it was, but for
/// [`ReleaseError::NotDurable`].
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The lease isn't what was judged any more.
    #[error("{address} in {store} changed since it was judged: {what}")]
    Changed {
        /// The store.
        store: StoreName,
        /// The lease's address.
        address: Address,
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
    /// The address of a lease that was to be put back has a new one.
    #[error("{address} has a new lease in {store}, {holder}: it stays with that")]
    Taken {
        /// The store.
        store: StoreName,
        /// The address.
        address: Address,
        /// To whom, in words.
        holder: String,
    },
    /// The lease that was to be put back is of another directory.
    #[error(
        "{address} was released from {before}, and {store} is {now}: have the configuration's \
         `stores` name the directories in the order that they had, then undo it again"
    )]
    Elsewhere {
        /// The store.
        store: StoreName,
        /// The address.
        address: Address,
        /// Where it was.
        before: String,
        /// Where the store is.
        now: String,
    },
    /// Another process held the store's lock all the time.
    #[error("{lock} was held by {holder} for {seconds} s", lock = .path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// The process, or how to find it.
        holder: String,
        /// For how long it was tried.
        seconds: u64,
    },
    /// The store's directory was taken away or replaced meanwhile.
    #[error("{path} was removed or replaced meanwhile; nothing was changed")]
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
    /// It is done, but a power cut in the next seconds may undo it.
    #[error("done, but {path} could not be flushed to disk: a power cut may undo it")]
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
