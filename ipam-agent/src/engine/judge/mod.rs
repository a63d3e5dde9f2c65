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
    conflict::{Conflict, Contested, HolderIdentity, Reserve, Verdict},
    leasebook::{LeaseBook, Record},
    owner::{OwnerKey, Owners, is_virtual_router},
    runs::Move,
    scope::{Here, ScopedPool, Scopes},
    segment::{Segment, Topology},
    table::{Claim, Contest, Entry},
    time::Timestamp,
};

/// An address of ours that another asserts must still be ours after so long: a VIP that is
/// handed over is not.
const OURS_GRACE: Duration = Duration::from_secs(1);
/// When to look behind two local ports that assert one address.
const BEHIND_GRACE: Duration = Duration::from_secs(10);

/// For how long things last before they are told, or are over. [`Windows::default`] is what
/// the documentation says; what an RFC says is no setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// After so long without the other a contest is over, and a stranger gone.
    pub quiet: Duration,
    /// A managed address may be without a lease for so long: leases are seen late.
    pub lease_grace: Duration,
    /// For so long a conflict that ended keeps its id.
    pub memory: Duration,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(120),
            lease_grace: Duration::from_secs(5),
            memory: Duration::from_secs(3600),
        }
    }
}

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
    /// For how long things last.
    pub windows: Windows,
}

