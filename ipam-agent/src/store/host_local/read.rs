//! Reading one network: its directory's names and what the files say.

use std::{ffi::CStr, io, net::IpAddr, path::Path};

use ipam_common::Address;
use nix::dir::Type;

use super::{
    directory::{Directory, Entry, LAST_RESERVED, LOCK, shown},
    record::{LIMIT, Record},
};
use crate::{
    engine::lease::{Generation, Holder, Lease, StoreName},
    store::notes::{Note, Notes},
};

/// The leases of one network, by address and name. A name that can't be read fails the
/// whole: with a lease missing, its address would pass for free.
pub fn leases(
    directory: &Directory,
    store: &StoreName,
    notes: &mut Notes,
    complete: impl Fn(Address, &mut Holder),
) -> io::Result<Vec<Lease>> {
    let mut leases = Vec::new();
    for (name, kind) in directory.names()? {
        let Some(address) = address(&name, directory.path(), notes) else {
            continue;
        };
        // Opening a device may do something already.
        if let Some(Type::Fifo | Type::Socket | Type::CharacterDevice | Type::BlockDevice) = kind {
            notes.add(directory.path(), Note::NotAFile, shown(&name));
            continue;
        }
        match directory.entry(&name, LIMIT)? {
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
