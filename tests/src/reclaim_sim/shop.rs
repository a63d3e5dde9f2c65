//! The stores as the agent gets at them: what the executor releases is looked at here, at the
//! moment when it is gone.

use std::{
    collections::BTreeMap,
    io,
    panic::resume_unwind,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipam_agent::{
    cni,
    engine::{
        lease::{Generation, Lease, Mode, StoreName},
        plan::{Asker, Blocker, Release},
    },
    journal,
    store::{
        FileOwner, Former, LeaseStore, Reading, Recheck, ReleaseError, StoreError,
        host_local::HostLocal, watch::Root,
    },
};

use ipam_common::Address;

use super::{
    host::{Host, SECOND},
    leases::Key,
    net::{self, net, nets},
    plan::{NETS, Plan},
};

/// For so long the real store waits for its lock.
const PATIENCE: u64 = 5 * SECOND;

/// What unwinds when the agent is killed in the middle of a release.
pub struct Killed {
    /// Whether its maps stay.
    pub pinned: bool,
}

/// All stores.
pub struct Shop {
    host: Arc<Mutex<Host>>,
    real: Option<HostLocal>,
    plan: Plan,
    state_dir: PathBuf,
    /// For whom it is released.
    pub asker: Mutex<Asker>,
}

/// The host, for a moment.
pub fn lock(host: &Mutex<Host>) -> MutexGuard<'_, Host> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shop {
    /// The stores of this host.
    pub fn new(host: Arc<Mutex<Host>>, plan: &Plan, state_dir: PathBuf) -> Self {
        let directory = lock(&host).leases.directory().map(ToOwned::to_owned);
        let real = directory.map(|directory| {
            let paths = cni::Paths {
                configurations: Vec::new(),
                caches: Vec::new(),
                flannel: directory.join("no-flannel"),
            };
            let pools = nets().map(|net| net.pool()).collect();
            let cni = Arc::new(cni::Reader::new(paths));
            HostLocal::new(directory, plan.modes[0], pools, cni)
        });
        Self {
            host,
            real,
            plan: plan.clone(),
            state_dir,
            asker: Mutex::new(Asker::Daemon),
        }
    }

    /// What is to be said of a release that was done.
    fn look_at(&self, host: &Host, release: &Release) -> Result<(), String> {
        let lease = release.lease();
        let number = net::of_store(&lease.store).ok_or("of no store")?;
        let key = (number, lease.address);
        let restored = host.leases.restored(key, host.boots);
        // Who whispers can be taken for gone: once.
        if let Some(since) = host.alive(key)
            && (restored.is_some() || !host.is_whispered(key))
        {
            return Err(format!(
                "its holder has been alive for {} s",
                (host.now - since) / SECOND
            ));
        }
        if host.leases.generation(key) != Some(&lease.generation()) {
            return Err("it isn't the lease that was judged".into());
        }
        if !net(number).watchable {
            return Err("its wire can't be watched".into());
        }
        if self.plan.keep && net(0).kept().contains(&lease.address.ip()) {
            return Err("it is kept by configuration".into());
        }
        let asker = *self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = host.leases.boot(key) != Some(host.boots);
        // A damaged record is taken for the one that was in the same file, and waits for longer.
        let is_damaged = host.leases.damage(key).is_some();
        if release.proof().earlier_boot().is_some() && !earlier && !is_damaged {
            return Err("as of an earlier boot, and it is of this one".into());
        }
        let allowed = match self.plan.modes[number] {
            Mode::Continuous => true,
            Mode::AfterReboot => {
                (earlier || is_damaged) && release.proof().earlier_boot().is_some()
            }
            Mode::Observe => false,
        };
        if let Some((at, enough)) = restored {
            let heard = host.heard.get(&lease.address).copied().unwrap_or(0);
            let least = match asker {
                Asker::Daemon => self.plan.settings().gate,
                Asker::Person => self.plan.settings().asked_gate,
            };
            let (quiet, least) = (host.now - heard.max(at), least.as_nanos() as u64);
            if quiet < enough.max(least) {
                return Err(format!(
                    "it was put back in this boot, and silent for {} s only",
                    quiet / SECOND
                ));
            }
        }
        if asker == Asker::Daemon && !allowed {
            return Err(format!(
                "unasked, where the mode is {:?}",
                self.plan.modes[number]
            ));
        }
        let entries = journal::history_of(&self.state_dir, lease.address.ip(), 4)
            .map_err(|error| error.to_string())?
            .entries;
        let intended = entries.iter().any(|entry| {
            entry.effect.is_none()
                && *entry.intent.store == *lease.store.0
                && entry.intent.generation.generation().as_ref() == Some(&lease.generation())
        });
        intended
            .then_some(())
            .ok_or_else(|| "without a word in the journal".into())
    }

    /// However close passes follow each other, no more goes in any interval.
    fn within_budget(&self, host: &Host) -> Result<(), String> {
        let settings = self.plan.settings();
        let interval = settings.pass_interval.as_nanos() as u64;
        let since = host.now.saturating_sub(interval).max(host.booted);
        let mut spent: BTreeMap<&StoreName, usize> = BTreeMap::new();
        let lately = host.budgeted.iter().filter(|(at, _)| *at > since);
        for (_, store) in lately {
            *spent.entry(store).or_default() += 1;
        }
        // Of a pool of 16.
        let share = (16 * usize::from(settings.max_percent))
            .div_ceil(100)
            .max(1);
        let over = spent.values().sum::<usize>() > settings.max_per_pass
            || spent.values().any(|&spent| spent > share);
        match over {
            true => Err(format!("over the budget of an interval: {spent:?}")),
            false => Ok(()),
        }
    }

    /// Who writes without the lock comes between.
    fn lawless(&self, release: &Release) {
        let mut host = lock(&self.host);
        if std::mem::take(&mut host.lawless)
            && let Some(number) = net::of_store(&release.lease().store)
        {
            let now = host.now;
            host.leases
                .overwrite((number, release.lease().address), now);
        }
    }

    fn release_model(
        &self,
        release: &Release,
        recheck: &mut Recheck<'_>,
    ) -> Result<(), ReleaseError> {
        let lease = release.lease();
        let compare = || {
            let number = net::of_store(&lease.store);
            let key = number.map(|number| (number, lease.address));
            let host = lock(&self.host);
            let there = key.and_then(|key| host.leases.generation(key));
            let same = there == Some(&lease.generation());
            same.then_some(()).ok_or(ReleaseError::Changed {
                store: lease.store.clone(),
                address: lease.address,
                what: "it is another",
            })
        };
        compare()?;
        recheck(release).map_err(ReleaseError::Blocked)?;
        compare()
    }
}

