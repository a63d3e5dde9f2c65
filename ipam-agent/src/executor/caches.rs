//! Removes dead entries of CNI's caches: as with releases, what is meant is in the journal
//! before a file is touched, and what became of it after.
//!
//! libcni locks nothing, so the file is compared in full right before it is unlinked. It
//! writes an entry once, at the end of an ADD, and no container's id is given twice.

use std::{
    collections::BTreeSet,
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::Settled;
use crate::{
    engine::{
        caches::{Cleaned, NotRemoved, Removal},
        lease::Generation,
        plan::{Blocker, Reason},
    },
    error::in_full,
    fault,
    journal::{CACHE_LIMIT, CacheEffect, CacheResult, Journal, JournalError, When},
    store::host_local::directory::{Directory, Entry},
};

/// A cache's file can't be examined or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", .path.display())]
struct CacheError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Removes what `removals` says, in its order, and tells of each what became of it. `recheck`
/// is asked right before each. Blocks on file I/O.
pub fn clean(
    removals: Vec<Removal>,
    journal: &mut Journal,
    clock: &dyn Fn() -> When,
    recheck: &mut dyn FnMut(&Removal) -> Result<(), Blocker>,
) -> Vec<Cleaned> {
    let ids = match journal.append_cleanings(clock(), &removals) {
        Ok(ids) => ids,
        Err(error) => {
            let failed = |removal| Cleaned {
                removal,
                result: Err(NotRemoved::Failed(in_full(&error))),
            };
            return removals.into_iter().map(failed).collect();
        }
    };
    let mut broken: Option<String> = None;
    let mut done = Vec::with_capacity(removals.len());
    for (removal, id) in removals.into_iter().zip(&ids) {
        let result = match &broken {
            Some(error) => Err(NotRemoved::Failed(error.clone())),
            None => recheck(&removal)
                .map_err(NotRemoved::Kept)
                .and_then(|()| remove(&removal)),
        };
        if broken.is_none() {
            let written = journal.append_cleaned(clock(), id, effect(&result));
            broken = written.err().map(|error| in_full(&error));
        }
        done.push(Cleaned {
            removal,
            result: result.map(drop),
        });
    }
    if let Err(error) = journal.sync() {
        // The next start finds out by looking.
        tracing::warn!("{}", in_full(&error));
    }
    done
}

/// Unlinks the file if it is exactly what was judged. Gives why that may not be on disk yet,
/// if it may not.
fn remove(removal: &Removal) -> Result<Option<String>, NotRemoved> {
    let failed = |error: CacheError| NotRemoved::Failed(in_full(&error));
    let (directory, name) = open(removal.path()).map_err(failed)?;
    let error = |doing| {
        let path = removal.path().to_path_buf();
        move |source| CacheError {
            doing,
            path,
            source,
        }
    };
    let there = there(&directory, &name).map_err(|source| failed(error("read")(source)))?;
    if there.as_ref() != Some(&removal.subject().generation) {
        let what = match there {
            Some(_) => "it was written to meanwhile",
            None => "it is gone, or no file any more",
        };
        return Err(NotRemoved::Kept(Blocker::new(Reason::Changed, what)));
    }
    fault::reach("cache-there");
    let unlinked = directory.unlink(&name);
    unlinked.map_err(|source| failed(error("remove")(source)))?;
    fault::reach("cache-removed");
    let flushed = directory.flush().map_err(error("flush the directory of"));
    Ok(flushed.err().map(|error| in_full(&error)))
}

fn open(path: &Path) -> Result<(Directory, CString), CacheError> {
    let parent = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default();
    let failed = |source| CacheError {
        doing: "open the directory of",
        path: path.to_owned(),
        source,
    };
    let directory = Directory::open_itself(parent.to_owned()).map_err(failed)?;
    // A file's name holds no NUL byte.
    let name = CString::new(name.as_bytes()).unwrap_or_default();
    Ok((directory, name))
}

/// The file that stands under the name.
fn there(directory: &Directory, name: &CString) -> io::Result<Option<Generation>> {
    Ok(match directory.entry(name, CACHE_LIMIT)? {
        Some(Entry::File(found)) => Some(found),
        Some(Entry::Link | Entry::Other) | None => None,
    })
}

fn effect(result: &Result<Option<String>, NotRemoved>) -> CacheEffect {
    let (result, detail) = match result {
        Ok(detail) => (CacheResult::Removed, detail.clone()),
        Err(NotRemoved::Kept(blocker)) => (CacheResult::Kept, Some(blocker.to_string())),
        Err(NotRemoved::Failed(error)) => (CacheResult::Failed, Some(error.clone())),
    };
    CacheEffect { result, detail }
}

/// Finds out what became of removals that an earlier run was at, and writes it down.
pub fn settle(journal: &mut Journal, clock: &dyn Fn() -> When) -> Result<Settled, JournalError> {
    let open = journal.unfinished_cleanings()?;
    for (id, intent) in &open {
        let found = self::open(Path::new(&intent.path))
            .and_then(|(directory, name)| {
                there(&directory, &name).map_err(|source| CacheError {
                    doing: "read",
                    path: PathBuf::from(&intent.path),
                    source,
                })
            })
            .map_err(|error| in_full(&error));
        let (result, found) = match found {
            Ok(None) => (CacheResult::Removed, "it is gone".to_owned()),
            Ok(there) if there == intent.generation.generation() => {
                (CacheResult::Failed, "it is still there".to_owned())
            }
            Ok(Some(_)) => {
                let found = "it is gone, and there is another of its name";
                (CacheResult::Removed, found.to_owned())
            }
            Err(error) => (CacheResult::Failed, error),
        };
        let effect = CacheEffect {
            result,
            detail: Some(format!("found later: {found}")),
        };
        journal.append_cleaned(clock(), id, effect)?;
    }
    if !open.is_empty() {
        journal.sync()?;
    }
    Ok(Settled {
        ids: open.into_keys().collect(),
        left: BTreeSet::new(),
    })
}

#[cfg(test)]
mod tests;
