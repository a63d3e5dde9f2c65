//! What is fuzzed: untrusted bytes go through real readers, and whatever they are, nothing
//! panics, hangs or is made up.
//!
//! `cargo xtask fuzz` runs these under libFuzzer (`tests/fuzz`); the ordinary tests replay
//! the corpora that are kept beside it.

mod captures;
mod frames;
mod leases;

/// Something that takes bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and its corpus'.
    pub name: &'static str,
    /// Takes bytes; panics where a promise is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 3] = [
    Target {
        name: "frames",
        run: frames::run,
    },
    Target {
        name: "captures",
        run: captures::run,
    },
    Target {
        name: "leases",
        run: leases::run,
    },
];

/// Runs a target over bytes.
///
/// # Panics
///
/// There is no such target, or it breaks a promise.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of this name").run)(bytes);
}
