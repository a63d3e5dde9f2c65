//! What this host offers.

use std::{fs, path::Path};

use super::{fail, ok, warn};
use crate::{
    cni::settled_dead_entries,
    config::{Config, Cri},
    report::document::Check,
};

/// The eBPF program needs it.
const OLDEST: (u32, u32) = (5, 10);
/// TCX came with it (kernel commit e420bed02507).
const TCX: (u32, u32) = (6, 6);
/// Name and number (linux/capability.h).
const NEEDED: [(&str, u32); 4] = [
    ("net_admin", 12),
    ("net_raw", 13),
    ("perfmon", 38),
    ("bpf", 39),
];
const SYS_ADMIN: u32 = 21;
/// So many interfaces are named.
const NAMED: usize = 12;

pub(super) fn kernel(_: &Config) -> Check {
    const NAME: &str = "kernel";
    let (major, minor) = OLDEST;
    match release() {
        (release, Some(version)) if version >= OLDEST => ok(NAME, release),
        (release, Some(_)) => {
            let mend = format!("it takes Linux {major}.{minor} or newer");
            fail(NAME, release, &mend)
        }
        (release, None) => {
            let mend = format!("see that it is Linux {major}.{minor} or newer");
            warn(NAME, format!("a release I can't read: {release}"), &mend)
        }
    }
}

pub(super) fn btf(_: &Config) -> Check {
    const NAME: &str = "BTF";
    match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => ok(NAME, "/sys/kernel/btf/vmlinux"),
        false => ok(NAME, "none, and none is needed"),
    }
}

pub(super) fn capabilities(_: &Config) -> Check {
    const NAME: &str = "capabilities";
    let status = match fs::read_to_string("/proc/thread-self/status") {
        Ok(status) => status,
        Err(error) => {
            let detail = format!("cannot read /proc/thread-self/status: {error}");
            return warn(NAME, detail, "mount /proc");
        }
    };
    let missing = missing_capabilities(&status);
    if missing.is_empty() {
        return ok(NAME, "bpf, perfmon, net_admin, net_raw");
    }
    let mend = "run it as root, or with exactly these: \
                the daemon does not start without";
    fail(NAME, format!("missing: {}", missing.join(", ")), mend)
}

pub(super) fn attach_mode(_: &Config) -> Check {
    const NAME: &str = "attach mode";
    match release() {
        (_, Some(version)) if version >= TCX => ok(NAME, "TCX"),
        (_, Some(_)) => ok(NAME, "clsact, as before Linux 6.6"),
        (_, None) => ok(NAME, "TCX, else clsact"),
    }
}

pub(super) fn interfaces(config: &Config) -> Check {
    const NAME: &str = "interfaces";
    let links = match nix::net::if_::if_nameindex() {
        Ok(links) => links,
        Err(error) => {
            let detail = format!("cannot list the interfaces: {error}");
            return fail(NAME, detail, "is this a namespace without a network?");
        }
    };
    let names = links
        .iter()
        .map(|link| link.name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| config.interfaces.wants(name)).collect();
    names.sort();
    if names.is_empty() {
        let detail = format!("none fits {}", config.interfaces);
        let mend = "name yours in interfaces.include, unless pods are still to come";
        return warn(NAME, detail, mend);
    }
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let mut detail = names.join(", ");
    if more > 0 {
        detail += &format!(" and {more} more");
    }
    ok(NAME, detail)
}

/// What a power cut left of CNI's caches.
pub(super) fn cni_caches(config: &Config) -> Check {
    const NAME: &str = "CNI caches";
    let dead = settled_dead_entries();
    if dead.is_empty() {
        return ok(NAME, "every entry can be read");
    }
    let named = dead.iter().take(NAMED);
    let named = named.map(|dead| format!("{} ({})", dead.path.display(), dead.damage.name()));
    let mut detail = format!("can't be read: {}", named.collect::<Vec<_>>().join(", "));
    if dead.len() > NAMED {
        detail += &format!(" and {} more", dead.len() - NAMED);
    }
    let mend = match config.reclaim.clean_caches {
        // Nobody proves a container gone by its id then.
        _ if config.holders.cri == Cri::Off => {
            "with `holders.cri: off` the daemon removes none: remove each whose container is gone \
             by hand; while it is there its DEL fails, or frees nothing"
        }
        true => {
            "the daemon removes each once its container is proven gone: `ipam-agent reclaim \
             plan` says when, and what keeps it"
        }
        false => {
            "set `reclaim.clean_caches: true`, or remove each whose container `crictl pods` no \
             longer lists: while it is there its DEL fails, or frees nothing"
        }
    };
    warn(NAME, detail, mend)
}

/// The kernel's release, and its version in it.
fn release() -> (String, Option<(u32, u32)>) {
    let name = nix::sys::utsname::uname().ok();
    let release = name.map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let version = version(&release);
    (release, version)
}

/// Major and minor number of a release such as `6.1.0-37-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What is needed and not in effect, by a `/proc/PID/status`.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let effective = effective.unwrap_or_default();
    let has = |number: u32| effective & (1 << number) != 0;
    let needed = NEEDED.into_iter();
    // CAP_BPF and CAP_PERFMON were split off CAP_SYS_ADMIN, which still includes them
    // (capabilities(7)).
    let missing = needed.filter(|&(_, number)| !(has(number) || number >= 38 && has(SYS_ADMIN)));
    missing.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases() {
        assert_eq!(version("6.1.0-37-amd64"), Some((6, 1)));
        assert_eq!(version("5.14.21-150500.55.68-default"), Some((5, 14)));
        assert_eq!(version("6.18"), Some((6, 18)));
        assert_eq!(version("gentoo"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let missing =
            |bits: u64| missing_capabilities(&format!("Name:\tx\nCapEff:\t{bits:016x}\n"));
        assert!(missing(u64::MAX).is_empty());
        assert_eq!(missing(1 << 12 | 1 << 13), ["perfmon", "bpf"]);
        assert_eq!(missing(1 << 21), ["net_admin", "net_raw"]);
        assert_eq!(missing(0).len(), 4);
    }
}
