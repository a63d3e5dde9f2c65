//! `ipam-agent uninstall`

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CliError, Io, Status, shared::ConfigArgs};
use crate::{
    config::{Config, Overrides},
    driver::stores::Stores,
    journal,
    source::live::{remove_all_leftovers, remove_pins},
    state,
    store::source::Source,
};

/// Remove what the agent left on this host: filters and pins of an agent that was killed or
/// handed over, its fences, its state and its socket. Leases are not touched.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent uninstall
  ipam-agent uninstall --yes
  ipam-agent uninstall --yes --keep-state

With --wait it stays when all is removed, until SIGTERM, SIGINT or SIGUSR2: so a DaemonSet
whose pods run it has a node's pod ready when the node is clean (the chart's value
`uninstall`).")]
pub struct UninstallArgs {
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
    /// Leave the state directory as it is, with the journal in it
    #[arg(long)]
    keep_state: bool,
    /// Then wait to be stopped, as the pods of a DaemonSet must
    #[arg(long)]
    wait: bool,
    /// Where the state is [default: as configured, /var/lib/ipam-agent]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl UninstallArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        // What stops it meanwhile is not lost, and does not leave half of it.
        let stop = self.wait.then(Stop::listen).transpose()?;
        let status = uninstall(self, io, remove_from_kernel)?;
        if let Some(stop) = stop
            && status == Status::Nothing
        {
            io.tell("nothing of the agent is left here; waiting to be stopped\n")?;
            stop.wait().await;
        }
        Ok(status)
    }
}

/// The signals that end a container; the image's is SIGUSR2.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> Result<Self, CliError> {
        let on = |kind| signal(kind).map_err(CliError::Runtime);
        Ok(Self([
            on(SignalKind::terminate())?,
            on(SignalKind::interrupt())?,
            on(SignalKind::user_defined2())?,
        ]))
    }

    async fn wait(mut self) {
        let [terminate, interrupt, hand_over] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hand_over.recv() => {}
        }
    }
}

/// Takes the program off every interface; what was removed, in words.
fn remove_from_kernel() -> Result<Vec<String>, CliError> {
    // The links with the pins; filters are no part of them.
    let pins = remove_pins()?.then(|| String::from("what was pinned in the BPF file system"));
    let filters = remove_all_leftovers()?.into_iter();
    let filters = filters.map(|interface| format!("the filter on {interface}"));
    Ok(pins.into_iter().chain(filters).collect())
}

/// Removes it. `remove_from_kernel` does so in the kernel, and says what it removed.
pub(super) fn uninstall(
    args: UninstallArgs,
    io: &mut Io<'_>,
    remove_from_kernel: impl FnOnce() -> Result<Vec<String>, CliError>,
) -> Result<Status, CliError> {
    let config = Config::load(Overrides {
        state_dir: args.state_dir,
        ..args.config.overrides()
    })?;
    if UnixStream::connect(&config.socket).is_ok() {
        return Err(CliError::Running(config.socket));
    }
    // It may have been given another socket.
    if state::is_in_use(&config.state_dir) {
        return Err(CliError::Running(config.state_dir));
    }
    let (state, socket) = (config.state_dir.display(), config.socket.display());
    let question = match args.keep_state {
        true => format!("Remove all filters, pins and fences of the agent, and {socket}?"),
        false => format!(
            "Remove all filters, pins and fences of the agent, its state and journal in {state}, \
             and {socket}?"
        ),
    };
    if !args.yes && !io.confirm(&question, "remove it all")? {
        return Ok(Status::Something);
    }
    for removed in remove_from_kernel()? {
        io.tell(&format!("removed {removed}\n"))?;
    }
    lower_fences(&config, io)?;
    if !args.keep_state {
        for file in state_files(&config.state_dir)? {
            remove(io, &file)?;
        }
        remove_if_empty(io, Some(&config.state_dir))?;
    }
    remove(io, &config.socket)?;
    remove_if_empty(io, config.socket.parent())?;
    Ok(Status::Nothing)
}

/// Only then: what others put there is not ours.
fn remove_if_empty(io: &mut Io<'_>, directory: Option<&Path>) -> Result<(), CliError> {
    match directory {
        Some(directory) if fs::remove_dir(directory).is_ok() => {
            io.tell(&format!("removed {}\n", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Gives back every address that the agent reserved.
///
/// # Errors
/// There may be more of them than could be found: the state must stay, which knows of them.
fn lower_fences(config: &Config, io: &mut Io<'_>) -> Result<(), CliError> {
    let left = |why| CliError::Fences {
        why,
        state: config.state_dir.clone(),
    };
    let stores = Stores::new(&config.stores);
    let readings = stores.read();
    let views = readings.views();
    for fence in views.iter().flat_map(|view| &view.fencing.fences) {
        let (name, address) = (&fence.store, fence.address);
        if let Some(store) = stores.sources().iter().find(|store| store.has(name)) {
            store.lower_fence(fence)?;
            io.tell(&format!("removed the fence of {address} in {name}\n"))?;
        }
    }
    // Nothing is written to any other kind of store.
    let is_fenced = |source: usize| matches!(config.stores[source].source, Source::HostLocal(_));
    let mut unread = readings.failures().filter(|(source, _)| is_fenced(*source));
    if let Some((_, why)) = unread.next() {
        return Err(left(format!("there may be fences left: {why}")));
    }
    let mut raised = journal::raised(&config.state_dir)?.into_iter();
    let unseen = |(store, _): &(String, _)| views.iter().all(|view| *view.store.0 != **store);
    match raised.find(unseen) {
        Some((store, address)) => Err(left(format!(
            "the fence of {address} in {store} may be left, and no such store is found: have the \
             configuration name it, or remove its file by hand and then {}",
            config.state_dir.join(journal::FILE).display()
        ))),
        None => Ok(()),
    }
}

/// The files in the state directory that are the agent's: its database, what was moved
/// aside as damaged, the lock, the journal.
fn state_files(directory: &Path) -> Result<Vec<PathBuf>, CliError> {
    let failed = |source| CliError::Remove {
        what: format!("the state in {}", directory.display()),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(journal::FILE) || state::is_ours(&name) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn remove(io: &mut Io<'_>, path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Ok(()) => io.tell(&format!("removed {}\n", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CliError::Remove {
            what: path.display().to_string(),
            source,
        }),
    }
}
