//! `ipam-agent replay`

use std::{path::PathBuf, str::FromStr};

use clap::Args;

use super::{
    CliError, Io, Status,
    shared::{OutputArgs, log_to_stderr},
};
use crate::{
    config::Config,
    driver::{self, ReplayOptions},
    store::source::Source,
};

/// The same judgement over captures, pcap or pcapng, gzip'd or not. Needs no rights and no
/// daemon.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent replay incident.pcapng
  ipam-agent replay node1.pcap.gz node2.pcap.gz --leases file:leases.yaml
  ipam-agent replay trunk.pcapng --segment mgmt-br=veth1,veth2,mgmt-bo --output json

Exit status: 0 nothing, 1 something, 2 an error.")]
pub struct ReplayArgs {
    /// The captures
    #[arg(required = true, value_name = "CAPTURE")]
    pub captures: Vec<PathBuf>,
    /// Read leases here: host-local[:DIR] or file:PATH
    #[arg(long, value_name = "SOURCE")]
    pub leases: Vec<Source>,
    /// These interfaces of the captures are ports of one segment
    #[arg(long = "segment", value_name = "NAME=IF,IF")]
    pub segments: Vec<PortsOfSegment>,
    /// How results are written
    #[command(flatten)]
    pub output: OutputArgs,
}

impl ReplayArgs {
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        log_to_stderr("warn");
        let config = Config::without_file(self.leases)?;
        let segments = self.segments.into_iter();
        let report = driver::replay(
            &config,
            &ReplayOptions {
                captures: self.captures,
                segments: segments
                    .map(|ports| (ports.name, ports.interfaces))
                    .collect(),
            },
        )?;
        io.show(&report, self.output.output)?;
        Ok(Status::of(report.summary.conflicts > 0, false))
    }
}

/// Interfaces of a capture that are one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortsOfSegment {
    /// The segment's name.
    pub name: String,
    /// The interfaces, as pcapng's `if_name` calls them; at least one.
    pub interfaces: Vec<String>,
}

/// The text is no `NAME=IF,IF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not NAME=INTERFACE,INTERFACE such as mgmt-br=veth1,mgmt-bo")]
pub struct ParseSegmentError;

impl FromStr for PortsOfSegment {
    type Err = ParseSegmentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, interfaces) = text.split_once('=').ok_or(ParseSegmentError)?;
        let interfaces: Vec<String> = interfaces.split(',').map(str::to_owned).collect();
        if name.is_empty() || interfaces.iter().any(String::is_empty) {
            return Err(ParseSegmentError);
        }
        Ok(Self {
            name: name.to_owned(),
            interfaces,
        })
    }
}
