//! What people write about leases, pools, owners and exemptions, in lease files and in
//! the configuration: strict, and checked while it is read, so that an error has its line.

use std::{fmt, marker::PhantomData, net::IpAddr, str::FromStr, sync::Arc};

use ipam_common::{Address, Mac};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::engine::{
    lease::{Place, Pool},
    owner::{Exemption, MacPattern, Owner},
};

/// A lease of a lease file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseSpec {
    /// The address.
    #[serde(deserialize_with = "address")]
    pub address: Address,
    /// The holder's MAC.
    #[serde(default, deserialize_with = "optional_text")]
    pub mac: Option<Mac>,
    /// The host interface it belongs behind.
    #[serde(default, deserialize_with = "optional_name")]
    pub interface: Option<Arc<str>>,
    /// The holder's name.
    #[serde(default, deserialize_with = "optional_name")]
    pub holder: Option<Arc<str>>,
    /// When it was granted: RFC 3339. Shown, never believed.
    #[serde(default, deserialize_with = "optional_text")]
    pub granted: Option<jiff::Timestamp>,
}

/// A pool, of a lease file or of a store in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, try_from = "RawPool")]
#[schemars(with = "RawPool")]
pub struct PoolSpec {
    /// The pool.
    pub pool: Pool,
}

/// A pool as written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawPool {
    /// The prefix: `192.168.60.0/24`.
    #[serde(deserialize_with = "cidr")]
    #[schemars(with = "String")]
    cidr: IpNet,
    /// The bridge, bond or capture that the addresses live on.
    #[serde(default, deserialize_with = "optional_name")]
    #[schemars(with = "Option<String>")]
    segment: Option<Arc<str>>,
    /// The VLAN on it, 1 to 4094.
    #[serde(default)]
    #[schemars(range(min = 1, max = 4094))]
    vlan: Option<u16>,
    /// The gateway's address.
    #[serde(default, deserialize_with = "optional_address")]
    #[schemars(with = "Option<String>")]
    gateway: Option<Address>,
    /// The gateway's MAC.
    #[serde(default, deserialize_with = "optional_text")]
    #[schemars(with = "Option<String>")]
    gateway_mac: Option<Mac>,
    /// Addresses (`192.168.60.7`) and ranges (`192.168.60.2-192.168.60.9`) inside the prefix
    /// that are not handed out.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    exclude: Vec<Range>,
}

/// First and last address of a range, `a-b` or one address alone.
struct Range(Address, Address);

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Ok(prefix) = text.parse::<IpNet>() {
            return Err(de::Error::custom(format!(
                "`{text}`: addresses that are left out are written as a range: {}-{}",
                prefix.network(),
                prefix.broadcast()
            )));
        }
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let parse = |part: &str| -> Result<Address, D::Error> {
            parse_address(part.trim()).map_err(de::Error::custom)
        };
        let (first, last) = (parse(first)?, parse(last)?);
        if first.is_ipv4() != last.is_ipv4() {
            return Err(de::Error::custom(format!(
                "`{text}` is no range: one end is IPv4, the other is IPv6"
            )));
        }
        if first > last {
            return Err(de::Error::custom(format!(
                "`{text}` is no range: it ends before it begins"
            )));
        }
        Ok(Self(first, last))
    }
}

impl TryFrom<RawPool> for PoolSpec {
    type Error = String;

