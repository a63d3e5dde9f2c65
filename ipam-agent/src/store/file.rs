//! A lease file: what people, or programs that the agent does not know, write about who
//! has which address. Read only, strict: an unknown key or a bad value fails the whole
//! file, with its line, because half a file would make the other half's owners intruders.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    FileOwner, Former, LeaseStore, Reading, Recheck, ReleaseError, StoreError,
    spec::{self, ExemptSpec, Keyed, LeaseSpec, OwnerSpec, PoolSpec, common_place},
    watch::Root,
};
use crate::{
    engine::{
        lease::{Generation, Holder, Lease, Mode, Place, Pool, StoreName, StoreView},
        owner::Owners,
        plan::Release,
    },
    regular, text,
};

/// The largest file that is read, in bytes. A million leases are some 100 MiB.
const LIMIT: u64 = 512 * 1024 * 1024;
/// The most events of a YAML parser: four million leases with all they can have.
const YAML_EVENTS: usize = 64_000_000;

/// A lease file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system refused.
    #[error("cannot read the lease file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Too large.
    #[error("the lease file {path} is larger than {} MiB; split it", LIMIT >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Nothing in it, which would make an intruder of everybody.
    #[error("the lease file {path} is empty; no leases at all are written as `leases: []`")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Not what a lease file is.
    #[error("{path}{}: {message}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<u64>,
        /// What is wrong.
        message: String,
    },
}

/// A lease file's content.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    leases: Vec<Keyed<LeaseSpec>>,
    #[serde(default, deserialize_with = "spec::pools")]
    pools: Vec<PoolSpec>,
    #[serde(default, deserialize_with = "spec::owners")]
    owners: Vec<OwnerSpec>,
    #[serde(default)]
    exempt: Vec<Keyed<ExemptSpec>>,
}

/// One lease file: by its name's end CSV (leases alone, with a heading), JSON, else YAML.
pub struct LeaseFile {
    path: PathBuf,
    store: StoreName,
    pools: Vec<Pool>,
}

impl LeaseFile {
    /// The file at `path`. `pools`, where there are any, are used in place of the file's.
    pub fn new(path: PathBuf, pools: Vec<Pool>) -> Self {
        let store = StoreName(format!("file:{}", path.display()).into());
        Self { path, store, pools }
    }

    fn load(&self) -> Result<Reading, FileError> {
        let document = parse(&self.path, &content(&self.path)?)?;
        let own = document.pools.into_iter().map(|spec| spec.pool);
        let pools = if self.pools.is_empty() {
            own.collect()
        } else {
            self.pools.clone()
        };
        let mut leases: Vec<Lease> = document
            .leases
            .into_iter()
            .map(|Keyed(spec)| lease(&self.store, spec))
            .collect();
        leases.sort_by_key(|lease| lease.address);
        let view = StoreView {
            fencing: Default::default(),
            store: self.store.clone(),
            mode: Mode::Observe,
            writable: Err("a lease file is only read".to_owned()),
            place: common_place(&pools).unwrap_or(Place::Anywhere),
            pools,
            leases,
        };
        Ok(Reading {
            views: vec![Ok(view)],
            owners: Owners {
                owners: document.owners.into_iter().map(Into::into).collect(),
                exempt: { document.exempt.into_iter() }
                    .map(|Keyed(spec)| spec.into())
                    .collect(),
                ..Owners::default()
            },
            ..Reading::default()
        })
    }
}

impl LeaseStore for LeaseFile {
    fn read(&self) -> Reading {
        self.load().unwrap_or_else(|error| Reading {
            views: vec![Err(StoreError::File(error))],
            ..Reading::default()
        })
    }

    fn has(&self, store: &StoreName) -> bool {
        *store == self.store
    }

    fn owner(&self, _: &Lease) -> Option<FileOwner> {
        None
    }

    fn release(&self, release: &Release, _: &mut Recheck<'_>) -> Result<(), ReleaseError> {
        Err(only_read(&release.lease().store))
    }

    fn flush(&self, _: &StoreName) -> Result<(), ReleaseError> {
        Ok(())
    }

    fn put_back(&self, former: &Former) -> Result<Option<Generation>, ReleaseError> {
        Err(only_read(&former.store))
    }

