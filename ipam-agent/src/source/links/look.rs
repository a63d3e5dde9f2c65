//! The host's links at one moment, for who can't wait until they are told.

use std::time::Duration;

use super::{NameFilter, topology::Records};
use crate::{
    engine::segment::Topology,
    netlink::{LinkRecord, Netlink, NetlinkError, PortVlans, Request},
};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The ports and what they are wired to, as the kernel has them now; without this host's
/// addresses. Blocks for 1 s at most.
///
/// # Errors
///
/// If the kernel doesn't list them, whole and in time.
pub fn look(filter: &NameFilter) -> Result<Topology, NetlinkError> {
    let mut netlink = Netlink::open(PATIENCE)?;
    let mut records = Records::default();
    let links = netlink.dump(&Request::links(), |message| LinkRecord::read(&message))?;
    records.links = links.into_iter().map(|link| (link.index, link)).collect();
    // Afterwards, so that no port is there whose VLANs are not.
    if records.links.values().any(|link| link.filtering.is_some()) {
        let ports = netlink.dump(&Request::port_vlans(), |message| PortVlans::read(&message))?;
        records.vlans = { ports.into_iter() }
            .map(|port| (port.index, port.vlans))
            .collect();
    }
    Ok(records.topology(filter))
}
