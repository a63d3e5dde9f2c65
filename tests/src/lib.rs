//! x

pub mod netns;
//! What the suites share.

pub mod frames;
pub mod testrun;