impl LeaseStore for Shop {
    fn read(&self) -> Reading {
        let mut reading = self
            .real
            .as_ref()
            .map_or_else(Reading::default, LeaseStore::read);
        let host = lock(&self.host);
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        if host.leases.is_all_unreadable(host.now) {
            let path = "/stores".into();
            reading.views = vec![Err(StoreError::Directory {
                path,
                source: source(),
            })];
            return reading;
        }
        if self.real.is_none() {
            reading.views = (0..NETS)
                .map(|number| Ok(host.leases.view(number)))
                .collect();
        }
        for view in &mut reading.views {
            let store = match view {
                Ok(view) => view.store.clone(),
                Err(_) => continue,
            };
            if net::of_store(&store)
                .is_some_and(|number| host.leases.is_unreadable(number, host.now))
            {
                let path = "/stores/one".into();
                *view = Err(StoreError::Network {
                    store,
                    path,
                    source: source(),
                });
            }
        }
        reading
    }

    fn has(&self, store: &StoreName) -> bool {
        net::of_store(store).is_some()
    }

    fn release(&self, release: &Release, recheck: &mut Recheck<'_>) -> Result<(), ReleaseError> {
        let doomed = {
            let mut host = lock(&self.host);
            let (since, until) = (host.now, host.now + host.contended);
            while host.now < until {
                let now = host.now;
                host.advance(now + SECOND);
                host.welcome();
            }
            host.was_deaf(since);
            if host.contended >= PATIENCE {
                return Err(ReleaseError::Locked {
                    path: "lock".into(),
                    holder: "another process".into(),
                    seconds: PATIENCE / SECOND,
                });
            }
            host.doomed.take()
        };
        if let Some((true, pinned)) = doomed {
            resume_unwind(Box::new(Killed { pinned }));
        }
        let mut recheck = |release: &Release| -> Result<(), Blocker> {
            recheck(release)?;
            self.lawless(release);
            Ok(())
        };
        match &self.real {
            Some(real) => real.release(release, &mut recheck)?,
            None => self.release_model(release, &mut recheck)?,
        }
        let mut host = lock(&self.host);
        let judged = self.look_at(&host, release);
        let lease = release.lease();
        if let Err(why) = judged {
            let wrong = format!(
                "{} of {} was released: {why}; {:?}",
                lease.address,
                lease.store,
                release.proof()
            );
            host.wrong.get_or_insert(wrong);
        }
        if let Some((key, quiet_since)) = silence(&host, release, host.now) {
            let now = host.now;
            host.leases.released(key, quiet_since, now);
        }
        let asker = *self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        if asker == Asker::Daemon && release.proof().earlier_boot().is_none() {
            let budgeted = (host.now, lease.store.clone());
            host.budgeted.push(budgeted);
            if let Err(why) = self.within_budget(&host) {
                host.wrong.get_or_insert(why);
            }
        }
        host.released += 1;
        host.news.push(super::host::News::Store);
        drop(host);
        if let Some((false, pinned)) = doomed {
            resume_unwind(Box::new(Killed { pinned }));
        }
        Ok(())
    }