    fn try_from(raw: RawPool) -> Result<Self, String> {
        let prefix = raw.cidr;
        if let Some(vlan) = raw.vlan.filter(|vlan| !(1..=4094).contains(vlan)) {
            return Err(format!(
                "VLAN {vlan} does not exist; they go from 1 to 4094"
            ));
        }
        if raw.vlan.is_some() && raw.segment.is_none() {
            return Err(format!(
                "the pool {prefix} has a vlan without the segment it is on"
            ));
        }
        for address in raw
            .gateway
            .iter()
            .chain(raw.exclude.iter().flat_map(|r| [&r.0, &r.1]))
        {
            if !prefix.contains(&address.ip()) {
                return Err(format!("{address} is not in the pool {prefix}"));
            }
        }
        if let Some(mac) = raw.gateway_mac.filter(|_| raw.gateway.is_none()) {
            return Err(format!(
                "the pool {prefix} has the gateway_mac {mac} without the gateway whose it is"
            ));
        }
        let vlan = raw.vlan;
        let pool = Pool {
            prefix,
            range: None,
            gateway: raw.gateway,
            gateway_mac: raw.gateway_mac,
            exclude: raw
                .exclude
                .into_iter()
                .map(|range| (range.0, range.1))
                .collect(),
            place: raw.segment.map(|name| Place::Segment { name, vlan }),
        };
        if let Some(gateway) = pool.gateway.filter(|gateway| pool.is_edge(*gateway)) {
            return Err(format!(
                "the gateway {gateway} is the first or the last address of {prefix}, which no \
                 machine can have"
            ));
        }
        Ok(Self { pool })
    }
}

/// Pools, each once: of two that say the same prefix on one wire, one would count for nothing.
pub(crate) fn pools<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PoolSpec>, D::Error> {
    checked_list(deserializer, |before: &[PoolSpec], new| {
        let same = |old: &&PoolSpec| {
            old.pool.prefix == new.pool.prefix && old.pool.place == new.pool.place
        };
        match before.iter().find(same) {
            Some(_) => Err(format!(
                "the pool {} is there twice: say all of it in one entry",
                new.pool.prefix
            )),
            None => Ok(()),
        }
    })
}

/// Owners, none of which has a MAC of another: a MAC is one machine's.
pub(crate) fn owners<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<OwnerSpec>, D::Error> {
    checked_list(deserializer, |before: &[OwnerSpec], new| {
        for mac in &new.macs {
            let has = |old: &&OwnerSpec| old.macs.iter().any(|known| known.overlaps(mac));
            if let Some(old) = before.iter().find(has) {
                return Err(format!(
                    "{mac} of `{}`: `{}` has it already, and a MAC is one machine's",
                    new.name, old.name
                ));
            }
        }
        Ok(())
    })
}

/// Keys with their values. The values alone, in the order of the keys, are a struct for serde, too,
/// and no reader of the file would know which is which.
#[derive(Debug)]
pub(crate) struct Keyed<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Keyed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Keys<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys with values")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Keys(PhantomData)).map(Self)
    }
}

/// A list, each element checked against those before it while it is read, so that an error
/// has the element's line.
fn checked_list<'de, D, T, F>(deserializer: D, check: F) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
    F: Fn(&[T], &T) -> Result<(), String>,
{
    struct List<T, F>(F, PhantomData<T>);
    struct Next<'a, T, F>(&'a [T], &'a F);

    impl<'de, T, F> Visitor<'de> for List<T, F>
    where
        T: Deserialize<'de>,
        F: Fn(&[T], &T) -> Result<(), String>,
    {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(next) = seq.next_element_seed(Next(&list, &self.0))? {
                list.push(next);
            }
            Ok(list)
        }
    }

    impl<'de, T, F> DeserializeSeed<'de> for Next<'_, T, F>
    where
        T: Deserialize<'de>,
        F: Fn(&[T], &T) -> Result<(), String>,
    {
        type Value = T;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
            let Keyed(next) = Keyed::<T>::deserialize(deserializer)?;
            (self.1)(self.0, &next).map_err(de::Error::custom)?;
            Ok(next)
        }
    }

    deserializer.deserialize_seq(List(check, PhantomData))
}

/// The wire that all of `pools` name, if they agree.
pub fn common_place(pools: &[Pool]) -> Option<Place> {
    let first = pools.first()?.place.clone()?;
    pools
        .iter()
        .all(|pool| pool.place.as_ref() == Some(&first))
        .then_some(first)
}

/// Several MACs of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnerSpec {
    /// The machine.
    pub name: String,
    /// Its MACs, or what they begin with: `3c:ec:ef:*`.
    #[serde(deserialize_with = "some_macs")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub macs: Vec<MacPattern>,
}

