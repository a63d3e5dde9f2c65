//! The laboratory that a script is played in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ipam_agent::{engine::time::Timestamp, report::document::Report};

use super::{Played, end_of, has_vlans, reported};
use crate::{
    daemon::Daemon,
    lab::{Lab, Sender, ip, run},
    scenario::{
        BRIDGE, Family, SECOND, Script, frame_of,
        lease_file::LeaseFile,
        recorded::AFTER,
        setting::{HOST, PORTS},
        words,
    },
};

/// For setting up: long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// The tunnel's port, and its network's number.
const TUNNEL: (u16, u8) = (4789, 1);

/// The way into a port.
enum Wire {
    Veth(Sender),
    Tunnel(UdpSocket),
}

impl Wire {
    fn send(&mut self, frame: &[u8]) -> Result<()> {
        match self {
            Self::Veth(sender) => sender.send(frame),
            Self::Tunnel(socket) => {
                // RFC 7348 §5.
                let header = [8, 0, 0, 0, 0, 0, TUNNEL.1, 0];
                socket.send(&[&header, frame].concat())?;
                Ok(())
            }
        }
    }
}

/// A script's world, before the first frame.
pub(super) struct Stage {
    wires: BTreeMap<&'static str, Wire>,
    leases: Store,
    other: Store,
    daemon: Daemon,
}

/// A lease file on the disk.
struct Store {
    file: LeaseFile,
    path: PathBuf,
}

impl Store {
    /// Writes it as those do who care: never is half a file to be seen.
    fn write(&self) -> Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, self.file.text()?)?;
        Ok(fs::rename(new, &self.path)?)
    }
}

impl Stage {
    pub(super) fn set_up(lab: &Lab, played: &Played) -> Result<Self> {
        let Played {
            families, script, ..
        } = played;
        let read = Script::read(script)?;
        let dir = lab.disk();
        let store = |name: &str| Store {
            file: LeaseFile::new(families),
            path: dir.join(name),
        };
        let (mut leases, mut other) = (store("leases.yaml"), store("other.yaml"));
        let named = |port: &&str| {
            let mut lines = read
                .setting
                .iter()
                .chain(read.scenes.iter().map(|(_, l)| l));
            lines.any(|line| line.split_whitespace().any(|word| word == *port))
        };
        let ports: Vec<&'static str> = PORTS.into_iter().filter(named).collect();
        bridge(has_vlans(script))?;
        let pod = read
            .setting
            .iter()
            .find_map(|line| line.strip_prefix("pod "));
        let pod: Vec<&str> = pod.unwrap_or_default().split_whitespace().collect();
        let mut wires = plug(lab, &ports, &pod)?;
        if let Some(wire) = ports.contains(&"up").then(tunnel).transpose()? {
            wires.insert("up", wire);
        }
        for line in &read.setting {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["live"] | ["pod", ..] => {}
                ["own", address] => own(families, "add", address)?,
                ["other", ref lease @ ..] => ensure!(other.file.set(lease)?, "in {line:?}"),
                ["access", port, vlan] => {
                    vlans(&["del", "dev", port, "vid", "1"])?;
                    vlans(&["add", "dev", port, "vid", vlan, "pvid", "untagged"])?;
                }
                ["trunk", port, ref tagged @ ..] => {
                    for vlan in tagged {
                        vlans(&["add", "dev", port, "vid", vlan])?;
                    }
                }
                ref words => ensure!(leases.file.set(words)?, "in {line:?}"),
            }
        }
        leases.write()?;
        other.write()?;
        Ok(Self {
            wires,
            daemon: daemon(dir, &ports, &leases, &other)?,
            leases,
            other,
        })
    }

    /// Has the scenes happen, and compares what is told with what is expected.
    pub(super) fn play(mut self, played: &Played, patience: Duration) -> Result<()> {
        let Played {
            families,
            script,
            expected,
        } = played;
        let begin = Instant::now();
        let since = |at: Timestamp| at.since(Timestamp(SECOND));
        let mut late = Duration::ZERO;
        for (at, line) in &Script::read(script)?.scenes {
            let due = begin + since(*at);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            late = late.max(due.elapsed());
            self.scene(families, line)
                .with_context(|| format!("in {line:?}"))?;
        }
        let end = begin + since(Timestamp(end_of(script)?.0 + AFTER));
        thread::sleep(end.saturating_duration_since(Instant::now()));
        // What is due by then may be told a little later.
        let deadline = Instant::now() + patience;
        loop {
            let report: Report = serde_json::from_value(self.daemon.query("report", &[])?)?;
            let addresses = self.daemon.query("addresses", &[])?;
            let told = reported(&report, &serde_json::from_value(addresses)?);
            if told == *expected {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "on veths, {families:?}, {late:?} late: told {told:#?}, expected {expected:#?} of\n{script}\nlog:\n{}",
                self.daemon.log()
            );
            thread::sleep(Duration::from_millis(500));
        }
    }

    fn scene(&mut self, families: &[Family], line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["end"] => Ok(()),
            ["grant", address, holder] => {
                self.leases.file.grant(address, holder)?;
                self.leases.write()
            }
            ["revoke", address] => {
                self.leases.file.revoke(address);
                self.leases.write()
            }
            ["other", "grant", address, holder] => {
                self.other.file.grant(address, holder)?;
                self.other.write()
            }
            ["other", "revoke", address] => {
                self.other.file.revoke(address);
                self.other.write()
            }
            ["disown", address] => own(families, "del", address),
            ["link", port, "gone"] => ip(&["link", "del", port]),
            [port, ref what @ ..] => {
                let wire = self.wires.get_mut(port).context("no port")?;
                let mut frames = families.iter().map(|&family| frame_of(family, what));
                frames.try_for_each(|frame| wire.send(&frame?))
            }
            [] => bail!("nothing happens"),
        }
    }
}

