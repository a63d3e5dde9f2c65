//! Finds IP addresses that two machines use at once, and gives back leases that nobody
//! uses any more. ARCHITECTURE.md shows the way of a frame through these modules.

#![deny(unsafe_code)]

pub mod cli;
pub mod cni;
pub mod config;
pub mod driver;
pub mod engine;
pub mod error;
pub mod executor;
pub mod fault;
pub mod holder;
pub mod journal;
pub mod netlink;
pub mod prober;
pub mod regular;
pub mod report;
pub mod serve;
pub mod source;
pub mod state;
pub mod store;
mod text;

#[cfg(test)]
mod full_disk;
