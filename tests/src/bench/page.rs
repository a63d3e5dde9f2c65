//! The status page of a full host in a real Chromium, and what memory the daemon took at its
//! peak with all of it on: 100,000 leases in ten pools, 1,000 conflicts, 65,536 addresses
//! heard, stamping of data packets, scrapes, a watching browser, and a flood of forged claims.
//!
//! What a paint costs at all is measured in the same run, by turns: the one line of /healthz.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;

use super::{
    Figure,
    flood::{Claims, flood},
    in_lab, mebibytes, median,
    wire::{BRIDGE, address, pods},
};
use crate::{
    browser::{self, Browser},
    daemon::Daemon,
    frames::{Arp, mac},
};

const ORIGIN: &str = "http://127.0.0.1:9477";
const POOLS: u8 = 10;
const LEASES_PER_POOL: u32 = 10_000;
const CONFLICTS: u16 = 1000;
const LOOKS: usize = 21;
const KNOWN_PER_S: u32 = 20_000;
const FORGED_PER_S: u32 = 100_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// The chart's limit of 512 MiB, less the 120 that the tables in the kernel take.
const PEAK_MIB: f64 = 392.0;

/// `first_paint_ms`, `peak_rss_mib`.
pub fn figures() -> Result<Vec<Figure>> {
    browser::available().map_err(|why| anyhow!(why))?;
    in_lab(|lab| {
        let pods = pods(lab, 2)?;
        let file = lab.disk().join("leases.yaml");
        fs::write(&file, leases())?;
        let config = format!(
            "state_dir: {}\nholders: {{ cri: off }}\n\
             stores: [{{ kind: file, path: {} }}]\n",
            lab.disk().join("state").display(),
            file.display(),
        );
        let daemon = Daemon::start(&lab.disk().join("agent"), &config)?;
        for host in [0, 1, 0] {
            let frames: Vec<Vec<u8>> = (1..=CONFLICTS)
                .map(|number| Arp::announcement(mac(host), address(number)).frame())
                .collect();
            pods[usize::from(host)].send("eth0", &frames)?;
            thread::sleep(Duration::from_secs(1));
        }
        let storm = |claims, per_s, seconds| {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let sender = scope.spawn(|| flood(&pods[0], 0, claims, per_s, &stop));
                thread::sleep(Duration::from_secs(seconds));
                stop.store(true, Ordering::Relaxed);
                sender
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        };
        storm(Claims::Known, KNOWN_PER_S, 5)?;
        let total = u64::from(POOLS) * u64::from(LEASES_PER_POOL);
        daemon.wait_for("leases and conflicts", PATIENCE, "report", |report| {
            let states = report["leases"].as_object()?;
            let leases: u64 = states.values().filter_map(|count| count.as_u64()).sum();
            let conflicts = report["summary"]["conflicts"].as_u64()?;
            (leases >= total && conflicts >= u64::from(CONFLICTS)).then_some(())
        })?;

        let browser = Browser::start()?;
        browser.look(1280, 900, false)?;
        let (mut paints, mut baseline) = (Vec::new(), Vec::new());
        for _ in 0..LOOKS {
            baseline.push(paint(&browser, "/healthz")?);
            paints.push(paint(&browser, "/")?);
        }
        let worst = paints.iter().copied().fold(0.0, f64::max);
        let bytes = browser.value("document.documentElement.outerHTML.length")?;
        eprintln!("  a page of {bytes} characters; the slowest of {LOOKS} took {worst:.0} ms");

        let (sent, time) = storm(Claims::Forged, FORGED_PER_S, 10)?;
        for command in ["report", "leases", "addresses"] {
            daemon.query(command, &[])?;
        }
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
        eprintln!(
            "  {:.0} forged claims a second for {time:.0?}; now {:.1} MiB",
            f64::from(sent) / time.as_secs_f64(),
            mebibytes(&status, "VmRSS")?,
        );
        let peak = mebibytes(&status, "VmHWM")?;
        drop(browser);
        let status = daemon.stop()?;
        ensure!(status.success(), "the daemon ended with {status}");
        let figure = |name, value, unit, target, baseline| Figure {
            name,
            value,
            unit,
            target: Some(target),
            least: None,
            baseline,
        };
        let baseline = Some(median(baseline));
        Ok(vec![
            figure("first_paint_ms", median(paints), "ms", 300.0, baseline),
            figure("peak_rss_mib", peak, "MiB", PEAK_MIB, None),
        ])
    })
}

/// Ten pools, a sixth of each leased, spread over all of it.
fn leases() -> String {
    let (mut pools, mut leases) = (String::from("pools:\n"), String::from("leases:\n"));
    for pool in 0..POOLS {
        let _ = writeln!(
            pools,
            "  - {{ cidr: 10.{}.0.0/16, segment: {BRIDGE} }}",
            20 + pool
        );
        for number in 0..LEASES_PER_POOL {
            let [_, _, high, low] = (number * 6 + 1).to_be_bytes();
            let ip = Ipv4Addr::new(10, 20 + pool, high, low);
            let _ = writeln!(
                leases,
                "  - {{ address: {ip}, holder: vm/{pool}-{number} }}"
            );
        }
    }
    pools + &leases
}

/// When the first content was painted, in milliseconds from the navigation, nothing cached.
fn paint(browser: &Browser, path: &str) -> Result<f64> {
    browser.devtools("Network.clearBrowserCache", json!({}))?;
    browser.open(&format!("{ORIGIN}{path}"))?;
    let painted = "performance.getEntriesByName('first-contentful-paint')";
    browser.wait("something to be painted", &format!("{painted}.length > 0"))?;
    let at = browser.value(&format!("{painted}[0].startTime"))?;
    at.as_f64().context("no time")
}
