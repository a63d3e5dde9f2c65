//! What the agent leaves in the kernel: nothing after a stop; after a kill, what the next
//! start replaces.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use tests::{
    daemon::Daemon,
    lab::{Lab, run},
};

use crate::host::{
    Uplink, announcement, has_clsact, machine, programs, start, wait_for_claims, wait_until_watched,
};

const ADDRESS: &str = "10.7.0.5";
const MAC: &str = "02:00:00:00:00:0a";
const OTHER: &str = "02:00:00:00:00:0b";

/// After SIGTERM: no filter, no clsact, no pin, no socket; another's filter stays, with the
/// clsact that it hangs on.
pub fn stop(lab: &mut Lab) -> Result<()> {
    let _uplink = Uplink::new(lab, "bond0")?;
    machine(lab, "plain", "vethplain", MAC)?;
    machine(lab, "shared", "vethshared", OTHER)?;
    tc("qdisc add dev vethshared clsact")?;
    tc("filter add dev vethshared ingress pref 30000 matchall classid 1:1")?;
    let daemon = start(lab)?;
    wait_until_watched(&daemon, &["bond0", "vethplain", "vethshared"])?;
    stop_clean(lab, daemon, &["bond0", "vethplain"])?;
    ensure!(
        programs("vethshared")?.is_empty(),
        "vethshared has our filter"
    );
    let theirs = tc("filter show dev vethshared ingress")?;
    ensure!(theirs.contains("matchall"), "theirs is gone: {theirs}");
    Ok(())
}

/// After SIGKILL the filters stay. The next start puts its own in their place, listens
/// through them, has missed nothing, and its stop leaves nothing.
pub fn kill(lab: &mut Lab) -> Result<()> {
    let _uplink = Uplink::new(lab, "bond0")?;
    let machine = machine(lab, "plain", "vethplain", MAC)?;
    let ports = ["bond0", "vethplain"];
    let daemon = start(lab)?;
    wait_until_watched(&daemon, &ports)?;
    let before = watched_since(&daemon)?;
    daemon.kill()?;
    let left = [programs(ports[0])?, programs(ports[1])?].concat();
    ensure!(left.len() == 2, "a kill left {left:?}");

    let daemon = start(lab)?;
    wait_until_watched(&daemon, &ports)?;
    for port in ports {
        let on_it = programs(port)?;
        ensure!(
            matches!(on_it[..], [new] if !left.contains(&new)),
            "on {port} are {on_it:?}, left were {left:?}"
        );
    }
    let after = watched_since(&daemon)?;
    ensure!(
        (after - before).abs().total(jiff::Unit::Second)? < 0.01,
        "watched since {before}, and after the kill since {after}"
    );
    let frame = announcement(MAC, ADDRESS, &[])?;
    machine.send("eth0", &[frame])?;
    wait_for_claims(
        &daemon,
        ADDRESS,
        |claims| matches!(claims, [claim] if claim.claim.frames == 1),
    )?;
    stop_clean(lab, daemon, &ports)
}

/// Since when the bridge is watched.
fn watched_since(daemon: &Daemon) -> Result<jiff::Timestamp> {
    let segments = daemon.query("segments", &[])?;
    let since = segments["segments"]
        .as_array()
        .and_then(|segments| segments.iter().find_map(|of| of["watched_since"].as_str()))
        .with_context(|| format!("nothing is watched: {segments}"))?;
    Ok(since.parse()?)
}

/// Stops the agent and looks for what it may have left.
fn stop_clean(lab: &Lab, daemon: Daemon, ports: &[&str]) -> Result<()> {
    let status = daemon.stop()?;
    ensure!(status.success(), "it ended with {status}");
    for port in ports {
        let on_it = programs(port)?;
        ensure!(on_it.is_empty(), "on {port} are {on_it:?}");
        ensure!(!has_clsact(port)?, "{port} has a clsact");
    }
    let socket = lab.disk().join("agent/agent.sock");
    ensure!(!socket.exists(), "the socket is left");
    ensure_empty(Path::new("/sys/fs/bpf"))
}

/// Fails unless there is no pin under this directory.
fn ensure_empty(dir: &Path) -> Result<()> {
    let pins: Vec<_> = fs::read_dir(dir)?.flatten().map(|e| e.path()).collect();
    ensure!(pins.is_empty(), "left: {pins:?}");
    Ok(())
}

fn tc(line: &str) -> Result<String> {
    run("tc", &line.split(' ').collect::<Vec<_>>())
}
