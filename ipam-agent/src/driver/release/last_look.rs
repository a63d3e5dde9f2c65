//! What is asked again under a store's lock.

use std::{collections::BTreeSet, time::Duration};

use ipam_common::Address;

use super::{Releaser, lock};
use crate::{
    config::Cri,
    driver::clock,
    engine::{
        holders::SandboxBook,
        plan::{Blocker, Reason, Release},
        time::Timestamp,
        vigil::Vigil,
    },
    error::in_full,
    holder::{
        cri,
        namespaces::{self, NamespacesError},
    },
    source::links,
};

/// An answer given so long ago needn't be asked for again: a pass of many releases asks
/// for each answer some times a second.
const FRESH: Duration = Duration::from_millis(200);

/// What is asked again under the store's lock, and when it was asked last.
pub(super) struct LastLook<'a> {
    releaser: &'a Releaser,
    vigil: Vigil,
    /// When the plan was made.
    judged_at: Timestamp,
    watched: Option<Timestamp>,
    sandboxes: SandboxBook,
    runtimes_asked: Option<Timestamp>,
    held: Option<(Timestamp, BTreeSet<Address>)>,
    own: Option<(Timestamp, BTreeSet<Address>)>,
}

impl<'a> LastLook<'a> {
    /// At the leases of a plan that was made then, on these wires, with these sandboxes known.
    pub(super) fn new(
        releaser: &'a Releaser,
        judged_at: Timestamp,
        vigil: Vigil,
        sandboxes: SandboxBook,
    ) -> Self {
        Self {
            releaser,
            vigil,
            judged_at,
            watched: None,
            sandboxes,
            runtimes_asked: None,
            held: None,
            own: None,
        }
    }

    pub(super) fn at(&mut self, release: &Release) -> Result<(), Blocker> {
        self.has_no_sandbox(release)?;
        self.is_not_own(release, clock::now())?;
        self.is_unheld(release, clock::now())?;
        // Last, so that no sign of life is younger: the others take their time.
        self.is_watched(release, clock::now())?;
        self.is_silent(release, clock::now())
    }

    fn has_no_sandbox(&mut self, release: &Release) -> Result<(), Blocker> {
        let runtimes = &self.releaser.holders.cri;
        if !ask_again(runtimes, &mut self.sandboxes, &mut self.runtimes_asked)? {
            return Ok(());
        }
        let window = release.proof().coverage().window();
        let now = clock::now();
        let doubt = self.sandboxes.doubt(window, now);
        let holder = self.sandboxes.holder(release.lease(), now);
        holder.or(doubt).map_or(Ok(()), Err)
    }

    fn is_watched(&mut self, release: &Release, now: Timestamp) -> Result<(), Blocker> {
        if is_stale(self.watched, now) {
            self.look_at_wires(now)
                .map_err(|why| Blocker::new(Reason::Coverage, why))?;
            self.watched = Some(now);
        }
        self.vigil.is_kept(release, now)
    }

    /// Asks the kernel and not the loop, which may be at something else: a port that nobody was
    /// told of yet is one all the same.
    fn look_at_wires(&mut self, asked: Timestamp) -> Result<(), String> {
        let links = links::look(&self.releaser.filter)
            .map_err(|error| format!("the host's links can't be listed: {}", in_full(&error)))?;
        self.vigil.links(links, asked, clock::now());
        let live = lock(&self.releaser.live);
        for ifindex in self.vigil.ports() {
            let check = live.check(ifindex);
            self.vigil.checked(ifindex, &check, clock::now());
        }
        self.vigil.started(live.since());
        Ok(())
    }

    fn is_silent(&self, release: &Release, now: Timestamp) -> Result<(), Blocker> {
        match self.releaser.tables.stamp_of(release.lease().address) {
            Err(error) => Err(Blocker::new(Reason::Coverage, in_full(&error))),
            Ok(None) => Err(Blocker::new(
                Reason::Coverage,
                "the kernel isn't watching for the address any more",
            )),
            Ok(Some(stamps)) if Timestamp(stamps.since) > self.judged_at => Err(Blocker::new(
                Reason::Coverage,
                "the kernel watches for the address only since it was judged",
            )),
            Ok(Some(stamps)) => {
                let quiet = now.since(Timestamp(stamps.last()));
                if stamps.last() > 0 && quiet < release.proof().coverage().window() {
                    let detail = format!("heard {} ms ago", quiet.as_millis());
                    return Err(Blocker::new(Reason::Seen, detail));
                }
                Ok(())
            }
        }
    }

    fn is_unheld(&mut self, release: &Release, now: Timestamp) -> Result<(), Blocker> {
        if !self.releaser.holders.netns {
            return Ok(());
        }
        let behind = || {
            let held = namespaces::addresses_behind_veths()?;
            Ok(held.iter().map(|held| held.address).collect())
        };
        is_not_among(
            &mut self.held,
            release,
            now,
            "in a network namespace",
            behind,
        )
    }

    fn is_not_own(&mut self, release: &Release, now: Timestamp) -> Result<(), Blocker> {
        let own = namespaces::own_addresses;
        is_not_among(&mut self.own, release, now, "on a link", own)
    }
}

/// Asks the container runtimes, unless they were asked just now; whether there is any to ask.
/// What waits for them may be a locked store, and with it whoever wants an address of it: a
/// runtime that is slow keeps the lease, and isn't asked for the next at once.
pub(super) fn ask_again(
    runtimes: &Cri,
    sandboxes: &mut SandboxBook,
    asked: &mut Option<Timestamp>,
) -> Result<bool, Blocker> {
    if is_stale(*asked, clock::now()) {
        let Some(report) = cri::report_again(runtimes, sandboxes, cri::LAST_PATIENCE) else {
            return Ok(false);
        };
        let now = clock::now();
        sandboxes.hear(report, now);
        *asked = Some(now);
    }
    match sandboxes.problem() {
        Some(why) => Err(Blocker::new(Reason::SourceDown, format!("cri: {why}"))),
        None => Ok(true),
    }
}

/// Whether the address of a lease isn't configured at a place of this host.
fn is_not_among(
    known: &mut Option<(Timestamp, BTreeSet<Address>)>,
    release: &Release,
    now: Timestamp,
    place: &str,
    ask: impl FnOnce() -> Result<BTreeSet<Address>, NamespacesError>,
) -> Result<(), Blocker> {
    let (_, configured) = match known {
        Some(fresh) if !is_stale(Some(fresh.0), now) => fresh,
        _ => {
            let asked = ask();
            let asked = asked.map_err(|e| Blocker::new(Reason::SourceDown, in_full(&e)))?;
            known.insert((now, asked))
        }
    };
    if configured.contains(&release.lease().address) {
        let detail = format!("the address is configured {place} of this host");
        return Err(Blocker::new(Reason::Holder, detail));
    }
    Ok(())
}

/// Whether what was asked has to be asked again.
fn is_stale(answered: Option<Timestamp>, now: Timestamp) -> bool {
    answered.is_none_or(|at| now.since(at) >= FRESH)
}
