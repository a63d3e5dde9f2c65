//! The state's database: a table of leases, one of the claims that were heard, and one of the
//! container runtimes that were.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use ipam_common::{
    Address,
    sighting::{SightingKey, Tally},
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Key, Remembered};
use crate::engine::{
    holders::HeardSocket,
    lease::{Generation, StoreName},
    time::Timestamp,
};

/// The database's file in the state directory.
pub const FILE: &str = "state.redb";
/// What the database may cache, in bytes: it is read once and then written to.
const CACHE: usize = 1024 * 1024;

/// Store and address.
type RowKey = (&'static str, [u8; 16]);
/// Inode, modification time, content, boot, CLOCK_BOOTTIME and wall clock, nanoseconds both.
type Row = (u64, i64, &'static [u8], &'static str, u64, i128);
const LEASES: TableDefinition<'static, RowKey, Row> = TableDefinition::new("leases-v1");

/// A claim: port, outer VLAN, VLAN, address, MAC.
type ClaimKey = (u32, u16, u16, [u8; 16], [u8; 6]);
/// First, last and last strong word on CLOCK_BOOTTIME, frames, kinds of evidence.
type ClaimRow = (u64, u64, u64, u32, u32);
const CLAIMS: TableDefinition<'static, ClaimKey, ClaimRow> = TableDefinition::new("claims-v1");
/// The boot on whose clock the claims are.
const CLAIMS_BOOT: TableDefinition<'static, (), &'static str> =
    TableDefinition::new("claims-boot-v1");

/// By a runtime's socket: the boot in which it answered last, and whether it listed sandboxes.
/// Older versions pass it over.
const RUNTIMES: TableDefinition<'static, &'static str, (&'static str, bool)> =
    TableDefinition::new("runtimes-v1");

/// The open database.
pub struct Store(Database);

/// The database can't be opened.
pub enum OpenError {
    /// It isn't one, or not whole.
    Damaged(String),
    /// The file system refused.
    Failed(redb::Error),
}

impl Store {
    /// Opens or makes the database, checks all of it and reads it.
    pub fn open(path: &Path) -> Result<(Self, Vec<Remembered>), OpenError> {
        let made = is_to_be_made(path);
        let opened = Self::open_or_make(path);
        if made && opened.is_err() {
            // What is left of one that was not finished, as on a full disk, would be taken for a
            // damaged one. If it can't be removed it is moved aside.
            let _ = fs::remove_file(path);
        }
        opened
    }

    fn open_or_make(path: &Path) -> Result<(Self, Vec<Remembered>), OpenError> {
        let mut builder = Database::builder();
        builder
            .set_cache_size(CACHE)
            .set_check_integrity_on_open(true);
        make_private(path).map_err(|error| classify(redb::Error::Io(error)))?;
        let store = Self(
            builder
                .create(path)
                .map_err(|error| classify(error.into()))?,
        );
        let loaded = store.read().map_err(classify)?;
        let loaded = loaded.ok_or_else(|| OpenError::Damaged("a row makes no sense".to_owned()))?;
        Ok((store, loaded))
    }

    /// All rows; `None` if one of them can't have been written by this program.
    fn read(&self) -> Result<Option<Vec<Remembered>>, redb::Error> {
        let transaction = self.0.begin_read()?;
        let table = match transaction.open_table(LEASES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Some(Vec::new())),
            Err(error) => return Err(error.into()),
        };
        let mut rows = Vec::new();
        let mut names = Interned::default();
        for row in table.iter()? {
            let (key, value) = row?;
            let ((store, address), (inode, modified, content, boot_id, first_seen, at)) =
                (key.value(), value.value());
            let (Some(address), Ok(at)) = (
                Address::from_mapped(address),
                jiff::Timestamp::from_nanosecond(at),
            ) else {
                return Ok(None);
            };
            rows.push(Remembered {
                store: StoreName(names.get(store)),
                address,
                generation: Generation {
                    inode,
                    modified,
                    content: content.into(),
                },
                boot_id: names.get(boot_id),
                first_seen: Timestamp(first_seen),
                at,
            });
        }
        Ok(Some(rows))
    }

    /// The claims that were heard in this boot.
    pub fn claims(&self, boot: &str) -> Result<Vec<(SightingKey, Tally)>, redb::Error> {
        let transaction = self.0.begin_read()?;
        let of = match transaction.open_table(CLAIMS_BOOT) {
            Ok(table) => table.get(())?.map(|of| of.value().to_owned()),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        if of.as_deref() != Some(boot) {
            return Ok(Vec::new());
        }
        let mut claims = Vec::new();
        for row in transaction.open_table(CLAIMS)?.iter()? {
            let (key, value) = row?;
            let (ifindex, outer_vlan, vlan, address, mac) = key.value();
            let (first_seen, last_seen, last_strong, frames, kinds) = value.value();
            let key = SightingKey {
                ifindex,
                outer_vlan,
                vlan,
                address,
                mac,
                probe: 0,
                reserved: 0,
            };
            let tally = Tally {
                first_seen,
                last_seen,
                last_strong,
                frames,
                kinds,
                ..Tally::default()
            };
            claims.push((key, tally));
        }
        Ok(claims)
    }

    /// Replaces the claims, in one transaction, on disk when it returns.
    pub fn write_claims(
        &mut self,
        boot: &str,
        claims: &[(SightingKey, Tally)],
    ) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        transaction.delete_table(CLAIMS)?;
        {
            transaction.open_table(CLAIMS_BOOT)?.insert((), boot)?;
            let mut table = transaction.open_table(CLAIMS)?;
            for (key, tally) in claims {
                table.insert(
                    (key.ifindex, key.outer_vlan, key.vlan, key.address, key.mac),
                    (
                        tally.first_seen,
                        tally.last_seen,
                        tally.last_strong,
                        tally.frames,
                        tally.kinds,
                    ),
                )?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// The runtimes' sockets that answered in this boot.
    pub fn runtimes(&self, boot: &str) -> Result<Vec<HeardSocket>, redb::Error> {
        let transaction = self.0.begin_read()?;
        let table = match transaction.open_table(RUNTIMES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut heard = Vec::new();
        for row in table.iter()? {
            let (path, value) = row?;
            let (of, filled) = value.value();
            if of == boot {
                let path = path.value().into();
                heard.push(HeardSocket { path, filled });
            }
        }
        Ok(heard)
    }

    /// Writes everything in one transaction, on disk when it returns.
    pub fn write(
        &mut self,
        rows: &BTreeMap<Key, Option<Remembered>>,
        heard: Option<&(Arc<str>, Vec<HeardSocket>)>,
    ) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        if let Some((boot, heard)) = heard {
            let mut table = transaction.open_table(RUNTIMES)?;
            table.retain(|_, (of, _)| of == &**boot)?;
            for HeardSocket { path, filled } in heard {
                let known = table.get(&**path)?.is_some_and(|known| known.value().1);
                table.insert(&**path, (&**boot, *filled || known))?;
            }
        }
        {
            let mut table = transaction.open_table(LEASES)?;
            for ((store, address), row) in rows {
                let key = (&*store.0, address.mapped());
                match row {
                    Some(Remembered {
                        generation,
                        boot_id,
                        first_seen,
                        at,
                        ..
                    }) => {
                        let Generation {
                            inode,
                            modified,
                            content,
                        } = generation;
                        table.insert(
                            key,
                            (
                                *inode,
                                *modified,
                                &**content,
                                &**boot_id,
                                first_seen.0,
                                at.as_nanosecond(),
                            ),
                        )?;
                    }
                    None => drop(table.remove(key)?),
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

/// Has nobody else look into the file, which is made if need be: redb makes it for all to read.
fn make_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    // One that is there may have been made for everybody to read.
    let _ = file.set_permissions(Permissions::from_mode(0o600));
    Ok(())
}

/// Whether there is no database yet: no file, or one of which a power cut left the name.
fn is_to_be_made(path: &Path) -> bool {
    let found = fs::symlink_metadata(path);
    found.map_or_else(
        |error: io::Error| error.kind() == ErrorKind::NotFound,
        |file| file.is_file() && file.len() == 0,
    )
}

fn classify(error: redb::Error) -> OpenError {
    match error {
        redb::Error::Corrupted(what) => OpenError::Damaged(what),
        redb::Error::UpgradeRequired(version) => OpenError::Damaged(format!("format {version}")),
        redb::Error::RepairAborted => OpenError::Damaged("repair was given up".to_owned()),
        error @ (redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }) => OpenError::Damaged(error.to_string()),
        // What redb says of a file that isn't a database.
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof
            ) =>
        {
            OpenError::Damaged(error.to_string())
        }
        error => OpenError::Failed(error),
    }
}

/// Names that many rows share, held once.
#[derive(Default)]
struct Interned(std::collections::BTreeSet<Arc<str>>);

impl Interned {
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        name
    }
}
