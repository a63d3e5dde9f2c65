//! What hosts and people do wrong: each gets a clear message, the rest goes on, and nothing
//! is released that should not be.

#[path = "bad_input/leases.rs"]
mod leases;

use std::{
    fs::{self, File},
    io::Write as _,
    net::IpAddr,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ipam_agent::state::State;
use nix::mount::{MsFlags, mount};
use serde_json::Value;
use tests::{
    daemon::{Daemon, agent, agent_as_nobody, agent_without},
    frames,
    lab::{self, Lab, in_lab},
    runtime::claim,
};

const PATIENCE: Duration = Duration::from_secs(60);
const NETWORKS: &str = "/var/lib/cni/networks";
const LEASE: &str = "0123456789abcdef0123456789abcdef\r\neth0";

fn config(lab: &Lab) -> String {
    format!(
        "state_dir: {}\nholders: {{ cri: off }}\n",
        lab.disk().join("state").display()
    )
}

fn start(lab: &Lab, config: &str) -> Result<Daemon> {
    Daemon::start(&lab.disk().join("daemon"), config)
}

fn list<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten()
}

fn blind(document: &Value) -> Vec<&str> {
    list(document, "blind").filter_map(Value::as_str).collect()
}

/// Waits until so many leases are known.
fn leased(daemon: &Daemon, count: usize) -> Result<Value> {
    daemon.wait_for("the leases", PATIENCE, "leases", |told| {
        (list(told, "leases").count() == count).then(|| told.clone())
    })
}

/// A network's directory with one lease.
fn network(name: &str, address: &str) -> Result<()> {
    let dir = Path::new(NETWORKS).join(name);
    fs::create_dir_all(&dir)?;
    File::create(dir.join("lock"))?;
    Ok(fs::write(dir.join(address), LEASE)?)
}

/// A guest's claim is heard: the daemon still does what it is there for.
fn still_watches(lab: &Lab, daemon: &Daemon, name: &str) -> Result<()> {
    let bridge = format!("br-{name}");
    lab::ip(&["link", "add", &bridge, "type", "bridge"])?;
    lab::ip(&["link", "set", &bridge, "up"])?;
    let port = format!("veth-{name}");
    let guest = lab.guest(name, &port, &bridge)?;
    daemon.wait_for("the port", PATIENCE, "segments", |told| {
        let mut of = list(told, "segments").filter(|segment| segment["name"] == *bridge);
        of.any(|segment| segment["complete"] == true).then_some(())
    })?;
    let address: IpAddr = "172.31.0.9".parse()?;
    guest.send("eth0", &[claim(frames::mac(9), address)])?;
    daemon.wait_for("the claim", PATIENCE, "addresses", |told| {
        list(told, "addresses")
            .find(|claim| claim["interface"] == *port)
            .map(drop)
    })
}

#[test]
fn a_host_with_nothing_on_it() {
    in_lab(|lab| {
        let daemon = start(lab, &config(lab))?;
        let (report, status) = daemon.command("report", &[])?;
        ensure!(status == Some(0), "{report}");
        still_watches(lab, &daemon, "late")?;
        // host-local comes later than the agent.
        network("pods", "10.9.0.2")?;
        leased(&daemon, 1)?;
        ensure!(daemon.stop()?.success());
        Ok(())
    });
}

#[test]
fn without_privilege_it_says_what_is_missing() {
    in_lab(|lab| {
        let file = lab.disk().join("config.yaml");
        let socket = lab.disk().join("agent.sock");
        fs::write(&file, config(lab))?;
        let with = [
            "--config",
            &file.display().to_string(),
            "--socket",
            &socket.display().to_string(),
        ];
        for (command, status) in [("run", 2), ("scan", 3)] {
            let answer = agent_without("-all", &[&[command], &with[..]].concat())?;
            ensure!(answer.status == Some(status), "{command}: {answer:?}");
            ensure!(answer.err.contains("CAP_"), "{command}: {}", answer.err);
            ensure!(answer.out.is_empty(), "{answer:?}");
        }
        let doctor = agent_without("-all", &[&["doctor"], &with[..2]].concat())?;
        ensure!(doctor.status == Some(1), "{doctor:?}");
        ensure!(doctor.out.contains("capabilities"), "{}", doctor.out);
        ensure!(
            !socket.exists(),
            "a socket is left by a daemon that never ran"
        );
        let answer = agent_as_nobody(&["scan", "--for", "1s"])?;
        ensure!(answer.status == Some(3), "{answer:?}");
        ensure!(answer.err.contains("CAP_"), "{}", answer.err);
        let daemon = start(lab, &config(lab))?;
        let asked = ["report", "--socket", &daemon.socket().display().to_string()];
        let answer = agent_as_nobody(&asked)?;
        ensure!(answer.status == Some(2), "{answer:?}");
        ensure!(answer.err.contains("not allowed"), "{}", answer.err);
        let state = lab.disk().join("state").display().to_string();
        for asked in [
            &["reclaim", "history", "--state-dir", &state][..],
            &[
                "uninstall",
                "--yes",
                "--state-dir",
                &state,
                "--socket",
                "/run/none.sock",
            ],
        ] {
            let denied = agent_as_nobody(asked)?;
            ensure!(denied.status == Some(2), "{asked:?}: {denied:?}");
            ensure!(
                denied.err.trim_end().ends_with("run this as root"),
                "{}",
                denied.err
            );
        }
        Ok(())
    });
}

