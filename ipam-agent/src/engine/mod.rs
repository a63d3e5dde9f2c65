//! The engine: judges what is seen against what is leased.
//!
//! Pure: it does no I/O, reads no clock and knows no runtime. Time is an argument, effects
//! are data. The same inputs in the same order give the same outputs, on a live wire, in
//! a replay and in a simulation.

pub mod evidence;
pub mod input;
pub mod lease;
pub mod plan;
pub mod segment;
pub mod time;
