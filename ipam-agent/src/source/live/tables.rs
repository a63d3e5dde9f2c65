//! The kernel's tables: what is leased, what was seen, what each port may put in.
//!
//! Shared between threads, so that a long look at SIGHTINGS needn't be taken by the one
//! that handles events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray},
    sys::SyscallError,
};
use ipam_common::{
    Address,
    frame::Refusal,
    sighting::{Counter, PortBudget, SightingKey, Stamps, Tally, Watch},
};
use thiserror::Error;

use super::{LoadError, housekeeping::Housekeeping, pod};
use crate::engine::time::Timestamp;

/// `BPF_NOEXIST` and `BPF_EXIST`, the flags of an update.
const NEW: u64 = 1;
const KNOWN: u64 = 2;
/// How many entries a look at a table takes at most. A look begins anew where the entry
/// that it stood on is evicted, so under a storm it would not end by itself.
const LOOKS: usize = 2 * 262_144;

/// Why a table could not be read or written.
#[derive(Debug, Error)]
#[error("the eBPF map {map} can't be {done}")]
pub struct TableError {
    /// The map.
    map: &'static str,
    /// What was tried.
    done: &'static str,
    #[source]
    source: Box<MapError>,
}

impl TableError {
    /// Whether the map is full.
    pub fn is_full(&self) -> bool {
        errno(&self.source) == Some(libc::E2BIG)
    }
}

type Table<K, V> = Mutex<HashMap<MapData, K, V>>;

/// The maps that the program and the agent share.
pub struct Tables {
    leased: Table<[u8; 16], pod::Stamps>,
    sightings: Table<pod::SightingKey, pod::Tally>,
    ports: Table<u32, pod::PortBudget>,
    watches: Table<u32, pod::Watch>,
    counters: PerCpuArray<MapData, u64>,
}

