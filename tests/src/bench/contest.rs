//! How long a duplicate address is unknown while other ports storm: 200,000 ARP frames a
//! second by two senders, once from addresses that are known, once from forged ones, a new
//! address and a new MAC in every frame.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{
    Figure,
    detect::{Latencies, latencies},
    flood::{Claims, flood},
    in_lab,
    wire::{Watched, pods},
};
use crate::lab::{ip, run};

const DUPLICATES: u16 = 500;
/// What each of the two senders is to send in a second.
const PER_SENDER: u32 = 100_000;
/// The storm is on for so long before the first duplicate.
const BEFORE: Duration = Duration::from_secs(2);

/// `detect_storm_p99_ms`, `detect_storm_frames_per_s`: the worse of both storms.
pub fn figures() -> Result<Vec<Figure>> {
    let mut worst: f64 = 0.0;
    let mut slowest = f64::INFINITY;
    for (claims, name) in [(Claims::Known, "known"), (Claims::Forged, "forged")] {
        let (latencies, rate, lost) = in_storm(claims)?;
        eprintln!("  {name} claims, {rate:.0} frames/s, {lost} sightings lost: {latencies}");
        worst = worst.max(latencies.percentile(99));
        slowest = slowest.min(rate);
    }
    Ok(vec![
        Figure {
            name: "detect_storm_p99_ms",
            value: worst,
            unit: "ms",
            target: Some(100.0),
            least: None,
            baseline: None,
        },
        Figure {
            name: "detect_storm_frames_per_s",
            value: slowest.round(),
            unit: "frames/s",
            target: None,
            least: None,
            baseline: None,
        },
    ])
}

/// Latencies, the frames that came in a second, and what the daemon counted as lost.
fn in_storm(claims: Claims) -> Result<(Latencies, f64, u64)> {
    in_lab(|lab| {
        let pods = pods(lab, 4)?;
        // What a broadcast costs the other guests is not what is measured.
        for port in ["veth0", "veth1", "veth2", "veth3"] {
            run(
                "bridge",
                &["link", "set", "dev", port, "bcast_flood", "off"],
            )?;
        }
        ip(&["link", "set", "br0", "arp", "off"])?;
        let watched = Watched::start(&lab.disk().join("agent"))?;
        let stop = AtomicBool::new(false);
        let (latencies, rate) = thread::scope(|scope| -> Result<_> {
            let storms = [(&pods[2], 0), (&pods[3], 1)].map(|(pod, sender)| {
                let stop = &stop;
                scope.spawn(move || flood(pod, sender, claims, PER_SENDER, stop))
            });
            thread::sleep(BEFORE);
            let latencies = latencies(&watched, &pods[0], &pods[1], DUPLICATES);
            stop.store(true, Ordering::Relaxed);
            let mut rate = 0.0;
            for storm in storms {
                let (sent, time) = storm
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                rate += f64::from(sent) / time.as_secs_f64();
            }
            Ok((latencies?, rate))
        })?;
        let segments = watched.daemon.query("segments", &[])?;
        let lost = segments["segments"][0]["lost"].as_u64().unwrap_or_default();
        watched.stop()?;
        Ok((latencies, rate, lost))
    })
}
