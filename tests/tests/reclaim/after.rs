//! After a release: its address is watched, put back when it is in use after all or when a
//! person says so, and nothing of that is forgotten; and releases can be paused.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use tests::{
    frames,
    runtime::{Network, claim, in_lab},
};

use super::*;

/// A network, two leases of which were released by hand, and the daemon that did.
struct Released {
    daemon: Daemon,
    files: Vec<(PathBuf, Vec<u8>)>,
    addresses: Vec<IpAddr>,
}

fn released_two(lab: &mut Lab) -> Result<Released> {
    let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
    let pods = pods(lab, &net, &["one", "two"])?;
    power_cut(lab)?;
    let addresses: Vec<IpAddr> = all(&pods).into_iter().collect();
    let file = |address: &IpAddr| net.leases().join(address.to_string());
    // The second is damaged, and readable for everybody, as an old host-local made it.
    fs::write(file(&addresses[1]), [0; 17])?;
    fs::set_permissions(file(&addresses[1]), fs::Permissions::from_mode(0o644))?;
    let mut files = Vec::new();
    for address in &addresses {
        files.push((file(address), fs::read(file(address))?));
    }
    let daemon = start(lab, &config(lab, "observe", ""))?;
    planned(&daemon, &all(&pods))?;
    let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
    ensure!(status == Some(0), "{applied}");
    ensure!(on_disk(&net)?.is_empty());
    Ok(Released {
        daemon,
        files,
        addresses,
    })
}

/// The ids of the quarantined, by address.
fn quarantined(leases: &Value) -> BTreeMap<IpAddr, String> {
    let of = list(leases, "leases").filter(|lease| lease["state"] == "quarantined");
    of.filter_map(|lease| {
        let id = lease["quarantine"]["id"].as_str()?;
        Some((address(lease)?, id.to_owned()))
    })
    .collect()
}

fn entry<'a>(history: &'a Value, id: &str) -> Result<&'a Value> {
    let mut entries = list(history, "entries");
    entries.find(|entry| entry["id"] == id).context("no entry")
}

