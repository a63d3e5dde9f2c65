//! Releases what a test says has leaked, with the real engine, executor and journal, until it is
//! killed or, asked to drain, nothing is left: `releaser DIRECTORY [drain]`.

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_default());
    let drain = arguments.next().as_deref() == Some("drain");
    tests::host_local::release_what_leaked(&directory, drain)
}
