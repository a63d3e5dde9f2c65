//! The suite that runs inside a booted kernel: `cargo xtask test --kernels 6.1`.
//!
//! What the building machine's kernel may lack is here: bonds, 802.1Q, and a kernel without
//! TCX. Each case makes a host of its own, runs the real agent on it, and asks it by its
//! commands alone. The last line on stdout is the verdict, for the machine that booted this
//! one.
//!
//! With an argument it is another part: one half of a power cut, `up-to-the-cut`, after whose
//! verdict the machine is killed, and `after-the-cut`, on the same disk; or `package`, on a
//! host that systemd runs.

mod bond;
mod clock;
mod harvester;
mod host;
mod leftovers;
mod package;
mod pods;
mod power_cut;
mod scripts;
mod vlan;

use std::{fs, thread, time::Instant};

use anyhow::{Result, bail};
use serde_json::json;
use tests::lab::{Lab, try_in_lab};

type Case = fn(&mut Lab) -> Result<()>;

const CASES: [(&str, Case); 10] = [
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
        "a VLAN device over a bridge is a port of the bridge that has it",
        vlan::over_a_bridge,
    ),
    (
        "a duplicate across access port and trunk",
        harvester::across,
    ),
    (
        "scripts with VLANs are told the same on veths",
        scripts::with_vlans,
    ),
    ("a duplicate between pods, IPv4 and IPv6", pods::duplicate),
    ("a stop leaves nothing of ours", leftovers::stop),
    ("a start replaces what a kill left", leftovers::kill),
];

fn main() -> Result<()> {
    let part = std::env::args().nth(1);
    match part.as_deref() {
        None => suite(),
        Some("up-to-the-cut") => {
            let running = tried("the host runs up to the power cut", power_cut::up_to);
            tell(u32::from(running.is_some()), 1)?;
            loop {
                thread::park();
            }
        }
        Some("after-the-cut") => {
            let name = "what leaked in the power cut is given back, and nothing else, by any clock";
            let passed = tried(name, power_cut::after);
            tell(u32::from(passed.is_some()), 1)
        }
        Some("package") => {
            let (passed, of) = package::tale();
            tell(u32::try_from(passed)?, u32::try_from(of)?)
        }
        Some(other) => bail!("no part {other}"),
    }
}

fn suite() -> Result<()> {
    let cases = CASES.into_iter();
    let passed = cases.filter_map(|(name, case)| tried(name, || try_in_lab(case)));
    tell(u32::try_from(passed.count())?, u32::try_from(CASES.len())?)
}

/// Does it and says how it went.
fn tried<T>(name: &str, act: impl FnOnce() -> Result<T>) -> Option<T> {
    let begin = Instant::now();
    let outcome = act();
    let seconds = begin.elapsed().as_secs_f64();
    match outcome {
        Ok(done) => {
            println!("ok     {name} ({seconds:.1} s)");
            Some(done)
        }
        Err(error) => {
            println!("FAILED {name} ({seconds:.1} s): {error:?}");
            None
        }
    }
}

/// The verdict.
fn tell(passed: u32, of: u32) -> Result<()> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!(
        "{}",
        json!({
            "schema": "ipam-agent/kernel-suite/v1",
            "kernel": kernel.trim(),
            "passed": passed,
            "failed": of - passed,
        })
    );
    Ok(())
}
