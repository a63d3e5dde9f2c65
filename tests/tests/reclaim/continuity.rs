//! An agent that is killed or hands over leaves what it saw to the next: coverage goes on
//! where nothing could have been missed, and nowhere else.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use ipam_agent::source::live::pod::tcx;
use jiff::{SignedDuration, Timestamp};
use nix::{
    mount::{MntFlags, umount2},
    net::if_::if_nametoindex,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    daemon::agent,
    lab::Lab,
    runtime::{Network, claim, in_lab},
};

use super::*;

/// Where the agent pins.
const PINS: &str = "/sys/fs/bpf/ipam-agent";

/// Two clocks that are read one after the other, and rounded.
const ROUNDING: SignedDuration = SignedDuration::from_millis(5);

/// A host with one leaked lease, and a machine behind the port `veth1`.
fn host(lab: &mut Lab) -> Result<(Network, IpAddr, Netns)> {
    let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
    let leaked = pods(lab, &net, &["gone"])?[0].address(false)?;
    power_cut(lab)?;
    let guest = lab.guest("guest", "veth1", "cni0")?;
    Ok((net, leaked, guest))
}

/// Nothing is released meanwhile.
fn patient(lab: &Lab) -> String {
    config(lab, "observe", "")
}

/// Waits until the whole bridge is watched; since when.
fn watched_since(daemon: &Daemon) -> Result<Timestamp> {
    let since = daemon.wait_for("the watch", PATIENCE, "segments", |document| {
        let segment = list(document, "segments").find(|segment| segment["name"] == "cni0")?;
        segment["watched_since"].as_str().map(str::to_owned)
    })?;
    Ok(since.parse()?)
}

fn same(one: Timestamp, other: Timestamp) -> bool {
    one.duration_since(other).abs() < ROUNDING
}

fn signal(daemon: &Daemon, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(daemon.pid())?), signal)?)
}

fn pinned() -> bool {
    Path::new(PINS).exists()
}

/// When the agent saw the address last, by the words of its lease.
fn is_seen(daemon: &Daemon, lease: IpAddr) -> Result<()> {
    daemon.wait_for("the sign of life", PATIENCE, "reclaim plan", |plan| {
        reasons(plan, "kept")
            .get(&lease)?
            .contains("seen")
            .then_some(())
    })
}

#[test]
fn a_kill_costs_no_coverage_and_what_was_said_meanwhile_is_heard() {
    in_lab(|lab| {
        let (_net, leaked, guest) = host(lab)?;
        // Long enough for the restart.
        let patient = patient(lab).replace("asked_gate: 2s", "asked_gate: 1h");
        for how in [Signal::SIGKILL, Signal::SIGUSR2] {
            let daemon = start(lab, &patient)?;
            let before = watched_since(&daemon)?;
            // A pass has been: what is leased is watched for.
            daemon.query("reclaim plan", &[])?;
            signal(&daemon, how)?;
            let status = daemon.wait()?;
            ensure!(status.success() == (how == Signal::SIGUSR2), "{status}");
            guest.send("eth0", &[claim(tests::frames::mac(7), leaked)])?;

            let daemon = start(lab, &patient)?;
            let after = watched_since(&daemon)?;
            ensure!(same(before, after), "{how}: {before}, then {after}");
            is_seen(&daemon, leaked)?;
            signal(&daemon, Signal::SIGTERM)?;
            ensure!(daemon.wait()?.success());
            ensure!(!pinned(), "a clean stop leaves nothing");
        }
        Ok(())
    });
}

#[test]
fn who_is_told_to_stop_half_way_through_its_start_leaves_nothing() {
    in_lab(|lab| {
        let (_net, _, _guest) = host(lab)?;
        for (how, left) in [
            (Signal::SIGTERM, false),
            (Signal::SIGUSR2, true),
            (Signal::SIGINT, false),
        ] {
            start(lab, &patient(lab))?.kill()?;
            ensure!(pinned());
            // Its state is open before it takes over what is pinned.
            let opened = state(lab).join("lock");
            fs::remove_file(&opened)?;
            let daemon = Daemon::spawn(&lab.disk().join("daemon"), &patient(lab))?;
            while !opened.exists() {
                thread::sleep(Duration::from_millis(1));
            }
            signal(&daemon, how)?;
            let status = daemon.wait()?;
            ensure!(status.success(), "{how}: {status}");
            ensure!(pinned() == left, "{how}: {}", pinned());
        }
        Ok(())
    });
}

#[test]
fn a_port_that_came_in_the_gap_is_watched_from_then_on() {
    in_lab(|lab| {
        let (_net, _, _guest) = host(lab)?;
        let daemon = start(lab, &patient(lab))?;
        let before = watched_since(&daemon)?;
        daemon.kill()?;
        let _late = lab.guest("late", "veth2", "cni0")?;
        let daemon = start(lab, &patient(lab))?;
        let after = watched_since(&daemon)?;
        ensure!(after > before + ROUNDING, "{before}, then {after}");
        Ok(())
    });
}

/// The daemon doesn't run for so long, while `act` is done.
fn stopped(daemon: &Daemon, length: Duration, act: impl FnOnce() -> Result<()>) -> Result<()> {
    signal(daemon, Signal::SIGSTOP)?;
    let done = act();
    thread::sleep(length);
    signal(daemon, Signal::SIGCONT)?;
    done
}

