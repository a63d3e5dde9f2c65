//! The captures' interfaces as ports of segments.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    engine::segment::{Port, PortKind, Topology, Wiring},
    source::pcap::{Place, PortName},
};

/// Every port that was heard, numbered from 1.
pub struct Ports {
    /// The ports, as the engine knows them.
    pub topology: Topology,
    /// What each capture is called.
    files: Vec<String>,
    /// Segment by interface.
    segments: BTreeMap<String, Arc<str>>,
    /// Interfaces that segments name and that were not met.
    missing: BTreeSet<String>,
    /// Those that captures have, heard or not.
    met: BTreeSet<String>,
    /// By capture, and its own number of it.
    known: Vec<Vec<Option<u32>>>,
}

impl Ports {
    /// `segments`: by name the interfaces that are ports of it.
    pub fn new(places: &[Place], segments: &BTreeMap<String, Vec<String>>) -> Self {
        let of = segments.iter().flat_map(|(segment, interfaces)| {
            let segment: Arc<str> = segment.as_str().into();
            interfaces
                .iter()
                .map(move |interface| (interface.clone(), Arc::clone(&segment)))
        });
        Self {
            topology: Topology::default(),
            files: files(places),
            segments: of.collect(),
            missing: segments.values().flatten().cloned().collect(),
            met: BTreeSet::new(),
            known: vec![Vec::new(); places.len()],
        }
    }

    /// The port of a capture's.
    pub fn index(&mut self, track: usize, port: u32, name: &PortName) -> u32 {
        let place = usize::try_from(port).unwrap_or(usize::MAX);
        let known = self.known.get(track).and_then(|known| known.get(place));
        match known {
            Some(&Some(index)) => index,
            _ => self.add(track, place, name),
        }
    }

    fn add(&mut self, track: usize, place: usize, name: &PortName) -> u32 {
        let index = u32::try_from(self.topology.ports.len() + 1).unwrap_or(u32::MAX);
        let interface = match name {
            PortName::Named(name) => Some(name.as_str().into()),
            PortName::Whole | PortName::Numbered(_) | PortName::Index(_) => None,
        };
        self.topology.captured.insert(index, interface);
        let (name, short) = self.names(track, name);
        let segment = self.segments.get(&name).or(self.segments.get(&short));
        let wiring = match segment {
            Some(segment) => Wiring::bridge(Arc::clone(segment)),
            None => Wiring::Uplink,
        };
        let port = Port::new(name, PortKind::Other, wiring);
        self.topology.ports.insert(index, port);
        if let Some(known) = self.known.get_mut(track) {
            known.resize(known.len().max(place + 1), None);
            known[place] = Some(index);
        }
        index
    }

    /// What a port is called, and what it may be called for short. With several captures the
    /// file is part of it: what two hosts call eth0 is not one wire.
    fn names(&self, track: usize, name: &PortName) -> (String, String) {
        let file = self.files.get(track).map_or("capture", String::as_str);
        let short = match name {
            PortName::Whole => return (file.to_owned(), file.to_owned()),
            PortName::Numbered(number) => {
                let name = format!("{file}:{number}");
                return (name.clone(), name);
            }
            PortName::Named(name) => name.clone(),
            PortName::Index(ifindex) => format!("if{ifindex}"),
        };
        match self.files.len() {
            1 => (short.clone(), short),
            _ => (format!("{file}:{short}"), short),
        }
    }

    /// Whether ports may share a segment: else each has its own.
    pub fn any_joined(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Whether two ports are of one segment. An interface may be called as a segment is.
    pub fn are_joined(&self, one: u32, other: u32) -> bool {
        let segment = |port| {
            let port = self.topology.ports.get(&port)?;
            Some(match &port.wiring {
                Wiring::Bridge { bridge, .. } => bridge,
                _ => &port.name,
            })
        };
        segment(one) == segment(other)
    }

    /// Notes that a capture has this port, whether or not anything was heard by it.
    pub fn met(&mut self, track: usize, name: &PortName) {
        let (name, short) = self.names(track, name);
        self.missing.remove(&name);
        self.missing.remove(&short);
        self.met.insert(name);
    }

    /// The interfaces that segments name and that no capture has.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.missing.iter().map(String::as_str)
    }

    /// The names of the ports that captures have.
    pub fn all_met(&self) -> impl Iterator<Item = &str> {
        self.met.iter().map(String::as_str)
    }
}

/// The files' names; of files of one name, the paths as given.
fn files(places: &[Place]) -> Vec<String> {
    let names: Vec<String> = places.iter().map(Place::file_name).collect();
    let alone = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let named = names.iter().zip(places);
    named
        .map(|(name, place)| match alone(name) {
            true => name.clone(),
            false => place.to_string(),
        })
        .collect()
}
