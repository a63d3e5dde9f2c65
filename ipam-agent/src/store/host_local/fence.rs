//! Reserving one address in a network's directory, as host-local would for a container of its
//! own, and giving it back.

use std::path::Path;

use ipam_common::Address;

use super::{lock::flush, put_back::put_back, release::remove};
use crate::{
    engine::lease::{Lease, StoreName},
    store::{Former, ReleaseError},
};

/// What a fence says: a whole record of host-local's, of a container that no runtime has. A
/// DEL frees the file that has its container's id and interface; every runtime's ids are 64
/// hexadecimal digits, so none is this.
pub const CONTENT: &[u8] = b"ipam-agent-fence\r\nfence";
/// The container that it names.
pub const HOLDER: &str = "ipam-agent-fence";

/// Reserves the address, unless somebody has it. The file appears whole or not at all,
/// whenever the power fails.
pub fn raise(path: &Path, store: &StoreName, address: Address) -> Result<(), ReleaseError> {
    let fence = Former {
        store: store.clone(),
        address,
        content: CONTENT.into(),
        file: None,
    };
    put_back(path, &fence).map(drop)
}

/// Gives the address back, if the fence is still exactly what was read.
pub fn lower(path: &Path, fence: &Lease) -> Result<(), ReleaseError> {
    remove(path, fence, || Ok(()))?;
    flush(path.to_owned())
}
