//! What the eBPF program and the agent share: the frame parser, the addresses it
//! yields and the records that cross the kernel boundary.
//!
//! Compiled twice, for `bpfel-unknown-none` and for the host, so that a frame is read
//! by the same code on both sides. It knows neither aya nor the operating system, does
//! not allocate, and holds no unsafe code.

#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod frame;
pub mod sighting;

pub use address::{Address, Mac};
pub use frame::{Captured, Frame, Parsed, Refusal, parse, source};
pub use sighting::{Counter, Evidence, Sighting};
