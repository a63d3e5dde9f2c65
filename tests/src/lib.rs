//! x

pub mod netns;