#[test]
fn an_address_in_use_after_its_release_gets_its_lease_back() {
    in_lab(|lab| {
        let Released {
            daemon,
            files,
            addresses,
        } = released_two(lab)?;
        let leases = daemon.query("leases", &[])?;
        let ids = quarantined(&leases);
        ensure!(ids.len() == 2, "{leases:#}");
        // Neither a restart nor the loss of the database ends it, nor a clock that was set.
        daemon.stop()?;
        let journal = state(lab).join("journal.jsonl");
        let text = fs::read_to_string(&journal)?;
        let year = ipam_agent::driver::clock::wall_time()
            .strftime("\"at\":\"%Y")
            .to_string();
        ensure!(text.contains(&year), "{text}");
        fs::write(&journal, text.replace(&year, "\"at\":\"2045"))?;
        fs::write(state(lab).join("state.redb"), "no database")?;
        let daemon = start(lab, &config(lab, "observe", ""))?;
        ensure!(
            daemon.log().contains("state.redb.damaged-0"),
            "{}",
            daemon.log()
        );
        ensure!(quarantined(&daemon.query("leases", &[])?) == ids);

        let guest = lab.guest("guest", "veth7", "cni0")?;
        let mac = frames::mac(7);
        guest.send("eth0", &[claim(mac, addresses[0])])?;
        let (file, content) = &files[0];
        let report = daemon.wait_for("the alarm", PATIENCE, "report", |report| {
            let mut events = list(report, "events");
            events
                .find(|event| event["kind"] == "released-but-alive")
                .cloned()
        })?;
        ensure!(report["severity"] == "critical", "{report:#}");
        ensure!(address(&report) == Some(addresses[0]), "{report:#}");
        let reason = report["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("was put back"), "{report:#}");
        ensure!(fs::read(file)? == *content);
        ensure!(daemon.log().contains("ERROR"), "{}", daemon.log());
        let history = history(&daemon, lab)?;
        let undo = &entry(&history, &ids[&addresses[0]])?["undo"];
        ensure!(
            undo["asker"] == "daemon" && undo["result"] == "put-back",
            "{history:#}"
        );
        // The other one is still watched, and the one that is back is a lease as any.
        let left = daemon.wait_for("the lease", PATIENCE, "leases", |leases| {
            let back = list(leases, "leases").any(|lease| lease["state"] == "active");
            back.then(|| quarantined(leases))
        })?;
        ensure!(left.keys().eq([&addresses[1]]), "{left:?}");
        let explain = daemon.query("explain", &[&addresses[0].to_string()])?;
        let told = list(&explain, "story").any(|told| {
            let what = told["what"].as_str().unwrap_or_default();
            what.starts_with("the agent put the lease back")
        });
        ensure!(told, "{explain:#}");
        Ok(())
    });
}

#[test]
fn a_person_undoes_what_nobody_took() {
    in_lab(|lab| {
        let Released {
            daemon,
            files,
            addresses,
        } = released_two(lab)?;
        let ids = quarantined(&daemon.query("leases", &[])?);
        let (taken, damaged) = (&ids[&addresses[0]], &ids[&addresses[1]]);
        // As a person types it.
        let (undone, status) =
            daemon.command("reclaim undo", &[damaged.trim_start_matches('0')])?;
        ensure!(status == Some(0), "{undone}");
        let (file, content) = &files[1];
        ensure!(fs::read(file)? == *content);
        ensure!(fs::metadata(file)?.permissions().mode() & 0o777 == 0o644);
        let (undone, status) = daemon.command("reclaim undo", &[damaged])?;
        ensure!(status == Some(1) && undone.contains("already"), "{undone}");
        let (undone, status) = daemon.command("reclaim undo", &["4711"])?;
        ensure!(status == Some(2) && undone.contains("00004711"), "{undone}");

        let (file, _) = &files[0];
        fs::write(file, "newcomer\r\neth0")?;
        daemon.wait_for("the new lease", PATIENCE, "leases", |leases| {
            quarantined(leases).is_empty().then_some(())
        })?;
        let (undone, status) = daemon.command("reclaim undo", &[taken])?;
        ensure!(status == Some(1) && undone.contains("newcomer"), "{undone}");
        ensure!(fs::read(file)? == b"newcomer\r\neth0");
        let told = history(&daemon, lab)?;
        let entry = entry(&told, taken)?;
        ensure!(
            entry["taken"]["holder"]["container_id"] == "newcomer",
            "{told:#}"
        );
        // Nothing of it is an alarm.
        let report = daemon.query("report", &[])?;
        ensure!(list(&report, "events").count() == 0, "{report:#}");
        Ok(())
    });
}

#[test]
fn paused_nothing_is_released_unasked_and_what_is_asked_for_is() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let stale = all(&pods(lab, &net, &["one"])?);
        power_cut(lab)?;
        let daemon = start(lab, &config(lab, "observe", ""))?;
        let (paused, status) = daemon.command("reclaim pause", &[])?;
        ensure!(status == Some(0), "{paused}");
        daemon.stop()?;
        // A restart doesn't end it, nor does the loss of the database.
        fs::remove_file(state(lab).join("state.redb"))?;
        let daemon = start(lab, &config(lab, "continuous", ""))?;
        let plan = planned(&daemon, &stale)?;
        ensure!(plan["paused"]["by"].is_string(), "{plan:#}");
        let leases = daemon.query("leases", &[])?;
        let lease = list(&leases, "leases").next().context("the lease")?;
        let blocker = list(lease, "blockers").next().context("a blocker")?;
        let detail = blocker["detail"].as_str().unwrap_or_default();
        ensure!(
            blocker["reason"] == "mode" && detail.contains("reclaim resume"),
            "{lease:#}"
        );
        // Unasked it would have gone long ago: a person's gates are as long, and each
        // question takes two passes.
        for _ in 0..3 {
            daemon.query("reclaim plan", &[])?;
        }
        ensure!(on_disk(&net)? == stale);
        let doctor = daemon.query("doctor", &[])?;
        let check = list(&doctor, "checks").find(|check| check["name"] == "unattended releases");
        ensure!(check.context("a check")?["status"] == "warn", "{doctor:#}");

        let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(0) && on_disk(&net)?.is_empty(), "{applied}");
        let (undone, status) = daemon.command("reclaim undo", &["1"])?;
        ensure!(status == Some(0), "{undone}");
        // What was put back doesn't go unasked; what nobody touched does.
        let other = net.leases().join("10.9.0.77");
        fs::write(&other, "0123456789abcdef\r\neth0")?;
        let (resumed, status) = daemon.command("reclaim resume", &[])?;
        ensure!(status == Some(0), "{resumed}");
        released(&daemon, lab, 1)?;
        let deadline = std::time::Instant::now() + PATIENCE;
        while other.exists() {
            ensure!(std::time::Instant::now() < deadline, "{}", daemon.log());
            thread::sleep(Duration::from_millis(100));
        }
        for _ in 0..3 {
            daemon.query("reclaim plan", &[])?;
        }
        ensure!(on_disk(&net)? == stale, "{:?}", on_disk(&net)?);
        Ok(())
    });
}

