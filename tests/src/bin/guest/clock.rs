//! The wall clock is set, by years: what is reckoned with is the time since the boot.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use serde_json::Value;
use tests::{
    daemon::Daemon,
    frames,
    lab::Lab,
    runtime::{Network, Pod, claim},
};

use crate::{
    host::eventually,
    power_cut::{QUICK, end, history, look, start},
};

const YEAR: TimeSpec = TimeSpec::new(365 * 24 * 3600, 0);
/// No gate is passed meanwhile.
const SLOW: &str = "gate: 1h, damaged_gate: 1h, asked_gate: 1h, asked_damaged_gate: 1h, \
                    reboot_gate: 1h";

/// Sets the clock on by so many years, or back.
pub fn shift(years: i32) -> Result<()> {
    let clock = ClockId::CLOCK_REALTIME;
    clock_settime(clock, clock.now()? + YEAR * years).context("the clock can't be set")
}

/// A lease leaks while the clock is set on and back: no gate is passed by it, and what is
/// released, watched and put back is no other than without.
pub fn jumps(lab: &Lab, net: &Network, pod: &Pod) -> Result<()> {
    end(pod)?;
    let lease = pod.address(false)?;
    let daemon = start(lab, "continuous", SLOW)?;
    for years in [1, -2, 1] {
        shift(years)?;
        eventually("the age", || {
            let plan = daemon.query("reclaim plan", &[])?;
            ensure!(plan["releases"] == Value::Array(Vec::new()), "{plan:#}");
            Ok(is_too_young(&plan, lease).then_some(()))
        })
        .with_context(|| daemon.log())?;
        ensure!(look(net)?.contains_key(&lease), "{lease} is gone");
    }
    ensure!(daemon.stop()?.success());

    let daemon = start(lab, "continuous", QUICK)?;
    shift(-1)?;
    eventually("the release", || {
        Ok((!look(net)?.contains_key(&lease)).then_some(()))
    })
    .with_context(|| daemon.log())?;
    // The newest, though by the clock it was before all others.
    let told = eventually("the history", || {
        let told = history(&daemon, lab)?;
        let newest = told.entries.first().context("an entry")?;
        Ok((newest.address == lease).then_some(told))
    })?;
    let [newest, before, ..] = &told.entries[..] else {
        anyhow::bail!("{told:#?}");
    };
    ensure!(newest.at < before.at, "{told:#?}");
    shift(1)?;
    put_back(lab, net, &daemon, lease)
}

/// It was alive after all.
fn put_back(lab: &Lab, net: &Network, daemon: &Daemon, lease: IpAddr) -> Result<()> {
    let guest = lab.guest("late", "vethlate", &net.make_bridge()?)?;
    eventually("the lease to be put back", || {
        guest.send("eth0", &[claim(frames::mac(77), lease)])?;
        Ok(look(net)?.contains_key(&lease).then_some(()))
    })
    .with_context(|| daemon.log())
}

fn is_too_young(plan: &Value, lease: IpAddr) -> bool {
    let mut kept = plan["kept"].as_array().into_iter().flatten();
    let kept = kept.find(|kept| kept["address"] == *lease.to_string());
    let mut blockers = kept
        .and_then(|kept| kept["blockers"].as_array())
        .into_iter()
        .flatten();
    blockers.any(|blocker| blocker["reason"] == "age")
}
