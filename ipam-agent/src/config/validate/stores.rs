//! Lease stores and their pools.

use ipam_common::Address;
use ipnet::IpNet;

use super::{At, Result, list, mac, parsed, prefix};
use crate::{
    config::{
        StoreConfig,
        raw::{self, Text},
    },
    engine::lease::{Mode, Place, Pool},
    store::{file::LEASE_FILE, host_local, source::Source},
};

pub(super) fn stores(
    at: At<'_>,
    raw: Option<Vec<raw::Store>>,
    flags: Vec<Source>,
) -> Result<Vec<StoreConfig>> {
    let read_only = |source| StoreConfig {
        source,
        reclaim: Mode::Observe,
        pools: Vec::new(),
    };
    if !flags.is_empty() {
        return Ok(flags.into_iter().map(read_only).collect());
    }
    let Some(raw) = raw else {
        let default = Source::HostLocal(host_local::DIRECTORY.into());
        return Ok(vec![read_only(default)]);
    };
    raw.into_iter().map(|raw| store(at, raw)).collect()
}

fn store(at: At<'_>, raw: raw::Store) -> Result<StoreConfig> {
    let place = |text: Option<Text>, key, default: &str| match text {
        Some(text) if text.value.starts_with('/') => Ok(text.value.into()),
        Some(text) => Err(at.wrong(key, &text, "should be an absolute path")),
        None => Ok(default.into()),
    };
    let source = match raw.kind.value.as_str() {
        "host-local" => {
            if let Some(path) = &raw.path {
                return Err(at.wrong("stores.path", path, "of host-local it is called `dir`"));
            }
            let dir = place(raw.dir, "stores.dir", host_local::DIRECTORY)?;
            Source::HostLocal(dir)
        }
        "file" => {
            if let Some(dir) = &raw.dir {
                return Err(at.wrong("stores.dir", dir, "of a file it is called `path`"));
            }
            Source::File(place(raw.path, "stores.path", LEASE_FILE)?)
        }
        _ => {
            let right = "unknown; known are host-local and file";
            return Err(at.wrong("stores.kind", &raw.kind, right));
        }
    };
    let writable = matches!(source, Source::HostLocal(_));
    let reclaim = match &raw.reclaim {
        Some(text) => mode(at, text, writable)?,
        None => Mode::Observe,
    };
    if let Some(fence) = &raw.fence
        && fence.value
    {
        let right = "this version fences nothing yet; leave it false";
        return Err(at.wrong("stores.fence", fence, right));
    }
    Ok(StoreConfig {
        source,
        reclaim,
        pools: raw
            .pools
            .into_iter()
            .map(|raw| pool(at, raw))
            .collect::<Result<_>>()?,
    })
}

fn mode(at: At<'_>, text: &Text, writable: bool) -> Result<Mode> {
    let mode = match text.value.as_str() {
        "observe" => Mode::Observe,
        "after-reboot" => Mode::AfterReboot,
        "continuous" => Mode::Continuous,
        _ => {
            let right = "should be observe, after-reboot or continuous";
            return Err(at.wrong("stores.reclaim", text, right));
        }
    };
    if mode != Mode::Observe && !writable {
        let right = "a lease file is only read: it can only be observe";
        return Err(at.wrong("stores.reclaim", text, right));
    }
    Ok(mode)
}

fn pool(at: At<'_>, raw: raw::Pool) -> Result<Pool> {
    let cidr = prefix(at, "pools.cidr", &raw.cidr)?;
    let vlan = match &raw.vlan {
        Some(vlan) => match u16::try_from(vlan.value) {
            // IEEE 802.1Q table 9-2: 0 is no VLAN, 4095 is reserved.
            Ok(number @ 1..=4094) => Some(number),
            _ => return Err(at.wrong("pools.vlan", vlan, "should be 1 to 4094")),
        },
        None => None,
    };
    let place = match (raw.segment, &raw.vlan) {
        (Some(name), _) => Some(Place::Segment {
            name: name.value.into(),
            vlan,
        }),
        (None, Some(written)) => {
            let right = "a VLAN of which segment? `segment` is missing";
            return Err(at.wrong("pools.vlan", written, right));
        }
        (None, None) => None,
    };
    let gateway = match &raw.gateway {
        Some(text) => Some(inside(at, "pools.gateway", text, &text.value, cidr)?),
        None => None,
    };
    Ok(Pool {
        prefix: cidr,
        range: None,
        gateway,
        gateway_mac: match &raw.gateway_mac {
            Some(text) => Some(mac(at, "pools.gateway_mac", text)?),
            None => None,
        },
        exclude: list(at, "pools.exclude", &raw.exclude, |at, key, text| {
            range(at, key, text, cidr)
        })?,
        place,
    })
}

/// `FIRST-LAST` or one address, inside `cidr`.
fn range(at: At<'_>, key: &str, text: &Text, cidr: IpNet) -> Result<(Address, Address)> {
    let (first, last) = match text.value.split_once('-') {
        Some((first, last)) => (first.trim(), last.trim()),
        None => (text.value.as_str(), text.value.as_str()),
    };
    let (first, last) = (
        inside(at, key, text, first, cidr)?,
        inside(at, key, text, last, cidr)?,
    );
    if first > last {
        return Err(at.wrong(key, text, "ends before it begins"));
    }
    Ok((first, last))
}

fn inside(at: At<'_>, key: &str, text: &Text, part: &str, cidr: IpNet) -> Result<Address> {
    let one = Text::new(part.to_owned(), text.referenced, text.defined);
    let address: std::net::IpAddr = parsed(at, key, &one, "an address of the pool")?;
    match Address::from_ip(address) {
        Some(claimable) if cidr.contains(&address) => Ok(claimable),
        _ => Err(at.wrong(key, &one, format_args!("not an address inside {cidr}"))),
    }
}
