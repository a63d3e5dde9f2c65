//! What the suites share.

pub mod frames;
pub mod netns;
pub mod testrun;
