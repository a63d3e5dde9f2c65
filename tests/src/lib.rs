//! What the suites share.

pub mod frames;
pub mod mutate;
pub mod skip;
pub mod testrun;
