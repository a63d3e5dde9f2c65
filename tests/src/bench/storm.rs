//! What a storm makes the daemon miss: two million ARP frames from 65,536 addresses, each
//! with a MAC of its own, through one veth as fast as this machine can send.
//!
//! A claim counts as lost if the daemon's table doesn't have it afterwards, address and
//! MAC, whether or not the daemon counted a loss.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    Figure, in_lab,
    wire::{BRIDGE, Watched, address, pods},
};
use crate::{
    frames::{Arp, mac},
    lab::{Sender, run},
};

const FRAMES: usize = 2_000_000;
/// How long after the storm claims may come in: the table in the kernel is read whole every
/// ten seconds.
const AFTERMATH: Duration = Duration::from_secs(30);

/// `storm_lost`, `storm_frames_per_s`.
pub fn figures() -> Result<Vec<Figure>> {
    in_lab(|lab| {
        let pods = pods(lab, 1)?;
        let watched = Watched::start(&lab.disk().join("agent"))?;
        let claims: Vec<(String, String, Vec<u8>)> = (0..=u16::MAX)
            .map(|number| {
                let [a, b, c, d, e, f] = mac(number);
                let text = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
                let frame = Arp::announcement(mac(number), address(number)).frame();
                (address(number).to_string(), text, frame)
            })
            .collect();

        let mut sender = pods[0].inside(|| Sender::open("eth0"))?;
        let begin = Instant::now();
        for (_, _, frame) in claims.iter().cycle().take(FRAMES) {
            sender.send(frame)?;
        }
        let rate = FRAMES as f64 / begin.elapsed().as_secs_f64();

        let expected: BTreeSet<(&str, &str)> = claims
            .iter()
            .map(|(address, mac, _)| (address.as_str(), mac.as_str()))
            .collect();
        let deadline = Instant::now() + AFTERMATH;
        let missing = loop {
            let table = watched.daemon.query("addresses", &[])?;
            let missing = missing(&table, &expected)?;
            if missing == 0 || Instant::now() > deadline {
                break missing;
            }
            thread::sleep(Duration::from_secs(1));
        };
        let segments = watched.daemon.query("segments", &[])?;
        let segment = segments["segments"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|segment| segment["name"] == BRIDGE)
            .context("the daemon doesn't know the bridge")?;
        eprintln!(
            "  {rate:.0} frames/s, of {FRAMES} the port took in {}; {missing} claims missing; \
             the daemon counted {} sightings that no event told of, coverage {}",
            received()?,
            segment["lost"],
            if segment["complete"] == true {
                "complete"
            } else {
                "incomplete"
            },
        );
        watched.stop()?;
        Ok(vec![
            Figure {
                name: "storm_lost",
                value: missing as f64,
                unit: "claims",
                target: Some(0.0),
                least: None,
                baseline: None,
            },
            Figure {
                name: "storm_frames_per_s",
                value: rate.round(),
                unit: "frames/s",
                target: None,
                least: None,
                baseline: None,
            },
        ])
    })
}

/// How many of the claims the table doesn't have.
fn missing(table: &Value, expected: &BTreeSet<(&str, &str)>) -> Result<usize> {
    let records = table["addresses"].as_array().context("no table")?;
    // The pods' own IPv6 addresses are there too.
    let known: BTreeSet<(&str, &str)> = records
        .iter()
        .filter_map(|record| Some((record["address"].as_str()?, record["mac"].as_str()?)))
        .filter(|(address, _)| address.parse::<Ipv4Addr>().is_ok())
        .collect();
    ensure!(
        known.is_subset(expected),
        "the table has claims that nobody made"
    );
    Ok(expected.len() - known.len())
}

/// How many packets the host's end of the stormy link took in.
fn received() -> Result<u64> {
    let links = run("ip", &["-j", "-s", "link", "show", "veth0"])?;
    let links: Value = serde_json::from_str(&links)?;
    let packets = links.pointer("/0/stats64/rx/packets");
    packets.and_then(Value::as_u64).context("no statistics")
}
