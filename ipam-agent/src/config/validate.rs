//! From what was written to what is meant: parses, fills in defaults, and refuses what is
//! out of range or contradicts itself, saying where and what would be right.

mod conflicts;
mod duration;
mod listen;
mod reclaim;
mod stores;

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

use globset::{Glob, GlobSet, GlobSetBuilder};
use ipnet::IpNet;
use serde_saphyr::Spanned;

use super::{
    Config, ConfigError, Cri, Holders, Interfaces, Observe, Origin, Overrides, SOCKET, StoreConfig,
    raw::{self, Text},
};
use crate::{
    engine::{lease::Mode, owner::Owners},
    store::spec::parse_addresses,
    text,
};

type Result<T> = std::result::Result<T, ConfigError>;

const INCLUDE: [&str; 4] = ["veth*", "cali*", "*-bo", "bond*"];
const STATE_DIR: &str = "/var/lib/ipam-agent";
/// `sun_path` of `sockaddr_un`, with its closing NUL (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

pub(super) fn config(
    file: Option<&Path>,
    raw: raw::Config,
    overrides: Overrides,
) -> Result<Config> {
    let at = At { file };
    let stores = stores::stores(at, raw.stores, overrides.leases)?;
    let observe = observe(at, raw.observe, &stores)?;
    let holders = holders(at, raw.holders, &stores)?;
    Ok(Config {
        file: file.map(Path::to_owned),
        interfaces: interfaces(at, raw.interfaces, overrides.interfaces)?,
        owners: Owners {
            owners: raw.owners.into_iter().map(Into::into).collect(),
            exempt: raw.exempt.into_iter().map(Into::into).collect(),
            ..Owners::default()
        },
        keep: keep(at, &raw.keep)?,
        windows: conflicts::conflicts(at, &raw.conflicts)?,
        reclaim: reclaim::reclaim(at, raw.reclaim, &holders)?,
        holders,
        observe,
        state_dir: path(
            at,
            "state_dir",
            raw.state_dir,
            overrides.state_dir,
            STATE_DIR,
        )?,
        socket: socket(at, raw.socket, overrides.socket)?,
        listen: listen::listen(at, raw.listen, &overrides.listen)?,
        metrics: listen::metrics(at, &raw.metrics)?,
        stores,
    })
}

/// Where values come from, to say so in errors.
#[derive(Clone, Copy)]
struct At<'a> {
    file: Option<&'a Path>,
}

impl At<'_> {
    fn origin<T>(self, value: &Spanned<T>) -> Origin {
        self.file.map_or(Origin::Flag, |path| Origin::File {
            path: path.to_owned(),
            line: value.referenced.line(),
        })
    }

    /// The error for a value of the file.
    fn wrong<T: Display>(
        self,
        key: impl Into<String>,
        value: &Spanned<T>,
        right: impl Display,
    ) -> ConfigError {
        wrong(self.origin(value), key, &value.value, right)
    }
}

fn wrong(
    origin: Origin,
    key: impl Into<String>,
    value: impl Display,
    right: impl Display,
) -> ConfigError {
    ConfigError::Value {
        origin,
        key: key.into(),
        value: text::quote(&value.to_string()),
        right: right.to_string(),
    }
}

fn keep(at: At<'_>, texts: &[Text]) -> Result<Vec<IpNet>> {
    let prefixes = texts
        .iter()
        .map(|text| parse_addresses(&text.value).map_err(|right| at.wrong("keep", text, right)));
    prefixes.collect()
}

fn interfaces(at: At<'_>, raw: raw::Interfaces, flags: Vec<String>) -> Result<Interfaces> {
    let written = |texts: Vec<Text>| -> Vec<(Origin, String)> {
        let texts = texts.into_iter();
        texts.map(|text| (at.origin(&text), text.value)).collect()
    };
    let said = |texts: Vec<String>| texts.into_iter().map(|text| (Origin::Flag, text)).collect();
    let include = match raw.include {
        _ if !flags.is_empty() => said(flags),
        Some(include) => written(include),
        None => said(INCLUDE.map(str::to_owned).to_vec()),
    };
    let exclude = written(raw.exclude.unwrap_or_default());
    Ok(Interfaces {
        included: globs("interfaces.include", &include)?,
        excluded: globs("interfaces.exclude", &exclude)?,
        include: include.into_iter().map(|(_, text)| text).collect(),
        exclude: exclude.into_iter().map(|(_, text)| text).collect(),
    })
}

