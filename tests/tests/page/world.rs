//! A host to look at: two machines on a bridge, a lease file, and the daemon.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tests::{
    daemon::Daemon,
    frames::{Arp, Mac},
    lab::{Lab, Netns, ip},
    prometheus::get,
};

/// Where the daemon serves unless it is told otherwise.
pub const ORIGIN: &str = "http://127.0.0.1:9477/";
const SERVED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);
const BRIDGE: &str = "mgmt-br";

/// The host.
pub struct World {
    /// Its daemon.
    pub daemon: Daemon,
    guests: [(Netns, Mac); 2],
}

impl World {
    /// A host with these leases, and nothing wrong.
    pub fn start(lab: &Lab, leases: &str) -> Result<Self> {
        Self::start_with_port(lab, leases, "veth-b")
    }

    /// The same; the second machine is behind a port of this name.
    pub fn start_with_port(lab: &Lab, leases: &str, port: &str) -> Result<Self> {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        let guests = [
            (lab.guest("a", "veth-a", BRIDGE)?, [2, 0, 0, 0, 0, 0xa]),
            (lab.guest("b", port, BRIDGE)?, [0x3c, 0xec, 0xef, 0, 0, 0xb]),
        ];
        let file = lab.disk().join("leases.yaml");
        fs::write(&file, leases)?;
        let config = format!(
            "state_dir: {}\ninterfaces: {{ include: [\"*\"], exclude: [lo, {BRIDGE}] }}\n\
             stores: [{{ kind: file, path: {} }}]",
            lab.disk().join("state").display(),
            file.display()
        );
        let daemon = Daemon::spawn(&lab.disk().join("daemon"), &config)?;
        // A debug build takes its time over 100,000 leases, and answers nobody meanwhile.
        let deadline = Instant::now() + Duration::from_secs(180);
        while !get(SERVED, "/readyz").is_ok_and(|(status, _)| status == 200) {
            ensure!(Instant::now() < deadline, "not ready:\n{}", daemon.log());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { daemon, guests })
    }

    /// Both machines say in turns that addresses of 10.7.0.0/24 are theirs.
    pub fn contest(&self, last: &[u8]) -> Result<()> {
        let addresses: Vec<Ipv4Addr> = last.iter().map(|&last| [10, 7, 0, last].into()).collect();
        self.contest_all(&addresses)
    }

    /// The same of any addresses.
    pub fn contest_all(&self, addresses: &[Ipv4Addr]) -> Result<()> {
        for _ in 0..2 {
            for (guest, mac) in &self.guests {
                let frames = { addresses.iter() }.map(|&ip| Arp::announcement(*mac, ip).frame());
                guest.send("eth0", &frames.collect::<Vec<_>>())?;
                // Within a jiffy it would be one and the same moment.
                thread::sleep(Duration::from_millis(150));
            }
        }
        Ok(())
    }
}

/// That the daemon had nothing to complain of.
pub fn quiet(daemon: &Daemon) -> Result<()> {
    let log = daemon.log();
    ensure!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    Ok(())
}

/// A lease file: of each pool the addresses from the second on, spread where they are many.
pub fn leases(pools: &[&str], each: u32) -> String {
    let mut text = String::from("pools:\n");
    for pool in pools {
        let _ = writeln!(text, "  - {{ cidr: {pool}, segment: {BRIDGE} }}");
    }
    text.push_str("leases:\n");
    for pool in pools {
        let net: ipnet::Ipv4Net = pool.parse().expect("a prefix");
        let room = u32::MAX >> net.prefix_len();
        for number in 1..=each {
            // Full blocks, half-full ones and empty ones; within a /24 one after the other.
            let offset = match room {
                0..256 => number,
                _ => number.wrapping_mul(40_503) % room / 3 * 2 + 1,
            };
            let ip = Ipv4Addr::from(u32::from(net.network()) + offset);
            let _ = writeln!(
                text,
                "  - {{ address: {ip}, holder: vm/{} }}",
                offset & 0xff
            );
        }
    }
    text
}

/// A lease file of one pool, with these holders from the first address on.
pub fn holders(pool: &str, names: &[&str]) -> String {
    let mut text = format!("pools: [{{ cidr: {pool}, segment: {BRIDGE} }}]\nleases:\n");
    let net: ipnet::Ipv4Net = pool.parse().expect("a prefix");
    for (ip, name) in net.hosts().zip(names) {
        let name = serde_json::to_string(name).expect("JSON");
        let _ = writeln!(text, "  - {{ address: {ip}, holder: {name} }}");
    }
    text
}
