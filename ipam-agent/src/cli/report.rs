//! `ipam-agent report`

use std::{collections::BTreeSet, net::IpAddr};

use clap::{Args, builder::PossibleValuesParser};

use super::{
    CliError, Io, Status,
    shared::{ConfigArgs, OutputArgs, address},
};
use crate::{
    error::hint,
    report::document::{ConflictKind, Report, SegmentName, Summary},
};

/// Conflicts known to the running daemon.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent report
  ipam-agent report 10.52.0.86
  ipam-agent report --kind duplicate-address --segment mgmt-br.10
  ipam-agent report --output json | jq '.summary'

Exit status: 0 no conflict lasts and no lease is stale (where nothing is filtered),
1 something, 2 an error, 3 it could not look.")]
pub struct ReportArgs {
    /// Only this address
    #[arg(value_parser = address)]
    address: Option<IpAddr>,
    /// Only conflicts of this kind
    #[arg(long, value_parser = PossibleValuesParser::new(ConflictKind::ALL.iter().map(|kind| kind.name())))]
    kind: Option<String>,
    /// Only this segment: NAME or NAME.VLAN
    #[arg(long)]
    segment: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl ReportArgs {
    pub(super) async fn run(mut self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let client = std::mem::take(&mut self.daemon).client(io)?;
        let report = client.get("/api/v1/report").await;
        let mut report: Report = report.map_err(CliError::judging)?;
        self.look_for_segment(&mut report);
        self.narrow(&mut report);
        io.show(&report, self.output.output)?;
        let stale = !self.is_narrow() && report.leases.stale > 0;
        let found = report.summary.active > 0 || stale;
        Ok(Status::of(found, !report.blind.is_empty()))
    }

    fn is_narrow(&self) -> bool {
        self.address.is_some() || self.kind.is_some() || self.segment.is_some()
    }

    /// Of a segment that the daemon doesn't know nobody can say that it has no conflicts.
    fn look_for_segment(&self, report: &mut Report) {
        let Some(asked) = self.segment.as_deref() else {
            return;
        };
        let watched = report.segments.iter().map(|record| &record.segment);
        let told = report.conflicts.iter().map(|conflict| &conflict.segment);
        let told = told.chain(report.events.iter().map(|event| &event.segment));
        let known: BTreeSet<&SegmentName> = watched.chain(told).collect();
        if known.iter().any(|segment| segment.is_called(asked)) {
            return;
        }
        let names: Vec<String> = known.iter().map(|segment| segment.called()).collect();
        let hint = hint(asked, names.iter().map(String::as_str));
        report.blind.push(format!(
            "the daemon knows no segment {asked}{hint}: `ipam-agent segments` lists those that it \
             watches"
        ));
    }

    /// Leaves what was asked for.
    fn narrow(&self, report: &mut Report) {
        let here = |segment: &SegmentName| {
            let asked = self.segment.as_deref();
            asked.is_none_or(|asked| segment.is_called(asked))
        };
        let it = |address| self.address.is_none_or(|asked| address == asked);
        let kind = self.kind.as_deref();
        report.conflicts.retain(|conflict| {
            here(&conflict.segment)
                && it(conflict.address)
                && kind.is_none_or(|kind| conflict.kind.name() == kind)
        });
        // Who asks for a kind of conflict does not ask for what is none.
        report
            .events
            .retain(|event| kind.is_none() && here(&event.segment) && it(event.address));
        report.segments.retain(|record| here(&record.segment));
        report.summary = Summary::of(&report.conflicts);
    }
}
