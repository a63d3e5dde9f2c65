//! The real CNI plugins, in every version that Debian has: the machine's own, an old one and
//! the newest.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Where Debian's containernetworking-plugins has the plugins.
pub const MACHINES: &str = "/usr/lib/cni";
/// Other suites' that `cargo xtask setup` unpacks, and the specification that they know.
const OTHERS: [(&str, &str); 2] = [("bullseye", "0.4.0"), ("sid", "1.0.0")];

/// The plugins of one package.
#[derive(Clone, Debug)]
pub struct Plugins {
    /// The suite of Debian.
    pub suite: &'static str,
    /// The directory with them.
    pub dir: PathBuf,
    /// The newest version of CNI's specification that they and libcni of their time speak.
    pub version: &'static str,
}

impl Default for Plugins {
    /// The machine's own.
    fn default() -> Self {
        Self {
            suite: "this machine's",
            dir: MACHINES.into(),
            version: "1.0.0",
        }
    }
}

impl Plugins {
    /// Those that are here; what is missing is a skip.
    pub fn all() -> Vec<Self> {
        let others = OTHERS.into_iter().map(|(suite, version)| Self {
            suite,
            dir: cache().join(format!("cni-plugins-{suite}/usr/lib/cni")),
            version,
        });
        let mut all: Vec<Self> = [Self::default()].into_iter().chain(others).collect();
        all.retain(|plugins| {
            let there = plugins.has("host-local") && plugins.has("bridge");
            if !there {
                let suite = plugins.suite;
                crate::skip::skip(&format!("no {suite} plugins: run `cargo xtask setup`"));
            }
            there
        });
        all
    }

    /// Whether there is one of this name.
    pub fn has(&self, plugin: &str) -> bool {
        self.dir.join(plugin).exists()
    }
}

fn cache() -> PathBuf {
    let home = || env::home_dir().map(|home| home.join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty());
    let cache = cache.map(PathBuf::from).or_else(home);
    cache
        .unwrap_or_else(|| Path::new("/").to_owned())
        .join("ipam-agent")
}
