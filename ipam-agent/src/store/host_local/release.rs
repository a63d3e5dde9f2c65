//! Taking one lease out of a network's directory: compare and swap under host-local's own
//! lock. Unlinks one file or does nothing.

use std::{
    ffi::{CStr, CString},
    path::Path,
};

use ipam_common::Address;

use super::{
    directory::{Directory, Entry, shown},
    lock::{Locked, failed},
    read::parse_name,
    record::LIMIT,
};
use crate::{
    engine::{lease::Lease, plan::Release},
    fault,
    store::{Recheck, ReleaseError},
};

/// Releases one lease of the network whose directory is `path`.
pub fn release(
    path: &Path,
    release: &Release,
    recheck: &mut Recheck<'_>,
) -> Result<(), ReleaseError> {
    remove(path, release.lease(), || {
        recheck(release).map_err(ReleaseError::Blocked)
    })
}

/// Removes one record, if it is exactly what was read and `recheck` has nothing against it.
pub(super) fn remove(
    path: &Path,
    lease: &Lease,
    recheck: impl FnOnce() -> Result<(), ReleaseError>,
) -> Result<(), ReleaseError> {
    let locked = Locked::new(path, &lease.store)?;
    let name = find(&locked.directory, lease)?;
    recheck()?;
    locked.in_place()?;
    compare(&locked.directory, &name, lease)?;
    fault::reach("lease-there");
    let file = path.join(shown(&name));
    locked
        .directory
        .unlink(&name)
        .map_err(failed("unlink", &file))?;
    fault::reach("lease-unlinked");
    Ok(())
}

/// The name under which exactly this lease stands. host-local writes the canonical form;
/// any other spelling of the address is looked for only if that isn't it.
fn find(directory: &Directory, lease: &Lease) -> Result<CString, ReleaseError> {
    // An address in text form holds no NUL byte.
    let canonical = CString::new(lease.address.to_string()).unwrap_or_default();
    let verdict = compare(directory, &canonical, lease);
    if verdict.is_ok() {
        return Ok(canonical);
    }
    let names = directory
        .names()
        .map_err(failed("list", directory.path()))?;
    let spelled = names.into_iter().map(|(name, _)| name).filter(|name| {
        *name != canonical && parse_name(name).and_then(Address::from_ip) == Some(lease.address)
    });
    for name in spelled {
        if compare(directory, &name, lease).is_ok() {
            return Ok(name);
        }
    }
    verdict.map(|()| canonical)
}

/// Whether what stands under `name` is in full what was judged.
fn compare(directory: &Directory, name: &CStr, lease: &Lease) -> Result<(), ReleaseError> {
    let changed = |what| ReleaseError::Changed {
        store: lease.store.clone(),
        address: lease.address,
        what,
    };
    let path = || directory.path().join(shown(name));
    let judged = lease.generation();
    match directory
        .entry(name)
        .map_err(|source| failed("read", &path())(source))?
    {
        None => Err(changed("it is gone")),
        Some(Entry::Link | Entry::Other) => Err(changed("it is no file any more")),
        Some(Entry::File(found)) if found.content.len() > LIMIT => {
            Err(changed("it is larger than host-local writes a lease"))
        }
        Some(Entry::File(found)) if found.content != judged.content => {
            Err(changed("it was granted to another"))
        }
        Some(Entry::File(found)) if found != judged => Err(changed("it was granted anew")),
        Some(Entry::File(_)) => Ok(()),
    }
}
