//! `ipam-agent watch` beside the real daemon: what it prints while pods steal addresses and
//! leaked leases are given back.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::IpAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tests::{
    daemon::{Daemon, binary},
    frames,
    lab::{self, Lab},
    runtime::{Network, claim, in_lab},
};

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `watch` that runs; killed when dropped.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(socket: &Path, more: &[&str]) -> Result<Self> {
        let mut child = Command::new(binary()?)
            .arg("watch")
            .args(more)
            .arg("--socket")
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("stdout")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(Self { child, lines })
    }

    fn line(&self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).context("no line came")
    }

    /// The next line as JSON, which must be about this.
    fn next(&self, what: &str) -> Result<Value> {
        let line: Value = serde_json::from_str(&self.line()?)?;
        ensure!(line["what"] == *what, "not {what}: {line:#}");
        ensure!(line["schema"] == "ipam-agent/watch/v1", "{line:#}");
        Ok(line)
    }

    fn interrupt(&self) -> Result<()> {
        kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            Signal::SIGINT,
        )?;
        Ok(())
    }

    /// Waits for its end: the status, the lines that nobody has read, and stderr.
    fn end(mut self) -> Result<(Option<i32>, Vec<String>, String)> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("watch doesn't end");
            }
            thread::sleep(Duration::from_millis(20));
        };
        let mut err = String::new();
        let stderr = self.child.stderr.as_mut().context("stderr")?;
        stderr.read_to_string(&mut err)?;
        Ok((status.code(), self.lines.iter().collect(), err))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn daemon(lab: &Lab, config: &str) -> Result<Daemon> {
    let state = lab.disk().join("state").display().to_string();
    let config = format!("state_dir: {state}\nholders: {{ cri: off }}\n{config}");
    Daemon::start(&lab.disk().join("daemon"), &config)
}

#[test]
fn conflicts_are_told_as_they_open_and_change_and_what_lasts_comes_first() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let (one, two) = (net.start(lab, "one")?, net.start(lab, "two")?);
        let daemon = daemon(lab, "")?;
        let socket = daemon.socket();
        let early = Watch::start(&socket, &["--output", "json"])?;
        early.next("watching")?;

        let address = one.address(false)?;
        two.claims(address)?;
        let opened = early.next("opened")?;
        let conflict = &opened["conflict"];
        ensure!(conflict["kind"] == "lease-mismatch", "{opened:#}");
        ensure!(conflict["address"] == *address.to_string(), "{opened:#}");
        ensure!(conflict["claims"][0]["mac"] == *two.mac, "{opened:#}");

        // Whoever comes later is told what lasts.
        let late = Watch::start(&socket, &["--output", "json"])?;
        let open = late.next("open")?;
        ensure!(open["conflict"]["id"] == conflict["id"], "{open:#}");
        late.next("watching")?;
        let person = Watch::start(&socket, &[])?;
        let open = person.line()?;
        ensure!(open.contains("  open  "), "{open}");

        one.claims(address)?;
        for watch in [&early, &late] {
            let changed = watch.next("changed")?;
            let now = &changed["conflict"];
            ensure!(now["kind"] == "duplicate-address", "{changed:#}");
            ensure!(now["id"] == conflict["id"], "{changed:#}");
            ensure!(
                now["history"].as_array().map(Vec::len) == Some(2),
                "{changed:#}"
            );
        }
        let changed = person.line()?;
        ensure!(changed.contains("  changed  "), "{changed}");
        ensure!(changed.contains("duplicate-address"), "{changed}");

        // Each end is a clean one: a person's, and the daemon's.
        early.interrupt()?;
        let (status, rest, err) = early.end()?;
        ensure!(status == Some(0), "{status:?}: {err}");
        ensure!(rest.is_empty(), "{rest:?}");
        let stopped = daemon.stop()?;
        ensure!(stopped.code() == Some(0), "{stopped}");
        late.next("stopping")?;
        let (status, _, err) = late.end()?;
        ensure!(status == Some(0), "{status:?}: {err}");
        let (status, rest, err) = person.end()?;
        ensure!(status == Some(0), "{status:?}: {err}");
        ensure!(rest.is_empty(), "{rest:?}");
        ensure!(
            err == "watching; Ctrl-C ends it\nthe daemon stopped\n",
            "{err}"
        );
        Ok(())
    });
}

#[test]
fn a_conflict_that_is_over_is_told() {
    in_lab(|lab| {
        lab::ip(&["link", "add", "br0", "type", "bridge"])?;
        lab::ip(&["link", "set", "br0", "up"])?;
        let guest = lab.guest("one", "veth1", "br0")?;
        let leases = lab.disk().join("leases.yaml");
        let pool = "pools:\n  - { cidr: 10.1.0.0/24, segment: br0 }\n";
        fs::write(&leases, pool)?;
        let stores = format!("stores: [{{ kind: file, path: {} }}]", leases.display());
        let daemon = daemon(lab, &stores)?;
        let watch = Watch::start(&daemon.socket(), &["--output", "json"])?;
        watch.next("watching")?;

        let address = std::net::Ipv4Addr::new(10, 1, 0, 5);
        let mac = tests::frames::mac(1);
        let claim = tests::frames::Arp::announcement(mac, address).frame();
        guest.send("eth0", &[claim])?;
        let opened = watch.next("opened")?;
        ensure!(
            opened["conflict"]["kind"] == "unleased-address",
            "{opened:#}"
        );
        let lease = "leases:\n  - { address: 10.1.0.5, mac: \"02:00:00:00:00:01\" }\n";
        fs::write(&leases, format!("{lease}{pool}"))?;
        let resolved = watch.next("resolved")?;
        ensure!(
            resolved["conflict"]["id"] == opened["conflict"]["id"],
            "{resolved:#}"
        );
        ensure!(resolved["conflict"]["state"] == "resolved", "{resolved:#}");
        Ok(())
    });
}

