//! The CNI plugins of other suites of Debian than the machine's, for the tests of what they
//! write and read: an old host-local, and the newest.

use super::{Done, unpack};
use crate::{apt::Apt, machine};

/// The suites; `tests/src/plugins.rs` has them, too.
const SUITES: [&str; 2] = ["bullseye", "sid"];

/// Unpacks them into the cache, each once.
pub fn install() -> anyhow::Result<Done> {
    let mut done = Done::Before;
    for suite in SUITES {
        let place = machine::cache()?.join(format!("cni-plugins-{suite}"));
        if place.is_dir() {
            continue;
        }
        let work = tempfile::tempdir()?;
        let package = Apt::new(work.path(), suite)?.download("containernetworking-plugins")?;
        unpack(&package, &place)?;
        done = Done::Now;
    }
    Ok(done)
}
