//! The configured sources of leases, read all at once and off the event loop.

use std::{path::Path, sync::Arc};

use crate::{
    cni,
    config::StoreConfig,
    engine::{input::Input, lease::StoreView},
    error::in_full,
    store::{
        LeaseStore, Notes, Reading, file::LeaseFile, host_local::HostLocal, source::Source,
        watch::Root,
    },
};

/// The configured sources of leases, in their order.
#[derive(Clone)]
pub struct Stores {
    sources: Vec<Arc<dyn LeaseStore>>,
}

/// The first of host-local's directories that isn't there. For the daemon that is a host without
/// pods yet; of sources that somebody names it is a slip of the pen.
pub fn missing(configs: &[StoreConfig]) -> Option<&Path> {
    configs.iter().find_map(|config| match &config.source {
        Source::HostLocal(directory) if !directory.exists() => Some(directory.as_path()),
        _ => None,
    })
}

/// What one reading of all sources gave.
pub struct Readings {
    /// For the engine, one for each source.
    pub inputs: Vec<Input>,
    /// What was passed over, for people.
    pub notes: Notes,
}

impl Stores {
    /// The sources that the configuration names.
    pub fn new(configs: &[StoreConfig]) -> Self {
        let cni = Arc::new(cni::Reader::new(cni::Paths::default()));
        let mut directories = 0;
        let sources = configs.iter().map(|config| -> Arc<dyn LeaseStore> {
            match &config.source {
                Source::HostLocal(directory) => {
                    let store = HostLocal::new(
                        directory.clone(),
                        config.reclaim,
                        config.pools.clone(),
                        Arc::clone(&cni),
                    )
                    .fenced(config.fence);
                    directories += 1;
                    Arc::new(if directories > 1 {
                        store.qualified()
                    } else {
                        store
                    })
                }
                Source::File(path) => Arc::new(LeaseFile::new(path.clone(), config.pools.clone())),
            }
        });
        Self {
            sources: sources.collect(),
        }
    }

    /// The sources, to release from.
    pub fn sources(&self) -> &[Arc<dyn LeaseStore>] {
        &self.sources
    }

    /// What to watch so that changes are known at once.
    pub fn roots(&self) -> Vec<Root> {
        let roots = self.sources.iter().flat_map(|source| source.watched());
        roots.collect()
    }

    /// Reads them all. Blocks on file I/O.
    pub fn read(&self) -> Readings {
        let mut notes = Notes::default();
        let inputs = self
            .sources
            .iter()
            .enumerate()
            .map(|(source, store)| {
                let reading = store.read();
                notes.merge(reading.notes.clone());
                input(source, reading)
            })
            .collect();
        Readings { inputs, notes }
    }
}

impl Readings {
    /// The stores that could be read.
    pub fn views(&self) -> Vec<&StoreView> {
        let views = self.inputs.iter().filter_map(|input| match input {
            Input::Stores { views, .. } => Some(views),
            _ => None,
        });
        views.flatten().collect()
    }

    /// Why others could not, in words, each with its source's place in the configuration.
    pub fn failures(&self) -> impl Iterator<Item = (usize, String)> {
        self.inputs.iter().flat_map(|input| match input {
            Input::SourceFailed { source, why } => vec![(*source, why.clone())],
            Input::Stores { source, failed, .. } => {
                let failed = failed.iter();
                let told = failed.map(|(store, why)| (*source, format!("{store}: {why}")));
                told.collect()
            }
            _ => Vec::new(),
        })
    }
}

fn input(source: usize, reading: Reading) -> Input {
    let mut views = Vec::new();
    let mut failed = Vec::new();
    let mut whole = None;
    for view in reading.views {
        match view {
            Ok(view) => views.push(view),
            Err(error) => match error.store() {
                Some(store) => failed.push((store.clone(), in_full(&error))),
                None => whole = Some(in_full(&error)),
            },
        }
    }
    match whole {
        Some(why) => Input::SourceFailed { source, why },
        None => Input::Stores {
            source,
            views,
            failed,
            owners: reading.owners,
        },
    }
}