#[test]
fn a_release_is_told_with_its_reason() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let (gone, _stays) = (net.start(lab, "gone")?, net.start(lab, "stays")?);
        let daemon = daemon(
            lab,
            "stores: [{ kind: host-local, dir: /var/lib/cni/networks, reclaim: continuous }]\n\
             reclaim: { lab: true, gate: 2s, pass_interval: 500ms }",
        )?;
        let watch = Watch::start(&daemon.socket(), &["--output", "json"])?;
        watch.next("watching")?;
        // Its namespace goes, and nobody tells the plugin.
        lab::ip(&["netns", "del", gone.netns.name()])?;
        let released = watch.next("released")?;
        let release = &released["release"];
        let address: IpAddr = release["address"].as_str().context("an address")?.parse()?;
        ensure!(address == gone.address(false)?, "{released:#}");
        ensure!(release["store"] == "host-local:pods", "{released:#}");
        ensure!(release["holder"]["pod"] == "default/gone", "{released:#}");
        let reason = release["reason"].as_str().context("a reason")?;
        ensure!(reason.contains("nobody heard"), "{reason}");
        Ok(())
    });
}

#[test]
fn an_address_that_speaks_after_its_release_is_told_wherever_an_operator_looks() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let (gone, _stays) = (net.start(lab, "gone")?, net.start(lab, "stays")?);
        let lease = gone.address(false)?;
        let file = net.leases().join(lease.to_string());
        let before = fs::read(&file)?;
        let daemon = daemon(
            lab,
            "stores: [{ kind: host-local, dir: /var/lib/cni/networks, reclaim: continuous }]\n\
             reclaim: { lab: true, gate: 2s, pass_interval: 500ms }",
        )?;
        let watch = Watch::start(&daemon.socket(), &["--output", "json"])?;
        let lines = Watch::start(&daemon.socket(), &[])?;
        watch.next("watching")?;
        lab::ip(&["netns", "del", gone.netns.name()])?;
        let released = watch.next("released")?;
        ensure!(
            released["release"]["address"] == *lease.to_string(),
            "{released:#}"
        );
        ensure!(!file.exists(), "{released:#}");

        // It was alive: somebody has it on another port.
        let guest = lab.guest("late", "veth7", "cni0")?;
        guest.send("eth0", &[claim(frames::mac(7), lease)])?;
        let told = watch.next("released-but-alive")?;
        let event = &told["event"];
        ensure!(event["address"] == *lease.to_string(), "{told:#}");
        ensure!(event["severity"] == "critical", "{told:#}");
        let reason = event["reason"].as_str().context("a reason")?;
        ensure!(reason.contains("was put back"), "{told:#}");
        ensure!(fs::read(&file)? == before, "not as it was");

        // To a person: both, in the order in which they happened.
        let mut seen = Vec::new();
        let needles = ["released", "released-but-alive"];
        while seen.len() < needles.len() {
            let line = lines.line()?;
            if line.contains(&lease.to_string()) && line.contains(needles[seen.len()]) {
                seen.push(line);
            }
        }
        let log = daemon.log();
        let at = |level: &str, words: &str| {
            let mut lines = log.lines();
            lines.position(|line| {
                line.contains(level) && line.contains(words) && line.contains(&lease.to_string())
            })
        };
        let (went, spoke) = (at("INFO", "released"), at("ERROR", "released-but-alive"));
        ensure!(went.is_some() && went < spoke, "{log}");

        let (report, status) = daemon.command("report", &[])?;
        let report: Value = serde_json::from_str(&report)?;
        let mut events = report["events"].as_array().into_iter().flatten();
        let event = events.find(|event| event["kind"] == "released-but-alive");
        ensure!(
            event.is_some_and(|event| event["address"] == *lease.to_string()),
            "{report:#}"
        );
        let text = daemon.text("report", &[])?;
        let line = text
            .lines()
            .find(|line| line.contains("released-but-alive"));
        ensure!(line.is_some(), "{status:?} {text}");
        let state = lab.disk().join("state").display().to_string();
        let history = daemon.query("reclaim history", &["--state-dir", &state])?;
        let undo = &history["entries"][0]["undo"];
        ensure!(
            undo["result"] == "put-back" && undo["asker"] == "daemon",
            "{history:#}"
        );
        let text = daemon.text("reclaim history", &["--state-dir", &state])?;
        ensure!(text.contains("put back"), "{text}");
        Ok(())
    });
}
