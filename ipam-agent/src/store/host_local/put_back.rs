//! Putting a released lease back: the file as it was, whole from the moment it is there,
//! under host-local's own lock, and only where the address has no lease.

use std::{ffi::CString, io, path::Path};

use ipam_common::Address;

use super::{
    directory::{Directory, Entry, shown},
    lock::{Locked, failed, flush},
    read::parse_name,
    record::{LIMIT, Record},
};
use crate::{
    engine::lease::Generation,
    fault,
    store::{FileOwner, Former, ReleaseError},
};

/// What host-local itself makes lease files, since 1.4.0.
const HOST_LOCALS: FileOwner = FileOwner {
    mode: 0o600,
    uid: 0,
    gid: 0,
    directory: None,
};

/// Puts the lease back into the network whose directory is `path`; the file's generation, if it
/// can be read.
pub fn put_back(path: &Path, former: &Former) -> Result<Option<Generation>, ReleaseError> {
    let locked = Locked::new(path, &former.store)?;
    let directory = &locked.directory;
    let names = directory.names().map_err(failed("list", path))?;
    let taken = |name: &CString| ReleaseError::Taken {
        store: former.store.clone(),
        address: former.address,
        holder: holder(directory, name),
    };
    // Whatever its spelling.
    let is_it = |name: &CString| parse_name(name).and_then(Address::from_ip);
    let mut names = names.into_iter().map(|(name, _)| name);
    if let Some(name) = names.find(|name| is_it(name) == Some(former.address)) {
        return Err(taken(&name));
    }
    // An address in text form holds no NUL byte.
    let name = CString::new(former.address.to_string()).unwrap_or_default();
    let file = path.join(shown(&name));
    let owner = former.file.clone().unwrap_or(HOST_LOCALS);
    let whole = directory
        .prepare(&former.content, owner)
        .map_err(failed("write", &file))?;
    locked.in_place()?;
    fault::reach("lease-prepared");
    match directory.link(&whole, &name) {
        Ok(()) => {}
        // By somebody without the lock.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(taken(&name)),
        Err(source) => return Err(failed("put back", &file)(source)),
    }
    fault::reach("lease-linked");
    let there = match directory.entry(&name, LIMIT) {
        Ok(Some(Entry::File(there))) => Some(there),
        _ => None,
    };
    drop(locked);
    flush(path.to_owned())?;
    Ok(there)
}

/// Who has the lease of this name, in words.
fn holder(directory: &Directory, name: &CString) -> String {
    let record = match directory.entry(name, LIMIT) {
        Ok(Some(Entry::File(found))) => Record::parse(&found.content),
        _ => Record::default(),
    };
    match record.container_id {
        Some(id) => format!("of container {id}"),
        None => "which names nobody".to_owned(),
    }
}