/// What came of judging an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The conflict opened, got worse or came back.
    pub opened: bool,
    /// It ended.
    pub resolved: bool,
    /// One more MAC is part of it.
    pub joined: bool,
    /// Since when what it now is has been going on.
    pub since: Option<Timestamp>,
    /// An address of ours moved.
    pub moved: Option<Move>,
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
        let here = self.scopes.here(segment, address);
        let managed = here.managed();
        let squatted = managed.is_some() && records.is_empty() && ours.is_none();
        let mistaken = entry
            .strong()
            .any(|(claim, _)| self.is_stranger(&records, claim));
        let reserved = self.reserved(&here, ours, &records, &entry.claims, now);
        if entry.contest.is_none()
            && !(squatted && heard.is_some())
            && !mistaken
            && reserved.is_none()
            && ours.is_none()
        {
            return Judged::default();
        }
        entry.contest(&|mac| self.owner_of(mac), heard.unwrap_or(now));
        let Entry { claims, contest } = entry;
        let Some(contest) = contest.as_deref_mut() else {
            return Judged::default();
        };
        let mut judged = Judged::default();

        if !squatted {
            contest.unleased_since = None;
        } else if let Some(at) = heard {
            note_first(&mut contest.unleased_since, Some(at));
        }
        self.note_grant(&records, claims, contest);
        note_first(
            &mut contest.reserved_since,
            reserved.as_ref().and_then(|reserved| reserved.since),
        );
        let strangers = self.strangers(&records, claims, contest, now);
        // Of what is told late the earliest counts.
        let first = first_as_stranger(self, &records, claims, &strangers, now);
        note_first(&mut contest.stranger_since, first);
        self.note_proofs(&records, claims, contest, &strangers, now);
        self.note_ours(ours, claims, contest, heard, now, &mut judged);
        self.note_behind(claims, contest, now, &mut judged);
        let duplicate_until = self.duplicate_until(claims, contest, ours);
        if !contest.proofs.is_empty() && duplicate_until.is_none_or(|until| until <= now) {
            contest.settle(claims);
        }

        let verdict = match Contested::new(contest.rivals.clone(), contest.proofs.clone()) {
            Some(contested) => Some(Verdict::Duplicate(contested)),
            None => reserved
                .map(|reserved| reserved.verdict)
                .or_else(|| mismatch(&records, contest, &strangers))
                .or_else(|| self.unleased(claims, contest, managed?, now)),
        };
        let vital = ours.is_some() || here.is_gateway();
        update(
            segment,
            address,
            claims,
            contest,
            verdict,
            vital,
            self.windows,
            now,
            &mut judged,
        );
        if judged.resolved {
            // Who comes back may have been granted it meanwhile, and that not be read yet.
            contest.unleased_since = None;
        }
        judged.deadline = next(claims, contest, duplicate_until, self.windows, now);
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
            .filter(|record| self.scopes.covers(&record.lease, segment))
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
    pub(super) fn is_holder(&self, record: &Record, claim: &Claim) -> Option<bool> {
        if let Some(mac) = record.lease.mac() {
            return Some(self.owner_of(mac) == self.owner_of(claim.mac));
        }
        let interface = record.lease.host_interface()?;
        let port = self.topology.ports.get(&claim.ifindex)?;
        let name = match self.topology.captured.get(&claim.ifindex) {
            Some(captured) => captured.as_ref()?,
            None => &port.name,
        };
        Some(*interface == **name)
    }

    /// Whether the claim, made since the leases are known, is none of their holders'.
    fn is_stranger(&self, records: &[&Record], claim: &Claim) -> bool {
        !records.is_empty()
            && records.iter().all(|record| {
                self.is_holder(record, claim) == Some(false)
                    && claim.last_strong() >= Some(record.since)
            })
    }

    fn is_present(&self, claim: &Claim, now: Timestamp) -> bool {
        claim
            .last_strong()
            .is_some_and(|last| now.since(last) < self.windows.quiet)
    }

    /// An address with an open unleased-address or reserved-address was leased: granted while in use, unless
    /// to the one who uses it.
    fn note_grant(&self, records: &[&Record], claims: &[Claim], contest: &mut Contest) {
        if let Some(Conflict {
            verdict: Verdict::Unleased { claimants, .. } | Verdict::Reserved { claimants, .. },
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

    /// Who asserts the address though it is set apart for another.
    fn reserved(
        &self,
        here: &Here<'_>,
        ours: Option<Mac>,
        records: &[&Record],
        claims: &[Claim],
        now: Timestamp,
    ) -> Option<Reserved> {
        let present = |claim: &&Claim| self.is_present(claim, now);
        let pooled = || {
            let (reserve, store) = here.reserve()?;
            Some((reserve, Some(store.clone())))
        };
        let (reserve, store) = match ours {
            // The gateway that a bridge of this host is.
            Some(mac) if here.is_gateway() => (Reserve::Gateway(mac), None),
            _ => pooled().or_else(|| {
                // One that was not heard for long may have been replaced by a plain one.
                let mut routers = claims.iter().filter(|claim| {
                    is_virtual_router(claim.mac) && now.since(claim.last_seen) < self.windows.memory
                });
                let router = routers.next()?;
                Some((Reserve::VirtualRouter(router.mac), None))
            })?,
        };
        // Whoever had the address before a virtual router took it over did nothing wrong.
        let routed_since = claims
            .iter()
            .filter(|claim| is_virtual_router(claim.mac))
            .map(|claim| claim.first_seen)
            .min();
        let may = |claim: &Claim| match reserve {
            Reserve::Gateway(mac) => self.owner_of(mac) == self.owner_of(claim.mac),
            // What is leased all the same is its holder's.
            Reserve::VirtualRouter(_) if !records.is_empty() => true,
            Reserve::VirtualRouter(_) => {
                is_virtual_router(claim.mac) || claim.last_strong() < routed_since
            }
            Reserve::Excluded | Reserve::Network | Reserve::Broadcast => !records.is_empty(),
        };
        let intruders: Vec<&Claim> = claims
            .iter()
            .filter(present)
            .filter(|claim| !may(claim) && self.is_there(claim))
            .collect();
        if intruders.is_empty() {
            return None;
        }
        let since = intruders.iter().filter_map(|claim| match reserve {
            Reserve::VirtualRouter(_) if Some(claim.first_seen) < routed_since => {
                claim.last_strong()
            }
            _ => self.first_word(claim, now),
        });
        Some(Reserved {
            since: since.min(),
            verdict: Verdict::Reserved {
                claimants: intruders.iter().map(|claim| claim.mac).collect(),
                reserve,
                store,
            },
        })
    }

    /// When a claim that is asserted now began to be.
    fn first_word(&self, claim: &Claim, now: Timestamp) -> Option<Timestamp> {
        Some(self.began(claim.first_seen, claim.last_strong()?, now))
    }

    /// When what was said first and last at these times, and goes on, began: at the first
    /// word, unless others, or whoever says it, may have been quiet since.
    fn began(&self, first: Timestamp, last: Timestamp, now: Timestamp) -> Timestamp {
        match now.since(first) < self.windows.quiet {
            true => first,
            false => last,
        }
    }

    /// Whether the claim's port is there still: one that went with its pod leaves nobody.
    fn is_there(&self, claim: &Claim) -> bool {
        self.topology.ports.is_empty() || self.topology.ports.contains_key(&claim.ifindex)
    }

    fn unleased(
        &self,
        claims: &[Claim],
        contest: &Contest,
        managed: &ScopedPool,
        now: Timestamp,
    ) -> Option<Verdict> {
        let since = contest.unleased_since?;
        let open = now.since(since) >= self.windows.lease_grace;
        let present = claims.iter().filter(|claim| self.is_present(claim, now));
        let claimants: Vec<Mac> = present
            .filter(|claim| claim.last_strong() >= Some(since))
            .filter(|claim| self.is_there(claim))
            .map(|claim| claim.mac)
            .collect();
        (open && !claimants.is_empty()).then(|| Verdict::Unleased {
            claimants,
            store: managed.store.clone(),
        })
    }
}

/// That an address is set apart, and asserted all the same.
struct Reserved {
    /// When one of those who assert it began to.
    since: Option<Timestamp>,
    verdict: Verdict,
}

/// Of what is told late the earliest counts, for as long as there is anything.
fn note_first(known: &mut Option<Timestamp>, first: Option<Timestamp>) {
    *known = first.map(|first| known.map_or(first, |known| known.min(first)));
}

fn mismatch(records: &[&Record], contest: &Contest, strangers: &[Mac]) -> Option<Verdict> {
    let record = records.first()?;
    if strangers.is_empty() {
        return None;
    }
    let granted = strangers.iter().any(|mac| contest.squatters.contains(mac));
    let lease = &record.lease;
    let identity = match (granted, lease.mac()) {
        (true, _) => HolderIdentity::GrantedWhileInUse,
        (false, Some(mac)) => HolderIdentity::Mac(mac),
        (false, None) => match lease.host_interface() {
            Some(interface) => HolderIdentity::Interface(interface.into()),
            None => HolderIdentity::GrantedWhileInUse,
        },
    };
    Some(Verdict::Mismatch {
        strangers: strangers.to_vec(),
        store: lease.store.clone(),
        holder: lease.holder_name(),
        identity,
    })
}

/// The first assertion by one of these since the address is leased to another. Of a claim
/// that is older than that, or that may have been quiet in between, only the last assertion
/// is known to be later; a squatter that said
/// nothing since is a stranger from the grant on.
fn first_as_stranger(
    judge: &Judge<'_>,
    records: &[&Record],
    claims: &[Claim],
    strangers: &[Mac],
    now: Timestamp,
) -> Option<Timestamp> {
    let leased = records.iter().map(|record| record.since).max()?;
    let since = |claim: &Claim| {
        if claim.first_seen >= leased {
            judge.first_word(claim, now)
        } else {
            claim.last_strong().max(Some(leased))
        }
    };
    let of = claims.iter().filter(|claim| strangers.contains(&claim.mac));
    of.filter_map(since).min()
}
