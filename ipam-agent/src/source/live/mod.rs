//! The kernel's program and its maps.

pub mod pod;
