//! Reserving one address in a network's directory, as host-local would for a container of its
//! own, and giving it back. Both under host-local's lock.

use std::{ffi::CString, io, path::PathBuf};

use ipam_common::Address;

use super::{
    directory::Directory,
    release::{acquire, failed, open},
};
use crate::{
    engine::lease::{Lease, StoreName},
    store::{FenceError, ReleaseError},
};

/// What a fence says: a whole record of host-local's, of a container that no runtime has. A
/// DEL frees the file that has its container's id and interface; every runtime's ids are 64
/// hexadecimal digits, so none is this.
pub const CONTENT: &[u8] = b"ipam-agent-fence\r\nfence";

/// The file that becomes a fence. host-local looks at no name that is no address, and frees
/// it for nobody.
pub const UNFINISHED: &str = ".ipam-agent-fence";

/// Reserves the address. The file appears whole or not at all, whenever the power fails.
pub fn raise(path: PathBuf, store: &StoreName, address: Address) -> Result<(), FenceError> {
    let directory = open(&path, store)?;
    let lock = acquire(&directory)?;
    in_place(&directory, &path)?;
    // In another spelling it would be leased all the same.
    let names = directory.names().map_err(failed("list", &path))?;
    for (name, _) in names {
        if super::read::parse_name(&name).and_then(Address::from_ip) == Some(address) {
            return Err(FenceError::Taken {
                store: store.clone(),
                address,
            });
        }
    }
    // An address in text form holds no NUL byte.
    let name = CString::new(address.to_string()).unwrap_or_default();
    let unfinished = CString::new(UNFINISHED).unwrap_or_default();
    let file = path.join(address.to_string());
    match directory.make(&unfinished, &name, CONTENT) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(FenceError::Taken {
                store: store.clone(),
                address,
            });
        }
        Err(source) => return Err(failed("make", &file)(source).into()),
    }
    drop(lock);
    directory.flush().map_err(failed("flush", &path))?;
    Ok(())
}

/// Gives the address back, if the fence is still exactly what was read.
pub fn lower(path: PathBuf, fence: &Lease) -> Result<(), FenceError> {
    super::release::remove(path, fence, &mut || Ok(()))?;
    Ok(())
}

fn in_place(directory: &Directory, path: &std::path::Path) -> Result<(), ReleaseError> {
    match directory.is_in_place() {
        Ok(true) => Ok(()),
        Ok(false) => Err(ReleaseError::Replaced {
            path: path.to_owned(),
        }),
        Err(source) => Err(failed("examine", path)(source)),
    }
}
