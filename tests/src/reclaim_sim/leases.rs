//! The stores, as they are in truth: every lease, when it was granted, and exactly which it
//! is. In some worlds they are files as host-local writes them, for the real store to read
//! and to release from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use ipam_agent::engine::lease::{Damage, Fencing, Generation, Holder, Lease, Mode, StoreView};
use ipam_common::Address;
use tempfile::TempDir;

use super::{
    host::SECOND,
    net::{net, nets},
    plan::{NETS, Plan},
};

/// A network and an address.
pub type Key = (usize, Address);

/// The granularity of files' times.
const TICK: i64 = 4_000_000;

#[derive(Clone, Debug)]
struct Entry {
    generation: Generation,
    granted: u64,
    boot: u32,
    damage: Option<Damage>,
    id: String,
    /// It was put back, in this boot.
    restored: Option<u32>,
}

/// A lease that the agent released.
struct Gone {
    entry: Entry,
    at: u64,
    /// When it had been heard last; at the latest when the host was booted.
    quiet_since: u64,
    /// When it was first heard again.
    heard: Option<u64>,
    /// The address has had another lease since.
    taken: bool,
}

impl Gone {
    fn new(entry: Entry, quiet_since: u64, at: u64) -> Self {
        Self {
            entry,
            at,
            quiet_since,
            heard: None,
            taken: false,
        }
    }
}

/// That a record was put back.
#[derive(Clone, Debug)]
struct Doubt {
    key: Key,
    content: Box<[u8]>,
    boot: u32,
    at: u64,
    /// How long a silence was broken, at least and at most.
    least: u64,
    most: u64,
}

/// Four times as long as it was silent before it was heard, or a day.
fn enough(silence: u64) -> u64 {
    (4 * silence).min(24 * 3600 * SECOND)
}

/// Every lease of every store.
pub struct Leases {
    entries: BTreeMap<Key, Entry>,
    /// What the agent released last of each address.
    gone: BTreeMap<Key, Gone>,
    /// What the agent was about to release when it was killed. If it is freed before the next
    /// run looks, that run can't but take it for released.
    intended: BTreeMap<Key, Gone>,
    /// What was freed last of each address.
    freed: BTreeMap<Key, Entry>,
    /// Each record that the agent put back.
    doubts: Vec<Doubt>,
    /// What this run of the agent put back: the record before, and now.
    pub came_back: BTreeMap<Key, (Generation, Generation)>,
    last: [usize; NETS],
    modes: [Mode; NETS],
    unreadable_until: [u64; NETS],
    all_unreadable_until: u64,
    /// How far the wall clock is from the world's.
    pub wall: i64,
    disk: Option<TempDir>,
}

impl Leases {
    /// Stores without a lease.
    pub fn new(plan: &Plan) -> std::io::Result<Self> {
        let disk = plan.files.then(memory_directory).transpose()?;
        if let Some(disk) = &disk {
            for net in nets() {
                fs::create_dir(disk.path().join(net.name()))?;
                fs::write(disk.path().join(net.name()).join("lock"), "")?;
            }
        }
        Ok(Self {
            entries: BTreeMap::new(),
            gone: BTreeMap::new(),
            intended: BTreeMap::new(),
            freed: BTreeMap::new(),
            doubts: Vec::new(),
            came_back: BTreeMap::new(),
            last: [0; NETS],
            modes: plan.modes,
            unreadable_until: [0; NETS],
            all_unreadable_until: 0,
            wall: 1_700_000_000 * SECOND as i64,
            disk,
        })
    }

    /// The real store's directory, in a world of files.
    pub fn directory(&self) -> Option<&Path> {
        self.disk.as_ref().map(TempDir::path)
    }

    /// The wall clock.
    pub fn wall_time(&self, now: u64) -> i64 {
        self.wall + now as i64
    }

