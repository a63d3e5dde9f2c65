//! What the examples of `--help` name: segments, interfaces, leases, captures.

use std::{fs, net::Ipv4Addr};

use anyhow::Result;

use super::World;
use crate::{
    capture::{Classic, ETHERNET, Endian, Ng},
    frames::{self, Arp},
    lab,
};

impl World<'_> {
    /// A host where all of it is there, with a daemon.
    pub fn prepare_for_examples(&mut self) -> Result<()> {
        self.act("pods web 3")?;
        for link in [
            "add mgmt-br type bridge",
            "add mgmt-bo type veth peer name uplink",
            "set uplink up",
            "set mgmt-bo master mgmt-br up",
            "set mgmt-br up",
        ] {
            lab::ip(&[&["link"], &link.split(' ').collect::<Vec<_>>()[..]].concat())?;
        }
        lab::ip(&["address", "add", "192.168.60.1/24", "dev", "mgmt-br"])?;
        lab::ip(&["address", "add", "fd00:60::1/64", "dev", "mgmt-br", "nodad"])?;
        for (name, text) in [
            ("/etc/ipam-agent/leases.yaml", "leases: []\n"),
            ("config.yaml", "keep: []\n"),
        ] {
            fs::write(self.directory().join(name), text)?;
        }
        self.captures()?;
        self.act("daemon")
    }

    fn captures(&mut self) -> Result<()> {
        let said = |n| Arp::announcement(frames::mac(n), Ipv4Addr::new(10, 0, 0, 9)).frame();
        let of = |interfaces: &[&str]| {
            let mut capture = Ng::new(Endian::Little);
            for name in interfaces {
                capture = capture.interface(ETHERNET, Some(name));
            }
            for (n, _) in (0..).zip(interfaces) {
                capture = capture.frame(n, 1_000_000, &said(u16::try_from(n + 1).unwrap_or(1)));
            }
            capture.bytes
        };
        for (name, interfaces) in [
            ("incident.pcapng", &["eth0"][..]),
            ("ring_1.pcapng", &["eth0"]),
            ("ring_2.pcapng", &["eth0"]),
            ("trunk.pcapng", &["veth1", "veth2", "mgmt-bo"]),
        ] {
            fs::write(self.directory().join(name), of(interfaces))?;
        }
        for (n, name) in [(1, "node1.pcap"), (2, "node2.pcap")] {
            let capture = Classic::new(Endian::Little, false, ETHERNET).frame(1_000_000, &said(n));
            fs::write(self.directory().join(name), capture.bytes)?;
            self.run(&format!("gzip -f {name}"))?;
        }
        Ok(())
    }
}
