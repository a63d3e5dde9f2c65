//! Where the engine's inputs come from: the host's links, and the live wire.

pub mod links;
pub mod live;
pub mod pcap;
