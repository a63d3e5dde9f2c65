//! Where sightings come from.

pub mod live;