fn bridge(filtering: bool) -> Result<()> {
    let mac = words::mac(HOST)?.to_string();
    let mut add = vec!["link", "add", BRIDGE, "address", &mac, "type", "bridge"];
    if filtering {
        add.extend(["vlan_filtering", "1"]);
    }
    ip(&add)?;
    ip(&["link", "set", BRIDGE, "up"])
}

/// Guests behind the ports: one behind each, and one behind all those of a pod.
fn plug(lab: &Lab, ports: &[&'static str], pod: &[&str]) -> Result<BTreeMap<&'static str, Wire>> {
    let shared = match pod {
        [] => None,
        _ => Some(lab.pod("pod")?),
    };
    let mut wires = BTreeMap::new();
    for &port in ports.iter().filter(|port| **port != "up") {
        let of = match &shared {
            Some(pod_of_several) if pod.contains(&port) => pod_of_several.clone(),
            _ => lab.pod(&format!("guest-{port}"))?,
        };
        let inner = format!("eth-{port}");
        lab.plug(&of, &inner, port, BRIDGE)?;
        wires.insert(port, Wire::Veth(of.inside(|| Sender::open(&inner))?));
    }
    Ok(wires)
}

fn tunnel() -> Result<Wire> {
    let (port, id) = (TUNNEL.0.to_string(), TUNNEL.1.to_string());
    let kind = ["type", "vxlan", "id", &id, "dstport", &port];
    let place = ["local", "127.0.0.1", "nolearning"];
    ip(&[&["link", "add", "name", "up"], &kind[..], &place[..]].concat())?;
    ip(&["link", "set", "dev", "up", "master", BRIDGE, "up"])?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, TUNNEL.0))?;
    Ok(Wire::Tunnel(socket))
}

fn own(families: &[Family], what: &str, address: &str) -> Result<()> {
    for family in families {
        let address = family.address(address)?.ip();
        let prefix = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
        let mut args = vec!["address", what, &prefix, "dev", BRIDGE];
        if what == "add" && address.is_ipv6() {
            args.push("nodad");
        }
        ip(&args)?;
    }
    Ok(())
}

fn vlans(args: &[&str]) -> Result<()> {
    run("bridge", &[&["vlan"], args].concat()).map(drop)
}

/// The daemon, once it watches the ports and knows the leases.
fn daemon(dir: &Path, ports: &[&str], leases: &Store, other: &Store) -> Result<Daemon> {
    let config = format!(
        "state_dir: {}\n\
         interfaces: {{ include: [\"v?\", up] }}\n\
         observe: {{ confirm: [{BRIDGE}] }}\n\
         stores: [{{ kind: file, path: {} }}, {{ kind: file, path: {} }}]",
        dir.join("state").display(),
        leases.path.display(),
        other.path.display(),
    );
    let daemon = Daemon::start(&dir.join("daemon"), &config)?;
    let wanted = leases.file.count() + other.file.count();
    daemon.wait_for("its ports and leases", PATIENCE, "report", |report| {
        let report: Report = serde_json::from_value(report.clone()).ok()?;
        let watched = report.segments.iter().flat_map(|one| &one.interfaces);
        let watched: BTreeSet<&str> = watched.map(String::as_str).collect();
        let all = ports.iter().all(|port| watched.contains(port));
        (all && report.leases.total() >= wanted as u64).then_some(())
    })?;
    Ok(daemon)
}
