//! SIGHUP.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tests::{
    daemon::{Daemon, agent},
    lab::Lab,
    runtime::in_lab,
};

use super::{LOCAL, config, get, host, metrics, sample, wait_for};

fn file(lab: &Lab) -> PathBuf {
    lab.disk().join("daemon/config.yaml")
}

/// Writes the configuration and has the daemon read it; waits until it has.
fn reload(lab: &Lab, daemon: &Daemon, more: &str, result: &str) -> Result<()> {
    let series = format!("ipam_config_reloads_total{{result=\"{result}\"}}");
    let before = sample(&metrics()?, &series);
    let socket = daemon.socket();
    let text = format!("{}\nsocket: {}\n", config(lab, more), socket.display());
    fs::write(file(lab), text)?;
    hang_up(daemon)?;
    wait_for(&series, || Ok(sample(&metrics()?, &series) > before))
}

/// As `systemctl reload` does.
fn hang_up(daemon: &Daemon) -> Result<()> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/ipam-agent.service");
    let unit = fs::read_to_string(unit)?;
    let mut lines = unit.lines();
    let command = lines.find_map(|line| line.strip_prefix("ExecReload=/bin/sh -c "));
    let command = command.context("the unit can't reload")?.trim_matches('\'');
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", command])
        .env("MAINPID", daemon.pid().to_string());
    ensure!(shell.status()?.success(), "{command}");
    Ok(())
}

fn blocked(plan: &serde_json::Value, address: &str, reason: &str) -> bool {
    let kept = plan["kept"].as_array().into_iter().flatten();
    let mut of = kept.filter(|kept| kept["address"] == *address);
    of.any(|kept| {
        let blockers = kept["blockers"].as_array().into_iter().flatten();
        blockers
            .into_iter()
            .any(|blocker| blocker["reason"] == *reason)
    })
}

#[test]
fn a_reload_counts_as_a_whole_or_not_at_all() {
    in_lab(|lab| {
        let (_net, pods, daemon) = host(lab)?;
        let address = pods[0].address(false)?.to_string();
        let socket = daemon.socket().display().to_string();
        // By the socket alone: the file is wrong at times.
        let plan = || agent(&["reclaim", "plan", "--output", "json", "--socket", &socket])?.json();
        ensure!(!blocked(&plan()?, &address, "kept"));

        reload(lab, &daemon, &format!("keep: [{address}]\n"), "applied")?;
        ensure!(blocked(&plan()?, &address, "kept"), "{:#}", plan()?);

        // A mistake: the line, the value, what would be right; what was before goes on.
        reload(
            lab,
            &daemon,
            "keep: []\nreclaim: { gate: 10s }\n",
            "refused",
        )?;
        let log = daemon.log();
        ensure!(
            log.contains("config.yaml:4: reclaim.gate: 10s: should be 5m"),
            "{log}"
        );
        ensure!(blocked(&plan()?, &address, "kept"), "{:#}", plan()?);
        ensure!(sample(&metrics()?, "ipam_config_current") == Some(0.0));
        let (head, body) = get(LOCAL, "/readyz", "")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
        ensure!(body.contains("older than its file"), "{body}");

        // What needs a restart is named, and nothing beside it is taken over.
        reload(
            lab,
            &daemon,
            "keep: []\nlisten: 127.0.0.1:9999\n",
            "refused",
        )?;
        let log = daemon.log();
        ensure!(
            log.contains("listen can only be changed by a restart"),
            "{log}"
        );
        ensure!(blocked(&plan()?, &address, "kept"), "{:#}", plan()?);

        reload(lab, &daemon, "keep: []\n", "applied")?;
        ensure!(!blocked(&plan()?, &address, "kept"), "{:#}", plan()?);
        ensure!(sample(&metrics()?, "ipam_config_current") == Some(1.0));

        fs::remove_file(file(lab))?;
        hang_up(&daemon)?;
        wait_for("the refusal", || {
            Ok(sample(&metrics()?, "ipam_config_current") == Some(0.0))
        })?;
        let status = daemon.stop()?;
        ensure!(status.success(), "{status}");
        Ok(())
    });
}
