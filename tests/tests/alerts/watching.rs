//! What the agent sees: segments that aren't watched, floods, and how fast it tells.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    frames::{self, Arp},
    lab::Sender,
    runtime::Network,
};

use super::*;

fn wait() -> Result<()> {
    Ok(())
}

/// Plugs a port into the bridge whose name `interfaces` leaves out.
fn plug(number: u32) -> Result<()> {
    let (port, peer) = (format!("other{number}"), format!("peer{number}"));
    lab::ip(&["link", "add", &port, "type", "veth", "peer", "name", &peer])?;
    lab::ip(&["link", "set", &port, "master", "cni0", "up"])?;
    lab::ip(&["link", "set", &peer, "up"])
}

fn unplug(number: u32) -> Result<()> {
    lab::ip(&["link", "del", &format!("other{number}")])
}

#[test]
fn a_host_without_pods_then_a_port_that_is_left_out_again_and_again() {
    in_lab(|lab| {
        let exclude = "interfaces: { exclude: [\"other*\"] }";
        let _daemon = start(lab, &config(lab, HOST_LOCAL, exclude))?;
        let prometheus = watching(lab)?;
        fires(&prometheus, "IpamNothingWatched", "warning", wait)?;
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        net.start(lab, "one")?;
        resolves(&prometheus, "IpamNothingWatched")?;

        plug(0)?;
        let alert = fires(&prometheus, "IpamAgentBlind", "warning", wait)?;
        ensure!(alert["labels"]["segment"] == "cni0", "{alert:#}");
        unplug(0)?;
        resolves(&prometheus, "IpamAgentBlind")?;

        let coverage = "ipam_segment_coverage_seconds{segment=\"cni0\"}";
        let mut number = 0;
        fires(&prometheus, "IpamCoverageUnstable", "warning", || {
            number += 1;
            plug(number)?;
            becomes(&prometheus, &format!("{coverage} == 0"))?;
            unplug(number)?;
            becomes(&prometheus, &format!("{coverage} > 0"))
        })?;
        resolves(&prometheus, "IpamCoverageUnstable")
    });
}

/// Waits until an expression gives something.
fn becomes(prometheus: &Prometheus, expression: &str) -> Result<()> {
    until(prometheus, || {
        Ok(match prometheus.query(expression)?.is_empty() {
            false => Ok(()),
            true => Err(expression.to_owned()),
        })
    })
}

#[test]
fn a_flood_and_its_end() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let pod = net.start(lab, "one")?;
        let _daemon = start(lab, &config(lab, HOST_LOCAL, ""))?;
        let prometheus = watching(lab)?;
        let over = AtomicBool::new(false);
        let fired = thread::scope(|scope| {
            let flood = scope.spawn(|| {
                pod.netns.inside(|| {
                    let mut sender = Sender::open("eth0")?;
                    for n in 0u32.. {
                        let [_, b, c, d] = n.to_be_bytes();
                        let frame = Arp::announcement(frames::mac(9), Ipv4Addr::new(172, b, c, d));
                        sender.send(&frame.frame())?;
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        if n % 200 == 0 {
                            // The machine does much else.
                            thread::sleep(Duration::from_millis(10));
                        }
                    }
                    Ok(())
                })
            });
            let fired = fires(&prometheus, "IpamSightingsDropped", "warning", wait);
            over.store(true, Ordering::Relaxed);
            let flooded = flood
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            flooded.and(fired)
        })?;
        ensure!(fired["labels"]["reason"].is_string(), "{fired:#}");
        resolves(&prometheus, "IpamSightingsDropped")
    });
}

#[test]
fn a_daemon_that_is_held_up_while_conflicts_come() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let [one, two] = ["one", "two"].map(|name| net.start(lab, name));
        let (one, two) = (one?, two?);
        let daemon = start(lab, &config(lab, HOST_LOCAL, ""))?;
        let prometheus = watching(lab)?;
        let pid = Pid::from_raw(i32::try_from(daemon.pid())?);
        let mut last = 10;
        fires(&prometheus, "IpamDetectionSlow", "warning", || {
            last += 1;
            let address = Ipv4Addr::new(172, 31, 0, last).into();
            kill(pid, Signal::SIGSTOP)?;
            // What is in the ring when it goes on is told late.
            for pod in [&one, &two, &one, &two] {
                pod.claims(address)?;
            }
            thread::sleep(Duration::from_millis(1500));
            kill(pid, Signal::SIGCONT)?;
            thread::sleep(Duration::from_secs(2));
            Ok(())
        })?;
        resolves(&prometheus, "IpamDetectionSlow")
    });
}
