//! All that is known of one address.

use std::net::IpAddr;

use ipam_common::Address;

use super::{Composer, segment_name, sort_conflicts, story};
use crate::{
    engine::{
        evidence::Source, leasebook::Record, quarantine::Quarantined, scope::SetApart,
        time::Timestamp,
    },
    report::document::{
        ConflictRecord, ConflictState, Explain, Held, HolderAnswer, LeaseRecord, Life, PoolRole,
        SegmentClaim, SetApartRecord,
    },
};

impl Composer<'_> {
    /// All that is known of one address.
    pub fn explain(&self, known: Address) -> Explain {
        let planner = self.engine.planner(self.now);
        let address = known.ip();
        let records: Vec<&Record> = self.engine.leases().of(&known).iter().collect();
        let quarantined: Vec<&Quarantined> = self.engine.quarantine().of(known).collect();
        let mut claims = Vec::new();
        for (segment, entry) in self.engine.entries_of(known) {
            claims.extend(entry.claims.iter().map(|claim| SegmentClaim {
                segment: segment_name(segment),
                claim: self.claim(claim),
            }));
        }
        let mut conflicts: Vec<ConflictRecord> = self
            .engine
            .conflicts()
            .filter(|case| case.address == known)
            .map(|case| self.conflict(case))
            .collect();
        sort_conflicts(&mut conflicts);
        let leases: Vec<LeaseRecord> = records
            .iter()
            .map(|record| self.lease(&planner, record))
            .chain(
                quarantined
                    .iter()
                    .map(|entry| self.quarantined_lease(entry)),
            )
            .collect();
        let this_host = self.engine.topology().local.get(&known);
        let this_host = this_host.map(|link| link.to_string());
        let events = self.events(|event| event.address == known);
        let stamps = records.first().map(|record| record.stamps);
        let stamps = stamps.or(quarantined.first().map(|entry| entry.stamps));
        let stamp = |at: u64| (at > 0).then(|| self.clock.at(Timestamp(at)));
        Explain {
            schema: Default::default(),
            generated_at: self.clock.at(self.now),
            host: self.host.into(),
            address,
            verdict: verdict_of(address, this_host.as_deref(), &conflicts, &leases, &claims),
            this_host,
            set_apart: self.set_apart(known),
            life: stamps.map_or(Life::default(), |stamps| Life {
                assertion: stamp(stamps.assertion),
                probe: stamp(stamps.probe),
                packet: stamp(stamps.packet),
            }),
            holders: self.holders(known, &records),
            story: self.story(&records, &claims, &conflicts, &events),
            leases,
            claims,
            conflicts,
            events,
            blind: self.stores_down(),
        }
    }

    fn set_apart(&self, address: Address) -> Vec<SetApartRecord> {
        let stores = self.engine.leases().stores().iter();
        let pools = stores.flat_map(|(store, known)| known.pools.iter().map(move |p| (store, p)));
        let set_apart = pools.filter_map(|(store, pool)| {
            Some(SetApartRecord {
                store: store.to_string(),
                pool: pool.prefix.to_string(),
                role: match pool.set_apart(address)? {
                    SetApart::Gateway => PoolRole::Gateway,
                    SetApart::Excluded => PoolRole::Excluded,
                    SetApart::Network => PoolRole::Network,
                    SetApart::Broadcast => PoolRole::Broadcast,
                },
            })
        });
        set_apart.collect()
    }

    fn holders(&self, address: Address, records: &[&Record]) -> Vec<HolderAnswer> {
        let pass = self.engine.last_pass();
        let topology = self.engine.topology();
        let configured = records.iter().find_map(|record| record.held);
        let port = configured.flatten().and_then(|ifindex| {
            let port = topology.ports.get(&ifindex)?;
            Some(format!("configured behind {}", port.name))
        });
        let own = topology.local.get(&address);
        let own = own.map(|link| format!("configured on {link} of this host itself"));
        let port = port.or(own);
        let sandbox = records
            .iter()
            .find_map(|record| pass.sandboxes.holder(&record.lease, self.now));
        let answered = pass.sources.iter().map(|source| {
            let (held, detail) = match source {
                Source::Namespaces => (configured.is_some() || port.is_some(), port.clone()),
                Source::Cri => {
                    let detail = sandbox.as_ref().map(|blocker| blocker.detail.clone());
                    (detail.is_some(), detail)
                }
            };
            HolderAnswer {
                source: source.name().to_owned(),
                answer: if held { Held::Yes } else { Held::No },
                detail,
            }
        });
        let down = pass.down.iter().map(|(source, why)| HolderAnswer {
            source: source.name().to_owned(),
            answer: Held::Unknown,
            detail: Some(why.clone()),
        });
        answered.chain(down).collect()
    }
}

fn verdict_of(
    address: IpAddr,
    this_host: Option<&str>,
    conflicts: &[ConflictRecord],
    leases: &[LeaseRecord],
    claims: &[SegmentClaim],
) -> String {
    let conflict = conflicts.first();
    if let Some(conflict) = conflict.filter(|conflict| conflict.state == ConflictState::Active) {
        return conflict.reason.clone();
    }
    let last = claims.iter().max_by_key(|claim| claim.claim.last_seen);
    let now = match (leases, last, this_host) {
        ([], None, Some(link)) => {
            format!("this host has {address}, on {link}; no store that is read leased it")
        }
        ([], None, None) => format!("nobody leased {address} and nobody was heard with it"),
        ([], Some(claim), _) => format!(
            "{address} is used by {}; no store that is read leased it",
            story::name(&claim.claim)
        ),
        ([lease, ..], ..) if lease.quarantine.is_some() => format!(
            "{address} was leased to {} by {}: {}",
            lease.lease.holder, lease.lease.store, lease.reason
        ),
        ([lease, ..], ..) => format!(
            "{address} is leased to {} by {} and {}: {}",
            lease.lease.holder, lease.lease.store, lease.lease.state, lease.reason
        ),
    };
    match conflict {
        Some(over) => format!("{now}; its {} is over", over.kind),
        None => now,
    }
}
