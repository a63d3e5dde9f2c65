//! What a daemon takes that has nothing to do: a hundred pods, 250 host-local leases.
//!
//! Granted by the real plugins, an IPv4 and an IPv6 address each; 25 pods more are gone
//! without their leases having been given back, as after a crash. The time measured holds
//! whole sweeps of the kernel's table and a whole pass of judgement over the leases.

use std::{fs, thread, time::Duration};

use anyhow::{Result, anyhow, ensure};

use super::{Figure, in_lab, mebibytes, wire::Watched};
use crate::{
    lab::ip,
    process::cpu_seconds,
    runtime::{self, Network},
};

const PODS: usize = 100;
const GONE: usize = 25;
const LEASES: usize = 250;
/// What a start costs is no part of idling.
const SETTLE: Duration = Duration::from_secs(20);
const MEASURE: Duration = Duration::from_secs(60);

/// `idle_rss_mib`, `idle_cpu_percent`.
pub fn figures() -> Result<Vec<Figure>> {
    runtime::available().map_err(|why| anyhow!(why))?;
    in_lab(|lab| {
        let network = Network::bridge("pods", "cni0", &["10.30.0.0/16", "fd00:30::/64"])?;
        for number in 0..PODS + GONE {
            let pod = network.start(lab, &format!("pod{number}"))?;
            if number >= PODS {
                ip(&["netns", "del", pod.netns.name()])?;
            }
        }
        let watched = Watched::start(&lab.disk().join("agent"))?;
        let pid = watched.daemon.pid();
        thread::sleep(SETTLE);
        let leases = watched.daemon.query("leases", &[])?;
        let leases = leases["leases"].as_array().map_or(0, Vec::len);
        ensure!(leases == LEASES, "the daemon knows {leases} leases");

        let before = cpu_seconds(pid)?;
        thread::sleep(MEASURE);
        let used = cpu_seconds(pid)? - before;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mib = |field| mebibytes(&status, field);
        eprintln!(
            "  {:.1} MiB: {:.1} heap and stacks, {:.1} the program, {:.1} shared; {used:.2} s of CPU in {} s",
            mib("VmRSS")?,
            mib("RssAnon")?,
            mib("RssFile")?,
            mib("RssShmem")?,
            MEASURE.as_secs(),
        );
        let figures = vec![
            Figure {
                name: "idle_rss_mib",
                value: mib("VmRSS")?,
                unit: "MiB",
                target: Some(20.0),
                least: None,
                baseline: None,
            },
            Figure {
                name: "idle_cpu_percent",
                value: used / MEASURE.as_secs_f64() * 100.0,
                unit: "%",
                target: Some(0.1),
                least: None,
                baseline: None,
            },
        ];
        watched.stop()?;
        Ok(figures)
    })
}