impl Tables {
    /// Take the maps out of the object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        fn table<K: Pod, V: Pod>(
            ebpf: &mut Ebpf,
            name: &'static str,
        ) -> Result<Table<K, V>, LoadError> {
            let map = HashMap::try_from(take(ebpf, name)?);
            map.map(Mutex::new).map_err(|_| LoadError::Layout { name })
        }
        Ok(Self {
            leased: table(ebpf, "LEASED")?,
            sightings: table(ebpf, "SIGHTINGS")?,
            ports: table(ebpf, "PORTS")?,
            watches: table(ebpf, "WATCHES")?,
            counters: PerCpuArray::try_from(take(ebpf, "COUNTERS")?)
                .ok()
                .filter(|counters| counters.len() == Counter::LEN)
                .ok_or(LoadError::Layout { name: "COUNTERS" })?,
        })
    }

    /// Watch for signs of life of these addresses, from `now` on. Those that are watched
    /// already keep their stamps, and since when they are.
    ///
    /// # Errors
    ///
    /// The first of what went wrong; the other addresses are watched all the same, and
    /// [`Tables::stamps`] says which.
    pub fn leased_insert(&self, addresses: &[Address], now: Timestamp) -> Result<(), TableError> {
        let mut leased = lock(&self.leased);
        let fresh = pod::Stamps(Stamps {
            since: now.0,
            ..Stamps::default()
        });
        all(addresses.iter().map(|address| {
            unless(leased.insert(address.mapped(), fresh, NEW), libc::EEXIST)
                .map_err(|source| error("LEASED", "written", source))
        }))
    }

    /// Watch for them no longer.
    ///
    /// # Errors
    ///
    /// The first of what went wrong; the others are gone all the same.
    pub fn leased_remove(&self, addresses: &[Address]) -> Result<(), TableError> {
        let mut leased = lock(&self.leased);
        all(addresses.iter().map(|address| {
            unless(leased.remove(&address.mapped()), libc::ENOENT)
                .map_err(|source| error("LEASED", "written", source))
        }))
    }

    /// LEASED, read whole: an address that isn't there is not watched for.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn stamps(&self) -> Result<Vec<(Address, Stamps)>, TableError> {
        let leased = lock(&self.leased);
        let entries = leased.iter().map(|entry| {
            let (address, stamps) = entry.map_err(|source| error("LEASED", "read", source))?;
            Ok(Address::from_mapped(address).map(|address| (address, stamps.0)))
        });
        entries.filter_map(Result::transpose).collect()
    }

    /// The signs of life of one address; `None`: it is not watched for.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn stamp_of(&self, address: Address) -> Result<Option<Stamps>, TableError> {
        match lock(&self.leased).get(&address.mapped(), 0) {
            Ok(stamps) => Ok(Some(stamps.0)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(error("LEASED", "read", source)),
        }
    }

    /// SIGHTINGS as it is, tidied up after the look: what ports may still put in is set
    /// anew, the oldest entries of a port that is nearly at its share are deleted, and so
    /// are those of ports that are no longer watched. Both are in the answer once more.
    ///
    /// Takes about a microsecond an entry: not for the thread that handles events.
    ///
    /// # Errors
    ///
    /// If a map can't be read or written; the kernel then goes on with what was left of
    /// the shares.
    pub fn sweep(&self) -> Result<Vec<(SightingKey, Tally)>, TableError> {
        let mut sightings = lock(&self.sightings);
        let mut entries = BTreeMap::new();
        for entry in sightings.iter().take(LOOKS) {
            let (key, tally) = entry.map_err(|source| error("SIGHTINGS", "read", source))?;
            entries.insert(key.0, tally.0);
        }
        let entries: Vec<_> = entries.into_iter().collect();
        let due = Housekeeping::of(&entries, &self.port_indexes()?);
        for key in due.delete {
            unless(sightings.remove(&pod::SightingKey(key)), libc::ENOENT)
                .map_err(|source| error("SIGHTINGS", "written", source))?;
        }
        for (ifindex, sightings) in due.budgets {
            self.set_budget(ifindex, sightings)?;
        }
        Ok(entries)
    }

    /// All counters, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn counters(&self) -> Result<Counts, TableError> {
        let mut counts = Counts::default();
        for (index, count) in (0..).zip(&mut counts.0) {
            *count = self.count(index)?;
        }
        Ok(counts)
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn counter(&self, counter: Counter) -> Result<u64, TableError> {
        self.count(counter as u32)
    }

    fn count(&self, index: u32) -> Result<u64, TableError> {
        let values = self.counters.get(&index, 0);
        let values = values.map_err(|source| error("COUNTERS", "read", source))?;
        let all = values.iter();
        Ok(all.fold(0, |sum: u64, value| sum.wrapping_add(*value)))
    }

    /// Let a port put entries in; one that may already keeps what is left of its share.
    pub(super) fn open_port(&self, ifindex: u32) -> Result<(), TableError> {
        let budget = pod::PortBudget(PortBudget {
            sightings: Housekeeping::SHARE,
            ..PortBudget::default()
        });
        unless(lock(&self.ports).insert(ifindex, budget, NEW), libc::EEXIST)
            .map_err(|source| error("PORTS", "written", source))
    }

    /// Let it put in no more.
    pub(super) fn close_port(&self, ifindex: u32) -> Result<(), TableError> {
        unless(lock(&self.watches).remove(&ifindex), libc::ENOENT)
            .map_err(|source| error("WATCHES", "written", source))?;
        unless(lock(&self.ports).remove(&ifindex), libc::ENOENT)
            .map_err(|source| error("PORTS", "written", source))
    }

    /// How the program came to be on a port, if it is noted.
    pub(super) fn watch(&self, ifindex: u32) -> Option<Watch> {
        let watch = lock(&self.watches).get(&ifindex, 0);
        watch.ok().map(|watch| watch.0)
    }

    /// The ports of which that is noted.
    pub(super) fn watched(&self) -> Result<BTreeSet<u32>, TableError> {
        let watches = lock(&self.watches);
        let indexes = watches.keys().collect::<Result<_, _>>();
        indexes.map_err(|source| error("WATCHES", "read", source))
    }

    /// Note it.
    pub(super) fn note_watch(&self, ifindex: u32, watch: Watch) -> Result<(), TableError> {
        lock(&self.watches)
            .insert(ifindex, pod::Watch(watch), 0)
            .map_err(|source| error("WATCHES", "written", source))
    }

    fn port_indexes(&self) -> Result<BTreeSet<u32>, TableError> {
        let ports = lock(&self.ports);
        let indexes = ports.keys().collect::<Result<_, _>>();
        indexes.map_err(|source| error("PORTS", "read", source))
    }

    /// The tokens beside it are the kernel's; one that it spends in between is given back.
    fn set_budget(&self, ifindex: u32, sightings: i64) -> Result<(), TableError> {
        let mut ports = lock(&self.ports);
        let set = ports.get(&ifindex, 0).and_then(|mut budget| {
            budget.0.sightings = sightings;
            ports.insert(ifindex, budget, KNOWN)
        });
        unless(set, libc::ENOENT).map_err(|source| error("PORTS", "written", source))
    }
}

/// What the program counted since it was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts([u64; Counter::LEN as usize]);

impl Counts {
    /// One counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// How many frames were refused for this reason.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.0[Counter::REFUSALS as usize + refusal as usize]
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self([0; Counter::LEN as usize])
    }
}

/// Take a map out of the object.
pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Layout { name })
}

/// Nothing that panics is done under these locks; if it were, the map would be whole still.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(map: &'static str, done: &'static str, source: MapError) -> TableError {
    TableError {
        map,
        done,
        source: Box::new(source),
    }
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(SyscallError { io_error, .. }) | MapError::IoError(io_error) => {
            io_error.raw_os_error()
        }
        MapError::KeyNotFound | MapError::ElementNotFound => Some(libc::ENOENT),
        _ => None,
    }
}

fn unless(result: Result<(), MapError>, errno_that_is_fine: i32) -> Result<(), MapError> {
    match result {
        Err(error) if errno(&error) == Some(errno_that_is_fine) => Ok(()),
        other => other,
    }
}

/// Do all of them; the first error.
fn all(mut results: impl Iterator<Item = Result<(), TableError>>) -> Result<(), TableError> {
    let first = results.by_ref().find(Result::is_err).unwrap_or(Ok(()));
    results.for_each(drop);
    first
}
