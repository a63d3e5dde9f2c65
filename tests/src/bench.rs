//! The figures that the project promises, measured: one module for each group of them.
//!
//! What is timed is the agent as it is built for release, in laboratories on this machine
//! ([`crate::lab`]). Where a figure is a cost, what it costs without the agent is measured
//! in the same run, by turns, because machines that measure are seldom idle.

mod contest;
mod detect;
mod flood;
mod idle;
mod judge;
mod page;
mod reclaim;
mod replay;
mod scrape;
mod size;
mod start;
mod storm;
mod throughput;
mod wire;

use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;

use crate::{
    compare,
    lab::{self, Lab},
    testrun,
};

/// One measured number.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its name in the contract.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it must not exceed, if something was promised.
    pub target: Option<f64>,
    /// What it must reach, if that was promised.
    pub least: Option<f64>,
    /// What it was measured over, in the same unit, if there is such a thing.
    pub baseline: Option<f64>,
}

/// Figures that one experiment yields.
struct Group {
    names: &'static [&'static str],
    measure: fn() -> Result<Vec<Figure>>,
}

const GROUPS: [Group; 14] = [
    Group {
        names: &[
            "ipv4_over_empty_ns",
            "ipv6_over_empty_ns",
            "data_plane_over_empty_ns",
            "known_claim_over_empty_ns",
        ],
        measure: testrun::figures,
    },
    Group {
        names: &["judge_1m_s", "judge_1m_mib", "new_claim_us"],
        measure: judge::figures,
    },
    Group {
        names: &["detect_p99_ms", "detect_p50_ms"],
        measure: detect::figures,
    },
    Group {
        names: &["storm_lost", "storm_frames_per_s"],
        measure: storm::figures,
    },
    Group {
        names: &["detect_storm_p99_ms", "detect_storm_frames_per_s"],
        measure: contest::figures,
    },
    Group {
        names: &["arpwatch_cpu_ratio"],
        measure: compare::cost::figures,
    },
    Group {
        names: &["idle_rss_mib", "idle_cpu_percent"],
        measure: idle::figures,
    },
    Group {
        names: &["veth_throughput_ratio"],
        measure: throughput::figures,
    },
    Group {
        names: &["start_250_veths_s"],
        measure: start::figures,
    },
    Group {
        names: &["plan_65536_s", "release_per_s"],
        measure: reclaim::figures,
    },
    Group {
        names: &["scrape_ms"],
        measure: scrape::figures,
    },
    Group {
        names: &["first_paint_ms", "peak_rss_mib"],
        measure: page::figures,
    },
    Group {
        names: &["replay_frames_per_s", "replay_rss_mib"],
        measure: replay::figures,
    },
    Group {
        names: &["binary_mib", "image_mib"],
        measure: size::figures,
    },
];

/// Measures the figures of these names, all of them if there are none. Progress goes to
/// stderr.
///
/// # Errors
///
/// A name that is no figure's, a machine that lacks what is needed, or an agent that
/// doesn't do what is timed.
pub fn measure(names: &[String]) -> Result<Vec<Figure>> {
    let all = || GROUPS.iter().flat_map(|group| group.names);
    if let Some(unknown) = names.iter().find(|name| !all().any(|known| known == name)) {
        let known: Vec<_> = all().copied().collect();
        bail!("no figure {unknown}; there are {}", known.join(", "));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let mut figures = Vec::new();
    for group in &GROUPS {
        if group.names.iter().any(|name| wanted(name)) {
            eprintln!("measuring {} …", group.names.join(", "));
            let measured = (group.measure)();
            figures.extend(measured.with_context(|| group.names.join(", "))?);
        }
    }
    figures.retain(|figure| wanted(figure.name));
    Ok(figures)
}

/// A field of `/proc/PID/status` that is in KiB, in MiB.
fn mebibytes(status: &str, field: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: f64 = kib.with_context(|| format!("no {field}"))?.parse()?;
    Ok(kib / 1024.0)
}

/// The middle one, of an even number the upper; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Experiments in a laboratory of its own.
fn in_lab<T: Send>(experiment: impl FnOnce(&Lab) -> Result<T> + Send) -> Result<T> {
    lab::available().map_err(|why| anyhow!(why))?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let disk = tempfile::tempdir()?;
            let lab = Lab::enter(disk.path())?;
            experiment(&lab)
        });
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
