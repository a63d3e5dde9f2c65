//! How long a scrape takes: from the connection to the last byte, with a pool of 65,536
//! leases and 1,000 conflicts, all of them named.
//!
//! What a request costs at all is measured in the same run, by turns: /healthz asks the
//! daemon's loop the same way, and says one line.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Figure, in_lab, median,
    wire::{address, pods},
};
use crate::{
    daemon::Daemon,
    frames::{Arp, mac},
};

const LEASES: u32 = 65_536;
const CONFLICTS: u16 = 1000;
const SCRAPES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(120);
const AT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9477);

/// `scrape_ms`.
pub fn figures() -> Result<Vec<Figure>> {
    in_lab(|lab| {
        let pods = pods(lab, 2)?;
        let networks = lab.disk().join("networks");
        let network = networks.join("pods");
        fs::create_dir_all(&network)?;
        for number in 0..LEASES {
            let ip = Ipv4Addr::from(0x0a40_0001 + number);
            fs::write(
                network.join(ip.to_string()),
                format!("{number:064x}\r\neth0"),
            )?;
        }
        let config = format!(
            "state_dir: {}\nholders: {{ cri: off }}\nmetrics: {{ max_conflict_info: 1000 }}\n\
             stores: [{{ kind: host-local, dir: {}, pools: [{{ cidr: 10.64.0.0/15 }}] }}]\n",
            lab.disk().join("state").display(),
            networks.display(),
        );
        let daemon = Daemon::start(&lab.disk().join("agent"), &config)?;
        for host in [0, 1, 0] {
            let frames: Vec<Vec<u8>> = (1..=CONFLICTS)
                .map(|number| Arp::announcement(mac(host), address(number)).frame())
                .collect();
            pods[usize::from(host)].send("eth0", &frames)?;
            thread::sleep(Duration::from_secs(1));
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = get("/metrics")?;
            let infos = told.matches("\nipam_conflict_info{").count();
            let leases = told
                .lines()
                .filter(|line| line.starts_with("ipam_leases{"))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum::<f64>();
            if infos >= usize::from(CONFLICTS) && leases >= f64::from(LEASES) {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "the daemon knows {leases} leases and tells of {infos} conflicts"
            );
            thread::sleep(Duration::from_millis(500));
        }
        let (mut scrapes, mut baseline) = (Vec::new(), Vec::new());
        for _ in 0..SCRAPES {
            scrapes.push(timed("/metrics")?);
            baseline.push(timed("/healthz")?);
            thread::sleep(Duration::from_millis(20));
        }
        let worst = scrapes.iter().copied().fold(0.0, f64::max);
        let bytes = get("/metrics")?.len();
        eprintln!("  {bytes} bytes; the slowest of {SCRAPES} took {worst:.1} ms");
        let status = daemon.stop()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(vec![Figure {
            name: "scrape_ms",
            value: median(scrapes),
            unit: "ms",
            target: Some(20.0),
            least: None,
            baseline: Some(median(baseline)),
        }])
    })
}

/// In milliseconds.
fn timed(path: &str) -> Result<f64> {
    let begin = Instant::now();
    get(path)?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

fn get(path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::from(AT))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}
