//! The daemon as operators meet it: over HTTP, by hostile clients, scraped by the real
//! Prometheus, told by SIGHUP to read its configuration again.

#[path = "operating/bounded.rs"]
mod bounded;
#[path = "operating/hostile.rs"]
mod hostile;
#[path = "operating/reload.rs"]
mod reload;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ipam_agent::serve::metrics::catalogue;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    daemon::{Daemon, agent},
    lab::{self, Lab},
    prometheus::{self, Prometheus},
    runtime::{Network, Pod, in_lab},
    skip,
};

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);

fn config(lab: &Lab, more: &str) -> String {
    let state = lab.disk().join("state");
    format!(
        "state_dir: {}\nholders: {{ cri: off }}\n{more}",
        state.display()
    )
}

fn start(lab: &Lab, more: &str) -> Result<Daemon> {
    Daemon::start(&lab.disk().join("daemon"), &config(lab, more))
}

/// Two pods of a network, and the daemon.
fn host(lab: &Lab) -> Result<(Network, Vec<Pod>, Daemon)> {
    let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
    let pods = vec![net.start(lab, "one")?, net.start(lab, "two")?];
    let daemon = start(lab, "")?;
    Ok((net, pods, daemon))
}

/// Has both pods assert the first one's address.
fn fight(pods: &[Pod]) -> Result<()> {
    let address = pods[0].address(false)?;
    for _ in 0..2 {
        pods[1].claims(address)?;
        pods[0].claims(address)?;
    }
    Ok(())
}

/// What comes back for these bytes: the head and the body.
fn say(address: SocketAddr, bytes: &str) -> Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    Ok((head.to_owned(), body.to_owned()))
}

fn get(address: SocketAddr, path: &str, headers: &str) -> Result<(String, String)> {
    say(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n"),
    )
}

fn metrics() -> Result<String> {
    let (head, body) = get(LOCAL, "/metrics", "")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    // Chunked it isn't: the length is known.
    ensure!(head.to_lowercase().contains("content-length"), "{head}");
    Ok(body)
}

/// The value of the sample that begins like this.
fn sample(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series))?;
    line.trim().parse().ok()
}