#[test]
fn on_a_read_only_disk_nothing_is_released_or_put_back_and_a_pause_is_kept_in_mind() {
    in_lab(|lab| {
        let Released {
            daemon, addresses, ..
        } = released_two(lab)?;
        let ids = quarantined(&daemon.query("leases", &[])?);
        let stale = Path::new("/var/lib/cni/networks/pods/10.9.0.77");
        fs::write(stale, "0123456789abcdef\r\neth0")?;
        planned(&daemon, &BTreeSet::from(["10.9.0.77".parse()?]))?;
        daemon.stop()?;
        let state = state(lab).display().to_string();
        mount(&["--bind", &state, &state])?;
        mount(&["-o", "remount,ro,bind", &state])?;
        let daemon = start(lab, &config(lab, "continuous", ""))?;
        daemon.wait_for("the blocker", PATIENCE, "reclaim plan", |plan| {
            let reasons = reasons(plan, "kept");
            let only = reasons.get(&"10.9.0.77".parse::<IpAddr>().ok()?)?;
            (*only == BTreeSet::from(["state-not-persistent".to_owned()])).then_some(())
        })?;
        let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(3) && stale.exists(), "{applied}");
        let (undone, status) = daemon.command("reclaim undo", &[&ids[&addresses[0]]])?;
        ensure!(status == Some(2) && undone.contains("journal"), "{undone}");
        let (paused, status) = daemon.command("reclaim pause", &[])?;
        ensure!(
            status == Some(2) && paused.contains("a restart would end it"),
            "{paused}"
        );
        let plan = daemon.query("reclaim plan", &[])?;
        ensure!(plan["paused"].is_object(), "{plan:#}");
        Ok(())
    });
}

fn mount(args: &[&str]) -> Result<()> {
    let status = std::process::Command::new("mount").args(args).status()?;
    ensure!(status.success(), "mount {args:?}: {status}");
    Ok(())
}

#[test]
fn a_journal_that_was_damaged_in_its_middle_keeps_what_is_around_it() {
    in_lab(|lab| {
        let Released { daemon, files, .. } = released_two(lab)?;
        daemon.stop()?;
        let journal = state(lab).join("journal.jsonl");
        let text = fs::read(&journal)?;
        let mut lines = text.split_inclusive(|byte| *byte == b'\n');
        let (first, second) = (
            lines.next().context("an intent")?,
            lines.next().context("another")?,
        );
        let rest: Vec<u8> = lines.flatten().copied().collect();
        // The second release's intent is half there, and then a megabyte of nothing.
        let mut damaged = [first, &second[..second.len() / 2]].concat();
        damaged.extend(vec![0; 1 << 20]);
        damaged.push(b'\n');
        damaged.extend(rest);
        fs::write(&journal, damaged)?;
        let daemon = start(lab, &config(lab, "continuous", ""))?;
        let history = history(&daemon, lab)?;
        ensure!(history["damaged_lines"] == 1, "{history:#}");
        let entries: Vec<&Value> = list(&history, "entries").collect();
        ensure!(
            entries.len() == 1 && entries[0]["result"] == "released",
            "{history:#}"
        );
        // What is known can be undone, what isn't is refused.
        let (undone, status) = daemon.command("reclaim undo", &["2"])?;
        ensure!(status == Some(2), "{undone}");
        let (undone, status) = daemon.command("reclaim undo", &["1"])?;
        ensure!(status == Some(0), "{undone}");
        ensure!(files.iter().filter(|(file, _)| file.exists()).count() == 1);
        Ok(())
    });
}
