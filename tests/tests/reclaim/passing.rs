//! Problems of the state directory that pass: they end by themselves, and what could not be
//! read meanwhile counts then.

use std::path::Path;

use anyhow::{Result, ensure};
use nix::mount::{MsFlags, mount};
use tests::runtime::{Network, in_lab};

use super::*;

/// Mounts a directory onto itself, to be written to or not.
fn remount(place: &Path, flags: MsFlags) -> Result<()> {
    let none = None::<&str>;
    mount(Some(place), place, none, MsFlags::MS_BIND, none)?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
    Ok(mount(none, place, none, flags, none)?)
}

fn quarantined(leases: &Value) -> BTreeSet<IpAddr> {
    let of = list(leases, "leases").filter(|lease| lease["state"] == "quarantined");
    of.filter_map(address).collect()
}

#[test]
fn a_state_that_can_be_written_later_is_used_then_with_all_that_it_knows() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let stale = all(&pods(lab, &net, &["one", "two"])?);
        let early = all(&pods(lab, &net, &["three"])?);
        let every = stale.union(&early).copied().collect();
        let observing = config(lab, "observe", "");
        let daemon = start(lab, &observing)?;
        daemon.wait_for("the leases", PATIENCE, "leases", |told| {
            (addresses(told, "leases") == every).then_some(())
        })?;
        daemon.kill()?;
        power_cut(lab)?;
        // One is released in this boot, and two are of the one before.
        let keep: Vec<String> = stale.iter().map(ToString::to_string).collect();
        let keep = format!("keep: [{}]", keep.join(", "));
        let daemon = start(lab, &config(lab, "observe", &keep))?;
        planned(&daemon, &early)?;
        let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(0) && on_disk(&net)? == stale, "{applied}");
        daemon.kill()?;

        remount(&state(lab), MsFlags::MS_RDONLY)?;
        let daemon = start(lab, &config(lab, "after-reboot", ""))?;
        let only = BTreeSet::from(["state-not-persistent".to_owned()]);
        daemon.wait_for("the gates", PATIENCE, "reclaim plan", |plan| {
            let reasons = reasons(plan, "kept");
            { stale.iter() }
                .all(|lease| reasons.get(lease) == Some(&only))
                .then_some(())
        })?;
        ensure!(quarantined(&daemon.query("leases", &[])?).is_empty());
        ensure!(on_disk(&net)? == stale, "{:?}", on_disk(&net)?);

        // No lease changes; that it is of an earlier boot says the state alone.
        remount(&state(lab), MsFlags::empty())?;
        released(&daemon, lab, 3)?;
        ensure!(on_disk(&net)?.is_empty(), "{:?}", on_disk(&net)?);
        daemon.wait_for("the quarantine", PATIENCE, "leases", |told| {
            (quarantined(told) == every).then_some(())
        })?;
        let log = daemon.log();
        ensure!(log.contains("the state can be relied on again"), "{log}");
        daemon.stop()?;
        Ok(())
    });
}