#[test]
fn a_wrong_configuration_is_named_with_its_line() {
    in_lab(|lab| {
        let file = lab.disk().join("config.yaml");
        let wrong = [
            ("keep: []\nno_such_key: 1\n", ":2", "no_such_key"),
            (
                "stores:\n  - kind: host-local\n    reclaim: always\n",
                ":3",
                "after-reboot",
            ),
            ("\n\nreclaim: { gate: 10s }\n", ":3", "5m"),
            ("reclaim: { gate: 15 }\n", ":1", "unit"),
            ("keep:\n  - 10.9.0.1/24\n", ":2", "10.9.0.0/24"),
            ("state_dir: here\n", ":1", "absolute"),
            ("interfaces: { include: ['veth['] }\n", ":1", "veth["),
            ("owners: [{ name: x, macs: ['ff:ff'] }]\n", ":1", "ff:ff"),
            (
                "stores: [{ kind: file, reclaim: continuous }]\n",
                ":1",
                "observe",
            ),
            ("a: [\n", ":", ""),
        ];
        for (text, line, words) in wrong {
            fs::write(&file, text)?;
            for command in ["run", "scan", "report"] {
                let answer = agent(&[command, "--config", &file.display().to_string()])?;
                ensure!(answer.status == Some(2), "{command} {text:?}: {answer:?}");
                let place = format!("{}{line}", file.display());
                ensure!(
                    answer.err.contains(&place),
                    "{text:?} not at {place}: {}",
                    answer.err
                );
                ensure!(answer.err.contains(words), "{text:?}: {}", answer.err);
            }
        }
        let answer = agent(&["run", "--config", "/no/such/file"])?;
        ensure!(
            answer.status == Some(2) && answer.err.contains("/no/such/file"),
            "{answer:?}"
        );
        Ok(())
    });
}

/// The file was broken since: the daemon goes on, and so do those who ask it.
#[test]
fn a_broken_file_that_nobody_named_keeps_nobody_from_the_daemon() {
    in_lab(|lab| {
        let place = "/etc/ipam-agent";
        fs::create_dir_all(place)?;
        mount::<str, str, str, str>(Some("none"), place, Some("tmpfs"), MsFlags::empty(), None)?;
        let file = format!("{place}/config.yaml");
        fs::write(&file, config(lab))?;
        let mut daemon = Command::new(tests::daemon::binary()?)
            .arg("run")
            .stderr(Stdio::null())
            .spawn()?;
        let ask = || agent(&["segments"]);
        let deadline = Instant::now() + PATIENCE;
        while ask()?.status != Some(0) {
            ensure!(
                Instant::now() < deadline,
                "waited for the daemon: {:?}",
                ask()?
            );
            thread::sleep(Duration::from_millis(100));
        }
        fs::write(&file, "no_such_key: 1\n")?;
        let asked = ask()?;
        let named = agent(&["segments", "--config", &file])?;
        daemon.kill()?;
        daemon.wait()?;
        ensure!(asked.status == Some(0), "{asked:?}");
        ensure!(
            asked.err.contains("config.yaml:1") && asked.err.contains("--socket"),
            "{asked:?}"
        );
        ensure!(named.status == Some(2), "{named:?}");
        Ok(())
    });
}

#[test]
fn one_host_has_one_daemon() {
    in_lab(|lab| {
        let first = start(lab, &config(lab))?;
        let socket = first.socket().display().to_string();
        let file = lab.disk().join("second.yaml");
        fs::write(&file, config(lab))?;
        let file = file.display().to_string();
        // The same state, another socket.
        let second = agent(&["run", "--config", &file, "--socket", "/run/second.sock"])?;
        ensure!(second.status == Some(2), "{second:?}");
        let pid = format!("process {}", first.pid());
        ensure!(second.err.contains(&pid), "{}", second.err);
        // Another state, the same socket.
        let second = agent(&[
            "run",
            "--config",
            &file,
            "--socket",
            &socket,
            "--state-dir",
            "/run/state",
        ])?;
        ensure!(second.status == Some(2), "{second:?}");
        ensure!(second.err.contains(&socket), "{}", second.err);
        // And no uninstalling under its feet.
        let gone = agent(&[
            "uninstall",
            "--yes",
            "--config",
            &file,
            "--socket",
            "/run/second.sock",
        ])?;
        ensure!(gone.status == Some(2), "{gone:?}");
        still_watches(lab, &first, "one")?;
        ensure!(first.stop()?.success());
        // Stopped, it is in nobody's way.
        let again = start(lab, &config(lab))?;
        again.kill()?;
        start(lab, &config(lab))?;
        Ok(())
    });
}

