//! Conflicts, by pods that take what isn't theirs.

use std::{fs, net::Ipv4Addr};

use anyhow::Context as _;
use tests::{
    frames::{self, Arp},
    runtime::Network,
};

use super::*;

/// Nothing to do until an alert fires.
fn wait() -> Result<()> {
    Ok(())
}

#[test]
fn a_duplicate_that_comes_and_goes() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let [one, two] = ["one", "two"].map(|name| net.start(lab, name));
        let (one, two) = (one?, two?);
        let daemon = start(lab, &config(lab, HOST_LOCAL, ""))?;
        let prometheus = watching(lab)?;
        let address = one.address(false)?;
        fires(&prometheus, "IpamLeaseMismatch", "warning", || {
            two.claims(address)
        })?;
        one.claims(address)?;
        let alert = fires(&prometheus, "IpamDuplicateAddress", "warning", wait)?;
        ensure!(alert["labels"]["instance"] == TARGET, "{alert:#}");
        ensure!(alert["value"] == "1e+00", "{alert:#}");
        let alert = fires(&prometheus, "IpamDuplicateAddress", "critical", || {
            two.claims(address)?;
            one.claims(address)
        })?;
        ensure!(alert["value"] == "1e+00", "{alert:#}");
        // It is one conflict, whose severity changed.
        ensure!(
            super::alert(&prometheus, "IpamDuplicateAddress", "warning")?.is_none()
                || daemon.query("report", &[])?["summary"]["conflicts"] == 1
        );
        // What the alert tells people to run says who it is.
        let report = daemon.text("report", &["--kind", "duplicate-address"])?;
        ensure!(
            report.contains(&one.mac) && report.contains(&two.mac),
            "{report}"
        );
        net.stop(&two)?;
        resolves(&prometheus, "IpamDuplicateAddress")?;
        resolves(&prometheus, "IpamLeaseMismatch")
    });
}

#[test]
fn every_other_kind_that_comes_and_goes() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let [one, two] = ["one", "two"].map(|name| net.start(lab, name));
        let (one, two) = (one?, two?);
        let leases = lab.disk().join("leases.yaml");
        // A router that isn't there now, and a lease of what host-local leased too.
        let pools = "pools: [{ cidr: 10.9.0.0/24, segment: cni0, gateway: 10.9.0.200,
                               gateway_mac: \"02:00:00:00:00:c8\" }]\n";
        fs::write(
            &leases,
            format!(
                "leases: [{{ address: {}, mac: \"02:00:00:00:00:77\", holder: vm/db-0 }}]\n{pools}",
                one.address(false)?
            ),
        )?;
        let stores = format!("{HOST_LOCAL}, {{ kind: file, path: {} }}", leases.display());
        let _daemon = start(lab, &config(lab, &stores, ""))?;
        let prometheus = watching(lab)?;
        fires(&prometheus, "IpamDuplicateLease", "warning", wait)?;
        fs::write(&leases, format!("leases: []\n{pools}"))?;
        resolves(&prometheus, "IpamDuplicateLease")?;

        fires(&prometheus, "IpamReservedAddress", "warning", || {
            two.claims(Ipv4Addr::new(10, 9, 0, 0).into())
        })?;
        fires(&prometheus, "IpamReservedAddress", "critical", || {
            two.claims(Ipv4Addr::new(10, 9, 0, 200).into())
        })?;
        let squatted = Ipv4Addr::new(10, 9, 0, 99);
        fires(&prometheus, "IpamUnleasedAddress", "warning", || {
            two.claims(squatted.into())
        })?;
        // Now somebody is given it all the same.
        let lease = net.leases().join(squatted.to_string());
        fs::write(&lease, "0123456789abcdef\r\neth0")?;
        fires(&prometheus, "IpamLeaseMismatch", "critical", wait)?;
        let clone = frames::mac(0xc1);
        fires(&prometheus, "IpamDuplicateMac", "warning", || {
            for (pod, last) in [(&one, 21), (&two, 22)] {
                let address = Ipv4Addr::new(172, 31, 0, last);
                let frame = Arp::announcement(clone, address).frame();
                pod.netns.send("eth0", &[frame])?;
            }
            Ok(())
        })
        .context("a clone")?;

        resolves(&prometheus, "IpamReservedAddress")?;
        resolves(&prometheus, "IpamUnleasedAddress")?;
        resolves(&prometheus, "IpamLeaseMismatch")?;
        resolves(&prometheus, "IpamDuplicateMac")
    });
}