    fn owner(&self, lease: &Lease) -> Option<FileOwner> {
        self.real.as_ref()?.owner(lease)
    }

    fn flush(&self, store: &StoreName) -> Result<(), ReleaseError> {
        self.real.as_ref().map_or(Ok(()), |real| real.flush(store))
    }

    fn put_back(&self, former: &Former) -> Result<Option<Generation>, ReleaseError> {
        let number = net::of_store(&former.store)
            .ok_or_else(|| ReleaseError::Unknown(former.store.clone()))?;
        let key = (number, former.address);
        let mut host = lock(&self.host);
        match &self.real {
            Some(real) => drop(real.put_back(former)?),
            None if host.leases.generation(key).is_some() => {
                return Err(ReleaseError::Taken {
                    store: former.store.clone(),
                    address: former.address,
                    holder: "of another".into(),
                });
            }
            None => {}
        }
        let since = host.leases.released_at(key).unwrap_or(host.now);
        let (now, boot) = (host.now, host.boots);
        let was_alive = host.was_alive(key, since) || host.was_told_ready(key.1, since);
        let record = host.leases.put_back(key, &former.content, now, boot);
        let why = if !was_alive {
            Some("nobody has used it since it was released")
        } else if record.is_none() {
            Some("it isn't what was released")
        } else {
            None
        };
        if let Some(why) = why {
            let wrong = format!("{} of {} was put back: {why}", key.1, former.store);
            host.wrong.get_or_insert(wrong);
        }
        host.restored += 1;
        host.news.push(super::host::News::Store);
        Ok(record)
    }

    fn raise_fence(&self, store: &StoreName, _: Address) -> Result<(), ReleaseError> {
        Err(unfenced(store))
    }

    fn lower_fence(&self, fence: &Lease) -> Result<(), ReleaseError> {
        Err(unfenced(&fence.store))
    }

    fn watched(&self) -> Vec<Root> {
        Vec::new()
    }
}

/// What is to be released then, and since when it has been silent, as far as the agent knows.
pub fn silence(host: &Host, release: &Release, then: u64) -> Option<(Key, u64)> {
    let lease = release.lease();
    let number = net::of_store(&lease.store)?;
    let heard = host.heard.get(&lease.address).copied().unwrap_or(0);
    // What was said while the address was not watched for is silence to the agent.
    let said = release.proof().quiet_for().as_nanos() as u64;
    let quiet_since = heard.max(host.booted).min(then.saturating_sub(said));
    Some(((number, lease.address), quiet_since))
}

/// No store of this world is fenced.
fn unfenced(store: &StoreName) -> ReleaseError {
    ReleaseError::ReadOnly {
        store: store.clone(),
        reason: "nobody wants a fence in it".into(),
    }
}
