//! Finds IP addresses that two machines use at once, and gives back leases that nobody
//! uses any more. ARCHITECTURE.md shows the way of a frame through these modules.

#![deny(unsafe_code)]

pub mod config;
pub mod engine;
pub mod report;
//! x

pub mod source;