fn wait_for(what: &str, mut found: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !found()? {
        ensure!(Instant::now() < deadline, "waited for {what}");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn what_is_served_over_tcp_and_where() {
    in_lab(|lab| {
        lab::ip(&["addr", "add", "10.7.7.7/32", "dev", "lo"])?;
        let daemon = start(
            lab,
            "listen: ['127.0.0.1:9477', '[::1]:9477', '10.7.7.7:9477']\n",
        )?;
        let exposed: SocketAddr = "10.7.7.7:9477".parse()?;
        for path in [
            "report",
            "leases",
            "addresses",
            "segments",
            "reclaim",
            "events",
            "explain/10.0.0.5",
        ] {
            let path = format!("/api/v1/{path}");
            for address in [LOCAL, "[::1]:9477".parse()?] {
                let (head, body) = get(address, &path, "")?;
                ensure!(head.starts_with("HTTP/1.1 200"), "{address}{path}: {head}");
                ensure!(body.contains("\"schema\""), "{address}{path}: {body}");
                ensure!(head.contains("nosniff"), "{head}");
                ensure!(!head.to_lowercase().contains("access-control"), "{head}");
            }
            let (head, body) = get(exposed, &path, "")?;
            ensure!(head.starts_with("HTTP/1.1 403"), "{path}: {head}");
            ensure!(body.contains("beyond loopback"), "{body}");
        }
        for address in [LOCAL, exposed] {
            for path in ["/healthz", "/readyz"] {
                wait_for(path, || {
                    Ok(get(address, path, "")?.0.starts_with("HTTP/1.1 200"))
                })?;
            }
            let (head, _) = get(address, "/nothing", "")?;
            ensure!(!head.starts_with("HTTP/1.1 200"), "{head}");
            for path in ["apply", "pause", "resume", "undo"] {
                let post = format!(
                    "POST /api/v1/reclaim/{path} HTTP/1.1\r\nHost: {address}\r\n\
                     Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
                );
                let (head, _) = say(address, &post)?;
                ensure!(head.starts_with("HTTP/1.1 405"), "{address} {path}: {head}");
            }
        }
        ensure!(get(LOCAL, "/", "")?.0.starts_with("HTTP/1.1 200"));
        ensure!(get(exposed, "/", "")?.0.starts_with("HTTP/1.1 403"));
        let evil = "GET /api/v1/report HTTP/1.1\r\nHost: evil.example:9477\r\n\r\n";
        let (head, _) = say(LOCAL, evil)?;
        ensure!(head.starts_with("HTTP/1.1 403"), "{head}");
        let (_, told) = get(exposed, "/metrics", "")?;
        ensure!(!told.contains("ipam_conflict_info"), "{told}");
        ensure!(!daemon.query("reclaim plan", &[])?.is_null());
        daemon.stop()?;
        Ok(())
    });
}

#[test]
fn a_wire_that_is_not_wholly_watched_is_not_ready_and_no_wire_at_all_is() {
    in_lab(|lab| {
        // A node that is new, or one whose configuration fits none of its links.
        let daemon = start(lab, "interfaces: { include: ['nosuch*'] }\n")?;
        wait_for("a node without pods", || {
            Ok(get(LOCAL, "/readyz", "")?.0.starts_with("HTTP/1.1 200"))
        })?;
        daemon.stop()?;

        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let (one, two) = (net.start(lab, "one")?, net.start(lab, "two")?);
        let left_out = format!("interfaces: {{ exclude: [{}] }}\n", two.host_interface);
        let daemon = start(lab, &left_out)?;
        let why = format!(
            "- cni0 is not wholly watched: {} isn't watched: `interfaces` leaves it out",
            two.host_interface
        );
        wait_for("what is missing", || {
            let (head, body) = get(LOCAL, "/readyz", "")?;
            Ok(head.starts_with("HTTP/1.1 503") && body.contains(&why))
        })?;
        let doctor = daemon.query("doctor", &[])?;
        let check = found(&doctor, "daemon")?;
        ensure!(check["status"] == "fail", "{check:#}");
        ensure!(check["detail"].to_string().contains(&why[2..]), "{check:#}");

        // Gone, it hides nobody.
        net.stop(&two)?;
        wait_for("the rest", || {
            Ok(get(LOCAL, "/readyz", "")?.0.starts_with("HTTP/1.1 200"))
        })?;
        let doctor = daemon.query("doctor", &[])?;
        ensure!(found(&doctor, "daemon")?["status"] == "ok", "{doctor:#}");
        drop(one);
        daemon.stop()?;
        Ok(())
    });
}

/// A check of `doctor`'s.
fn found(doctor: &serde_json::Value, name: &str) -> Result<serde_json::Value> {
    let checks = doctor["checks"].as_array().context("checks")?;
    let check = checks.iter().find(|check| check["name"] == name);
    check.cloned().with_context(|| format!("{doctor:#}"))
}

#[test]
fn the_doctor_tells_of_a_daemon_that_hangs_and_of_a_port_that_is_taken() {
    in_lab(|lab| {
        let daemon = start(lab, "")?;
        let hung = Pid::from_raw(i32::try_from(daemon.pid())?);
        kill(hung, Signal::SIGSTOP)?;
        let doctor = daemon.query("doctor", &[])?;
        let check = found(&doctor, "daemon")?;
        ensure!(check["status"] == "fail", "{check:#}");
        ensure!(
            check["detail"].to_string().contains("gives no answer"),
            "{check:#}"
        );
        kill(hung, Signal::SIGCONT)?;
        wait_for("it to go on", || {
            let doctor = daemon.query("doctor", &[])?;
            Ok(found(&doctor, "daemon")?["status"] == "ok"
                && found(&doctor, "listen")?["status"] == "ok")
        })?;
        daemon.stop()?;

        let taken = std::net::TcpListener::bind(LOCAL)?;
        let file = lab.disk().join("config.yaml");
        std::fs::write(&file, config(lab, ""))?;
        let doctor = agent(&[
            "doctor",
            "-o",
            "json",
            "--config",
            &file.display().to_string(),
        ])?;
        ensure!(doctor.status == Some(1), "{doctor:?}");
        let check = found(&doctor.json()?, "listen")?;
        ensure!(
            check["detail"].to_string().contains("is taken"),
            "{check:#}"
        );
        drop(taken);
        Ok(())
    });
}

#[test]
fn a_port_that_is_taken_is_an_error_with_its_mend() {
    in_lab(|lab| {
        let taken = std::net::TcpListener::bind(LOCAL)?;
        for (listen, words) in [
            ("127.0.0.1:9477", "is taken"),
            ("192.0.2.1:9477", "no address of this host"),
        ] {
            let daemon = Daemon::spawn(
                &lab.disk().join("daemon"),
                &config(lab, &format!("listen: {listen}\n")),
            )?;
            let log = lab.disk().join("daemon/daemon.log");
            let status = daemon.wait()?;
            let log = std::fs::read_to_string(log)?;
            ensure!(status.code() == Some(2), "{status}: {log}");
            ensure!(log.contains(words) && log.contains("listen"), "{log}");
        }
        drop(taken);
        let daemon = start(lab, "listen: off\n")?;
        ensure!(TcpStream::connect(LOCAL).is_err(), "something listens");
        daemon.stop()?;
        Ok(())
    });
}

#[test]
fn prometheus_scrapes_what_happens() {
    in_lab(|lab| {
        if let Err(why) = prometheus::available() {
            skip::skip(&why);
            return Ok(());
        }
        let (_net, pods, daemon) = host(lab)?;
        let prometheus = Prometheus::start(
            &lab.disk().join("prometheus"),
            9090,
            &["127.0.0.1:9477"],
            "",
        )?;
        let value = |expression: &str| -> Result<Option<f64>> {
            let found = prometheus.query(expression)?;
            let value = found.first().and_then(|one| one["value"][1].as_str());
            Ok(value.map(str::parse).transpose()?)
        };
        wait_for("the target", || Ok(value("up")? == Some(1.0)))?;
        fight(&pods)?;
        wait_for("the duplicate", || {
            let duplicate = "ipam_conflicts{kind=\"duplicate-address\",segment=\"cni0\"}";
            Ok(value(duplicate)? == Some(1.0))
        })?;
        for (expression, least) in [
            (
                "ipam_conflicts_detected_total{kind=\"duplicate-address\"}",
                1.0,
            ),
            ("ipam_detection_latency_seconds_count", 1.0),
            ("ipam_observed_addresses{segment=\"cni0\"}", 1.0),
            ("ipam_segment_coverage_seconds{segment=\"cni0\"}", 0.0),
            (
                "sum(ipam_leases{store=\"host-local:pods\",pool=\"10.9.0.0/24\"})",
                2.0,
            ),
            ("ipam_pool_addresses_used{pool=\"10.9.0.0/24\"}", 2.0),
            ("ipam_pool_addresses{pool=\"10.9.0.0/24\"}", 253.0),
            ("ipam_frames_total{protocol=\"arp\",result=\"parsed\"}", 4.0),
            ("process_open_fds", 5.0),
            ("ipam_build_info", 1.0),
        ] {
            wait_for(expression, || {
                Ok(value(expression)?.is_some_and(|value| value >= least))
            })?;
        }
        let info = prometheus.query("ipam_conflict_info")?;
        let address = pods[0].address(false)?.to_string();
        ensure!(
            info.iter().any(|one| one["metric"]["address"] == *address),
            "{info:?}"
        );
        // By kind of interface frames are counted with the look at the table, every 10 s.
        wait_for("frames by interface", || {
            Ok(
                value("ipam_frames_total{interface_kind=\"veth\",result=\"recorded\"}")?
                    .is_some_and(|frames| frames >= 4.0),
            )
        })?;
        // Every metric of the catalogue, by its name.
        let told = metrics()?;
        let types: BTreeSet<&str> = told
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for family in catalogue::ALL {
            ensure!(
                types.contains(&*family.family_name()),
                "{} is missing",
                family.base
            );
        }
        ensure!(told.ends_with("# EOF\n"), "{told}");
        promtool()?;
        daemon.stop()?;
        Ok(())
    });
}

/// promtool reads the older format alone.
fn promtool() -> Result<()> {
    let (head, body) = get(LOCAL, "/metrics", "Accept: text/plain;version=0.0.4\r\n")?;
    ensure!(head.contains("text/plain; version=0.0.4"), "{head}");
    let mut child = Command::new(prometheus::program("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("a pipe")?
        .write_all(body.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() || !output.stderr.is_empty() {
        let told = String::from_utf8_lossy(&output.stderr);
        bail!("promtool: {told}\n{body}");
    }
    Ok(())
}
