//! SIGHUP: the configuration is read again, and counts as a whole or not at all.

use super::Daemon;
use crate::{
    config::{Config, ConfigError},
    driver::{clock, settings, stores::Stores},
    engine::input::Input,
    error::in_full,
};

/// The configuration that counts, and what became of the last that didn't.
pub(super) struct Reloading {
    config: Config,
    problem: Option<String>,
    /// How many readings of the stores are to come back until all leases are known as the
    /// configuration has them.
    readings: u32,
}

impl Reloading {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            config: config.clone(),
            problem: None,
            readings: 0,
        }
    }

    /// Why the daemon runs an older configuration than the file's.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

impl Daemon {
    pub(super) fn reload(&mut self, again: &impl Fn() -> Result<Config, ConfigError>) {
        let refused = match again() {
            Err(error) => Some(in_full(&error)),
            Ok(config) => match needing_restart(&self.reloading.config, &config).as_slice() {
                [] => {
                    self.configure(config);
                    None
                }
                keys => {
                    let keys = keys.join(", ");
                    Some(format!("{keys} can only be changed by a restart"))
                }
            },
        };
        let meters = &mut self.metering.meters;
        match &refused {
            None => {
                meters.reloads_applied += 1;
                tracing::info!("the configuration was read again, and counts");
            }
            Some(why) => {
                meters.reloads_refused += 1;
                tracing::error!(
                    "the configuration was read again and is refused as a whole; the one from \
                     before goes on: {why}"
                );
            }
        }
        self.reloading.problem =
            refused.map(|why| format!("the configuration is older than its file: {why}"));
    }

    /// Nothing is written to any store until this counts everywhere: what is being carried
    /// out was decided by the one before.
    fn configure(&mut self, config: Config) {
        let stores = Stores::new(&config.stores);
        self.observer.stores = stores.clone();
        self.holders = config.holders.clone();
        self.releaser.reconfigure(stores, config.holders.clone());
        self.clean_caches = config.reclaim.clean_caches;
        self.probe_within = { config.reclaim.lab }.then(|| config.reclaim.pass_interval / 2);
        self.metering.pass_interval = config.reclaim.pass_interval;
        if config.reclaim.lab && !self.metering.lab {
            tracing::warn!("reclaim.lab is on: the floors under gates and budgets are lifted");
        }
        self.metering.lab = config.reclaim.lab;
        let settings = settings(&config, &self.observer.boot);
        self.observer.tell(Input::Configured(Box::new(settings)));
        // One that is under way asks the stores as they were configured before.
        self.reloading.readings = if self.reading { 2 } else { 1 };
        self.reloading.config = config;
        self.read_stores();
    }

    /// The stores were read.
    pub(super) fn reloaded_stores(&mut self) {
        match self.reloading.readings {
            0 => {}
            1 => {
                self.reloading.readings = 0;
                self.releaser.configured(clock::now());
            }
            more => self.reloading.readings = more - 1,
        }
    }
}

/// What differs and is only looked at when the daemon starts, by key.
fn needing_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let sources = |config: &Config| -> Vec<_> {
        let stores = config.stores.iter();
        stores.map(|store| store.source.clone()).collect()
    };
    let interfaces = |config: &Config| {
        let interfaces = &config.interfaces;
        (interfaces.include.clone(), interfaces.exclude.clone())
    };
    let checks = [
        ("interfaces", interfaces(old) != interfaces(new)),
        ("stores (which there are)", sources(old) != sources(new)),
        (
            "observe.data_plane",
            old.observe.data_plane != new.observe.data_plane,
        ),
        ("state_dir", old.state_dir != new.state_dir),
        ("socket", old.socket != new.socket),
        ("listen", old.listen != new.listen),
        ("metrics", old.metrics != new.metrics),
    ];
    let differing = checks.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;

    fn config(text: &str) -> Config {
        let file = Path::new("/c.yaml");
        Config::parse(file, text, Overrides::default()).expect("valid")
    }

    #[test]
    fn what_needs_a_restart_is_named_and_the_rest_does_not() {
        let old = config("");
        for (text, key) in [
            ("interfaces: { include: [eth0] }", "interfaces"),
            ("stores: [{ kind: file }]", "stores (which there are)"),
            ("observe: { data_plane: false }", "observe.data_plane"),
            ("state_dir: /x", "state_dir"),
            ("socket: /x", "socket"),
            ("listen: off", "listen"),
            ("metrics: { max_conflict_info: 1 }", "metrics"),
        ] {
            assert_eq!(needing_restart(&old, &config(text)), [key], "{text}");
        }
        let new = config(
            "stores: [{ kind: host-local, reclaim: continuous, fence: true }]\n\
             keep: [10.0.0.0/8]\nowners: [{ name: a, macs: ['02:00:00:00:00:01'] }]\n\
             conflicts: { quiet: 1m }\nholders: { cri: off }\nobserve: { confirm: [br0] }\n\
             reclaim: { gate: 1h, lab: true }\n",
        );
        assert!(needing_restart(&old, &new).is_empty());
    }
}
