//! The same judgement over captures: the capture's own clock drives the engine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipam_common::{
    Parsed,
    frame::{Captured, parse},
};

use super::{settings, stores::Stores};
use crate::{
    config::Config,
    engine::{
        Engine,
        input::{Input, Seen},
        segment::{Port, PortKind, Topology, Wiring},
        time::Timestamp,
    },
    report::{
        compose::{Composer, WallClock},
        document::Report,
    },
    source::pcap::{Capture, CaptureError, CapturedInterface},
};

/// For how long the clock goes on after a capture's end: what is pending ripens.
const AFTER: Duration = Duration::from_secs(5);

/// Which captures, and how.
#[derive(Clone, Debug, Default)]
pub struct ReplayOptions {
    /// The captures, in the order of time.
    pub captures: Vec<PathBuf>,
    /// Interfaces that are ports of one segment, by its name.
    pub segments: BTreeMap<String, Vec<String>>,
}

/// Why captures can't be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A store.
    #[error("can't judge without the leases: {0}")]
    Leases(String),
}

/// Judges captures and reports at their end.
///
/// # Errors
/// A capture or a source of leases can't be read.
pub fn replay(config: &Config, options: &ReplayOptions) -> Result<Report, ReplayError> {
    let mut engine = Engine::new(settings(config, ""));
    for input in Stores::new(&config.stores).read().inputs {
        match &input {
            Input::SourceFailed { why, .. } => return Err(ReplayError::Leases(why.clone())),
            Input::Stores { failed, .. } if !failed.is_empty() => {
                let whys: Vec<&str> = failed.iter().map(|(_, why)| why.as_str()).collect();
                return Err(ReplayError::Leases(whys.join("; ")));
            }
            _ => engine.handle(input, Timestamp(0)),
        }
    }
    let mut ports = Ports::new(&options.segments);
    let mut now = Timestamp(0);
    for path in &options.captures {
        let mut capture = Capture::open(path)?;
        let file = name_of(path);
        ports.file += 1;
        while capture.next(&mut |interfaces, frame| {
            let at = Timestamp(frame.at);
            // Time goes on first, and never back.
            now = now.max(at);
            advance(&mut engine, now);
            let (ifindex, new) = ports.index(&file, frame.interface, interfaces);
            if new {
                engine.handle(Input::Links(Arc::new(ports.topology.clone())), now);
                engine.handle(Input::Attached { ifindex }, now);
            }
            let captured = Captured {
                bytes: frame.bytes,
                stripped_tag: None,
            };
            if let Parsed::Sighting(sighting) = parse(&captured) {
                let seen = Seen {
                    at,
                    ifindex,
                    sighting,
                };
                engine.handle(Input::Seen(seen), now);
            }
            while engine.next_command().is_some() {}
        })? {}
    }
    now = now + AFTER;
    advance(&mut engine, now);
    let composer = Composer {
        engine: &engine,
        clock: WallClock(0),
        now,
        host: &super::host_name(),
        boot: None,
        blind: &[],
    };
    Ok(composer.report())
}

/// Fires the timers that are due, each at its own time.
fn advance(engine: &mut Engine, now: Timestamp) {
    while let Some(at) = engine.poll_timeout()
        && at <= now
    {
        engine.handle_timeout(at);
        while engine.next_command().is_some() {}
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(
        || String::from("capture"),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// The captures' interfaces as ports.
struct Ports {
    topology: Topology,
    /// Segment by interface.
    segments: BTreeMap<String, Arc<str>>,
    /// Port by file and interface.
    known: BTreeMap<(u32, u32), u32>,
    /// Port by name: two captures of one interface are one port.
    named: BTreeMap<String, u32>,
    file: u32,
}

impl Ports {
    fn new(segments: &BTreeMap<String, Vec<String>>) -> Self {
        let of = segments.iter().flat_map(|(segment, interfaces)| {
            let segment: Arc<str> = segment.as_str().into();
            interfaces
                .iter()
                .map(move |interface| (interface.clone(), Arc::clone(&segment)))
        });
        Self {
            segments: of.collect(),
            topology: Topology::default(),
            known: BTreeMap::new(),
            named: BTreeMap::new(),
            file: 0,
        }
    }

    /// The port of a capture's interface, and whether it is new.
    fn index(
        &mut self,
        file: &str,
        interface: u32,
        interfaces: &[CapturedInterface],
    ) -> (u32, bool) {
        if let Some(&index) = self.known.get(&(self.file, interface)) {
            return (index, false);
        }
        let described = usize::try_from(interface)
            .ok()
            .and_then(|index| interfaces.get(index));
        let name = described
            .and_then(|described| described.name.clone())
            .unwrap_or_else(|| file.to_owned());
        let next = u32::try_from(self.named.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let index = *self.named.entry(name.clone()).or_insert(next);
        self.known.insert((self.file, interface), index);
        if index != next {
            return (index, false);
        }
        let wiring = match self.segments.get(&name) {
            Some(segment) => Wiring::Bridge {
                bridge: Arc::clone(segment),
                pvid: None,
                members: Default::default(),
                untagged: Default::default(),
            },
            None => Wiring::Uplink,
        };
        let port = Port {
            name: name.into(),
            kind: PortKind::Other,
            up: true,
            carrier: true,
            wiring,
            wanted: true,
            namespace: None,
            vlan_devices: BTreeMap::new(),
        };
        self.topology.ports.insert(index, port);
        (index, true)
    }
}
