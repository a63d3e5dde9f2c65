//! Reading one network: its directory's names and what the files say.

use std::{
    ffi::CStr,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipam_common::Address;
use nix::dir::Type;

use super::{
    directory::{Directory, Entry, LAST_RESERVED, LOCK, shown},
    record::{LIMIT, Record},
};
use crate::{
    engine::lease::{Generation, Holder, Lease, StoreName},
    store::{
        StoreError,
        notes::{Note, Notes},
    },
};

/// The leases of one network, by address and name. A name that can't be read fails the
/// whole: with a lease missing, its address would pass for free.
pub fn leases(
    directory: &Directory,
    store: &StoreName,
    notes: &mut Notes,
    complete: impl Fn(Address, &mut Holder),
) -> Result<Vec<Lease>, StoreError> {
    let failed = |path: PathBuf| {
        let store = store.clone();
        move |source| StoreError::Network {
            store,
            path,
            source,
        }
    };
    let mut leases = Vec::new();
    let names = directory.names();
    for (name, kind) in names.map_err(failed(directory.path().to_owned()))? {
        let Some(address) = address(&name, directory.path(), notes) else {
            continue;
        };
        // Opening a device may do something already.
        if let Some(Type::Fifo | Type::Socket | Type::CharacterDevice | Type::BlockDevice) = kind {
            notes.add(directory.path(), Note::NotAFile, shown(&name));
            continue;
        }
        let file = || directory.path().join(shown(&name));
        let entry = directory.entry(&name, LIMIT);
        match entry.map_err(|source| failed(file())(source))? {
            Some(Entry::File(generation)) => {
                if generation.content.len() > LIMIT {
                    notes.add(directory.path(), Note::Oversized, shown(&name));
                }
                leases.push(lease(store, address, &generation, &complete));
            }
            Some(Entry::Link) => notes.add(directory.path(), Note::SymbolicLink, shown(&name)),
            Some(Entry::Other) => notes.add(directory.path(), Note::NotAFile, shown(&name)),
            // Freed meanwhile.
            None => {}
        }
    }
    leases.sort_by_key(|lease| (lease.address, lease.inode()));
    Ok(leases)
}

/// A lease file's lease; `complete` adds what else is known of its holder.
fn lease(
    store: &StoreName,
    address: Address,
    generation: &Generation,
    complete: impl Fn(Address, &mut Holder),
) -> Lease {
    let record = Record::parse(&generation.content);
    let mut holder = Holder {
        container_id: record.container_id,
        interface: record.interface,
        ..Holder::default()
    };
    complete(address, &mut holder);
    Lease::new(store.clone(), address, &holder, generation, record.damage)
}

/// The address that a name in a network's directory stands for.
pub fn parse_name(name: &CStr) -> Option<IpAddr> {
    name.to_str().ok()?.parse().ok()
}

fn address(name: &CStr, place: &Path, notes: &mut Notes) -> Option<Address> {
    let others = [LOCK, c".", c".."].contains(&name);
    if others || name.to_bytes().starts_with(LAST_RESERVED) {
        return None;
    }
    let Some(ip) = parse_name(name) else {
        notes.add(place, Note::NotAnAddress, shown(name));
        return None;
    };
    let address = Address::from_ip(ip);
    if address.is_none() {
        notes.add(place, Note::NotClaimable, shown(name));
    }
    address
}
