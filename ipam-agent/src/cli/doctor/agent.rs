//! What the agent was told, and whether it can work with it.

use std::{fs, os::unix::net::UnixStream, path::Path};

use super::{fail, ok, warn};
use crate::{
    config::{Config, Cri},
    error::in_full,
    report::document::{Check, CheckStatus},
    state,
    store::source::Source,
};

/// Where container runtimes listen: RKE2 and K3s, containerd, CRI-O, cri-dockerd.
const RUNTIME_SOCKETS: [&str; 4] = [
    "/run/k3s/containerd/containerd.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
];

pub(super) fn configuration(config: &Config) -> Check {
    match &config.file {
        Some(file) => ok("configuration", file.display().to_string()),
        None => ok("configuration", "no file, all default"),
    }
}

/// All stores in one; the worst of them counts.
pub(super) fn stores(config: &Config) -> Check {
    let mut all = ok("stores", "");
    for store in &config.stores {
        let found = match &store.source {
            Source::HostLocal(directory) => networks(directory),
            Source::File(file) => lease_file(file),
        };
        if !all.detail.is_empty() {
            all.detail += "; ";
        }
        all.detail += &found.detail;
        if found.status > all.status {
            (all.status, all.mend) = (found.status, found.mend);
        }
    }
    if config.stores.is_empty() {
        let mend = "name one in `stores`, or only conflicts without leases are found";
        return warn("stores", "none is configured", mend);
    }
    all
}

fn networks(directory: &Path) -> Check {
    let place = directory.display();
    match fs::read_dir(directory) {
        Ok(entries) => {
            let networks = entries.filter_map(|entry| entry.ok());
            let networks = networks.filter(|entry| entry.path().is_dir()).count();
            ok("", format!("host-local in {place}: {networks} networks"))
        }
        Err(error) => {
            let mend = "if host-local keeps its leases elsewhere, say so with `dir` in `stores`; \
                        in a container, mount that directory";
            warn("", format!("host-local in {place}: {error}"), mend)
        }
    }
}

fn lease_file(file: &Path) -> Check {
    let place = file.display();
    match fs::File::open(file) {
        Ok(_) => ok("", format!("lease file {place}")),
        Err(error) => {
            let mend = "write the file, or take it out of `stores`";
            warn("", format!("lease file {place}: {error}"), mend)
        }
    }
}

pub(super) fn container_runtime(config: &Config) -> Check {
    const NAME: &str = "container runtime";
    match &config.holders.cri {
        Cri::Off => ok(NAME, "off: nobody is asked"),
        Cri::Socket(socket) => match UnixStream::connect(socket) {
            Ok(_) => ok(NAME, socket.display().to_string()),
            Err(error) => {
                let detail = format!("{}: {error}", socket.display());
                let mend = "mend holders.cri, or start it: nothing is released until it answers";
                fail(NAME, detail, mend)
            }
        },
        Cri::Auto => {
            let sockets = RUNTIME_SOCKETS.into_iter();
            let found: Vec<_> = sockets
                .filter(|path| UnixStream::connect(path).is_ok())
                .collect();
            if found.is_empty() {
                let mend = "if this host has none, say `holders: { cri: off }`: \
                            nothing is released while it is missing";
                return warn(NAME, "none answers", mend);
            }
            ok(NAME, found.join(", "))
        }
    }
}

pub(super) fn state(config: &Config) -> Check {
    const NAME: &str = "state";
    match state::persistence(&config.state_dir) {
        Ok(()) => ok(NAME, config.state_dir.display().to_string()),
        Err(error) => {
            let mend = "give a state_dir that survives: nothing is released until then";
            warn(NAME, in_full(&error), mend)
        }
    }
}

pub(super) fn pause(config: &Config) -> Check {
    const NAME: &str = "unattended releases";
    match state::Paused::read(&config.state_dir) {
        Ok(None) => ok(NAME, "not paused"),
        Ok(Some(paused)) => warn(
            NAME,
            paused.sentence(),
            "`ipam-agent reclaim resume`, once the reason is gone",
        ),
        Err(error) => warn(
            NAME,
            format!("{}: {error}", config.state_dir.display()),
            "run this as root, to see whether they are paused",
        ),
    }
}

pub(super) fn floors(config: &Config) -> Check {
    const NAME: &str = "floors";
    match config.reclaim.lab {
        false => ok(NAME, "in place"),
        true => Check {
            status: CheckStatus::Warn,
            ..fail(
                NAME,
                "reclaim.lab is true: leases may be released far too early",
                "take it out, unless this is a laboratory",
            )
        },
    }
}

pub(super) fn daemon(config: &Config) -> Check {
    const NAME: &str = "daemon";
    match UnixStream::connect(&config.socket) {
        Ok(_) => ok(NAME, format!("answers on {}", config.socket.display())),
        Err(error) => {
            let detail = format!("{}: {error}", config.socket.display());
            warn(NAME, detail, "start it with `ipam-agent run`")
        }
    }
}
