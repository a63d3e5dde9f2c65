//! MACs of one machine, told by the host's own links: a pod with two interfaces on one wire
//! answers for the address of either from both, as Linux does unless told otherwise
//! (`arp_ignore`). Behind both ports is one network namespace.

use std::collections::BTreeMap;

use ipam_common::Mac;

use super::{
    segment::Topology,
    table::{Claim, Heard},
};

/// How many kinships are known at once.
const MAX_KINSHIPS: usize = 4096;

/// The MACs that were met behind two ports of one namespace.
#[derive(Debug, Default)]
pub struct Kinships {
    known: BTreeMap<(Mac, Mac), Kinship>,
}

#[derive(Clone, Copy, Debug)]
struct Kinship {
    namespace: i32,
    ports: [u32; 2],
}

impl Kinships {
    /// Somebody speaks for an address that these claim. Whether a kinship is new.
    ///
    /// Two MACs on one port are no kin: a pod may hold several machines.
    pub fn meet(&mut self, heard: &Heard, claims: &[Claim], topology: &Topology) -> bool {
        if claims.iter().all(|claim| claim.ifindex == heard.ifindex) {
            return false;
        }
        let behind = |ifindex| topology.ports.get(&ifindex)?.namespace;
        let Some(namespace) = behind(heard.ifindex) else {
            return false;
        };
        let kin = claims.iter().find(|claim| {
            claim.mac != heard.mac
                && claim.ifindex != heard.ifindex
                && behind(claim.ifindex) == Some(namespace)
        });
        let Some(claim) = kin else {
            return false;
        };
        let pair = (claim.mac.min(heard.mac), claim.mac.max(heard.mac));
        if self.known.contains_key(&pair) || self.known.len() >= MAX_KINSHIPS {
            return false;
        }
        let kinship = Kinship {
            namespace,
            ports: [claim.ifindex, heard.ifindex],
        };
        self.known.insert(pair, kinship);
        true
    }

    /// The links changed: drops kinships whose ports are gone or lead elsewhere. Whether
    /// there were any.
    pub fn keep(&mut self, topology: &Topology) -> bool {
        let before = self.known.len();
        self.known.retain(|_, kinship| {
            kinship.ports.iter().all(|port| {
                let port = topology.ports.get(port);
                port.and_then(|port| port.namespace) == Some(kinship.namespace)
            })
        });
        self.known.len() != before
    }

    /// Each MAC that has a kin, with the least of them.
    pub fn kin(&self) -> BTreeMap<Mac, Mac> {
        let mut kin: BTreeMap<Mac, Mac> = BTreeMap::new();
        // Pairs come in the order of the lesser MAC, so that it is settled before.
        for &(lesser, greater) in self.known.keys() {
            let least = kin.get(&lesser).copied().unwrap_or(lesser);
            let known = kin.get(&greater).copied().unwrap_or(greater);
            let (least, other) = (least.min(known), least.max(known));
            for of in kin.values_mut().filter(|of| **of == other) {
                *of = least;
            }
            kin.insert(lesser, least);
            kin.insert(greater, least);
        }
        kin
    }
}
