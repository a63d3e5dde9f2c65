//! Network configurations: which plugin makes a network's links, and what its host-local
//! hands out.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use ipam_common::Address;
use ipnet::IpNet;
use serde::Deserialize;

use crate::engine::lease::{Place, Pool};

/// The bridge plugin's bridge unless its configuration names one.
const DEFAULT_BRIDGE: &str = "cni0";
/// How deep meta plugins may nest configurations.
const DEPTH: usize = 4;

/// What a configuration says of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name, which is its directory's in host-local.
    pub name: Arc<str>,
    /// The plugin that makes its links: `bridge`, `calico`.
    pub plugin: Arc<str>,
    /// The wire that its addresses live on.
    pub place: Place,
    /// What host-local hands out in it, as far as the configuration says.
    pub pools: Vec<Pool>,
    /// host-local's directory, if not its default.
    pub data_directory: Option<PathBuf>,
}

/// The node's own subnets, for which configurations have a placeholder (`usePodCidr`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSubnets {
    v4: Option<IpNet>,
    v6: Option<IpNet>,
}

impl NodeSubnets {
    /// Reads flannel's file: lines as `FLANNEL_SUBNET=10.52.0.1/24`.
    pub fn parse(content: &[u8]) -> Self {
        let text = str::from_utf8(content).unwrap_or_default();
        let value = |key: &str| -> Option<IpNet> {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            Some(line?.trim().parse::<IpNet>().ok()?.trunc())
        };
        Self {
            v4: value("FLANNEL_SUBNET"),
            v6: value("FLANNEL_IPV6_SUBNET"),
        }
    }
}

#[derive(Deserialize)]
struct RawNetwork {
    name: Option<String>,
    plugins: Option<Vec<RawPlugin>>,
    /// multus: the networks that it calls in turn.
    delegates: Option<Vec<RawNetwork>>,
    #[serde(flatten)]
    plugin: RawPlugin,
}

#[derive(Default, Deserialize)]
struct RawPlugin {
    #[serde(rename = "type")]
    kind: Option<String>,
    bridge: Option<String>,
    vlan: Option<u16>,
    #[serde(rename = "vlanTrunk")]
    vlan_trunk: Option<Vec<serde_json::Value>>,
    ipam: Option<RawIpam>,
    /// flannel: what it changes in the bridge plugin's configuration that it writes.
    delegate: Option<Box<RawPlugin>>,
}

#[derive(Deserialize)]
struct RawIpam {
    #[serde(rename = "type")]
    kind: Option<String>,
    ranges: Option<Vec<Vec<RawRange>>>,
    #[serde(rename = "dataDir")]
    data_directory: Option<PathBuf>,
    #[serde(flatten)]
    range: RawRange,
}

#[derive(Deserialize)]
struct RawRange {
    subnet: Option<String>,
    #[serde(rename = "rangeStart")]
    first: Option<IpAddr>,
    #[serde(rename = "rangeEnd")]
    last: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

/// The networks that a configuration defines: one, and those that a meta plugin embeds.
pub fn parse(content: &[u8], node: &NodeSubnets) -> Result<Vec<Network>, serde_json::Error> {
    let mut networks = Vec::new();
    collect(serde_json::from_slice(content)?, node, DEPTH, &mut networks);
    Ok(networks)
}

fn collect(raw: RawNetwork, node: &NodeSubnets, depth: usize, networks: &mut Vec<Network>) {
    let main = raw
        .plugins
        .and_then(|plugins| plugins.into_iter().next())
        .unwrap_or(raw.plugin);
    if let (Some(name), Some(_)) = (raw.name, &main.kind) {
        networks.push(network(name.into(), main, node));
    }
    if depth > 0 {
        for delegate in raw.delegates.into_iter().flatten() {
            collect(delegate, node, depth - 1, networks);
        }
    }
}

fn network(name: Arc<str>, plugin: RawPlugin, node: &NodeSubnets) -> Network {
    let kind = plugin.kind.as_deref().unwrap_or_default();
    let place = match kind {
        "flannel" => plugin.delegate.as_deref().map_or_else(
            || bridge(&RawPlugin::default()),
            |delegate| place(delegate.kind.as_deref().unwrap_or("bridge"), delegate),
        ),
        kind => place(kind, &plugin),
    };
    let ipam = plugin
        .ipam
        .as_ref()
        .filter(|ipam| ipam.kind.as_deref() == Some("host-local"));
    let pools = match ipam {
        Some(ipam) => {
            let sets = ipam.ranges.iter().flatten().flatten();
            sets.chain([&ipam.range])
                .filter_map(|range| pool(range, node))
                .collect()
        }
        // flannel writes the IPAM section itself, from its subnet.
        None if kind == "flannel" => node
            .v4
            .into_iter()
            .chain(node.v6)
            .filter_map(|prefix| pool_of(prefix, None, None, None))
            .collect(),
        None => Vec::new(),
    };
    Network {
        name,
        plugin: kind.into(),
        place,
        pools,
        data_directory: ipam.and_then(|ipam| ipam.data_directory.clone()),
    }
}

fn place(kind: &str, plugin: &RawPlugin) -> Place {
    match kind {
        "bridge" => bridge(plugin),
        "calico" | "ptp" => Place::Routed,
        "" | "multus" | "multus-shim" | "flannel" => Place::Unknown,
        other => Place::Unwatchable(other.into()),
    }
}

fn bridge(plugin: &RawPlugin) -> Place {
    // A trunk's guest tags its frames itself, with any of the trunk's VLANs.
    if plugin
        .vlan_trunk
        .as_ref()
        .is_some_and(|trunk| !trunk.is_empty())
    {
        return Place::Unknown;
    }
    let bridge = plugin.bridge.as_deref().filter(|bridge| !bridge.is_empty());
    Place::Bridge {
        bridge: bridge.unwrap_or(DEFAULT_BRIDGE).into(),
        vlan: plugin.vlan.filter(|vlan| *vlan != 0),
    }
}

fn pool(range: &RawRange, node: &NodeSubnets) -> Option<Pool> {
    let prefix = match range.subnet.as_deref()? {
        "usePodCidr" => node.v4?,
        "usePodCidrIPv6" => node.v6?,
        subnet => subnet.parse::<IpNet>().ok()?.trunc(),
    };
    pool_of(prefix, range.first, range.last, range.gateway)
}

/// The pool of a range, with host-local's defaults (plugins/ipam/host-local/backend/allocator/
/// range.go): all but the network's address and, for IPv4, the broadcast address; the first
/// of them is the gateway's and never handed out.
fn pool_of(
    prefix: IpNet,
    first: Option<IpAddr>,
    last: Option<IpAddr>,
    gateway: Option<IpAddr>,
) -> Option<Pool> {
    let mut hosts = prefix.hosts();
    let lowest = match prefix {
        IpNet::V4(_) => hosts.next()?,
        // ipnet counts the subnet-router anycast address as a host's, host-local doesn't.
        IpNet::V6(_) => hosts.nth(1)?,
    };
    let highest = match prefix {
        IpNet::V4(prefix) if prefix.prefix_len() < 31 => {
            (u32::from(prefix.broadcast()) - 1).to_be_bytes().into()
        }
        prefix => prefix.broadcast(),
    };
    let first = Address::from_ip(first.unwrap_or(lowest))?;
    let last = Address::from_ip(last.unwrap_or(highest))?;
    Some(Pool {
        prefix,
        range: Some((first, last)),
        gateway: Address::from_ip(gateway.unwrap_or(lowest)),
        gateway_mac: None,
        exclude: Vec::new(),
        place: None,
    })
}