#[test]
fn a_file_in_the_sockets_place_stays() {
    in_lab(|lab| {
        let dir = lab.disk().join("daemon");
        fs::create_dir_all(&dir)?;
        let socket = dir.join("agent.sock");
        fs::write(&socket, "mine")?;
        let daemon = Daemon::spawn(&dir, &config(lab))?;
        let log = || fs::read_to_string(dir.join("daemon.log"));
        let status = daemon.wait()?;
        ensure!(status.code() == Some(2), "{status}: {}", log()?);
        ensure!(
            log()?.contains("agent.sock is there and no socket"),
            "{}",
            log()?
        );
        ensure!(fs::read_to_string(&socket)? == "mine");
        Ok(())
    });
}

/// A file system of `size` KiB at `place`, in memory.
fn small(place: &Path, size: u32) -> Result<()> {
    fs::create_dir_all(place)?;
    let options = format!("size={size}k");
    mount(
        Some("none"),
        place,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .context("can't mount a tmpfs")
}

#[test]
fn a_full_disk_under_the_state_releases_nothing_and_watches_on() {
    in_lab(|lab| {
        network("pods", "10.9.0.2")?;
        let state = lab.disk().join("state");
        small(&state, 64)?;
        let mut filler = File::create(state.join("filler"))?;
        while filler.write_all(&[1; 4096]).is_ok() {}
        let daemon = start(lab, &config(lab))?;
        let plan = daemon.query("reclaim plan", &[])?;
        ensure!(list(&plan, "releases").count() == 0, "{plan:#}");
        let kept = list(&plan, "kept").next().context("the lease is kept")?;
        let why =
            list(kept, "blockers").find(|blocker| blocker["reason"] == "state-not-persistent");
        ensure!(
            why.is_some_and(|why| why["detail"].to_string().contains("state")),
            "{plan:#}"
        );
        still_watches(lab, &daemon, "one")?;
        ensure!(daemon.stop()?.success());
        Ok(())
    });
}

#[test]
fn a_damaged_database_is_moved_aside() {
    in_lab(|lab| {
        network("pods", "10.9.0.2")?;
        let daemon = start(lab, &config(lab))?;
        leased(&daemon, 1)?;
        ensure!(daemon.stop()?.success());
        let database = lab.disk().join("state/state.redb");
        fs::write(&database, vec![0x5a; 65536])?;
        let daemon = start(lab, &config(lab))?;
        leased(&daemon, 1)?;
        ensure!(
            daemon.log().contains("state.redb.damaged-0"),
            "{}",
            daemon.log()
        );
        ensure!(database.with_extension("redb.damaged-0").exists());
        still_watches(lab, &daemon, "one")?;
        Ok(())
    });
}

#[test]
fn a_database_that_is_damaged_under_the_agent_is_written_again_whole() {
    in_lab(|lab| {
        network("pods", "10.9.0.2")?;
        let state = lab.disk().join("state");
        small(&state, 8192)?;
        let daemon = start(lab, &config(lab))?;
        leased(&daemon, 1)?;
        let mut filler = File::create(state.join("filler"))?;
        while filler.write_all(&[1; 4096]).is_ok() {}
        drop(filler);
        let is_unwritten = |plan: &Value| blind(plan).iter().any(|why| why.contains("No space"));
        network("pods", "10.9.0.3")?;
        daemon.wait_for("the full disk", PATIENCE, "reclaim plan", |plan| {
            is_unwritten(plan).then_some(())
        })?;
        let database = File::options().write(true).open(state.join("state.redb"))?;
        database.write_all_at(&[0x5a; 4096], 0)?;
        fs::remove_file(state.join("filler"))?;
        network("pods", "10.9.0.4")?;
        leased(&daemon, 3)?;
        daemon.wait_for("another database", PATIENCE, "reclaim plan", |plan| {
            (!is_unwritten(plan)).then_some(())
        })?;
        let log = daemon.log();
        ensure!(log.contains("state.redb.damaged-0"), "{log}");
        ensure!(daemon.stop()?.success());
        let mut written = State::open(&state)?.load();
        written.sort_by_key(|lease| lease.address);
        let written = written.iter().map(|lease| lease.address.to_string());
        let written: Vec<_> = written.collect();
        ensure!(
            written == ["10.9.0.2", "10.9.0.3", "10.9.0.4"],
            "{written:?}"
        );
        Ok(())
    });
}

#[test]
fn interfaces_that_vanish_all_the_time() {
    in_lab(|lab| {
        let daemon = start(lab, &config(lab))?;
        for round in 0..50 {
            let names: Vec<String> = (0..4).map(|n| format!("veth{round}-{n}")).collect();
            for name in &names {
                lab::ip(&["link", "add", name, "type", "veth", "peer", "name", "peer"])?;
                lab::ip(&["link", "del", name])?;
            }
        }
        still_watches(lab, &daemon, "one")?;
        daemon.wait_for(
            "the gone ones to be forgotten",
            PATIENCE,
            "segments",
            |told| (list(told, "segments").count() == 1).then_some(()),
        )?;
        let log = daemon.log();
        let loud = log
            .lines()
            .find(|line| line.contains("ERROR") || line.contains("WARN"));
        ensure!(loud.is_none(), "{loud:?}");
        ensure!(daemon.stop()?.success());
        Ok(())
    });
}
