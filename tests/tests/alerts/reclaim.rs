//! Pools, and what is given back.

use std::{collections::BTreeSet, fs, fs::File, net::IpAddr, process::Command};

use anyhow::Context as _;
use tests::{
    containerd::{self, Node},
    frames,
    runtime::{Network, Pod, claim},
};

use super::*;

fn wait() -> Result<()> {
    Ok(())
}

/// Waits until exactly these could be given back.
fn planned(daemon: &Daemon, expected: &BTreeSet<IpAddr>) -> Result<()> {
    daemon.wait_for("the plan", PATIENCE, "reclaim plan", |plan| {
        let releases = list(plan, "releases");
        let addresses: BTreeSet<IpAddr> = releases
            .filter_map(|release| release["address"].as_str()?.parse().ok())
            .collect();
        (addresses == *expected).then_some(())
    })
}

#[test]
fn a_pool_that_fills_up_goes_stale_in_a_power_cut_and_is_emptied() {
    in_lab(|lab| {
        // 13 addresses besides the gateway's.
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/28"])?;
        let daemon = start(lab, &config(lab, HOST_LOCAL, ""))?;
        let prometheus = watching(lab)?;
        let start_pod = |n: usize| net.start(lab, &format!("pod-{n}"));
        let mut pods: Vec<Pod> = (0..12).map(start_pod).collect::<Result<_>>()?;
        let alert = fires(&prometheus, "IpamPoolNearlyFull", "warning", wait)?;
        let description = alert["annotations"]["description"].to_string();
        ensure!(description.contains("92.31%"), "{description}");
        ensure!(alert["labels"]["pool"] == "10.9.0.0/28", "{alert:#}");
        pods.push(start_pod(12)?);
        let alert = fires(&prometheus, "IpamPoolFull", "critical", wait)?;
        ensure!(alert["value"] == "1.3e+01", "{alert:#}");
        resolves(&prometheus, "IpamPoolNearlyFull")?;
        let refused = start_pod(13).map(drop);
        ensure!(
            refused.is_err_and(|error| format!("{error:#}").contains("no IP addresses available")),
            "there was one more address"
        );
        ensure!(super::alert(&prometheus, "IpamPoolStale", "critical")?.is_none());

        daemon.kill()?;
        power_cut(lab)?;
        let daemon = start(lab, &config(lab, HOST_LOCAL, ""))?;
        fires(&prometheus, "IpamPoolStale", "critical", wait)?;
        fires(&prometheus, "IpamPoolStale", "warning", wait)?;
        fires(&prometheus, "IpamPoolFull", "critical", wait)?;
        // What its runbook says.
        let leaked = pods.iter().flat_map(|pod| pod.addresses.clone()).collect();
        planned(&daemon, &leaked)?;
        let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(0), "{applied}");
        resolves(&prometheus, "IpamPoolStale")?;
        resolves(&prometheus, "IpamPoolFull")
    });
}

#[test]
fn a_released_address_that_was_alive_a_lock_that_is_held_and_a_pause() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let pod = net.start(lab, "one")?;
        power_cut(lab)?;
        let daemon = start(lab, &config(lab, HOST_LOCAL, ""))?;
        let prometheus = watching(lab)?;
        let leaked: BTreeSet<IpAddr> = pod.addresses.iter().copied().collect();
        planned(&daemon, &leaked)?;

        // As a plugin that hangs.
        let lock = File::open(net.leases().join("lock"))?;
        lock.lock()?;
        fires(&prometheus, "IpamReleaseFailed", "warning", || {
            daemon.command("reclaim apply", &["--yes"]).map(drop)
        })?;
        drop(lock);
        let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(0), "{applied}");

        let guest = lab.guest("guest", "veth7", "cni0")?;
        guest.send("eth0", &[claim(frames::mac(7), pod.addresses[0])])?;
        let alert = fires(&prometheus, "IpamReleasedButAlive", "critical", wait)?;
        let text = alert["annotations"]["description"].to_string();
        ensure!(text.contains("1 address(es)"), "{text}");
        let file = net.leases().join(pod.addresses[0].to_string());
        ensure!(file.is_file(), "it was not put back");

        // What the runbook has them do first.
        let (paused, status) = daemon.command("reclaim pause", &[])?;
        ensure!(status == Some(0), "{paused}");
        fires(&prometheus, "IpamReclaimPaused", "info", wait)?;
        let (resumed, status) = daemon.command("reclaim resume", &[])?;
        ensure!(status == Some(0), "{resumed}");
        resolves(&prometheus, "IpamReclaimPaused")?;
        resolves(&prometheus, "IpamReleasedButAlive")?;
        resolves(&prometheus, "IpamReleaseFailed")
    });
}

#[test]
fn a_state_that_cannot_be_written_and_can_again() {
    in_lab(|lab| {
        let state = lab.disk().join("state");
        fs::create_dir_all(&state)?;
        let state = state.display().to_string();
        mount(&["--bind", &state, &state])?;
        mount(&["-o", "remount,ro,bind", &state])?;
        let config = config(lab, HOST_LOCAL, "");
        let daemon = start(lab, &config)?;
        let prometheus = watching(lab)?;
        fires(&prometheus, "IpamStateNotPersistent", "warning", wait)?;
        daemon.stop()?;
        mount(&["-o", "remount,rw,bind", &state])?;
        let _daemon = start(lab, &config)?;
        resolves(&prometheus, "IpamStateNotPersistent")
    });
}

fn mount(args: &[&str]) -> Result<()> {
    let status = Command::new("mount").args(args).status()?;
    ensure!(status.success(), "mount {args:?}: {status}");
    Ok(())
}

#[test]
fn a_container_runtime_that_is_down_and_up_again() {
    if let Err(why) = prometheus::available() {
        skip::skip(&why);
        return;
    }
    containerd::in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let _pod = net.start(lab, "one")?;
        let mut node = Node::boot(lab)?;
        let config = config(lab, HOST_LOCAL, "").replace("cri: off", "cri: auto");
        let _daemon = start(lab, &config)?;
        let prometheus = watching(lab)?;
        node.kill_containerd()?;
        let alert = fires(&prometheus, "IpamHolderSourceDown", "warning", wait)?;
        ensure!(alert["labels"]["store"] == "host-local:pods", "{alert:#}");
        node.start().context("containerd again")?;
        resolves(&prometheus, "IpamHolderSourceDown")
    });
}
