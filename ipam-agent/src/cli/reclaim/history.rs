//! `ipam-agent reclaim history`

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{
        CliError, Io, Status,
        shared::{ConfigArgs, OutputArgs},
    },
    config::{Config, Overrides},
    driver::{clock, host_name},
    journal::{self, EffectResult, Entry},
    report::document::{
        HardwareAddress, History, HistoryEntry, HistorySchema, HolderName, ReleaseResult,
    },
};

/// How many releases are shown; the journal has all.
const SHOWN: usize = 10_000;

/// What was released, the newest first: read from the journal, with or without a daemon.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent reclaim history
  ipam-agent reclaim history --output csv")]
pub struct HistoryArgs {
    /// Where the journal is [default: as configured, /var/lib/ipam-agent]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl HistoryArgs {
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let config = Config::load(Overrides {
            state_dir: self.state_dir,
            ..self.daemon.overrides()
        })?;
        let journal = journal::history(&config.state_dir, SHOWN)?;
        let history = History {
            schema: HistorySchema::V1,
            generated_at: clock::wall_time(),
            host: host_name(),
            damaged_lines: journal.damaged,
            entries: journal.entries.into_iter().map(entry).collect(),
        };
        io.show(&history, self.output.output)?;
        Ok(Status::Nothing)
    }
}

fn entry(entry: Entry) -> HistoryEntry {
    let intent = entry.intent;
    let mac = intent.holder.mac.and_then(|mac| mac.parse().ok());
    let (result, detail) = match entry.effect {
        None => (ReleaseResult::Unknown, None),
        Some(effect) => {
            let result = match effect.result {
                EffectResult::Released => ReleaseResult::Released,
                EffectResult::Kept => ReleaseResult::Kept,
                EffectResult::Failed => ReleaseResult::Failed,
            };
            (result, effect.detail)
        }
    };
    HistoryEntry {
        id: entry.id,
        at: entry.at,
        boot_id: entry.boot_id,
        asker: intent.asker,
        store: intent.store,
        address: intent.address,
        holder: HolderName {
            container_id: intent.holder.container_id,
            interface: intent.holder.interface,
            pod: intent.holder.pod,
            mac: mac.map(HardwareAddress),
            host_interface: None,
        },
        damage: intent.damage,
        reason: intent.reason,
        result,
        detail,
    }
}
