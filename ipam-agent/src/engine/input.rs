//! What goes into the engine and what comes out of it.

use ipam_common::sighting::Sighting;

use super::time::Timestamp;

/// One sighting, where and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The frame's time.
    pub at: Timestamp,
    /// The port.
    pub ifindex: u32,
    /// What the frame says.
    pub sighting: Sighting,
}
