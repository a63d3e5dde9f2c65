//! The suite that runs inside a booted kernel: `cargo xtask test --kernels 6.1`.
//!
//! What the building machine's kernel may lack is here: bonds, 802.1Q, and a kernel without
//! TCX. Each case makes a host of its own, runs the real agent on it, and asks it by its
//! commands alone. The last line on stdout is the verdict, for the machine that booted this
//! one.

mod bond;
mod harvester;
mod host;
mod leftovers;
mod pods;
mod vlan;

use std::{fs, time::Instant};

use anyhow::Result;
use serde_json::json;
use tests::lab::{Lab, try_in_lab};

type Case = fn(&mut Lab) -> Result<()>;

const CASES: [(&str, Case); 8] = [
    (
        "ports are watched through clsact, slaves aren't",
        bond::ports,
    ),
    (
        "a bond's fail-over neither doubles nor hides",
        bond::fail_over,
    ),
    ("a VLAN of a bond is a segment", vlan::tagged),
    ("of QinQ both tags count", vlan::double_tagged),
    (
        "a duplicate across access port and trunk",
        harvester::across,
    ),
    ("a duplicate between pods, IPv4 and IPv6", pods::duplicate),
    ("a stop leaves nothing of ours", leftovers::stop),
    ("a start replaces what a kill left", leftovers::kill),
];

fn main() -> Result<()> {
    let mut passed = 0;
    for (name, case) in CASES {
        let begin = Instant::now();
        let outcome = try_in_lab(case);
        let seconds = begin.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("ok     {name} ({seconds:.1} s)");
            }
            Err(error) => println!("FAILED {name} ({seconds:.1} s): {error:?}"),
        }
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!(
        "{}",
        json!({
            "schema": "ipam-agent/kernel-suite/v1",
            "kernel": kernel.trim(),
            "passed": passed,
            "failed": CASES.len() - passed,
        })
    );
    Ok(())
}