    fn raise_fence(&self, store: &StoreName, _: ipam_common::Address) -> Result<(), ReleaseError> {
        Err(only_read(store))
    }

    fn lower_fence(&self, fence: &Lease) -> Result<(), ReleaseError> {
        Err(only_read(&fence.store))
    }

    fn watched(&self) -> Vec<Root> {
        vec![Root::File(self.path.clone())]
    }
}

fn only_read(store: &StoreName) -> ReleaseError {
    ReleaseError::ReadOnly {
        store: store.clone(),
        reason: "a lease file is only read".to_owned(),
    }
}

fn content(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut content = Vec::new();
    let read = regular::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut content));
    let path = path.to_owned();
    match read {
        Err(source) => Err(FileError::Read { path, source }),
        Ok(length) if length as u64 > LIMIT => Err(FileError::TooLarge { path }),
        Ok(_) if content.trim_ascii().is_empty() => Err(FileError::Empty { path }),
        Ok(_) => Ok(content),
    }
}

fn parse(path: &Path, content: &[u8]) -> Result<Document, FileError> {
    let wrong = |line: Option<u64>, message: String| FileError::Syntax {
        path: path.to_owned(),
        line,
        message,
    };
    let content = text::read(content).map_err(|(line, message)| wrong(Some(line), message))?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("csv") => csv(content).map_err(|(line, message)| wrong(line, message)),
        Some("json") => serde_json::from_str(content)
            .map(|Keyed(document)| document)
            .map_err(|error| wrong(Some(error.line() as u64), without_place(&error.to_string()))),
        _ => serde_saphyr::from_str_with_options(content, yaml_options()).map_err(|error| {
            let line = error.location().map(|location| location.line());
            wrong(line, crate::error::yaml(&error))
        }),
    }
}

/// Bounds that hold a million leases and no bomb of aliases.
fn yaml_options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_events: YAML_EVENTS,
        max_nodes: YAML_EVENTS,
        max_total_scalar_bytes: LIMIT as usize,
        max_depth: 16,
        max_anchors: 0,
        max_aliases: 0,
        max_documents: 1,
    };
    serde_saphyr::options! {
        budget: budget,
        with_snippet: false,
    }
}

fn csv(content: &str) -> Result<Document, (Option<u64>, String)> {
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(content.as_bytes());
    // Without a line below it nothing else would look at the heading.
    let heading = reader
        .headers()
        .map_err(|error| (None, error.to_string()))?;
    if !heading.iter().any(|column| column == "address") {
        let what = "the first line names the columns, one of them `address`: address,mac,holder";
        return Err((None, what.to_owned()));
    }
    let mut leases = Vec::new();
    for lease in reader.deserialize::<LeaseSpec>() {
        let lease = lease.map_err(|error| {
            let line = error.position().map(csv::Position::line);
            let message = match error.kind() {
                csv::ErrorKind::Deserialize { err, .. } => err.to_string(),
                _ => error.to_string(),
            };
            (line, message)
        })?;
        leases.push(Keyed(lease));
    }
    Ok(Document {
        leases,
        pools: Vec::new(),
        owners: Vec::new(),
        exempt: Vec::new(),
    })
}

/// The message without the ` at line 3 column 5` that a parser ends it with.
fn without_place(message: &str) -> String {
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].to_owned()
}

fn lease(store: &StoreName, spec: LeaseSpec) -> Lease {
    // There is no grant to compare with but what the file says of it.
    let granted = spec.granted.map(|granted| granted.to_string());
    let mac = spec.mac.map(|mac| mac.to_string());
    let parts = [
        mac.as_deref(),
        spec.interface.as_deref(),
        spec.holder.as_deref(),
        granted.as_deref(),
    ];
    let content = if parts.iter().all(Option::is_none) {
        String::new()
    } else {
        parts.map(Option::unwrap_or_default).join("\n")
    };
    let holder = Holder {
        container_id: None,
        interface: None,
        pod: spec.holder,
        mac: spec.mac,
        host_interface: spec.interface,
    };
    let generation = Generation {
        inode: 0,
        modified: 0,
        content: content.into_bytes().into(),
    };
    Lease::new(store.clone(), spec.address, &holder, &generation, None)
}

#[cfg(test)]
mod tests;
