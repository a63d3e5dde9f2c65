//! `ipam-agent replay`

use std::{fmt::Write as _, io::IsTerminal as _, path::PathBuf, str::FromStr, sync::Arc};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    CliError, Io, Status,
    shared::{OutputArgs, log_to_stderr},
};
use crate::{
    config::Config,
    driver::{self, ReplayOptions},
    error::in_full,
    report::{clean, document::CaptureRecord},
    source::pcap::{OnRead, Place},
    store::source::Source,
};

/// The same judgement over captures, pcap or pcapng, gzip'd or not. Needs no rights and no
/// daemon.
#[derive(Debug, Args)]
#[command(after_help = "\
Captures may come in any order: their frames are judged in the order of time. A classic capture is
one segment. In pcapng each interface is one, unless --segment says otherwise. Of `tcpdump -i any`,
an older capture is one segment, a newer has one for each interface: if1, if2 and so on. Of several
captures the file is part of an interface's name: node1.pcapng:eth0.

What can't be judged is counted, on stderr and in the JSON. A damaged capture is judged as far as it
can be read.

Examples:
  ipam-agent replay incident.pcapng
  ipam-agent replay node1.pcap.gz node2.pcap.gz --leases file:leases.yaml
  ipam-agent replay trunk.pcapng --segment mgmt-br=veth1,veth2,mgmt-bo --output json
  ipam-agent replay ring_1.pcapng ring_2.pcapng --segment eth0=eth0
  ipam-agent replay - < incident.pcap

  timeout 60 tcpdump -i eth0 -w - 'arp or icmp6' | ipam-agent replay -

Exit status: 0 nothing, 1 something, 2 an error (a damaged capture, after the report of the
rest), 3 no frame could be looked at, or ARP or ND was cut short as it was captured.")]
pub struct ReplayArgs {
    /// The captures; - is standard input
    #[arg(required = true, value_name = "CAPTURE")]
    pub captures: Vec<PathBuf>,
    /// Read leases here: host-local[:DIR] or file:PATH
    #[arg(long, value_name = "SOURCE")]
    pub leases: Vec<Source>,
    /// These interfaces are ports of one segment; of several captures, IF is that of each and
    /// FILE:IF that of one
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
        let captures: Vec<Place> = self.captures.into_iter().map(Into::into).collect();
        let bar = progress(&captures);
        let mut segments = ReplayOptions::default().segments;
        for PortsOfSegment { name, interfaces } in self.segments {
            segments.entry(name).or_default().extend(interfaces);
        }
        let options = ReplayOptions {
            captures,
            segments,
            on_read: bar.clone().map(shown_when_slow),
        };
        let replayed = driver::replay(&config, &options);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let replayed = replayed?;
        let report = replayed.report;
        for capture in &report.captures {
            io.tell(&summary(capture))?;
        }
        for segment in &replayed.unheard {
            let name = clean(segment);
            io.tell(&format!(
                "note: the leases of {name} are compared with nothing, as no segment of that name was \
                 captured; --segment {name}=INTERFACE says which of these it is\n"
            ))?;
        }
        if replayed.forgotten > 0 {
            io.tell(&format!(
                "note: {} events before those of the report are not listed\n",
                replayed.forgotten
            ))?;
        }
        io.show(&report, self.output.output)?;
        let mut failed = replayed.failed;
        if let Some(last) = failed.pop() {
            for error in failed {
                io.tell(&format!("ipam-agent: {}\n", clean(&in_full(&error))))?;
            }
            return Err(last.into());
        }
        Ok(Status::of(
            report.summary.conflicts > 0,
            !report.blind.is_empty(),
        ))
    }
}

/// What became of a capture's frames, in a line.
fn summary(capture: &CaptureRecord) -> String {
    let CaptureRecord {
        file,
        frames,
        arp,
        nd,
        late,
        ..
    } = capture;
    let mut line = format!("{}: {frames} frames, {arp} ARP, {nd} ND", clean(file));
    for (what, reasons) in [("refused", &capture.refused), ("skipped", &capture.skipped)] {
        if !reasons.is_empty() {
            let reasons = reasons.iter().map(|(why, count)| format!("{count} {why}"));
            let reasons: Vec<String> = reasons.collect();
            let _ = write!(line, "; {what} {}", reasons.join(", "));
        }
    }
    if *late > 0 {
        let _ = write!(line, "; {late} more than a second out of order");
    }
    line + "\n"
}

/// A bar over the bytes of all captures, where somebody may look at it.
fn progress(captures: &[Place]) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let lengths: Option<Vec<u64>> = captures.iter().map(Place::length).collect();
    let total = lengths.map(|lengths| lengths.iter().sum());
    let template = match total {
        Some(_) => "reading {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
        None => "reading {bytes}, {bytes_per_sec}",
    };
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
    let style = ProgressStyle::with_template(template);
    Some(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
}

/// Counts what is read, and shows the bar when that takes more than a second.
fn shown_when_slow(bar: ProgressBar) -> OnRead {
    Arc::new(move |read| {
        bar.inc(read);
        if bar.is_hidden() && bar.elapsed().as_secs() >= 1 {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    })
}

/// Interfaces of a capture that are one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortsOfSegment {
    /// The segment's name.
    pub name: String,
    /// The interfaces, by the names that a report has for them; at least one.
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
