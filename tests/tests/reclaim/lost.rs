//! What the journal lost of releases, or could not find out at first, is found out by looking.

use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use tests::{
    frames,
    runtime::{Network, claim, in_lab},
};

use super::{
    store::{apply, intended, lock},
    *,
};

/// The addresses of `leases` that are quarantined.
fn quarantined(daemon: &Daemon) -> Result<BTreeSet<IpAddr>> {
    let leases = daemon.query("leases", &[])?;
    let of = list(&leases, "leases").filter(|lease| lease["state"] == "quarantined");
    Ok(of.filter_map(address).collect())
}

#[test]
fn a_journal_that_was_cut_off_anywhere_invents_and_repeats_nothing() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let stale = all(&pods(lab, &net, &["one", "two"])?);
        power_cut(lab)?;
        let daemon = start(lab, &config(lab, "observe", ""))?;
        planned(&daemon, &stale)?;
        let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(0), "{applied}");
        daemon.stop()?;
        let journal = state(lab).join("journal.jsonl");
        let whole = fs::read(&journal)?;
        let ends: Vec<usize> = { whole.iter().enumerate() }
            .filter_map(|(at, byte)| (*byte == b'\n').then_some(at + 1))
            .collect();
        ensure!(ends.len() == 4, "two intents, two effects: {ends:?}");
        // Where it is cut off, and how many intents there are then.
        let cuts = [
            (0, 0),
            (ends[0] / 2, 0),
            (ends[0], 1),
            (ends[0] + 1, 1),
            (ends[1] - 2, 1),
            // All but the end of the line is there.
            (ends[1] - 1, 2),
            (ends[1], 2),
            (ends[2] - 3, 2),
            (ends[2], 2),
            (ends[3] - 1, 2),
        ];
        for (cut, intents) in cuts {
            fs::write(&journal, &whole[..cut])?;
            let daemon = start(lab, &config(lab, "continuous", ""))?;
            let told = history(&daemon, lab)?;
            ensure!(
                list(&told, "entries").count() == intents,
                "at {cut}: {told:#}"
            );
            for entry in list(&told, "entries") {
                ensure!(entry["result"] == "released", "at {cut}: {told:#}");
            }
            // What is known to be given back is watched, and nothing is put back or given
            // back again.
            ensure!(
                quarantined(&daemon)? == addresses(&told, "entries"),
                "at {cut}"
            );
            ensure!(on_disk(&net)?.is_empty(), "at {cut}: {:?}", on_disk(&net)?);
            daemon.stop()?;
        }
        // And it is written on as ever.
        fs::write(&journal, &whole[..ends[1] - 2])?;
        let daemon = start(lab, &config(lab, "observe", ""))?;
        let late = "10.9.0.77".parse()?;
        fs::write(net.leases().join("10.9.0.77"), "0123456789abcdef\r\neth0")?;
        planned(&daemon, &BTreeSet::from([late]))?;
        let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
        ensure!(status == Some(0), "{applied}");
        let told = history(&daemon, lab)?;
        let newest = list(&told, "entries").next().context("an entry")?;
        ensure!(
            address(newest) == Some(late) && newest["result"] == "released",
            "{told:#}"
        );
        let id = newest["id"].as_str().context("an id")?;
        let (undone, status) = daemon.command("reclaim undo", &[id])?;
        ensure!(status == Some(0), "{undone}");
        ensure!(on_disk(&net)? == BTreeSet::from([late]));
        Ok(())
    });
}

/// How a store can't be read, by a root that may not read everything.
type Unreadable = (&'static str, fn(&Path, bool) -> Result<()>);

#[test]
fn a_release_that_was_cut_off_is_settled_once_its_store_can_be_read() {
    in_lab(|lab| {
        let ways: [Unreadable; 2] = [
            ("its mode", |dir, away| {
                let mode = if away { 0o000 } else { 0o755 };
                Ok(fs::set_permissions(dir, fs::Permissions::from_mode(mode))?)
            }),
            ("a mount that is missing", |dir, away| {
                let aside = dir.with_file_name(".aside");
                let (from, to) = if away { (dir, &*aside) } else { (&*aside, dir) };
                Ok(fs::rename(from, to)?)
            }),
        ];
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let stale = all(&pods(lab, &net, &["one", "two"])?);
        power_cut(lab)?;
        let dir = lab.disk().join("daemon");
        let limited = "-dac_override,-dac_read_search";
        let (gone, left) = (
            *stale.first().context("a lease")?,
            *stale.last().context("a lease")?,
        );
        let file = |of: IpAddr| net.leases().join(of.to_string());
        let before = (fs::read(file(gone))?, fs::read(file(left))?);
        for (number, (what, unreadable)) in (1..).zip(ways) {
            (|| {
                let daemon = start(lab, &config(lab, "observe", ""))?;
                planned(&daemon, &stale)?;
                let held = lock(&net)?;
                thread::scope(|scope| {
                    let applying = scope.spawn(|| apply(&daemon));
                    intended(lab)?;
                    kill(
                        nix::unistd::Pid::from_raw(i32::try_from(daemon.pid())?),
                        Signal::SIGKILL,
                    )?;
                    let answer = applying.join().map_err(|_| anyhow!("the command failed"))?;
                    ensure!(answer.is_err(), "an answer from the dead: {answer:?}");
                    Ok(())
                })?;
                drop(daemon);
                // It had come as far as this.
                fs::remove_file(file(gone))?;
                drop(held);
                unreadable(&net.leases(), true)?;
                let config = config(lab, "observe", "");
                let daemon = Daemon::start_without(limited, &dir, &config)?;
                // Nobody can tell yet, and nobody pretends to.
                for _ in 0..2 {
                    daemon.query("reclaim plan", &[])?;
                }
                let told = history(&daemon, lab)?;
                ensure!(list(&told, "entries").count() == 2, "{told:#}");
                for entry in list(&told, "entries") {
                    let open = entry["result"] != "released" && entry["result"] != "failed";
                    ensure!(open, "{told:#}");
                }
                ensure!(quarantined(&daemon)?.is_empty());

                unreadable(&net.leases(), false)?;
                daemon.wait_for("the quarantine", PATIENCE, "leases", |_| {
                    (quarantined(&daemon).ok()? == BTreeSet::from([gone])).then_some(())
                })?;
                let told = history(&daemon, lab)?;
                for entry in list(&told, "entries") {
                    let truth = if address(entry) == Some(gone) {
                        "released"
                    } else {
                        "failed"
                    };
                    ensure!(entry["result"] == truth, "{told:#}");
                    let detail = entry["detail"].as_str().unwrap_or_default();
                    ensure!(detail.contains("found later"), "{told:#}");
                }
                ensure!(fs::read(file(left))? == before.1);
                // As watched as any: alive after all, its lease is put back.
                let name = format!("late{number}");
                let guest = lab.guest(&name, &format!("veth{number}"), "cni0")?;
                guest.send("eth0", &[claim(frames::mac(number), gone)])?;
                daemon.wait_for("the lease", PATIENCE, "leases", |_| {
                    file(gone).exists().then_some(())
                })?;
                ensure!(fs::read(file(gone))? == before.0);
                daemon.stop()?;
                // For the next.
                tests::lab::ip(&["netns", "del", &name])?;
                fs::remove_dir_all(state(lab))?;
                anyhow::Ok(())
            })()
            .context(what)?;
        }
        Ok(())
    });
}
