//! A pod that comes back with the same container id and interface, as the same address: to
//! the letter the lease that had leaked, and another one all the same.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tests::{
    lab,
    runtime::{Network, in_lab},
};

use super::{
    store::{apply, intended, lock},
    *,
};

/// One address for pods: who comes back has the same.
const ONLY: &str = "10.9.0.0/30";

/// The pod is freed and comes back, by the plugins.
fn comes_back(lab: &Lab, net: &Network, pod: &Pod) -> Result<Pod> {
    net.free(pod)?;
    let again = net.start(lab, &pod.name)?;
    ensure!(again.container_id == pod.container_id);
    ensure!(again.addresses == pod.addresses);
    Ok(again)
}

/// The bytes of its lease.
fn content(net: &Network, pod: &Pod) -> Result<Vec<u8>> {
    Ok(fs::read(
        net.leases().join(pod.address(false)?.to_string()),
    )?)
}

#[test]
fn between_the_judgement_and_the_release() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &[ONLY])?;
        let pod = net.start(lab, "one")?;
        power_cut(lab)?;
        let before = content(&net, &pod)?;
        let daemon = start(lab, &config(lab, "observe", ""))?;
        planned(&daemon, &all(std::slice::from_ref(&pod)))?;
        let held = lock(&net)?;
        let inode = held.metadata()?.ino();
        let (applied, status) = thread::scope(|scope| {
            let applying = scope.spawn(|| apply(&daemon));
            intended(lab)?;
            let coming = scope.spawn(|| comes_back(lab, &net, &pod));
            // Its DEL waits for the lock, and the agent, which never does, only tries it.
            let waits = |line: &str| line.contains("->") && line.contains(&format!(":{inode} "));
            let deadline = Instant::now() + PATIENCE;
            while !fs::read_to_string("/proc/locks")?.lines().any(waits) {
                ensure!(Instant::now() < deadline, "nobody waits for the lock");
                thread::sleep(Duration::from_millis(5));
            }
            drop(held);
            coming.join().map_err(|_| anyhow!("the plugins failed"))??;
            applying.join().map_err(|_| anyhow!("the command failed"))?
        })?;
        ensure!(status == Some(1), "{status:?} {applied:#}");
        let outcome = list(&applied, "outcomes").next().context("an outcome")?;
        ensure!(outcome["blocker"]["reason"] == "changed", "{applied:#}");
        ensure!(content(&net, &pod)? == before);
        // And it has its holder from now on.
        let kept = daemon.wait_for("the holder", PATIENCE, "reclaim plan", |plan| {
            let reasons = reasons(plan, "kept");
            let of = reasons.get(&pod.address(false).ok()?)?;
            of.contains("holder").then(|| plan.clone())
        })?;
        ensure!(list(&kept, "releases").count() == 0, "{kept:#}");
        Ok(())
    });
}

#[test]
fn well_before_it() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &[ONLY])?;
        let pod = net.start(lab, "one")?;
        power_cut(lab)?;
        let lease = pod.address(false)?;
        let daemon = start(lab, &config(lab, "observe", ""))?;
        planned(&daemon, &BTreeSet::from([lease]))?;
        let since = || -> Result<Value> {
            let leases = daemon.query("leases", &[])?;
            let mut of = list(&leases, "leases").filter(|of| address(of) == Some(lease));
            Ok(of.next().context("the lease")?["since"].clone())
        };
        let (before, since_before) = (content(&net, &pod)?, since()?);
        comes_back(lab, &net, &pod)?;
        ensure!(content(&net, &pod)? == before);
        daemon.wait_for("the new lease", PATIENCE, "leases", |_| {
            (since().ok()? != since_before).then_some(())
        })?;
        let plan = daemon.query("reclaim plan", &[])?;
        ensure!(list(&plan, "releases").count() == 0, "{plan:#}");
        ensure!(on_disk(&net)? == BTreeSet::from([lease]));
        Ok(())
    });
}

#[test]
fn what_came_back_since_the_boot_is_not_of_the_boot_before() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &[ONLY])?;
        let other = Network::bridge("others", "cni1", &["10.8.0.0/30"])?;
        let pod = net.start(lab, "one")?;
        let left = other.start(lab, "two")?;
        let before = content(&net, &pod)?;
        let config = config(lab, "after-reboot", "");
        let daemon = start(lab, &config)?;
        daemon.wait_for("both leases", PATIENCE, "leases", |told| {
            (list(told, "leases").count() == 2).then_some(())
        })?;
        daemon.kill()?;
        power_cut(lab)?;
        other.make_bridge()?;
        // It comes back before the agent does, and leaks in this boot.
        let again = comes_back(lab, &net, &pod)?;
        lab::ip(&["netns", "del", again.netns.name()])?;
        ensure!(content(&net, &pod)? == before);
        let daemon = start(lab, &config)?;
        // The other one is of the boot before, and goes unasked.
        released(&daemon, lab, 1)?;
        ensure!(on_disk(&other)?.is_empty(), "{left:?}");
        // All that a person's word needs is there, twice over, and without it nothing is done.
        for _ in 0..2 {
            planned(&daemon, &all(std::slice::from_ref(&pod)))?;
        }
        ensure!(content(&net, &pod)? == before);
        let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(0), "{applied}");
        ensure!(on_disk(&net)?.is_empty());
        Ok(())
    });
}
