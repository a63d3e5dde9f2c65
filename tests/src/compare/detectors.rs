//! The detectors: how each is started and ended as its documentation says, and what its
//! words mean.
//!
//! Whatever a tool plausibly calls a second user of an address counts as that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{net::if_::if_nametoindex, sys::signal::Signal};
use serde_json::Value;

use super::BRIDGE;
use crate::{daemon::Daemon, lab::run, process::Process};

/// How long a detector may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// The agent's leases, in its directory.
pub const LEASES: &str = "leases.yaml";

/// How much a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Something changed, or looks odd.
    Change,
    /// Two machines use one address, or one is used that shouldn't be.
    Conflict,
}

/// What was said of each address.
pub type Told = BTreeMap<IpAddr, BTreeSet<(Weight, String)>>;

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detector {
    /// Ours.
    Agent,
    /// LBL's, as Debian has it.
    Arpwatch,
    /// arpalert.
    Arpalert,
    /// Wireshark's ARP dissector.
    Tshark,
}

impl Detector {
    /// Those of others.
    pub const PEERS: [Self; 3] = [Self::Arpwatch, Self::Arpalert, Self::Tshark];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "ipam-agent",
            Self::Arpwatch => "arpwatch",
            Self::Arpalert => "arpalert",
            Self::Tshark => "tshark",
        }
    }

    /// Whether it can be run here; if not, why.
    pub fn available(self) -> Result<(), String> {
        let there = match self {
            Self::Agent => return Ok(()),
            // It has no option that only tells its version.
            Self::Arpwatch => found("arpwatch"),
            Self::Arpalert => found("arpalert"),
            Self::Tshark => found("tshark"),
        };
        there
            .then_some(())
            .ok_or_else(|| format!("there is no {}: `cargo xtask compare` gets it", self.name()))
    }
}

/// Whether a program is on the path.
fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A detector at work.
#[derive(Debug)]
pub enum Running {
    /// Ours.
    Agent(Daemon),
    /// Another, and where its words are.
    Peer(Detector, Process, PathBuf),
}

impl Running {
    /// Starts one whose files are in `dir`, and waits until it listens. What an earlier
    /// one left there it finds.
    pub fn start(detector: Detector, dir: &Path) -> Result<Self> {
        let dir = dir.join(detector.name());
        fs::create_dir_all(&dir)?;
        let mut command = match detector {
            Detector::Agent => {
                return Ok(Self::Agent(Daemon::start(&dir, &agent_config(&dir))?));
            }
            Detector::Arpwatch => {
                let data = dir.join("arp.dat");
                // It wants one to begin with.
                fs::File::options().create(true).append(true).open(&data)?;
                let mut command = Command::new("arpwatch");
                // In the foreground, reports to stdout; no complaints about subnets.
                command.args(["-d", "-N", "-a", "-i", BRIDGE, "-f"]);
                command.arg(data);
                command
            }
            Detector::Arpalert => {
                let config = dir.join("arpalert.conf");
                fs::write(&config, arpalert_config(&dir)?)?;
                let mut command = Command::new("arpalert");
                command.arg("-f").arg(config);
                command
            }
            Detector::Tshark => {
                let mut command = Command::new("tshark");
                command.args(["-n", "-l", "-Q", "-i", BRIDGE]);
                command.args(["-f", "arp or (vlan and arp)"]);
                command.args(["-Y", "arp.duplicate-address-detected", "-T", "fields"]);
                command.args(["-e", "arp.src.proto_ipv4", "-e", "_ws.expert.message"]);
                command
            }
        };
        command.env("TMPDIR", &dir).current_dir(&dir);
        let before = listeners()?;
        let mut process = Process::spawn(command, &dir.join("out"), &dir.join("err"))?;
        let deadline = Instant::now() + PATIENCE;
        while listeners()? == before {
            process.still_runs()?;
            ensure!(
                Instant::now() < deadline,
                "{} doesn't listen",
                detector.name()
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self::Peer(detector, process, dir))
    }

    /// Who it is.
    pub fn detector(&self) -> Detector {
        match self {
            Self::Agent(_) => Detector::Agent,
            Self::Peer(detector, ..) => *detector,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Agent(daemon) => daemon.pid(),
            Self::Peer(_, process, _) => process.pid(),
        }
    }

    /// Ends it as its users do; everything that it said since its files began.
    pub fn end(self) -> Result<Told> {
        match self {
            Self::Agent(daemon) => {
                let told = of_agent(&daemon.query("report", &[])?)?;
                let status = daemon.stop()?;
                ensure!(status.success(), "the agent ended with {status}");
                Ok(told)
            }
            Self::Peer(detector, process, dir) => {
                let signal = match detector {
                    Detector::Tshark => Signal::SIGINT,
                    _ => Signal::SIGTERM,
                };
                process.end(signal)?;
                let out = fs::read_to_string(dir.join("out"))?;
                let err = fs::read_to_string(dir.join("err"))?;
                Ok(match detector {
                    Detector::Arpwatch => of_arpwatch(&out, &err),
                    Detector::Arpalert => of_arpalert(&format!("{out}{err}")),
                    _ => of_tshark(&out),
                })
            }
        }
    }

    /// The addresses that it has written down; `None`: it keeps no such list. A peer has
    /// to have ended.
    pub fn known(detector: Detector, dir: &Path) -> Result<Option<BTreeSet<IpAddr>>> {
        let dir = dir.join(detector.name());
        let (file, column) = match detector {
            Detector::Arpwatch => ("arp.dat", 1),
            Detector::Arpalert => ("leases", 1),
            Detector::Agent | Detector::Tshark => return Ok(None),
        };
        let table = fs::read_to_string(dir.join(file))
            .with_context(|| format!("{} left no {file}", detector.name()))?;
        let addresses = table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(column)?.parse().ok());
        Ok(Some(addresses.collect()))
    }
}

