//! The state on an overlay whose upper layer goes with the boot, as `/var` is on hosts that
//! are put together anew at each: what was known is gone, and nothing is released.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tests::runtime::{Network, in_lab};

use super::*;

/// Mounts an overlay at `place` whose changes are kept in `changes`.
fn overlay(lab: &Lab, place: &Path, changes: &Path) -> Result<()> {
    let lower = lab.disk().join("lower");
    let (upper, work) = (changes.join("upper"), changes.join("work"));
    for dir in [place, &lower, &upper, &work] {
        fs::create_dir_all(dir)?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let none = MsFlags::empty();
    mount(
        Some("overlay"),
        place,
        Some("overlay"),
        none,
        Some(&*options),
    )
    .context("no overlay")
}

#[test]
fn a_state_that_goes_with_the_boot_releases_nothing_and_says_so() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let stale = all(&pods(lab, &net, &["one", "two"])?);
        let var = lab.disk().join("var");
        overlay(lab, &var, Path::new("/run/changes"))?;
        let state = self::state(lab).display().to_string();
        let there = var.join("state").display().to_string();
        let config = config(lab, "after-reboot", "").replace(&state, &there);
        let daemon = start(lab, &config)?;
        daemon.wait_for("the leases", PATIENCE, "leases", |told| {
            (addresses(told, "leases") == stale).then_some(())
        })?;
        daemon.kill()?;
        ensure!(var.join("state/state.redb").exists());
        // A real one takes the mount along.
        umount2(&var, MntFlags::MNT_DETACH)?;
        power_cut(lab)?;
        overlay(lab, &var, Path::new("/run/changes"))?;
        ensure!(!var.join("state").exists(), "the upper layer was in memory");

        let continuous = config.replace("after-reboot", "continuous");
        for config in [&config, &continuous] {
            let daemon = start(lab, config)?;
            // Once time is no longer what is missing.
            let plan = daemon.wait_for("the gates", PATIENCE, "reclaim plan", |plan| {
                let reasons = reasons(plan, "kept");
                let only = BTreeSet::from(["state-not-persistent".to_owned()]);
                let all = stale.iter().all(|lease| reasons.get(lease) == Some(&only));
                all.then(|| plan.clone())
            })?;
            let words = "is on a volatile overlay (its upper layer /run/changes/upper is on tmpfs)";
            for lease in &stale {
                let said = detail(&plan, *lease, "state-not-persistent");
                ensure!(said.is_some_and(|said| said.contains(words)), "{plan:#}");
            }
            ensure!(daemon.log().contains(words), "{}", daemon.log());
            let doctor = daemon.query("doctor", &[])?;
            let mut checks = list(&doctor, "checks").filter(|check| check["name"] == "state");
            let check = checks.next().context("the check")?;
            ensure!(check["status"] != "ok", "{check:#}");
            ensure!(check["detail"].to_string().contains(words), "{check:#}");
            let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
            ensure!(status == Some(3), "{applied}");
            ensure!(on_disk(&net)? == stale, "{:?}", on_disk(&net)?);
            let told = daemon.query("reclaim history", &["--state-dir", &there])?;
            ensure!(list(&told, "entries").count() == 0, "{told:#}");
            daemon.stop()?;
        }

        // An overlay that keeps its changes on a disk keeps the state.
        umount2(&var, MntFlags::MNT_DETACH)?;
        overlay(lab, &var, &lab.disk().join("changes"))?;
        let daemon = start(lab, &config)?;
        planned(&daemon, &stale)?;
        let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(0), "{applied}");
        ensure!(on_disk(&net)?.is_empty());
        Ok(())
    });
}
