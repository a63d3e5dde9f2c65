//! Lease stores and their pools.

use super::{At, Result, wrong};
use crate::{
    config::{
        LEASE_FILE, Origin, StoreConfig,
        raw::{self, Text},
    },
    engine::lease::Mode,
    error::hint,
    store::{host_local, source::Source},
};

pub(super) fn stores(
    at: At<'_>,
    raw: Option<Vec<raw::Store>>,
    flags: Vec<Source>,
) -> Result<Vec<StoreConfig>> {
    let read_only = |source| StoreConfig {
        source,
        reclaim: Mode::Observe,
        fence: false,
        pools: Vec::new(),
    };
    if !flags.is_empty() {
        let mut twice = { flags.iter().enumerate() }.filter(|(n, new)| flags[..*n].contains(new));
        if let Some((_, source)) = twice.next() {
            return Err(wrong(Origin::Flag, "--leases", source, "is there twice"));
        }
        return Ok(flags.into_iter().map(read_only).collect());
    }
    let Some(raw) = raw else {
        let default = Source::HostLocal(host_local::DIRECTORY.into());
        return Ok(vec![read_only(default)]);
    };
    let mut stores: Vec<StoreConfig> = Vec::new();
    for raw in raw {
        let kind = raw.kind.clone();
        let new = store(at, raw)?;
        if stores.iter().any(|store| store.source == new.source) {
            let right = format!("{} is there twice: say all of it in one entry", new.source);
            return Err(at.wrong("stores.kind", &kind, right));
        }
        stores.push(new);
    }
    Ok(stores)
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
        kind => {
            let hint = hint(kind, ["host-local", "file"]);
            let right = format!("unknown{hint}; known are host-local and file");
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
        && !writable
    {
        let right = "a lease file is only read: nothing can be fenced in it";
        return Err(at.wrong("stores.fence", fence, right));
    }
    Ok(StoreConfig {
        source,
        reclaim,
        fence: raw.fence.is_some_and(|fence| fence.value),
        pools: raw.pools.into_iter().map(|spec| spec.pool).collect(),
    })
}

fn mode(at: At<'_>, text: &Text, writable: bool) -> Result<Mode> {
    let mode = match text.value.as_str() {
        "observe" => Mode::Observe,
        "after-reboot" => Mode::AfterReboot,
        "continuous" => Mode::Continuous,
        mode => {
            let hint = hint(mode, ["observe", "after-reboot", "continuous"]);
            let right = format!("should be observe, after-reboot or continuous{hint}");
            return Err(at.wrong("stores.reclaim", text, right));
        }
    };
    if mode != Mode::Observe && !writable {
        let right = "a lease file is only read: it can only be observe";
        return Err(at.wrong("stores.reclaim", text, right));
    }
    Ok(mode)
}