/// Sockets that look at the bridge's frames, in this thread's network namespace.
fn listeners() -> Result<usize> {
    let bridge = if_nametoindex(BRIDGE)?.to_string();
    let sockets = fs::read_to_string("/proc/thread-self/net/packet")?;
    let on_bridge = |line: &&str| line.split_whitespace().nth(4) == Some(&bridge);
    Ok(sockets.lines().filter(on_bridge).count())
}

/// What it is leased is in `leases.yaml`, if anything is.
fn agent_config(dir: &Path) -> String {
    let mut config = format!(
        "state_dir: {}\nholders: {{ cri: off }}\n",
        dir.join("state").display()
    );
    let leases = dir.join(LEASES);
    if leases.is_file() {
        config += &format!("stores: [ {{ kind: file, path: {} }} ]\n", leases.display());
    }
    config
}

/// Every kind of detection, told once each; no limit that would silence it in a storm.
fn arpalert_config(dir: &Path) -> Result<String> {
    let empty = dir.join("nobody");
    fs::write(&empty, "")?;
    Ok(format!(
        "maclist file = {empty}\nmaclist alert file = {empty}\n\
         maclist leases file = {leases}\nlock file = {lock}\n\
         use syslog = false\nlog level = 6\nuser = root\numask = 177\ndaemon = false\n\
         interface = {BRIDGE}\ncatch only arp = true\ndump inter = 5\n\
         dump new address = true\nmac timeout = 259200\nmax entry = 1000000\n\
         anti flood interval = 5\nanti flood global = 1000000000\nmax request = 1000000000\n\
         log new address = true\nlog new mac address = true\nlog ip change = true\n\
         log mac change = true\nlog mac error = true\nlog flood = true\n",
        empty = empty.display(),
        leases = dir.join("leases").display(),
        lock = dir.join("lock").display(),
    ))
}

/// Conflicts and events of a report.
fn of_agent(report: &Value) -> Result<Told> {
    let mut told = Told::new();
    for (list, weight) in [("conflicts", Weight::Conflict), ("events", Weight::Change)] {
        for record in report[list]
            .as_array()
            .with_context(|| format!("no {list}"))?
        {
            let address = record["address"].as_str().context("no address")?.parse()?;
            let kind = record["kind"].as_str().context("no kind")?;
            told.entry(address)
                .or_default()
                .insert((weight, kind.to_owned()));
        }
    }
    Ok(told)
}

/// Reports are on stdout, "Subject: flip flop (10.0.0.5) br0"; what only goes to the system
/// log is on stderr, "arpwatch: ethernet mismatch 10.0.0.5 …".
fn of_arpwatch(out: &str, err: &str) -> Told {
    let reports = out.lines().filter_map(|line| {
        let (what, rest) = line.strip_prefix("Subject: ")?.split_once(" (")?;
        Some((what, rest.split_once(')')?.0))
    });
    let words = [
        ("flip flop", Weight::Conflict),
        ("reused old ethernet address", Weight::Conflict),
        ("changed ethernet address", Weight::Change),
        ("ethernet mismatch", Weight::Change),
    ];
    let logged = err.lines().filter_map(|line| {
        let line = line.strip_prefix("arpwatch: ")?;
        let (what, _) = words.iter().find(|(what, _)| line.starts_with(what))?;
        Some((*what, line[what.len()..].split_whitespace().next()?))
    });
    let mut told = Told::new();
    for (what, address) in reports.chain(logged) {
        let weight = words.iter().find(|(word, _)| *word == what);
        if let (Some((_, weight)), Ok(address)) = (weight, address.parse()) {
            told.entry(address)
                .or_default()
                .insert((*weight, what.to_owned()));
        }
    }
    told
}

/// "… seq=3, mac=…, ip=10.0.0.5, reference=…, type=mac_change, dev=br0". `ip_change` says
/// that a MAC has another address now, which is no word about who else has it.
fn of_arpalert(log: &str) -> Told {
    let mut told = Told::new();
    for line in log.lines() {
        let field = |name: &str| {
            let mut fields = line.split([',', ' ']);
            fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        let (Some(kind), Some(Ok(address))) = (field("type"), field("ip").map(str::parse)) else {
            continue;
        };
        let weight = match kind {
            "mac_change" => Weight::Conflict,
            "mac_error" => Weight::Change,
            _ => continue,
        };
        told.entry(address)
            .or_default()
            .insert((weight, kind.to_owned()));
    }
    told
}

/// "10.0.0.5\tDuplicate IP address configured (10.0.0.5)"; of that is said with one of the
/// addresses of a frame, in the message.
fn of_tshark(out: &str) -> Told {
    let mut told = Told::new();
    for line in out.lines() {
        for message in line.split("Duplicate IP address configured (").skip(1) {
            let address = message.split(')').next().unwrap_or_default();
            if let Ok(address) = address.parse() {
                let word = (Weight::Conflict, String::from("duplicate IP address"));
                told.entry(address).or_default().insert(word);
            }
        }
    }
    told
}

/// What the programs here call themselves and their version.
pub fn version(detector: Detector) -> Option<String> {
    let package = detector.name();
    if detector == Detector::Agent {
        return Some(format!("{package} {}", env!("CARGO_PKG_VERSION")));
    }
    let version = run("dpkg-query", &["-W", "-f", "${Version}", package]).ok()?;
    Some(format!("{package} {version}"))
}
