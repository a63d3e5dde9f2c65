//! Addresses that are leased twice: to two holders, in one network.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipam_common::Address;

use super::{
    conflict::{About, Conflict, Severity, Verdict},
    lease::Holder,
    leasebook::{LeaseBook, Record},
    scope::{Scope, Scopes},
    segment::Segment,
    time::Timestamp,
};

/// A segment's name where neither store says on which one its addresses are.
const ANY: &str = "any";

/// The conflicts, by where and which address.
#[derive(Debug, Default)]
pub struct LeasedTwice {
    conflicts: BTreeMap<(Segment, Address), Conflict>,
}

/// That one opened or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub segment: Segment,
    /// Which address.
    pub address: Address,
    /// The conflict; it is open or has just ended.
    pub conflict: Conflict,
}

impl LeasedTwice {
    /// Looks at an address whose leases changed.
    pub fn look(
        &mut self,
        address: Address,
        leases: &LeaseBook,
        scopes: &Scopes,
        now: Timestamp,
    ) -> Vec<Change> {
        let found = contradictions(leases.of(&address), scopes);
        let mut changes = Vec::new();
        let known = self.conflicts.iter_mut();
        for ((segment, _), conflict) in known.filter(|((_, of), _)| *of == address) {
            if !found.contains_key(segment) && conflict.end(now) {
                changes.push(Change {
                    segment: segment.clone(),
                    address,
                    conflict: conflict.clone(),
                });
            }
        }
        for (segment, records) in found {
            if let Some(conflict) = self.open(&segment, address, &records, now) {
                changes.push(Change {
                    segment,
                    address,
                    conflict: conflict.clone(),
                });
            }
        }
        changes
    }

    /// Opens a conflict, or keeps it open; the conflict, if it wasn't.
    fn open(
        &mut self,
        segment: &Segment,
        address: Address,
        records: &[&Record],
        now: Timestamp,
    ) -> Option<&Conflict> {
        let holders = records.iter().map(|record| {
            let holder = in_words(&record.lease.holder());
            (record.lease.store.clone(), holder)
        });
        let verdict = Verdict::DuplicateLease {
            holders: holders.collect(),
        };
        let key = (segment.clone(), address);
        if let Some(conflict) = self.conflicts.get_mut(&key) {
            let back = conflict.go_on(verdict, Severity::Warning, now, now);
            return self.conflicts.get(&key).filter(|_| back);
        }
        // From when the second was there.
        let since = records.iter().map(|record| record.since).max();
        let first_seen = since.unwrap_or(now);
        let about = About::Lease(address);
        let severity = Severity::Warning;
        let conflict = Conflict::begin(segment, about, verdict, severity, first_seen, now, now);
        Some(self.conflicts.entry(key).or_insert(conflict))
    }

    /// The addresses about which there is, or was, a conflict.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.conflicts.keys().map(|(_, address)| *address)
    }

    /// Every conflict that is open or ended less than an hour ago.
    pub fn iter(&self) -> impl Iterator<Item = (&Segment, Address, &Conflict)> {
        let conflicts = self.conflicts.iter();
        conflicts.map(|((segment, address), conflict)| (segment, *address, conflict))
    }

    /// Forgets what ended so long ago.
    pub fn forget(&mut self, now: Timestamp, after: Duration) {
        self.conflicts.retain(|_, conflict| {
            let over = conflict.resolved;
            over.is_none_or(|at| now.since(at) < after)
        });
    }
}

/// The leases of one address that contradict each other, by segment.
fn contradictions<'a>(
    records: &'a [Record],
    scopes: &Scopes,
) -> BTreeMap<Segment, Vec<&'a Record>> {
    let mut found: BTreeMap<Segment, Vec<&Record>> = BTreeMap::new();
    for (i, one) in records.iter().enumerate() {
        for other in &records[i + 1..] {
            if !differ(&one.lease.holder(), &other.lease.holder()) {
                continue;
            }
            let Some(segment) = shared(one, other, scopes) else {
                continue;
            };
            let records = found.entry(segment).or_default();
            for record in [one, other] {
                if !records.iter().any(|known| std::ptr::eq(*known, record)) {
                    records.push(record);
                }
            }
        }
    }
    found
}

/// The wire that both leases are about, if they are about one.
fn shared(one: &Record, other: &Record, scopes: &Scopes) -> Option<Segment> {
    let anywhere = || Segment {
        name: ANY.into(),
        outer_vlan: None,
        vlan: None,
    };
    match (scopes.of(&one.lease), scopes.of(&other.lease)) {
        (Scope::Segment(one), Scope::Segment(other)) => (one == other).then(|| one.clone()),
        (Scope::Segment(segment), Scope::Anywhere) | (Scope::Anywhere, Scope::Segment(segment)) => {
            Some(segment.clone())
        }
        (Scope::Anywhere, Scope::Anywhere | Scope::Unknown) | (Scope::Unknown, Scope::Anywhere) => {
            Some(anywhere())
        }
        _ if one.lease.store == other.lease.store && !scopes.is_either(&one.lease) => {
            Some(anywhere())
        }
        // Networks whose wires nobody knows may well be two that use the same addresses, and so
        // may be those of one store.
        _ => None,
    }
}

/// Whether these are two machines: they can be told apart, and nothing says that they are
/// one.
fn differ(one: &Holder, other: &Holder) -> bool {
    let texts = [
        (&one.container_id, &other.container_id),
        (&one.pod, &other.pod),
        (&one.host_interface, &other.host_interface),
    ];
    let same = |(one, other): (&Option<Arc<str>>, &Option<Arc<str>>)| {
        one.as_ref()
            .zip(other.as_ref())
            .map(|(one, other)| one == other)
    };
    let mac = one.mac.zip(other.mac).map(|(one, other)| one == other);
    let mut compared = texts.into_iter().filter_map(same).chain(mac).peekable();
    compared.peek().is_some() && compared.all(|same| !same)
}

fn in_words(holder: &Holder) -> Arc<str> {
    let named = [&holder.pod, &holder.container_id, &holder.host_interface];
    let named = named.into_iter().flatten().next();
    match (named, holder.mac) {
        (Some(name), Some(mac)) => format!("{name} ({mac})").into(),
        (Some(name), None) => Arc::clone(name),
        (None, Some(mac)) => mac.to_string().into(),
        (None, None) => "a holder without a name".into(),
    }
}