/// Waits until the daemon has this port; since when the bridge is wholly watched then.
fn watched_with(daemon: &Daemon, port: &str) -> Result<Timestamp> {
    daemon.wait_for("the port", PATIENCE, "segments", |document| {
        let segment = list(document, "segments").find(|segment| segment["name"] == "cni0")?;
        let there = segment.to_string().contains(port);
        there.then_some(())
    })?;
    watched_since(daemon)
}

#[test]
fn a_port_that_came_while_the_agent_did_not_run_is_watched_from_then_on() {
    in_lab(|lab| {
        let (_net, _, _guest) = host(lab)?;
        let daemon = start(lab, &patient(lab))?;
        let before = watched_since(&daemon)?;
        // Where nothing came, nothing was missed.
        stopped(&daemon, Duration::from_secs(2), || Ok(()))?;
        let after = watched_since(&daemon)?;
        ensure!(same(before, after), "{before}, then {after}");
        let lab = &*lab;
        stopped(&daemon, Duration::from_secs(2), || {
            lab.guest("late", "veth2", "cni0").map(drop)
        })?;
        let after = watched_with(&daemon, "veth2")?;
        ensure!(after > before + ROUNDING, "{before}, then {after}");
        Ok(())
    });
}

#[test]
fn who_came_between_is_noticed_though_it_is_gone() {
    in_lab(|lab| {
        let (_net, _, _guest) = host(lab)?;
        let daemon = start(lab, &patient(lab))?;
        let before = watched_since(&daemon)?;
        // While the agent runs.
        let Some(intruder) = Intruder::before_all("veth1")? else {
            return Ok(());
        };
        drop(intruder);
        let noticed = daemon.wait_for("the intruder", PATIENCE, "segments", |document| {
            let segment = list(document, "segments").find(|segment| segment["name"] == "cni0")?;
            let since: Timestamp = segment["watched_since"].as_str()?.parse().ok()?;
            (since > before + ROUNDING).then_some(since)
        })?;
        // While none does.
        daemon.kill()?;
        drop(Intruder::before_all("veth1")?);
        let daemon = start(lab, &patient(lab))?;
        let after = watched_since(&daemon)?;
        ensure!(after > noticed + ROUNDING, "{noticed}, then {after}");
        Ok(())
    });
}

#[test]
fn what_the_former_program_did_not_look_for_it_has_not_missed() {
    in_lab(|lab| {
        let (_net, _, _guest) = host(lab)?;
        let blind = format!("{}observe: {{ data_plane: false }}\n", patient(lab));
        let daemon = start(lab, &blind)?;
        let before = watched_since(&daemon)?;
        daemon.kill()?;
        let daemon = start(lab, &patient(lab))?;
        let after = watched_since(&daemon)?;
        ensure!(after > before + ROUNDING, "{before}, then {after}");
        Ok(())
    });
}

#[test]
fn a_second_agent_is_refused_whatever_its_state_directory() {
    in_lab(|lab| {
        let (_net, _, _guest) = host(lab)?;
        let daemon = start(lab, &patient(lab))?;
        let before = watched_since(&daemon)?;
        let elsewhere = patient(lab).replace("state\n", "elsewhere\n");
        ensure!(elsewhere.contains("elsewhere"), "{elsewhere}");
        let directory = lab.disk().join("second");
        let status = Daemon::spawn(&directory, &elsewhere)?.wait()?;
        ensure!(status.code() == Some(2), "{status}");
        let log = fs::read_to_string(directory.join("daemon.log"))?;
        ensure!(
            log.contains("another ipam-agent watches this host"),
            "{log}"
        );
        ensure!(same(before, watched_since(&daemon)?));
        Ok(())
    });
}

#[test]
fn uninstall_removes_what_a_killed_agent_left() {
    in_lab(|lab| {
        let (_net, _, _guest) = host(lab)?;
        let daemon = start(lab, &patient(lab))?;
        watched_since(&daemon)?;
        daemon.kill()?;
        ensure!(pinned(), "a killed agent leaves its pins");
        let state = state(lab);
        let Some(state) = state.to_str() else {
            bail!("{state:?}")
        };
        let answer = agent(&["uninstall", "--yes", "--state-dir", state])?;
        ensure!(answer.status == Some(0), "{answer:?}");
        ensure!(!pinned(), "{answer:?}");
        let left = tcx(if_nametoindex("veth1")?);
        ensure!(left.is_err() || left?.programs.is_empty());
        Ok(())
    });
}

#[test]
fn a_second_agent_is_refused_where_nothing_can_be_pinned() {
    in_lab(|lab| {
        while umount2("/sys/fs/bpf", MntFlags::MNT_DETACH).is_ok() {}
        let daemon = start(lab, &patient(lab))?;
        let own = state(lab).display().to_string();
        let second = lab.disk().join("second");
        let other = patient(lab).replace(&own, &second.join("state").display().to_string());
        let refused = Daemon::spawn(&second, &other)?;
        let log = second.join("daemon.log");
        ensure!(!refused.wait()?.success());
        let told = std::fs::read_to_string(log)?;
        let words = format!(
            "another ipam-agent watches this host (process {})",
            daemon.pid()
        );
        ensure!(told.contains(&words), "{told}");
        daemon.kill()?;
        Daemon::start(&second, &other)?.stop()?;
        Ok(())
    });
}
