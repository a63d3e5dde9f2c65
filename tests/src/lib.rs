//! The agent's test worlds: laboratories of namespaces with real plugins and real frames,
//! that the suites, the demo and the benchmarks share.

pub mod api;
pub mod bench;
pub mod browser;
pub mod capture;
pub mod cluster;
pub mod compare;
pub mod containerd;
pub mod daemon;
pub mod demo;
pub mod docs;
pub mod frames;
pub mod fuzz;
pub mod helm;
pub mod host_local;
pub mod image;
pub mod kubelet;
pub mod lab;
pub mod mutate;
pub mod netns;
pub mod picture;
pub mod plugins;
pub mod process;
pub mod prometheus;
pub mod reclaim_sim;
pub mod runtime;
pub mod scenario;
pub mod sim;
pub mod skip;
pub mod testrun;
