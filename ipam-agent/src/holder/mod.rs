//! Who holds an address on this host: the sources of holder evidence. Each of them only
//! asks; what an answer means is the engine's to judge.

pub mod cri;
pub mod namespaces;
