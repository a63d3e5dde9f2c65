//! The agent dies at each step of a release, and of putting a lease back; the next one finds
//! the truth, and nothing is lost or half written.

use std::{
    fs,
    net::IpAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use tests::{lab, runtime::in_lab, skip};

use super::*;

const STALE: [(&str, &[u8]); 2] = [
    ("10.9.0.20", b"0123456789abcdef\r\neth0"),
    // What a power cut leaves.
    ("10.9.0.21", &[0; 17]),
];
const LIVE: &str = "10.9.0.30";

/// Short enough for a laboratory that starts forty daemons.
fn quick(lab: &Lab) -> String {
    let gates = "reclaim: { lab: true, gate: 500ms, damaged_gate: 500ms, asked_gate: 500ms, \
                 asked_damaged_gate: 500ms, reboot_gate: 500ms, pass_interval: 200ms }";
    config(lab, "observe", "").replace(GATES, gates)
}

/// Two stale leases and one whose address is configured in a namespace.
struct Scene {
    leases: PathBuf,
    _living: Netns,
}

impl Scene {
    fn new(lab: &mut Lab) -> Result<Self> {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        net.make_bridge()?;
        let living = lab.guest("living", "veth1", "cni0")?;
        let address = format!("{LIVE}/24");
        lab::ip(&["-n", "living", "addr", "add", &address, "dev", "eth0"])?;
        let scene = Self {
            leases: net.leases(),
            _living: living,
        };
        fs::create_dir_all(&scene.leases)?;
        fs::write(scene.leases.join(LIVE), "fedcba9876543210\r\neth0")?;
        Ok(scene)
    }

    /// Everything as before, and no state.
    fn reset(&self, lab: &Lab) -> Result<()> {
        for (name, content) in STALE {
            fs::write(self.leases.join(name), content)?;
        }
        match fs::remove_dir_all(state(lab)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Which of the stale leases are there; each is what it was, and nothing else is there.
    fn there(&self) -> Result<BTreeSet<IpAddr>> {
        let mut there = BTreeSet::new();
        let mut others = BTreeSet::new();
        for entry in fs::read_dir(&self.leases)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            match STALE.iter().find(|(stale, _)| *stale == name) {
                Some((_, content)) => {
                    ensure!(fs::read(&path)? == *content, "{name} is not what it was");
                    there.insert(name.parse()?);
                }
                None => drop(others.insert(name)),
            }
        }
        others.remove("lock");
        ensure!(others == BTreeSet::from([LIVE.to_owned()]), "{others:?}");
        ensure!(fs::read(self.leases.join(LIVE))? == b"fedcba9876543210\r\neth0");
        Ok(there)
    }
}

fn stale() -> Result<BTreeSet<IpAddr>> {
    STALE.iter().map(|(name, _)| Ok(name.parse()?)).collect()
}

/// Dies while `act` asks something of it.
fn dies(daemon: Daemon, act: impl FnOnce(&Daemon)) -> Result<()> {
    act(&daemon);
    let log = daemon.log();
    let status = daemon.wait()?;
    ensure!(status.signal() == Some(9), "{status}: {log}");
    Ok(())
}

fn start_dying(lab: &Lab, point: &str) -> Result<Daemon> {
    Daemon::start_dying_at(point, Path::new(&lab.disk().join("daemon")), &quick(lab))
}

#[test]
fn a_release_that_is_cut_off_anywhere_is_done_or_not() {
    if !cfg!(debug_assertions) {
        skip::skip("a release build has no points to die at");
        return;
    }
    in_lab(|lab| {
        let scene = Scene::new(lab)?;
        // The point, and how many leases are gone and how many intents there are by then.
        let points = [
            ("intent-unwritten", 0, 0),
            ("intent-written", 0, 2),
            ("intent-synced", 0, 2),
            ("locked", 0, 2),
            ("lease-there", 0, 2),
            ("lease-unlinked", 1, 2),
            ("locked:2", 1, 2),
            ("lease-there:2", 1, 2),
            ("lease-unlinked:2", 2, 2),
            ("store-flushed", 2, 2),
            ("effects-written", 2, 2),
            ("effects-synced", 2, 2),
        ];
        for (point, gone, intents) in points {
            (|| {
                scene.reset(lab)?;
                let daemon = start_dying(lab, point)?;
                planned(&daemon, &stale()?)?;
                dies(daemon, |daemon| {
                    let _ = daemon.command("reclaim apply", &["--yes"]);
                })?;
                ensure!(scene.there()?.len() == 2 - gone, "{:?}", scene.there()?);

                let daemon = start(lab, &quick(lab))?;
                let there = scene.there()?;
                let history = history(&daemon, lab)?;
                ensure!(history["damaged_lines"] == 0, "{history:#}");
                ensure!(list(&history, "entries").count() == intents, "{history:#}");
                for entry in list(&history, "entries") {
                    let address = address(entry).context("an address")?;
                    let truth = match there.contains(&address) {
                        true => "failed",
                        false => "released",
                    };
                    ensure!(entry["result"] == truth, "{history:#}");
                }
                // What is gone is watched, and what is left goes the second time.
                let leases = daemon.query("leases", &[])?;
                let watched = list(&leases, "leases").filter(|l| l["state"] == "quarantined");
                ensure!(watched.count() == gone, "{leases:#}");
                planned(&daemon, &there)?;
                let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
                ensure!(status == Some(0), "{applied}");
                ensure!(scene.there()?.is_empty());
                daemon.stop()?;
                anyhow::Ok(())
            })()
            .with_context(|| point.to_owned())?;
        }
        Ok(())
    });
}

#[test]
fn a_defect_in_one_release_ends_none_of_those_after_it() {
    if !cfg!(debug_assertions) {
        skip::skip("a release build has no points to fail at");
        return;
    }
    in_lab(|lab| {
        let scene = Scene::new(lab)?;
        // The point, and how many leases are gone by then.
        for (point, gone) in [("locked", 0), ("lease-unlinked", 1)] {
            scene.reset(lab)?;
            let daemon =
                Daemon::start_panicking_at(point, &lab.disk().join("daemon"), &quick(lab))?;
            planned(&daemon, &stale()?)?;
            let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
            ensure!(status == Some(1), "{applied}");
            ensure!(applied.contains("a defect"), "{applied}");
            let there = scene.there()?;
            ensure!(there.len() == 2 - gone, "{there:?}");
            planned(&daemon, &there)?;
            let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
            ensure!(status == Some(0), "{applied}");
            ensure!(scene.there()?.is_empty());
            // What became of the others was found out by looking.
            let history = released(&daemon, lab, 2)?;
            for entry in list(&history, "entries") {
                let known = ["released", "failed"].map(|result| entry["result"] == result);
                ensure!(known.contains(&true), "{history:#}");
            }
            daemon.stop()?;
        }
        Ok(())
    });
}

#[test]
fn an_undo_that_is_cut_off_anywhere_is_done_or_not() {
    if !cfg!(debug_assertions) {
        skip::skip("a release build has no points to die at");
        return;
    }
    in_lab(|lab| {
        let scene = Scene::new(lab)?;
        // The point, whether the lease is back by then, and whether the journal knows that
        // it was to be.
        let points = [
            ("intent-unwritten", false, false),
            ("intent-written", false, true),
            ("intent-synced", false, true),
            ("locked", false, true),
            ("lease-prepared", false, true),
            ("lease-linked", true, true),
            ("undone-written", true, true),
            ("undone-synced", true, true),
        ];
        for (number, (point, back, told)) in points.into_iter().enumerate() {
            (|| {
                scene.reset(lab)?;
                let daemon = start(lab, &quick(lab))?;
                planned(&daemon, &stale()?)?;
                daemon.command("reclaim apply", &["--yes"])?;
                ensure!(scene.there()?.is_empty());
                daemon.stop()?;
                // Once the whole one, once the damaged.
                let id = (number % 2 + 1).to_string();
                dies(start_dying(lab, point)?, |daemon| {
                    let _ = daemon.command("reclaim undo", &[&id]);
                })?;
                ensure!(
                    scene.there()?.len() == usize::from(back),
                    "{:?}",
                    scene.there()?
                );

                let daemon = start(lab, &quick(lab))?;
                let history = history(&daemon, lab)?;
                ensure!(history["damaged_lines"] == 0, "{history:#}");
                let entry = list(&history, "entries").find(|e| e["id"] == format!("{id:0>8}"));
                let undo = &entry.context("its entry")?["undo"];
                let truth = if back { "put-back" } else { "failed" };
                match told {
                    true => ensure!(undo["result"] == truth, "{history:#}"),
                    false => ensure!(undo.is_null(), "{history:#}"),
                }
                // What is back can't be put back again, what isn't can.
                let (undone, status) = daemon.command("reclaim undo", &[&id])?;
                ensure!(status == Some(i32::from(back)), "{undone}");
                ensure!(scene.there()?.len() == 1, "{:?}", scene.there()?);
                daemon.stop()?;
                anyhow::Ok(())
            })()
            .with_context(|| point.to_owned())?;
        }
        Ok(())
    });
}
