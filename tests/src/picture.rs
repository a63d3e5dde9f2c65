//! The dashboard with real data: a host on which something of everything happens, what the
//! real Prometheus scraped of it, and a picture of the panels.

mod draw;
mod panel;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};

pub use self::{
    draw::draw,
    panel::{Panel, filled},
};
use crate::{
    daemon::Daemon,
    frames,
    lab::{self, Lab},
    prometheus::{self, Prometheus, hurried},
    runtime::{Network, Pod, claim},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happened on the host, as Prometheus knows it.
#[derive(Debug)]
pub struct Scene {
    /// It goes on scraping.
    pub prometheus: Prometheus,
    /// It goes on running.
    pub daemon: Daemon,
    /// From when on something happened, Unix seconds.
    pub begin: f64,
}

/// Seconds since 1970.
pub fn now() -> Result<f64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "Prometheus is asked by the wall clock"
    )]
    let now = SystemTime::now();
    Ok(now.duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Pods come, one takes another's address, a lease file is damaged, pods die and leave their
/// leases, which are given back, one of them too early.
pub fn play(lab: &Lab) -> Result<Scene> {
    let net = Network::bridge("pods", "cni0", &["10.88.0.0/28"])?;
    let leases = lab.disk().join("leases.yaml");
    let pools = "pools: [{ cidr: 192.168.60.0/28, segment: cni0 }]\n";
    let right = format!(
        "leases: [{{ address: 192.168.60.2, holder: vm/db-0 }}, \
         {{ address: 192.168.60.3, holder: vm/db-1 }}]\n{pools}"
    );
    fs::write(&leases, &right)?;
    let config = format!(
        "state_dir: {}
stores: [{{ kind: host-local }}, {{ kind: file, path: {} }}]
holders: {{ cri: off }}
listen: 127.0.0.1:9477
conflicts: {{ quiet: 10s, lease_grace: 1s }}
reclaim: {{ lab: true, gate: 3s, damaged_gate: 3s, asked_gate: 3s, asked_damaged_gate: 3s,
           reboot_gate: 3s, pass_interval: 500ms }}",
        lab.disk().join("state").display(),
        leases.display()
    );
    let daemon = Daemon::start(&lab.disk().join("agent"), &config)?;
    let rules = hurried(&prometheus::rules()?);
    let place = lab.disk().join("prometheus");
    let prometheus = Prometheus::start(&place, 9090, &["127.0.0.1:9477"], &rules)?;
    let begin = now()?;
    let mut pods = Vec::new();
    for n in 0..12 {
        let pod = net.start(lab, &format!("web-{n}"))?;
        pod.netns.speak_to(Ipv4Addr::new(10, 88, 0, 1).into())?;
        pods.push(pod);
        pause(700);
    }
    let taken = pods[0].address(false)?;
    contest(&pods[0], &pods[1], taken, 6)?;
    fs::write(&leases, [0; 64])?;
    pods[2].claims(Ipv4Addr::new(10, 88, 0, 14).into())?;
    pause(4000);
    fs::write(&leases, &right)?;

    // Seven die without a word to host-local.
    let dead = pods.split_off(5);
    let leaked: Vec<IpAddr> = dead.iter().flat_map(|pod| pod.addresses.clone()).collect();
    for pod in &dead {
        lab::ip(&["netns", "del", pod.netns.name()])?;
    }
    daemon.wait_for("the plan", PATIENCE, "reclaim plan", |plan| {
        let ready = plan["releases"].as_array().map_or(0, Vec::len);
        (ready >= leaked.len()).then_some(())
    })?;
    pause(4000);
    let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
    ensure!(status == Some(0), "{applied}");
    pause(3000);
    let back = leaked.first().context("a lease")?;
    pods[3]
        .netns
        .send("eth0", &[claim(frames::mac(7), *back)])?;
    daemon.wait_for("the alarm", PATIENCE, "report", |report| {
        let mut events = report["events"].as_array()?.iter();
        events
            .find(|event| event["kind"] == "released-but-alive")
            .map(drop)
    })?;
    pause(3000);
    // Somebody is at it to the end.
    contest(&pods[0], &pods[1], taken, 8)?;
    Ok(Scene {
        prometheus,
        daemon,
        begin,
    })
}

/// Two pods assert an address in turns.
fn contest(one: &Pod, two: &Pod, address: IpAddr, turns: u32) -> Result<()> {
    for _ in 0..turns {
        two.claims(address)?;
        pause(250);
        one.claims(address)?;
        pause(250);
    }
    Ok(())
}

fn pause(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}