impl From<OwnerSpec> for Owner {
    fn from(spec: OwnerSpec) -> Self {
        Self {
            name: spec.name.into(),
            macs: spec.macs,
        }
    }
}

/// MACs that contest nobody for some addresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExemptSpec {
    /// Prefixes: `192.168.60.1/32`; an address alone is that one.
    #[serde(deserialize_with = "prefixes")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub addresses: Vec<IpNet>,
    /// MACs, or what they begin with: `00:00:5e:00:01:*`; none: any.
    #[serde(default, deserialize_with = "texts")]
    #[schemars(with = "Vec<String>")]
    pub macs: Vec<MacPattern>,
    /// Why.
    pub reason: String,
}

impl From<ExemptSpec> for Exemption {
    fn from(spec: ExemptSpec) -> Self {
        Self {
            addresses: spec.addresses,
            macs: spec.macs,
            reason: spec.reason.into(),
        }
    }
}

/// An address that a machine can have, or what is wrong with the text.
pub(crate) fn parse_address(text: &str) -> Result<Address, String> {
    let ip: IpAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is no IP address"))?;
    Address::from_ip(ip).ok_or_else(|| format!("no machine can have the address {ip}"))
}

/// A prefix of addresses as they are on the wire, without host bits, or what is wrong with the
/// text.
fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let prefix: IpNet = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => format!("the prefix length is missing, as in {ip}/24"),
        Ok(IpAddr::V6(ip)) => format!("the prefix length is missing, as in {ip}/64"),
        Err(_) => "not a prefix such as 10.0.0.0/24".to_owned(),
    })?;
    if let IpNet::V6(mapped) = prefix
        && let (Some(ip), Some(length)) = (
            mapped.addr().to_ipv4_mapped(),
            mapped.prefix_len().checked_sub(96),
        )
    {
        return Err(format!("IPv4 in IPv6's form: write {ip}/{length}"));
    }
    if prefix != prefix.trunc() {
        return Err(format!(
            "has bits beyond its length; did you mean {}?",
            prefix.trunc()
        ));
    }
    Ok(prefix)
}

/// The same, but an address alone is that one.
pub(crate) fn parse_addresses(text: &str) -> Result<IpNet, String> {
    match text.parse::<IpAddr>() {
        Ok(ip) if ip != ip.to_canonical() => {
            Err(format!("IPv4 in IPv6's form: write {}", ip.to_canonical()))
        }
        Ok(ip) => Ok(ip.into()),
        Err(_) if text.contains('/') => parse_prefix(text),
        Err(_) => Err("not an address or prefix such as 10.0.0.5 or 10.0.0.0/24".to_owned()),
    }
}

fn cidr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_prefix(&text).map_err(|wrong| de::Error::custom(format!("`{text}`: {wrong}")))
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn optional_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Address>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_address(&text))
        .transpose()
        .map_err(de::Error::custom)
}

fn parse<T: FromStr<Err: std::fmt::Display>, E: de::Error>(text: &str) -> Result<T, E> {
    text.parse()
        .map_err(|error| E::custom(format!("`{text}`: {error}")))
}

/// A value that may be missing, null or, as in a CSV column, empty.
fn optional_text<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    text.map(|text| parse(&text)).transpose()
}

fn optional_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    Ok(text.map(Arc::from))
}

fn texts<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse(text)).collect()
}

fn some_macs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MacPattern>, D::Error> {
    let macs = texts(deserializer)?;
    if macs.is_empty() {
        let what = "an owner that names no MAC says nothing: give `macs`, or take the entry out";
        return Err(de::Error::custom(what));
    }
    Ok(macs)
}

fn prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.is_empty() {
        let what = "an exemption that names no address exempts nobody: give `addresses`, or take \
                    the entry out";
        return Err(de::Error::custom(what));
    }
    let parse = |text: &String| {
        parse_addresses(text).map_err(|wrong| de::Error::custom(format!("`{text}`: {wrong}")))
    };
    texts.iter().map(parse).collect()
}
