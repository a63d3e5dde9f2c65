//! Which leases and pools speak for which segment.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use ipam_common::Address;
use smallvec::SmallVec;

use super::{
    conflict::Reserve,
    lease::{Lease, Place, Pool, StoreName},
    leasebook::Store,
    segment::{Segment, Topology, Wiring},
};

/// The wire that a lease or a pool is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// That segment.
    Segment(Segment),
    /// Any.
    Anywhere,
    /// One, and nobody said which: it may be any.
    Unknown,
    /// One that can't be watched from here; why.
    Nowhere(String),
}

impl Scope {
    /// The segment, if it is one.
    pub fn segment(&self) -> Option<&Segment> {
        match self {
            Self::Segment(segment) => Some(segment),
            Self::Nowhere(_) | Self::Anywhere | Self::Unknown => None,
        }
    }

    /// Whether it is about this segment.
    pub fn covers(&self, segment: &Segment) -> bool {
        match self {
            Self::Segment(own) => own == segment,
            Self::Anywhere | Self::Unknown => true,
            Self::Nowhere(_) => false,
        }
    }
}

/// A pool and its wire.
#[derive(Clone, Debug)]
pub struct ScopedPool {
    /// Whose it is.
    pub store: StoreName,
    /// The pool.
    pub pool: Pool,
    scope: Scope,
    readable: bool,
}

impl ScopedPool {
    /// Its wire.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }
}

/// The index, made anew when stores or links change.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    stores: HashMap<StoreName, Scope>,
    pools: Vec<ScopedPool>,
    /// The pools that have a wire of their own, by store.
    placed: BTreeMap<StoreName, Vec<usize>>,
    by_segment: HashMap<Segment, Vec<usize>>,
    /// Segments that somebody named and this host has not, and what to name instead, in words.
    absent: HashMap<Segment, String>,
    anywhere: Vec<usize>,
}

impl Scopes {
    /// The index of these stores over these links.
    pub fn new(stores: &BTreeMap<StoreName, Store>, topology: &Topology) -> Self {
        let mut scopes = Self::default();
        for (name, store) in stores {
            let scope = scopes.place(&store.place, topology);
            scopes.stores.insert(name.clone(), scope);
            for pool in &store.pools {
                let scope = scopes.place(pool.place.as_ref().unwrap_or(&store.place), topology);
                let index = scopes.pools.len();
                if pool.place.is_some() {
                    scopes.placed.entry(name.clone()).or_default().push(index);
                }
                match &scope {
                    Scope::Segment(segment) => scopes
                        .by_segment
                        .entry(segment.clone())
                        .or_default()
                        .push(index),
                    Scope::Anywhere | Scope::Unknown => scopes.anywhere.push(index),
                    Scope::Nowhere(_) => {}
                }
                scopes.pools.push(ScopedPool {
                    store: name.clone(),
                    pool: pool.clone(),
                    scope,
                    readable: store.failed.is_none(),
                });
            }
        }
        scopes
    }

    /// The scope of a place, noted as absent if somebody named a segment that isn't there.
    fn place(&mut self, place: &Place, topology: &Topology) -> Scope {
        let scope = scope_of(place, topology);
        if let (Place::Segment { .. }, Scope::Segment(segment)) = (place, &scope)
            && let Some(why) = absence(segment, topology)
        {
            self.absent.insert(segment.clone(), why);
        }
        scope
    }

    /// Why the silence of a segment says nothing, in words: this host has none that is called
    /// so.
    pub fn absence(&self, segment: &Segment) -> Option<&str> {
        self.absent.get(segment).map(String::as_str)
    }

    /// The wire of a lease: its pool's, where the pool has one of its own. Of pools on several
    /// wires, as of VLANs that use one prefix, it may be any's.
    pub fn of(&self, lease: &Lease) -> &Scope {
        match self.wires(lease)[..] {
            [wire] => wire,
            [] => self.unplaced(lease),
            _ => &Scope::Unknown,
        }
    }

    /// Whether a lease may be about this segment.
    pub fn covers(&self, lease: &Lease, segment: &Segment) -> bool {
        match &self.wires(lease)[..] {
            [] => self.unplaced(lease).covers(segment),
            wires => wires.iter().any(|wire| wire.covers(segment)),
        }
    }

    /// Whether a lease may be about either of several networks that use its address.
    pub fn is_either(&self, lease: &Lease) -> bool {
        self.wires(lease).len() > 1
    }

    /// The wire of a lease of no pool that has one of its own.
    fn unplaced(&self, lease: &Lease) -> &Scope {
        self.stores.get(&lease.store).unwrap_or(&Scope::Unknown)
    }

    /// The wires of the pools that have one of their own and may have handed the lease out: those
    /// that do hand out its address, or if none does, those of its prefix.
    fn wires(&self, lease: &Lease) -> SmallVec<[&Scope; 2]> {
        let of = |holds: &dyn Fn(&Pool) -> bool| {
            let placed = self.placed.get(&lease.store).into_iter().flatten();
            let pools = placed.filter_map(|&index| self.pools.get(index));
            let mut wires = SmallVec::new();
            for scoped in pools.filter(|scoped| holds(&scoped.pool)) {
                if !wires.contains(&&scoped.scope) {
                    wires.push(&scoped.scope);
                }
            }
            wires
        };
        let managing = of(&|pool| pool.manages(lease.address));
        match managing.is_empty() {
            true => of(&|pool| pool.prefix.contains(&lease.address.ip())),
            false => managing,
        }
    }

