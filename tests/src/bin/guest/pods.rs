//! Pods of the real plugins, with leases of the real host-local.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use tests::{lab::Lab, runtime::Network};

use crate::host::{claimants, ip_line, start, wait_for_duplicate, wait_until_watched};

/// One pod takes another's addresses: heard by ARP and by Neighbor Discovery, and the lease
/// says whose they are.
pub fn duplicate(lab: &mut Lab) -> Result<()> {
    let network = Network::bridge("pods", "cni0", &["10.52.0.0/24", "fd00:52::/64"])?;
    let owner = network.start(lab, "owner")?;
    let thief = network.start(lab, "thief")?;
    ip_line("-n thief addr flush dev eth0 scope global")?;
    for address in &owner.addresses {
        let prefix = match address {
            IpAddr::V4(_) => "24",
            IpAddr::V6(_) => "64 nodad",
        };
        ip_line(&format!("-n thief addr add {address}/{prefix} dev eth0"))?;
    }

    let daemon = start(lab)?;
    wait_until_watched(&daemon, &[&owner.host_interface, &thief.host_interface])?;
    for gateway in ["10.52.0.1", "fd00:52::1"] {
        for pod in [&owner, &thief, &owner] {
            pod.netns.speak_to(gateway.parse()?)?;
        }
    }
    let mut expected = [
        (owner.mac.clone(), owner.host_interface.as_str()),
        (thief.mac.clone(), thief.host_interface.as_str()),
    ];
    expected.sort();
    for address in &owner.addresses {
        let conflict = wait_for_duplicate(&daemon, &address.to_string())?;
        ensure!(claimants(&conflict) == expected, "{conflict:#?}");
        let holders: Vec<_> = conflict
            .leases
            .iter()
            .map(|lease| lease.holder.container_id.as_deref())
            .collect();
        ensure!(
            holders == [Some(owner.container_id.as_str())],
            "{conflict:#?}"
        );
    }
    Ok(())
}
