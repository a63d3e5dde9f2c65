//! The watch on the wires of a plan, kept until its last lease is released: what came since it
//! was judged, by the very rules by which it was judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipam_common::Address;

use super::{
    Engine,
    coverage::CoverageBook,
    evidence::PortCheck,
    lease::StoreName,
    plan::{Blocker, Reason, ReclaimPlan, Release},
    segment::{Port, Segment, Topology, Wiring},
    time::Timestamp,
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Vigil {
    book: CoverageBook,
    /// The links as it was judged by them.
    judged: Arc<Topology>,
    /// As they were when somebody looked last.
    links: Arc<Topology>,
    /// What isn't among them came after this.
    looked: Timestamp,
    /// The wire of each lease that is to be released.
    segments: BTreeMap<(StoreName, Address), Segment>,
    /// Since when each wire is watched or, in words, why it isn't, as far as asked since then.
    found: BTreeMap<Segment, Result<Timestamp, String>>,
}

impl Vigil {
    /// Of a plan that was just made; of the links all was known until `heard`.
    pub fn of(engine: &Engine, plan: &ReclaimPlan, heard: Timestamp) -> Self {
        let planner = engine.planner(plan.at);
        let segments = plan.releases.iter().filter_map(|release| {
            let lease = release.lease();
            let records = engine.leases().of(&lease.address).iter();
            let record = { records }.find(|record| record.lease.store == lease.store)?;
            let segment = planner.segment(record).ok()?;
            Some(((lease.store.clone(), lease.address), segment))
        });
        Self {
            segments: segments.collect(),
            book: engine.coverage.clone(),
            judged: Arc::clone(&engine.topology),
            links: Arc::clone(&engine.topology),
            looked: heard,
            found: BTreeMap::new(),
        }
    }

    /// The links are these; who looked began to at `asked`.
    pub fn links(&mut self, topology: Topology, asked: Timestamp, now: Timestamp) {
        let since = std::mem::replace(&mut self.looked, asked);
        self.book.links(&topology, since, now);
        self.links = Arc::new(topology);
        self.found.clear();
    }

    /// The host has been watched since then.
    pub fn started(&mut self, since: Timestamp) {
        self.book.started(since);
    }

    /// The ports for which the kernel is to be asked: all of the plan's wires.
    pub fn ports(&self) -> BTreeSet<u32> {
        let segments: BTreeSet<&Segment> = self.segments.values().collect();
        let ports = { segments.into_iter() }.flat_map(|segment| self.links.ports_of(segment));
        ports.map(|(ifindex, _)| ifindex).collect()
    }

    /// The kernel was asked for our program on the port.
    pub fn checked(&mut self, ifindex: u32, check: &PortCheck, now: Timestamp) {
        self.book.checked(ifindex, check, now, &self.links);
    }

    /// Whether the lease's wire is watched as it was when it was judged.
    pub fn is_kept(&mut self, release: &Release, now: Timestamp) -> Result<(), Blocker> {
        let lease = release.lease();
        let key = (lease.store.clone(), lease.address);
        let Some(segment) = self.segments.get(&key).cloned() else {
            return Err(Blocker::new(Reason::Changed, "its segment is gone"));
        };
        if !self.found.contains_key(&segment) {
            let found = self.watched_since(&segment, now);
            self.found.insert(segment.clone(), found);
        }
        let why = match self.found.get(&segment) {
            Some(Ok(since)) if *since <= release.proof().coverage().since() => return Ok(()),
            Some(Err(why)) => why.clone(),
            _ => format!("life on {segment} could have been missed since the lease was judged"),
        };
        Err(Blocker::new(Reason::Coverage, why))
    }

    fn watched_since(&self, segment: &Segment, now: Timestamp) -> Result<Timestamp, String> {
        if let Some(port) = self.changed(segment) {
            return Err(format!(
                "{} was put on {segment}, taken from it or wired otherwise since the lease was judged",
                port.name
            ));
        }
        let watched = self.book.since(&self.links, segment, now);
        let watched = watched.map_err(|why| why.to_string())?;
        Ok(watched.since)
    }

    /// A port, other than a guest's, that makes the wire another than it was. A port that is
    /// gone proves nothing and blocks nothing.
    fn changed(&self, segment: &Segment) -> Option<&Port> {
        // To a bridge that filters VLANs it may give other names.
        let is_at = |(_, port): &(u32, &Port)| match &port.wiring {
            Wiring::Bridge { bridge, .. } => *bridge == segment.name,
            Wiring::Routed | Wiring::Uplink => false,
        };
        let there = |topology: &'_ Topology| -> BTreeSet<u32> {
            let ports = topology
                .ports
                .iter()
                .map(|(&ifindex, port)| (ifindex, port));
            let at = ports.filter(is_at);
            let all = at.chain(topology.ports_of(segment));
            all.map(|(ifindex, _)| ifindex).collect()
        };
        let concerned = &there(&self.judged) | &there(&self.links);
        concerned.iter().find_map(|ifindex| {
            let port = self.links.ports.get(ifindex)?;
            let before = self.judged.ports.get(ifindex);
            let is_as_before = before.is_some_and(|before| {
                (&before.wiring, &before.vlan_devices) == (&port.wiring, &port.vlan_devices)
            });
            (!port.is_guests() && !is_as_before).then_some(port)
        })
    }
}

#[cfg(test)]
mod tests;
