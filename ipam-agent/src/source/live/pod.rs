//! The records of [`ipam_common::sighting`] as keys and values of aya's maps.
//!
//! Holds the agent's only unsafe code: the promise that these records are plain bytes. The
//! wrappers exist because neither the trait nor the records are this crate's.

#![allow(unsafe_code)]

use ipam_common::sighting;

macro_rules! pod {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub sighting::$name);

        // SAFETY: the record is `repr(C)`, `Copy` and 'static, and consists of integers and
        // arrays of integers without padding (ipam_common::sighting pins its size), so
        // every pattern of bytes is one.
        unsafe impl aya::Pod for $name {}
    )*};
}

pod! {
    /// Key of SIGHTINGS.
    SightingKey;
    /// Value of SIGHTINGS.
    Tally;
    /// Value of LEASED.
    Stamps;
    /// Value of SPEAKERS.
    Speaker;
    /// Value of PORTS.
    PortBudget;
}

/// The event in the bytes of a ring buffer's entry; `None` if they are of another size.
pub fn event(bytes: &[u8]) -> Option<sighting::Event> {
    if bytes.len() != size_of::<sighting::Event>() {
        return None;
    }
    // SAFETY: the length is the record's, which consists of integers and arrays of integers
    // without padding; the read doesn't ask for alignment.
    Some(unsafe { bytes.as_ptr().cast::<sighting::Event>().read_unaligned() })
}
