//! x

pub mod source;