fn globs(key: &str, patterns: &[(Origin, String)]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for (origin, pattern) in patterns {
        let glob = Glob::new(pattern).map_err(|error| {
            let right = format!("not a name pattern such as veth* ({})", error.kind());
            wrong(origin.clone(), key, pattern, right)
        })?;
        set.add(glob);
    }
    set.build().map_err(|error| {
        let origin = patterns
            .first()
            .map_or(Origin::Flag, |(origin, _)| origin.clone());
        wrong(origin, key, "all patterns together", error)
    })
}

fn holders(at: At<'_>, raw: raw::Holders, stores: &[StoreConfig]) -> Result<Holders> {
    let cri = match &raw.cri {
        None => Cri::Auto,
        Some(text) => match text.value.as_str() {
            "auto" => Cri::Auto,
            "off" => Cri::Off,
            value => match value.strip_prefix("unix://") {
                Some(path) if path.starts_with('/') => Cri::Socket(path.into()),
                _ => {
                    let right = "should be auto, off, or unix:///path/of/the/socket";
                    return Err(at.wrong("holders.cri", text, right));
                }
            },
        },
    };
    let netns = raw.netns.as_ref().is_none_or(|netns| netns.value);
    if let Some(written) = &raw.netns
        && !netns
        && cri == Cri::Off
        && releasing(stores)
    {
        let right = "with cri: off nobody is left to ask who holds an address, \
                     and a store's `reclaim` is not observe";
        return Err(at.wrong("holders.netns", written, right));
    }
    Ok(Holders { cri, netns })
}

fn observe(at: At<'_>, raw: raw::Observe, stores: &[StoreConfig]) -> Result<Observe> {
    if let Some(data_plane) = &raw.data_plane
        && !data_plane.value
        && releasing(stores)
    {
        let right = "a pod that talks without ARP would look silent: \
                     releasing needs true, or `reclaim: observe` on every store";
        return Err(at.wrong("observe.data_plane", data_plane, right));
    }
    for name in &raw.confirm {
        let vlan = name.value.rsplit_once('.').map(|(_, vlan)| vlan);
        let vlan = vlan.filter(|vlan| vlan.bytes().all(|byte| byte.is_ascii_digit()));
        let there_is = |vlan: &str| {
            vlan.parse()
                .is_ok_and(|vlan: u16| (1..=4094).contains(&vlan))
        };
        if vlan.is_some_and(|vlan| !there_is(vlan)) {
            let right = "no such VLAN: they go from 1 to 4094";
            return Err(at.wrong("observe.confirm", name, right));
        }
    }
    Ok(Observe {
        data_plane: raw.data_plane.is_none_or(|data_plane| data_plane.value),
        confirm: raw.confirm.into_iter().map(|name| name.value).collect(),
    })
}

/// Whether the daemon releases anything unasked.
fn releasing(stores: &[StoreConfig]) -> bool {
    stores.iter().any(|store| store.reclaim != Mode::Observe)
}

fn path(
    at: At<'_>,
    key: &str,
    raw: Option<Text>,
    flag: Option<PathBuf>,
    default: &str,
) -> Result<PathBuf> {
    if let Some(path) = flag {
        let absolute = std::path::absolute(&path);
        return absolute.map_err(|error| wrong(Origin::Flag, key, path.display(), error));
    }
    match raw {
        Some(text) if text.value.starts_with('/') => Ok(text.value.into()),
        Some(text) => Err(at.wrong(key, &text, "should be an absolute path")),
        None => Ok(default.into()),
    }
}

fn socket(at: At<'_>, raw: Option<Text>, flag: Option<PathBuf>) -> Result<PathBuf> {
    let origin = match &raw {
        Some(text) if flag.is_none() => at.origin(text),
        _ => Origin::Flag,
    };
    let socket = path(at, "socket", raw, flag, SOCKET)?;
    if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
        let right = format!("a socket's path has at most {LONGEST_SOCKET_PATH} bytes");
        return Err(wrong(origin, "socket", socket.display(), right));
    }
    Ok(socket)
}