    /// Every pool.
    pub fn all(&self) -> impl Iterator<Item = &ScopedPool> {
        self.pools.iter()
    }

    /// The pools that hold the address in this segment.
    pub fn here(&self, segment: &Segment, address: Address) -> Here<'_> {
        let here = self.by_segment.get(segment).map_or(&[][..], Vec::as_slice);
        let pools = here
            .iter()
            .chain(&self.anywhere)
            .filter_map(|&index| self.pools.get(index))
            .filter(|scoped| scoped.pool.prefix.contains(&address.ip()));
        Here {
            address,
            pools: pools.collect(),
        }
    }
}

/// Why a pool never hands an address out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetApart {
    /// It is the gateway's.
    Gateway,
    /// Somebody excluded it.
    Excluded,
    /// It is the subnet's own number.
    Network,
    /// It is the subnet's broadcast address.
    Broadcast,
}

/// An address of a segment, and the pools that hold it there.
pub struct Here<'a> {
    address: Address,
    pools: SmallVec<[&'a ScopedPool; 2]>,
}

impl<'a> Here<'a> {
    /// The pool that would have to lease the address for it to be used here: not the
    /// gateway, not excluded, not of a store that can't be read now.
    pub fn managed(&self) -> Option<&'a ScopedPool> {
        if self.address.is_link_local() {
            return None;
        }
        { self.pools.iter().copied() }
            .find(|scoped| scoped.readable && scoped.pool.manages(self.address))
    }

    /// What the address is set apart for in this segment, and by whose pool; of a gateway
    /// only where its MAC is known.
    pub fn reserve(&self) -> Option<(Reserve, &'a StoreName)> {
        { self.pools.iter().copied() }.find_map(|scoped| {
            let reserve = scoped.pool.reserve(self.address)?;
            Some((reserve, &scoped.store))
        })
    }

    /// Whether the address is the gateway of a pool of this segment.
    pub fn is_gateway(&self) -> bool {
        { self.pools.iter() }.any(|scoped| scoped.pool.gateway == Some(self.address))
    }
}

impl Pool {
    fn reserve(&self, address: Address) -> Option<Reserve> {
        Some(match self.set_apart(address)? {
            SetApart::Gateway => Reserve::Gateway(self.gateway_mac?),
            SetApart::Network => Reserve::Network,
            SetApart::Broadcast => Reserve::Broadcast,
            SetApart::Excluded => Reserve::Excluded,
        })
    }

    /// What the address is to this pool, if it is one that is never handed out.
    pub fn set_apart(&self, address: Address) -> Option<SetApart> {
        if self.gateway == Some(address) {
            return Some(SetApart::Gateway);
        }
        if self.is_edge(address) {
            return Some(match self.prefix.network() == address.ip() {
                true => SetApart::Network,
                false => SetApart::Broadcast,
            });
        }
        self.excludes(address).then_some(SetApart::Excluded)
    }

    fn excludes(&self, address: Address) -> bool {
        let within = |&(first, last): &(Address, Address)| first <= address && address <= last;
        self.exclude.iter().any(within)
    }

    /// Whether the pool hands this address out.
    pub fn manages(&self, address: Address) -> bool {
        let within = |&(first, last): &(Address, Address)| first <= address && address <= last;
        self.prefix.contains(&address.ip())
            && self.range.as_ref().is_none_or(within)
            && self.gateway != Some(address)
            && !self.excludes(address)
            && !self.is_edge(address)
    }

    /// Whether this is the network or the broadcast address of an IPv4 prefix (RFC 3021
    /// gives a /31 neither).
    pub fn is_edge(&self, address: Address) -> bool {
        self.prefix.prefix_len() < 31
            && matches!(self.prefix, ipnet::IpNet::V4(_))
            && (self.prefix.network() == address.ip() || self.prefix.broadcast() == address.ip())
    }
}

/// Of a segment that somebody named. A bridge without ports is there, and has nobody on it.
fn absence(segment: &Segment, topology: &Topology) -> Option<String> {
    let name = &segment.name;
    let is_bridge =
        || { topology.bridges.get(name) }.is_some_and(|known| known.filtering.is_none());
    if **name == *Segment::ROUTED || topology.ports_of(segment).next().is_some() || is_bridge() {
        return None;
    }
    let mut ports = topology.ports.values();
    let bridge = ports
        .find(|port| port.name == *name)
        .map(|port| &port.wiring);
    Some(match bridge {
        Some(Wiring::Bridge { bridge, .. }) => {
            format!("{name} is a port of {bridge}: name {bridge} as the segment")
        }
        _ => format!("no port of this host is on {segment}: name the bridge or uplink that is"),
    })
}

fn scope_of(place: &Place, topology: &Topology) -> Scope {
    match place {
        Place::Bridge { bridge, vlan } => {
            let default = topology.default_pvid(bridge);
            let vlan = default.map(|default| vlan.unwrap_or(default));
            Scope::Segment(topology.bridge_segment(bridge, vlan))
        }
        Place::Segment { name, vlan } => Scope::Segment(Segment {
            name: name.clone(),
            outer_vlan: None,
            vlan: *vlan,
        }),
        Place::Routed => Scope::Segment(Segment {
            name: Segment::ROUTED.into(),
            outer_vlan: None,
            vlan: None,
        }),
        Place::Unwatchable(plugin) => Scope::Nowhere(format!(
            "the {plugin} plugin's links can't be watched from the host"
        )),
        Place::Anywhere => Scope::Anywhere,
        Place::Unknown => Scope::Unknown,
    }
}
