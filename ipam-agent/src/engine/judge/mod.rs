//! The rules: when an address is contested, mis-leased or squatted, and when that is over.
//!
//! A verdict is drawn anew from the claims, the turns and the leases each time something
//! about the address changes or a timer of it fires; only what shows that two are alive
//! is kept, for as long as the contest lasts.

mod course;
mod proofs;

use std::{collections::BTreeSet, time::Duration};

use ipam_common::{Address, Mac};

use self::course::{next, update};
use super::{
    conflict::{Conflict, Contested, HolderIdentity, Verdict},
    leasebook::{LeaseBook, Record},
    owner::{OwnerKey, Owners},
    scope::Scopes,
    segment::{Segment, Topology},
    table::{Claim, Contest, Entry},
    time::Timestamp,
};

/// After so long without the other a contest is over, and a stranger gone.
pub const QUIET: Duration = Duration::from_secs(120);
/// A managed address may be without a lease for so long: leases are seen late.
const LEASE_GRACE: Duration = Duration::from_secs(5);
/// An address of ours that another asserts must still be ours after so long: a VIP that is
/// handed over is not.
const OURS_GRACE: Duration = Duration::from_secs(1);
/// When to look behind two local ports that assert one address.
const BEHIND_GRACE: Duration = Duration::from_secs(10);
/// For how long a conflict that ended keeps its id.
pub const CONFLICT_MEMORY: Duration = Duration::from_secs(3600);

/// What the rules look at beside the entry itself.
pub struct Judge<'a> {
    /// The links.
    pub topology: &'a Topology,
    /// Who owns which MAC.
    pub owners: &'a Owners,
    /// The leases.
    pub leases: &'a LeaseBook,
    /// What is about which segment.
    pub scopes: &'a Scopes,
}

/// What came of judging an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The conflict opened, got worse or came back.
    pub opened: bool,
    /// It ended.
    pub resolved: bool,
    /// An address of ours moved: from, to.
    pub moved: Option<(Mac, Mac)>,
    /// Two local ports are to be looked behind.
    pub look_behind: bool,
    /// When to judge again.
    pub deadline: Option<Timestamp>,
}

