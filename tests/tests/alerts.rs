//! Each alert of deploy/prometheus, firing and resolving: what it tells of really happens
//! to the real daemon, which the real Prometheus scrapes. The rules are the project's own,
//! in a hurry (`prometheus::hurried`): they wait and look back for seconds in place of
//! minutes, and nothing else of them is changed.

#[path = "alerts/agent.rs"]
mod agent;
#[path = "alerts/conflicts.rs"]
mod conflicts;
#[path = "alerts/reclaim.rs"]
mod reclaim;
#[path = "alerts/watching.rs"]
mod watching;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tests::{
    daemon::Daemon,
    lab::{self, Lab},
    prometheus::{self, Prometheus, hurried},
    runtime, skip,
};

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the daemon serves its metrics.
const TARGET: &str = "127.0.0.1:9477";

/// Gates of seconds: what a laboratory is for.
const GATES: &str = "reclaim: { lab: true, gate: 2s, damaged_gate: 2500ms, asked_gate: 2s, \
                     asked_damaged_gate: 2500ms, reboot_gate: 2s, pass_interval: 500ms }";

const HOST_LOCAL: &str = "{ kind: host-local, dir: /var/lib/cni/networks, reclaim: observe }";

/// Runs `test` in a laboratory with the real plugins and Prometheus, or says that it is
/// skipped.
fn in_lab<F>(test: F)
where
    F: FnOnce(&mut Lab) -> Result<()> + Send + 'static,
{
    match prometheus::available() {
        Ok(()) => runtime::in_lab(test),
        Err(why) => {
            skip::skip(&why);
        }
    }
}

fn config(lab: &Lab, stores: &str, more: &str) -> String {
    format!(
        "state_dir: {}\nstores: [{stores}]\nholders: {{ cri: off }}\n\
         conflicts: {{ quiet: 10s, lease_grace: 1s }}\nlisten: {TARGET}\n{GATES}\n{more}\n",
        lab.disk().join("state").display()
    )
}

fn start(lab: &Lab, config: &str) -> Result<Daemon> {
    Daemon::start(&lab.disk().join("daemon"), config)
}

/// Prometheus with the project's rules, which scrapes the daemon.
fn watching(lab: &Lab) -> Result<Prometheus> {
    let rules = hurried(&prometheus::rules()?);
    Prometheus::start(&lab.disk().join("prometheus"), 9090, &[TARGET], &rules)
}

/// The alert of this name and severity, once it fires; `meanwhile` is done again and again
/// until it does.
fn fires(
    prometheus: &Prometheus,
    name: &str,
    severity: &str,
    mut meanwhile: impl FnMut() -> Result<()>,
) -> Result<Value> {
    let alert = until(prometheus, || {
        meanwhile()?;
        Ok(alert(prometheus, name, severity)?
            .map(Ok)
            .unwrap_or_else(|| Err(format!("{name} ({severity}) to fire"))))
    })?;
    // What people read is whole.
    let description = alert["annotations"]["description"]
        .as_str()
        .unwrap_or_default();
    let whole = !description.is_empty()
        && !["<no value>", "<error", "{{"]
            .iter()
            .any(|hole| description.contains(hole));
    ensure!(whole, "{alert:#}");
    Ok(alert)
}

/// Waits until no alert of this name fires or is about to.
fn resolves(prometheus: &Prometheus, name: &str) -> Result<()> {
    until(prometheus, || {
        let mut alerts = prometheus.alerts()?.into_iter();
        Ok(
            match alerts.find(|alert| alert["labels"]["alertname"] == *name) {
                None => Ok(()),
                Some(alert) => Err(format!("{name} to be over: {alert:#}")),
            },
        )
    })
}

fn alert(prometheus: &Prometheus, name: &str, severity: &str) -> Result<Option<Value>> {
    let mut firing = prometheus.firing(name)?.into_iter();
    Ok(firing.find(|alert| alert["labels"]["severity"] == *severity))
}

/// Waits until `found` finds what it looks for, and not what it says instead.
fn until<T>(
    prometheus: &Prometheus,
    mut found: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let missing = match found()? {
            Ok(found) => return Ok(found),
            Err(missing) => missing,
        };
        if Instant::now() > deadline {
            let series = prometheus.query("{__name__=~\"ipam_.+\", __name__!~\".+_bucket\"}")?;
            let series: Vec<String> = series.iter().map(Value::to_string).collect();
            bail!(
                "waited for {missing}\nalerts: {:#?}\n{}\n{}",
                prometheus.alerts()?,
                series.join("\n"),
                prometheus.log(),
            );
        }
        thread::sleep(Duration::from_millis(250));
    }
}

/// Cuts the power; the bridge is back after the boot, as the plugin would make it.
fn power_cut(lab: &mut Lab) -> Result<()> {
    lab.power_cut()?;
    lab::ip(&["link", "add", "cni0", "type", "bridge"])?;
    lab::ip(&["link", "set", "cni0", "up"])
}

fn list<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten()
}

/// None is left out: each has a test here that waits for it to fire.
#[test]
fn each_alert_is_seen_to_fire_and_to_resolve() -> Result<()> {
    let tests = [
        include_str!("alerts/agent.rs"),
        include_str!("alerts/conflicts.rs"),
        include_str!("alerts/reclaim.rs"),
        include_str!("alerts/watching.rs"),
    ]
    .concat();
    // As rustfmt may break them.
    let tests: String = tests.split_whitespace().collect();
    let mut severity = "";
    let mut seen = 0;
    let rules = prometheus::rules()?;
    let mut name = "";
    for line in rules.lines().map(str::trim) {
        name = line.strip_prefix("- alert: ").unwrap_or(name);
        severity = line.strip_prefix("severity: ").unwrap_or(severity);
        if line.starts_with("severity: ") {
            seen += 1;
            let fires = format!("\"{name}\",\"{severity}\"");
            ensure!(
                tests.contains(&fires),
                "no test has {name} ({severity}) fire"
            );
            let resolves = format!("resolves(&prometheus,\"{name}\")");
            ensure!(tests.contains(&resolves), "no test has {name} resolve");
        }
    }
    ensure!(seen > 25, "{seen} alerts");
    Ok(())
}
