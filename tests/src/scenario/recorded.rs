//! A script as a capture and a lease file, and what a replay of them tells.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use ipam_agent::{
    config::Config,
    driver::{ReplayOptions, replay},
    report::document::{ConflictState, Report, SegmentName},
};
use jiff::Timestamp as WallTime;

use super::{
    BRIDGE, Family, SECOND, Script, World, clock, frame_of, lease_file::LeaseFile, seconds,
    setting::PORTS, words,
};
use crate::{
    capture::{ETHERNET, Endian, Ng},
    frames,
};
use ipam_agent::engine::time::Timestamp;

/// For how long a replay's clock goes on after the last frame.
pub(super) const AFTER: u64 = 5 * SECOND;

/// A script as files.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The capture: pcapng, an interface for each port.
    pub capture: Vec<u8>,
    /// The lease file.
    pub leases: String,
    /// When the last frame is.
    end: Timestamp,
}

/// The script as a capture; `None` where something happens that no capture has: links and
/// addresses of this host, and leases that change.
pub fn recorded(family: Family, script: &str) -> Result<Option<Recording>> {
    let script = Script::read(script)?;
    let mut leases = LeaseFile::new(&[family]);
    for line in &script.setting {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !leases.set(&words)? {
            return Ok(None);
        }
    }
    let mut capture = Ng::new(Endian::Little);
    for port in PORTS {
        capture = capture.interface_with(ETHERNET, Some(port), &[(9, vec![9])]);
    }
    let mut end = Timestamp(0);
    for (at, line) in &script.scenes {
        let what: Vec<&str> = line.split_whitespace().collect();
        let (port, frame) = match what[..] {
            ["end"] => (0, nobody()),
            [
                "grant" | "revoke" | "disown" | "link" | "other" | "answers" | "restart",
                ..,
            ] => return Ok(None),
            [port, ref what @ ..] => {
                let port = PORTS.iter().position(|known| *known == port);
                (port.context("no port")?, frame_of(family, what)?)
            }
            [] => continue,
        };
        capture = capture.frame(u32::try_from(port)?, at.0, &frame);
        end = *at;
    }
    Ok(Some(Recording {
        capture: capture.bytes,
        leases: leases.text()?,
        end,
    }))
}

/// A frame that says nothing of an address, and when it was captured.
fn nobody() -> Vec<u8> {
    frames::ethernet(frames::BROADCAST, frames::mac(1), 0x88cc, &[0; 46])
}

impl Recording {
    /// Replays it, the ports as those of one segment.
    pub fn replay(&self) -> Result<Report> {
        let dir = tempfile::tempdir()?;
        let file = |name: &str, content: &[u8]| -> Result<PathBuf> {
            let path = dir.path().join(name);
            fs::write(&path, content)?;
            Ok(path)
        };
        let leases = file("leases.yaml", self.leases.as_bytes())?;
        let source = format!("file:{}", leases.display()).parse()?;
        let options = ReplayOptions {
            captures: vec![file("script.pcapng", &self.capture)?.into()],
            segments: [(BRIDGE.to_owned(), self.ports())].into(),
            on_read: None,
        };
        let replayed = replay(&Config::without_file(vec![source])?, &options)?;
        Ok(replayed.report)
    }

    /// All ports, though not all are heard.
    fn ports(&self) -> Vec<String> {
        PORTS.map(str::to_owned).into()
    }

    /// What the replay tells, as [`World::told`] tells it, but for the claimants, and in the
    /// order of the text.
    pub fn told(&self) -> Result<Vec<String>> {
        let report = self.replay()?;
        let mut told = Vec::new();
        for conflict in &report.conflicts {
            let address = conflict.address;
            let place = place(&conflict.segment, &words::name_of_address(address));
            for step in &conflict.history {
                let what = match step.state {
                    ConflictState::Active => step.kind.name(),
                    ConflictState::Resolved => "over",
                };
                let severity = format!("{:?}", step.severity);
                told.push(format!("{} {what} {place} {severity}", wall(step.at)?));
            }
        }
        for event in &report.events {
            let place = place(&event.segment, &words::name_of_address(event.address));
            told.push(format!("{} {} {place}", wall(event.at)?, event.kind.name()));
        }
        told.sort();
        Ok(told)
    }

    /// What should be told: what the script tells when its clock goes on as a replay's does,
    /// in which time nothing resolves.
    pub fn expected(&self, family: Family, script: &str) -> Result<Vec<String>> {
        let after = Timestamp(self.end.0 + AFTER);
        let script = format!("{script}\n{} end", clock(after));
        let world = super::play(family, &script)?;
        let mut expected = Vec::new();
        for line in world.told().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [at, _, "over", ..] if seconds(at)? > self.end => {}
                [at, number, what, place, severity, ..] if number.starts_with('#') => {
                    expected.push(format!("{at} {what} {place} {severity}"));
                }
                [at, what, place, ..] => expected.push(format!("{at} {what} {place}")),
                _ => {}
            }
        }
        expected.sort();
        Ok(expected)
    }
}

pub(super) fn place(segment: &SegmentName, address: &str) -> String {
    match segment.vlan {
        Some(vlan) => format!("{address}.{vlan}"),
        None => address.to_owned(),
    }
}

fn wall(at: WallTime) -> Result<String> {
    Ok(clock(Timestamp(u64::try_from(at.as_nanosecond())?)))
}

impl World {
    /// Replays the script as a capture, where it can be one, and compares.
    ///
    /// # Errors
    /// The replay tells something else.
    pub fn same_as_capture(family: Family, script: &str) -> Result<()> {
        let Some(recording) = recorded(family, script)? else {
            return Ok(());
        };
        let (told, expected) = (recording.told()?, recording.expected(family, script)?);
        anyhow::ensure!(
            told == expected,
            "as a capture, {family:?}: told {told:#?}, expected {expected:#?} of\n{script}"
        );
        Ok(())
    }
}
