//! All that a person looks at first, in one document: what `top` shows.

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ConflictRecord, EventKind, EventRecord, HolderName, LeaseCounts, Leases, Pools, Report,
    SegmentRecord, schema,
};

schema!(OverviewSchema, "ipam-agent/top/v1");

/// One look at a host: its segments, pools, conflicts and releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overview {
    /// Which document this is.
    pub schema: OverviewSchema,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The host's name.
    pub host: String,
    /// Why the agent could not look, or not everywhere; empty if it could.
    pub blind: Vec<String>,
    /// What is watched, by name and VLAN.
    pub segments: Vec<SegmentRecord>,
    /// How full each pool is, by store.
    pub pools: Vec<PoolUse>,
    /// The conflicts: active before resolved, then the worst and the newest first.
    pub conflicts: Vec<ConflictRecord>,
    /// What was given back and is watched still, the newest first.
    pub releases: Vec<RecentRelease>,
    /// Released addresses that are in use after all, the newest first.
    pub released_but_alive: Vec<EventRecord>,
}

/// How full a pool is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolUse {
    /// The store: kind and network.
    pub store: String,
    /// The prefix; null: leases of the store that are in none of its pools.
    pub prefix: Option<String>,
    /// How many addresses the store may hand out of it; null where that is more than 2⁵³.
    pub addresses: Option<u64>,
    /// How many of them are to be had; null as above.
    pub free: Option<u64>,
    /// Its leases by state.
    pub leases: LeaseCounts,
}

/// A lease that was given back a short while ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecentRelease {
    /// The release's id in the journal.
    pub id: String,
    /// When it was given back.
    pub released_at: Timestamp,
    /// Until when it is watched, unless somebody leases it.
    pub until: Timestamp,
    /// The store.
    pub store: String,
    /// The address.
    pub address: IpAddr,
    /// Who had it.
    pub holder: HolderName,
}

impl Overview {
    /// Of what the daemon tells of conflicts, leases and pools.
    pub fn new(report: Report, leases: &Leases, pools: Pools) -> Self {
        let stores = pools.stores.into_iter();
        let pools = stores.flat_map(|store| {
            let name = store.store;
            store.pools.into_iter().map(move |pool| PoolUse {
                store: name.clone(),
                prefix: pool.prefix,
                addresses: pool.addresses,
                free: pool.free,
                leases: pool.leases,
            })
        });
        let mut releases = Vec::new();
        for record in &leases.leases {
            let lease = &record.lease;
            if let Some(quarantine) = &record.quarantine {
                releases.push(RecentRelease {
                    id: quarantine.id.clone(),
                    released_at: quarantine.released_at,
                    until: quarantine.until,
                    store: lease.store.clone(),
                    address: lease.address,
                    holder: lease.holder.clone(),
                });
            }
        }
        releases.sort_by(|a, b| (b.released_at, &b.id).cmp(&(a.released_at, &a.id)));
        let alive = report.events.into_iter().rev();
        let alive = alive.filter(|event| event.kind == EventKind::ReleasedButAlive);
        let mut blind = report.blind;
        for reason in &leases.blind {
            if !blind.contains(reason) {
                blind.push(reason.clone());
            }
        }
        Self {
            schema: OverviewSchema::V1,
            generated_at: report.generated_at,
            host: report.host,
            blind,
            segments: report.segments,
            pools: pools.collect(),
            conflicts: report.conflicts,
            releases,
            released_but_alive: alive.collect(),
        }
    }
}
