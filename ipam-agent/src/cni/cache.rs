//! libcni's cached results: what an attachment was given, and for which pod
//! (containernetworking/cni, libcni/api.go, `cachedInfo`).

use std::{net::IpAddr, str::FromStr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use ipam_common::{Address, Mac};
use ipnet::IpNet;
use serde::Deserialize;

use super::network::{self, Network, NodeSubnets};
use crate::engine::lease::Place;

/// The longest name that Kubernetes gives to anything, in bytes (RFC 1123 subdomain).
const LONGEST_NAME: usize = 253;

/// One attachment of one container to one network.
#[derive(Debug)]
pub struct Attachment {
    /// The network.
    pub network_name: Arc<str>,
    /// The container.
    pub container_id: Arc<str>,
    /// The interface inside it.
    pub interface: Arc<str>,
    /// `namespace/name` of its pod.
    pub pod: Option<Arc<str>>,
    /// The host's end of its link.
    pub host_interface: Option<Arc<str>>,
    /// What the configuration that was used says of the network.
    pub network: Option<Arc<Network>>,
    /// Its addresses, each with the MAC of the interface that has it.
    addresses: Vec<(Address, Option<Mac>)>,
}

/// A file in the cache isn't a cached result.
#[derive(Debug, thiserror::Error)]
pub enum ParseCacheError {
    /// Not JSON, or not of its shape.
    #[error("not a cached result: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of another kind.
    #[error("kind is not cniCacheV1")]
    Kind,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCache {
    kind: String,
    container_id: String,
    #[serde(default)]
    config: String,
    if_name: String,
    network_name: String,
    cni_args: Option<Vec<(String, String)>>,
    result: Option<RawResult>,
}

#[derive(Deserialize)]
struct RawResult {
    interfaces: Option<Vec<RawInterface>>,
    ips: Option<Vec<RawIp>>,
    /// Results of version 0.2.0 and before.
    ip4: Option<RawOldIp>,
    ip6: Option<RawOldIp>,
}

#[derive(Deserialize)]
struct RawInterface {
    name: Option<String>,
    mac: Option<String>,
    sandbox: Option<String>,
}

#[derive(Deserialize)]
struct RawIp {
    address: Option<String>,
    interface: Option<i64>,
}

#[derive(Deserialize)]
struct RawOldIp {
    ip: Option<String>,
}

impl RawInterface {
    fn is_in_container(&self) -> bool {
        self.sandbox
            .as_ref()
            .is_some_and(|sandbox| !sandbox.is_empty())
    }
}

impl Attachment {
    /// Reads a cached result.
    pub fn parse(content: &[u8], node: &NodeSubnets) -> Result<Self, ParseCacheError> {
        let raw: RawCache = serde_json::from_slice(content)?;
        if raw.kind != "cniCacheV1" {
            return Err(ParseCacheError::Kind);
        }
        let network = configured(&raw, node);
        let argument = |key: &str| {
            let mut arguments = raw.cni_args.iter().flatten();
            let value = arguments
                .find(|(name, _)| name == key)
                .map(|(_, value)| value);
            // What is longer is nobody's name, and would stand in every document.
            value.filter(|value| (1..=LONGEST_NAME).contains(&value.len()))
        };
        let pod = argument("K8S_POD_NAMESPACE")
            .zip(argument("K8S_POD_NAME"))
            .map(|(namespace, name)| format!("{namespace}/{name}").into());
        let result = raw.result.as_ref();
        Ok(Self {
            pod,
            host_interface: result.and_then(|result| host_interface(result, network.as_deref())),
            addresses: result.map(addresses).unwrap_or_default(),
            network,
            network_name: raw.network_name.into(),
            container_id: raw.container_id.into(),
            interface: raw.if_name.into(),
        })
    }

    /// Whether it was given this address.
    pub fn carries(&self, address: Address) -> bool {
        self.addresses.iter().any(|(given, _)| *given == address)
    }

    /// The MAC of the interface that was given this address.
    pub fn mac(&self, address: Address) -> Option<Mac> {
        self.addresses
            .iter()
            .find(|(given, _)| *given == address)?
            .1
    }
}

fn configured(raw: &RawCache, node: &NodeSubnets) -> Option<Arc<Network>> {
    let config = BASE64_STANDARD.decode(&raw.config).ok()?;
    let networks = network::parse(&config, node).ok()?;
    let network = networks
        .into_iter()
        .find(|network| *network.name == raw.network_name);
    network.map(Arc::new)
}

fn addresses(result: &RawResult) -> Vec<(Address, Option<Mac>)> {
    let interfaces = result.interfaces.as_deref().unwrap_or_default();
    let mac = |index: Option<i64>| -> Option<Mac> {
        let interface = match index {
            Some(index) => interfaces
                .get(usize::try_from(index).ok()?)
                .filter(|interface| interface.is_in_container()),
            None => only(
                interfaces
                    .iter()
                    .filter(|interface| interface.is_in_container()),
            ),
        };
        interface?.mac.as_deref()?.parse().ok()
    };
    let of = |text: &Option<String>| Address::from_ip(ip(text.as_deref()?)?);
    let current = result.ips.iter().flatten();
    let current = current.filter_map(|given| Some((of(&given.address)?, mac(given.interface))));
    let old = [&result.ip4, &result.ip6].into_iter().flatten();
    let old = old.filter_map(|given| Some((of(&given.ip)?, None)));
    current.chain(old).collect()
}

/// An address with or without its prefix length.
fn ip(text: &str) -> Option<IpAddr> {
    IpNet::from_str(text)
        .map(|prefix| prefix.addr())
        .or_else(|_| text.parse())
        .ok()
}

/// The one interface on the host's side that isn't the bridge.
fn host_interface(result: &RawResult, network: Option<&Network>) -> Option<Arc<str>> {
    let bridge = match network.map(|network| &network.place) {
        Some(Place::Bridge { bridge, .. }) => &**bridge,
        _ => "",
    };
    let interfaces = result.interfaces.iter().flatten();
    let outside = interfaces.filter(|interface| !interface.is_in_container());
    let names = outside.filter_map(|interface| interface.name.as_deref());
    let is_link = |name: &&str| (1..=LONGEST_NAME).contains(&name.len()) && **name != *bridge;
    only(names.filter(is_link)).map(Arc::from)
}

/// The item, if there is exactly one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let item = items.next()?;
    items.next().is_none().then_some(item)
}