impl Judge<'_> {
    /// Whose MAC it is.
    pub fn owner_of(&self, mac: Mac) -> OwnerKey {
        self.owners.of(mac, &self.topology.own_macs)
    }

    /// Judge one address. `heard`: when it was asserted, if that is why.
    pub fn judge(
        &self,
        segment: &Segment,
        address: Address,
        entry: &mut Entry,
        heard: Option<Timestamp>,
        now: Timestamp,
    ) -> Judged {
        let records = self.records(segment, address);
        let ours = self.our_mac(segment, address);
        let managed = self.scopes.managed(segment, address);
        let squatted = managed.is_some() && records.is_empty() && ours.is_none();
        let mistaken = entry
            .strong()
            .any(|(claim, _)| self.is_stranger(&records, claim));
        if entry.contest.is_none() && !(squatted && heard.is_some()) && !mistaken && ours.is_none()
        {
            return Judged::default();
        }
        entry.contest(&|mac| self.owner_of(mac));
        let Entry { claims, contest } = entry;
        let Some(contest) = contest.as_deref_mut() else {
            return Judged::default();
        };
        let mut judged = Judged::default();

        if !squatted {
            contest.unleased_since = None;
        } else if let Some(at) = heard {
            contest.unleased_since.get_or_insert(at);
        }
        self.note_grant(&records, claims, contest);
        let strangers = self.strangers(&records, claims, contest, now);
        // Of what is told late the earliest counts.
        let first = first_as_stranger(&records, claims, &strangers, now);
        contest.stranger_since = first.map(|first| match contest.stranger_since {
            Some(known) => known.min(first),
            None => first,
        });
        self.note_proofs(&records, claims, contest, &strangers);
        self.note_ours(ours, claims, contest, heard, now, &mut judged);
        self.note_behind(claims, contest, now, &mut judged);
        let duplicate_until = self.duplicate_until(claims, contest, ours);
        if !contest.proofs.is_empty() && duplicate_until.is_none_or(|until| until <= now) {
            contest.proofs.clear();
            contest.rivals.clear();
            contest.settled = now;
        }

        let verdict = self.verdict(
            &records,
            claims,
            contest,
            &strangers,
            managed.map(|pool| &pool.store),
            now,
        );
        let vital = ours.is_some() || self.scopes.is_gateway(segment, address);
        update(
            segment,
            address,
            claims,
            contest,
            verdict,
            vital,
            now,
            &mut judged,
        );
        judged.deadline = next(claims, contest, duplicate_until, now);
        contest.deadline = judged.deadline;
        if judged.deadline.is_none() && contest.conflict.is_none() {
            entry.contest = None;
        }
        judged
    }

    /// The leases of the address in this segment.
    pub fn records(&self, segment: &Segment, address: Address) -> Vec<&Record> {
        self.leases
            .of(&address)
            .iter()
            .filter(|record| self.scopes.of(&record.lease).covers(segment))
            .collect()
    }

    /// The MAC with which this host has the address in this segment, if it does.
    pub fn our_mac(&self, segment: &Segment, address: Address) -> Option<Mac> {
        self.topology
            .own_addresses
            .iter()
            .filter(|own| own.address == address)
            .find(|own| self.topology.own_segment(own).as_ref() == Some(segment))
            .and_then(|own| own.mac)
    }

    /// Whether the claim is the lease's holder's: by MAC or, only where that isn't known,
    /// by port. `None`: nobody can tell.
    fn is_holder(&self, record: &Record, claim: &Claim) -> Option<bool> {
        let holder = &record.lease.holder;
        if let Some(mac) = holder.mac {
            return Some(self.owner_of(mac) == self.owner_of(claim.mac));
        }
        let interface = holder.host_interface.as_ref()?;
        let port = self.topology.ports.get(&claim.ifindex)?;
        Some(*interface == port.name)
    }

    /// Whether the claim, made since the leases are known, is none of their holders'.
    fn is_stranger(&self, records: &[&Record], claim: &Claim) -> bool {
        !records.is_empty()
            && records.iter().all(|record| {
                self.is_holder(record, claim) == Some(false)
                    && claim.last_strong >= Some(record.since)
            })
    }

    fn is_present(&self, claim: &Claim, now: Timestamp) -> bool {
        claim
            .last_strong
            .is_some_and(|last| now.since(last) < QUIET)
    }

    /// An address with an open unleased-address was leased: granted while in use, unless
    /// to the one who uses it.
    fn note_grant(&self, records: &[&Record], claims: &[Claim], contest: &mut Contest) {
        if let Some(Conflict {
            verdict: Verdict::Unleased { claimants, .. },
            resolved: None,
            ..
        }) = &contest.conflict
            && !records.is_empty()
        {
            contest.squatters.extend(claimants);
        }
        if records.is_empty() {
            contest.squatters.clear();
        }
        contest.squatters.retain(|&mac| {
            let claim = claims.iter().find(|claim| claim.mac == mac);
            claim.is_some_and(|claim| {
                !records
                    .iter()
                    .any(|record| self.is_holder(record, claim) == Some(true))
            })
        });
    }

    /// Who asserts the address without being a holder of it, in the order of their MACs.
    fn strangers(
        &self,
        records: &[&Record],
        claims: &[Claim],
        contest: &Contest,
        now: Timestamp,
    ) -> Vec<Mac> {
        let strange = claims.iter().filter(|claim| {
            self.is_present(claim, now)
                && (self.is_stranger(records, claim) || contest.squatters.contains(&claim.mac))
        });
        let macs: BTreeSet<Mac> = strange.map(|claim| claim.mac).collect();
        macs.into_iter().collect()
    }

    fn verdict(
        &self,
        records: &[&Record],
        claims: &[Claim],
        contest: &Contest,
        strangers: &[Mac],
        managed_by: Option<&super::lease::StoreName>,
        now: Timestamp,
    ) -> Option<Verdict> {
        if let Some(contested) = Contested::new(contest.rivals.clone(), contest.proofs.clone()) {
            return Some(Verdict::Duplicate(contested));
        }
        if let Some(record) = records.first() {
            if strangers.is_empty() {
                return None;
            }
            let granted = strangers.iter().any(|mac| contest.squatters.contains(mac));
            let holder = &record.lease.holder;
            let identity = match (granted, holder.mac, &holder.host_interface) {
                (false, Some(mac), _) => HolderIdentity::Mac(mac),
                (false, None, Some(interface)) => HolderIdentity::Interface(interface.clone()),
                _ => HolderIdentity::GrantedWhileInUse,
            };
            return Some(Verdict::Mismatch {
                strangers: strangers.to_vec(),
                store: record.lease.store.clone(),
                holder: holder.pod.clone().or_else(|| holder.container_id.clone()),
                identity,
            });
        }
        let since = contest.unleased_since?;
        let open = now.since(since) >= LEASE_GRACE;
        let present = claims.iter().filter(|claim| self.is_present(claim, now));
        let claimants: Vec<Mac> = present
            .filter(|claim| claim.last_strong >= Some(since))
            // A port that went with its pod leaves nobody there.
            .filter(|claim| {
                self.topology.ports.is_empty() || self.topology.ports.contains_key(&claim.ifindex)
            })
            .map(|claim| claim.mac)
            .collect();
        (open && !claimants.is_empty()).then_some(Verdict::Unleased {
            claimants,
            store: managed_by?.clone(),
        })
    }
}

/// The first assertion by one of these since the address is leased to another. Of a claim
/// that is older than that, or that may have been quiet in between, only the last assertion
/// is known to be later; a squatter that said
/// nothing since is a stranger from the grant on.
fn first_as_stranger(
    records: &[&Record],
    claims: &[Claim],
    strangers: &[Mac],
    now: Timestamp,
) -> Option<Timestamp> {
    let leased = records.iter().map(|record| record.since).max()?;
    let since = |claim: &Claim| {
        if claim.first_seen >= leased && now.since(claim.first_seen) < QUIET {
            Some(claim.first_seen)
        } else {
            claim.last_strong.max(Some(leased))
        }
    };
    let of = claims.iter().filter(|claim| strangers.contains(&claim.mac));
    of.filter_map(since).min()
}
