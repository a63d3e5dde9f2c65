//! The agent's test worlds: laboratories of namespaces with real plugins and real frames,
//! that the suites, the demo and the benchmarks share.

pub mod daemon;
pub mod frames;
pub mod lab;
pub mod netns;
pub mod runtime;
pub mod scenario;
pub mod testrun;