    /// Every lease there is.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.entries.keys().copied()
    }

    /// When a lease was granted.
    pub fn granted(&self, key: Key) -> u64 {
        self.entries.get(&key).map_or(0, |entry| entry.granted)
    }

    /// In which boot.
    pub fn boot(&self, key: Key) -> Option<u32> {
        self.entries.get(&key).map(|entry| entry.boot)
    }

    /// The container that a lease was granted to, whatever its record says now.
    pub fn container(&self, key: Key) -> Option<String> {
        self.entries.get(&key).map(|entry| entry.id.clone())
    }

    /// The id of an undamaged lease's holder.
    pub fn id(&self, key: Key) -> Option<String> {
        let entry = self.entries.get(&key)?;
        entry.damage.is_none().then(|| entry.id.clone())
    }

    /// Which grant it is.
    pub fn generation(&self, key: Key) -> Option<&Generation> {
        self.entries.get(&key).map(|entry| &entry.generation)
    }

    /// What is wrong with it.
    pub fn damage(&self, key: Key) -> Option<Damage> {
        self.entries.get(&key)?.damage
    }

    /// The next free address after the last, as host-local gives them.
    pub fn grant(&mut self, number: usize, id: &str, now: u64, boot: u32) -> Option<Address> {
        let addresses = net(number).addresses();
        let from = self.last[number] + 1;
        let mut places = (from..from + addresses.len()).map(|place| place % addresses.len());
        let place =
            places.find(|&place| !self.entries.contains_key(&(number, addresses[place])))?;
        self.last[number] = place;
        self.regrant((number, addresses[place]), id, now, boot);
        Some(addresses[place])
    }

    /// The address is freed, if it has a lease, and granted.
    pub fn regrant(&mut self, key: Key, id: &str, now: u64, boot: u32) {
        self.remove(key);
        self.intended.remove(&key);
        if let Some(gone) = self.gone.get_mut(&key) {
            gone.taken = true;
        }
        let content = format!("{id}\r\neth0");
        let generation = self.write(key, content.as_bytes(), now);
        let entry = Entry {
            generation,
            granted: now,
            boot,
            damage: None,
            id: id.to_owned(),
            restored: None,
        };
        self.entries.insert(key, entry);
    }

    /// What a DEL does: it frees what is exactly its own.
    pub fn free(&mut self, key: Key, id: &str) -> bool {
        let own = self.id(key).is_some_and(|of| of == id);
        if own && let Some(entry) = self.remove(key) {
            self.freed.insert(key, entry);
        }
        own
    }

    /// Damages a record where it stands.
    pub fn spoil(&mut self, key: Key, damage: Damage) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let content: Vec<u8> = match damage {
            Damage::Empty => Vec::new(),
            Damage::Nul => vec![0; 17],
            Damage::Truncated => entry.id.as_bytes()[..20].to_vec(),
            Damage::IdOnly => entry.id.clone().into_bytes(),
            Damage::Oversized => vec![b'a'; 5000],
        };
        entry.damage = Some(damage);
        entry.generation.content = content.clone().into();
        entry.generation.modified += TICK;
        if let Some(path) = self.path(key) {
            fs::write(&path, &content).expect("written");
            self.entries.get_mut(&key).expect("known").generation = stand(&path).expect("there");
        }
    }

    /// A file that was never written to disk is gone.
    pub fn lose(&mut self, key: Key) {
        self.remove(key);
    }

    /// The agent released it, and it is gone from the disk.
    pub fn released(&mut self, key: Key, quiet_since: u64, now: u64) {
        self.intended.remove(&key);
        if let Some(entry) = self.entries.remove(&key) {
            self.gone.insert(key, Gone::new(entry, quiet_since, now));
        }
    }

    /// The agent has written down that it will release this one, and does not come to do it.
    pub fn intended(&mut self, key: Key, of: &Generation, quiet_since: u64, now: u64) {
        let known = [self.entries.get(&key), self.freed.get(&key)];
        let mut known = known.into_iter().flatten();
        if let Some(entry) = known.find(|entry| entry.generation == *of) {
            let gone = Gone::new(entry.clone(), quiet_since, now);
            self.intended.insert(key, gone);
        }
    }

    /// Its address was heard.
    pub fn heard(&mut self, key: Key, now: u64) {
        if let Some(gone) = self.gone.get_mut(&key) {
            gone.heard.get_or_insert(now);
        }
    }

    /// When its address was first heard since it was released.
    pub fn heard_again(&self, key: Key) -> Option<u64> {
        self.gone.get(&key)?.heard
    }

    /// When the agent released it last, or was about to.
    pub fn released_at(&self, key: Key) -> Option<u64> {
        let gone = [self.gone.get(&key), self.intended.get(&key)];
        gone.into_iter().flatten().map(|gone| gone.at).max()
    }

    /// Those whose lease the agent released since then, and nobody has had one since.
    pub fn vacated(&self, since: u64) -> impl Iterator<Item = Key> {
        let gone = self.gone.iter();
        gone.filter(move |(_, gone)| gone.at >= since && !gone.taken)
            .map(|(&key, _)| key)
    }

    /// The agent put it back: the record, if this is what was released. In a world of files, it
    /// is there already.
    pub fn put_back(
        &mut self,
        key: Key,
        content: &[u8],
        now: u64,
        boot: u32,
    ) -> Option<Generation> {
        let gone = self.gone.remove(&key);
        let gone = self.intended.remove(&key).or(gone)?;
        let entry = gone.entry;
        if self.entries.contains_key(&key) || *entry.generation.content != *content {
            return None;
        }
        let generation = match self.path(key) {
            Some(path) => stand(&path).filter(|there| *there.content == *content),
            None => Some(self.write(key, content, now)),
        };
        let generation = generation?;
        self.doubts.push(Doubt {
            key,
            content: content.into(),
            boot,
            at: now,
            least: gone.heard.map_or(0, |heard| heard - gone.at),
            most: now - gone.quiet_since,
        });
        let both = (entry.generation.clone(), generation.clone());
        self.came_back.insert(key, both);
        // It is on disk, however soon the power is cut.
        let entry = Entry {
            generation: generation.clone(),
            granted: 0,
            restored: Some(boot),
            ..entry
        };
        self.entries.insert(key, entry);
        Some(generation)
    }

    /// If this very lease was put back in this boot: when, and for how long it must be silent
    /// until it goes again, at least.
    pub fn restored(&self, key: Key, boot: u32) -> Option<(u64, u64)> {
        let entry = self.entries.get(&key)?;
        entry.restored.filter(|restored| *restored == boot)?;
        let at = self.doubts_of(key, boot).map(|doubt| doubt.at).max()?;
        let least = self.doubts_of(key, boot).map(|doubt| doubt.least).max()?;
        Some((at, enough(least)))
    }

    /// If it looks as if it had been put back or, damaged now, may have been: when, and for how
    /// long it must be silent at most.
    pub fn enough(&self, key: Key, boot: u32) -> Option<(u64, u64)> {
        let at = self.doubts_of(key, boot).map(|doubt| doubt.at).max()?;
        // It is the address that broke the silence, whoever had it.
        let of_address = |doubt: &&Doubt| (doubt.key, doubt.boot) == (key, boot);
        let doubts = self.doubts.iter().filter(of_address);
        let most = doubts.map(|doubt| doubt.most).max()?;
        Some((at, enough(most)))
    }

    fn doubts_of(&self, key: Key, boot: u32) -> impl Iterator<Item = &Doubt> {
        let entry = self.entries.get(&key);
        self.doubts.iter().filter(move |doubt| {
            let same =
                |entry: &Entry| entry.damage.is_some() || doubt.content == entry.generation.content;
            (doubt.key, doubt.boot) == (key, boot) && entry.is_some_and(same)
        })
    }

    /// Who doesn't lock writes another record in place of this one.
    pub fn overwrite(&mut self, key: Key, now: u64) {
        if let Some(entry) = self.entries.get(&key).cloned() {
            self.regrant(key, &entry.id, now, entry.boot);
        }
    }

    /// A network's directory, or all, can't be read until then.
    pub fn unreadable(&mut self, number: Option<usize>, until: u64) {
        match number {
            Some(number) => self.unreadable_until[number % NETS] = until,
            None => self.all_unreadable_until = until,
        }
    }

    /// Whether all stores can't be read.
    pub fn is_all_unreadable(&self, now: u64) -> bool {
        now < self.all_unreadable_until
    }

    /// Whether a store can't be read.
    pub fn is_unreadable(&self, number: usize, now: u64) -> bool {
        now < self.unreadable_until[number]
    }

    /// What a store says that is no file.
    pub fn view(&self, number: usize) -> StoreView {
        let net = net(number);
        let of_net = self.entries.iter().filter(|((of, _), _)| *of == number);
        StoreView {
            store: net.store(),
            mode: self.modes[number],
            writable: Ok(()),
            place: net.place(),
            pools: vec![net.pool()],
            leases: of_net
                .map(|(&(_, address), entry)| {
                    let holder = Holder {
                        container_id: self.id((number, address)).map(Into::into),
                        ..Holder::default()
                    };
                    Lease::new(
                        net.store(),
                        address,
                        &holder,
                        &entry.generation,
                        entry.damage,
                    )
                })
                .collect(),
            fencing: Fencing::default(),
        }
    }

    /// Whether the files are what they should be: to the byte, and none more.
    pub fn verify(&self) -> Result<(), String> {
        let Some(disk) = self.directory() else {
            return Ok(());
        };
        for (number, net) in nets().enumerate() {
            let directory = disk.join(net.name());
            let listed = fs::read_dir(&directory).map_err(|error| error.to_string())?;
            let names: BTreeSet<String> = listed
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            let of_net = || self.keys().filter(|(of, _)| *of == number);
            let mut expected: BTreeSet<String> =
                of_net().map(|(_, address)| address.to_string()).collect();
            expected.insert("lock".into());
            if names != expected {
                return Err(format!(
                    "{} holds {names:?} instead of {expected:?}",
                    net.name()
                ));
            }
            for key in of_net() {
                let there = self.path(key).as_deref().and_then(stand);
                if there.as_ref() != self.generation(key) {
                    return Err(format!("{} of {} is {there:?}", key.1, net.name()));
                }
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        if let Some(path) = self.path(key) {
            fs::remove_file(path).expect("removed");
        }
        Some(entry)
    }

    fn write(&self, key: Key, content: &[u8], now: u64) -> Generation {
        if let Some(path) = self.path(key) {
            fs::write(&path, content).expect("written");
            return stand(&path).expect("there");
        }
        // The lowest that is free, as file systems give them again.
        let used: BTreeSet<u64> = self
            .entries
            .values()
            .map(|entry| entry.generation.inode)
            .collect();
        let inode = (1..).find(|inode| !used.contains(inode)).unwrap_or(0);
        let modified = self.wall_time(now) / TICK * TICK;
        Generation {
            inode,
            modified,
            content: content.into(),
        }
    }

    fn path(&self, (number, address): Key) -> Option<PathBuf> {
        let directory = self.directory()?.join(net(number).name());
        Some(directory.join(address.to_string()))
    }
}

/// What stands at a path.
fn stand(path: &Path) -> Option<Generation> {
    let content = fs::read(path).ok()?;
    let metadata = fs::metadata(path).ok()?;
    Some(Generation {
        inode: metadata.ino(),
        modified: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        content: content.into(),
    })
}

/// A directory in memory, where there is one: thousands are made.
pub fn memory_directory() -> std::io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}
