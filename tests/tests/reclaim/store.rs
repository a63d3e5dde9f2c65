//! host-local's directory in other hands while we release: its lock held, its leases
//! granted anew, itself removed.

use std::{
    fs::{self, File},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tests::{
    lab,
    runtime::{Network, in_lab},
};

use super::*;

/// Two stale leases, a daemon that only releases when asked, and its plan to release them.
fn stale(lab: &mut Lab) -> Result<(Network, BTreeSet<IpAddr>, Daemon)> {
    let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
    let stale = all(&pods(lab, &net, &["one", "two"])?);
    power_cut(lab)?;
    let daemon = start(lab, &config(lab, "observe", ""))?;
    planned(&daemon, &stale)?;
    Ok((net, stale, daemon))
}

pub fn lock(net: &Network) -> Result<File> {
    let lock = File::open(net.leases().join("lock"))?;
    // flock(2), as host-local's own.
    lock.lock()?;
    Ok(lock)
}

/// Waits until the journal has an intent without its effect: the executor is at it.
pub fn intended(lab: &Lab) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(state(lab).join("journal.jsonl")).unwrap_or_default();
        if text.contains("\"intent\"") {
            ensure!(!text.contains("\"effect\""), "{text}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no intent in the journal");
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn apply(daemon: &Daemon) -> Result<(Value, Option<i32>)> {
    let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
    Ok((serde_json::from_str(&applied)?, status))
}

#[test]
fn a_lock_that_is_held_stops_releases_and_nothing_else() {
    in_lab(|lab| {
        let (net, stale, daemon) = stale(lab)?;
        let held = lock(&net)?;
        let (applied, status) = thread::scope(|scope| {
            let applying = scope.spawn(|| apply(&daemon));
            intended(lab)?;
            // The daemon goes on meanwhile.
            let asked = Instant::now();
            daemon.query("report", &[])?;
            daemon.query("reclaim plan", &[])?;
            ensure!(!applying.is_finished(), "the questions waited for the lock");
            ensure!(
                asked.elapsed() < Duration::from_secs(5),
                "{:?}",
                asked.elapsed()
            );
            applying.join().map_err(|_| anyhow!("the command failed"))?
        })?;
        ensure!(status == Some(1), "some is left: {status:?} {applied:#}");
        for outcome in list(&applied, "outcomes") {
            ensure!(outcome["result"] == "failed", "{applied:#}");
            let error = outcome["error"].as_str().context("why")?;
            ensure!(error.contains("/pods/lock"), "{error}");
            let holder = format!("(process {})", std::process::id());
            ensure!(error.contains(&holder), "{error}");
        }
        ensure!(on_disk(&net)? == stale);
        drop(held);
        let (applied, status) = apply(&daemon)?;
        ensure!(status == Some(0), "{applied:#}");
        ensure!(on_disk(&net)?.is_empty());
        Ok(())
    });
}

#[test]
fn a_lease_that_is_granted_anew_at_the_last_moment_is_kept() {
    in_lab(|lab| {
        let (net, stale, daemon) = stale(lab)?;
        let granted = *stale.first().context("a lease")?;
        let held = lock(&net)?;
        let (applied, status) = thread::scope(|scope| {
            let applying = scope.spawn(|| apply(&daemon));
            intended(lab)?;
            // What a DEL and an ADD do, all in one.
            let file = net.leases().join(granted.to_string());
            fs::remove_file(&file)?;
            fs::write(&file, format!("{}\r\neth0", "ab".repeat(32)))?;
            drop(held);
            applying.join().map_err(|_| anyhow!("the command failed"))?
        })?;
        ensure!(status == Some(1), "{applied:#}");
        let mut outcomes = list(&applied, "outcomes");
        let kept = outcomes.find(|outcome| address(outcome) == Some(granted));
        ensure!(
            kept.is_some_and(|kept| kept["blocker"]["reason"] == "changed"),
            "{applied:#}"
        );
        ensure!(on_disk(&net)? == BTreeSet::from([granted]));
        Ok(())
    });
}

#[test]
fn a_daemon_killed_in_the_middle_finds_out_what_became_of_its_intents() {
    in_lab(|lab| {
        let (net, stale, daemon) = stale(lab)?;
        let held = lock(&net)?;
        thread::scope(|scope| {
            let applying = scope.spawn(|| apply(&daemon));
            intended(lab)?;
            let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.pid())?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
            let answer = applying.join().map_err(|_| anyhow!("the command failed"))?;
            ensure!(answer.is_err(), "an answer from the dead: {answer:?}");
            Ok(())
        })?;
        drop(daemon);
        // One is gone after all: unlinked, and then the power failed.
        let first = stale.first().context("a lease")?;
        fs::remove_file(net.leases().join(first.to_string()))?;
        drop(held);
        let daemon = start(lab, &config(lab, "observe", ""))?;
        let history = history(&daemon, lab)?;
        ensure!(list(&history, "entries").count() == 2, "{history:#}");
        for entry in list(&history, "entries") {
            let result = if address(entry) == Some(*first) {
                "released"
            } else {
                "failed"
            };
            ensure!(entry["result"] == result, "{history:#}");
            let detail = entry["detail"].as_str().unwrap_or_default();
            ensure!(detail.contains("found later"), "{history:#}");
        }
        Ok(())
    });
}

#[test]
fn a_directory_that_is_removed_and_made_again() {
    in_lab(|lab| {
        let (net, stale, daemon) = stale(lab)?;
        fs::remove_dir_all(net.leases())?;
        daemon.wait_for("the leases to go", PATIENCE, "leases", |told| {
            (list(told, "leases").count() == 0).then_some(())
        })?;
        let (applied, status) = apply(&daemon)?;
        ensure!(status == Some(0), "nothing to do: {applied:#}");
        // host-local makes it anew.
        let pod = net.start(lab, "three")?;
        let lease = pod.address(false)?;
        daemon.wait_for("the new lease", PATIENCE, "leases", |told| {
            (addresses(told, "leases") == BTreeSet::from([lease])).then_some(())
        })?;
        ensure!(
            stale.contains(&lease),
            "the address had a record before: {lease}"
        );
        // A grant of this moment is no leak, whatever its address was before.
        let plan = daemon.query("reclaim plan", &[])?;
        ensure!(reasons(&plan, "kept").contains_key(&lease), "{plan:#}");
        ensure!(on_disk(&net)? == BTreeSet::from([lease]));
        Ok(())
    });
}

#[test]
fn a_port_that_comes_between_the_judgement_and_the_release_keeps_the_lease() {
    in_lab(|lab| {
        let (net, stale, daemon) = stale(lab)?;
        lab::ip(&["tuntap", "add", "up0", "mode", "tap"])?;
        let held = lock(&net)?;
        let (applied, status) = thread::scope(|scope| {
            let applying = scope.spawn(|| apply(&daemon));
            intended(lab)?;
            // Beyond it may be anybody, who was there before.
            lab::ip(&["link", "set", "up0", "master", "cni0", "up"])?;
            drop(held);
            applying.join().map_err(|_| anyhow!("the command failed"))?
        })?;
        ensure!(status == Some(1), "{applied:#}");
        for outcome in list(&applied, "outcomes") {
            ensure!(outcome["blocker"]["reason"] == "coverage", "{applied:#}");
            let why = outcome["blocker"]["detail"].as_str().unwrap_or_default();
            ensure!(why.contains("up0"), "{applied:#}");
        }
        ensure!(on_disk(&net)? == stale, "{applied:#}");
        Ok(())
    });
}

#[test]
fn a_gap_between_the_judgement_and_the_release_keeps_the_lease() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let stale = all(&pods(lab, &net, &["one", "two"])?);
        power_cut(lab)?;
        let _guest = lab.guest("guest", "veth1", "cni0")?;
        let daemon = start(lab, &config(lab, "observe", ""))?;
        planned(&daemon, &stale)?;
        let since = || -> Result<Value> {
            let segments = daemon.query("segments", &[])?;
            let mut found = list(&segments, "segments");
            let segment = found.find(|segment| segment["name"] == "cni0");
            Ok(segment.context("the segment")?["watched_since"].clone())
        };
        let before = since()?;
        let held = lock(&net)?;
        let (applied, status) = thread::scope(|scope| {
            let applying = scope.spawn(|| apply(&daemon));
            intended(lab)?;
            let Some(intruder) = Intruder::before_all("veth1")? else {
                drop(held);
                return applying.join().map_err(|_| anyhow!("the command failed"))?;
            };
            drop(intruder);
            // The agent is first again, and that is no proof of what was said meanwhile.
            let deadline = Instant::now() + PATIENCE;
            while [Value::Null, before.clone()].contains(&since()?) {
                ensure!(Instant::now() < deadline, "nobody noticed");
            }
            drop(held);
            applying.join().map_err(|_| anyhow!("the command failed"))?
        })?;
        ensure!(status == Some(1), "some is left: {status:?} {applied:#}");
        ensure!(on_disk(&net)? == stale, "{applied:#}");
        for outcome in list(&applied, "outcomes") {
            // Or the lock was held for too long.
            let kept = outcome["blocker"]["reason"] == "coverage" || outcome["result"] == "failed";
            ensure!(kept, "{applied:#}");
        }
        Ok(())
    });
}
