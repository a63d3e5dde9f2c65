//! For how long things have to last before they are told, or are over.

use std::time::Duration;

use super::{At, Result, duration::duration};
use crate::{config::raw, engine::Windows};

pub(super) fn conflicts(at: At<'_>, raw: &raw::Conflicts) -> Result<Windows> {
    let default = Windows::default();
    let window = |key: &str, text: &Option<raw::Text>, default, floor| match text {
        Some(text) => duration(at, key, text, Duration::from_secs(floor), ""),
        None => Ok(default),
    };
    Ok(Windows {
        // No shorter than DEFEND_INTERVAL (RFC 5227): within it a claimant may keep silent.
        quiet: window("conflicts.quiet", &raw.quiet, default.quiet, 10)?,
        lease_grace: window(
            "conflicts.lease_grace",
            &raw.lease_grace,
            default.lease_grace,
            1,
        )?,
        memory: window("conflicts.memory", &raw.memory, default.memory, 60)?,
    })
}
