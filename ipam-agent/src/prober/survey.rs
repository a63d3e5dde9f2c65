//! Does anybody have one of many addresses? Asked for side by side, so that the waits are
//! shared.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipam_common::{Address, Mac};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    Asker, Heard, Outlet, PER_PORT, ProbeError, Prober, Schedule,
    filter::{self, Range},
    frame::Question,
    host::{Host, Link},
    pace::Pace,
    socket::PortSocket,
};
use crate::error::in_full;

/// How many addresses are asked for side by side: so many are asked out of one port in little
/// more than a second, so that the questions for one are as far apart as they should be.
const BATCH: usize = 256;

/// Does anybody on a wire have one of these addresses, or try to get it?
#[derive(Clone, Debug)]
pub struct Survey {
    /// Out of which ports, and in whose name Neighbor Solicitations are sent there; `None`: as
    /// duplicate address detection does. ARP is always a probe, from 0.0.0.0.
    pub outlets: Vec<(Outlet, Option<Asker>)>,
    /// For which addresses.
    pub addresses: Vec<Address>,
    /// All times are scaled down so that what the standards have last 7 s is no longer.
    pub within: Option<Duration>,
    /// This host's MACs: what they say is an echo.
    pub own_macs: Arc<BTreeSet<Mac>>,
}

/// What was found of one address.
#[derive(Debug, PartialEq, Eq)]
pub enum Surveyed {
    /// It was asked for so often, and nobody said anything.
    Silent(u32),
    /// Somebody was heard, on that port.
    Heard(Heard, u32),
    /// It could not be asked for out of every port; why.
    Unasked(String),
}

/// What the ports of one batch share.
struct Batch {
    addresses: Vec<Address>,
    within: Option<Duration>,
    own_macs: Arc<BTreeSet<Mac>>,
    heard: Mutex<BTreeMap<Address, (Heard, u32)>>,
}

impl Batch {
    fn heard(&self) -> MutexGuard<'_, BTreeMap<Address, (Heard, u32)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prober {
    /// Asks all who hear it for every one of the addresses, [`BATCH`] at a time, 7 s each. Who
    /// is heard with an address, or trying to get it, is not asked again. Cancel-safe.
    pub async fn survey(&self, survey: &Survey) -> BTreeMap<Address, Surveyed> {
        let mut found = BTreeMap::new();
        let addresses: BTreeSet<Address> = survey.addresses.iter().copied().collect();
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv4());
        for addresses in v4.chunks(BATCH).chain(v6.chunks(BATCH)) {
            let batch = Arc::new(Batch {
                addresses: addresses.to_vec(),
                within: survey.within,
                own_macs: Arc::clone(&survey.own_macs),
                heard: Mutex::default(),
            });
            let host = match Host::look().await {
                Ok(host) => host,
                Err(error) => {
                    let why = in_full(&error);
                    found.extend(
                        addresses
                            .iter()
                            .map(|a| (*a, Surveyed::Unasked(why.clone()))),
                    );
                    continue;
                }
            };
            let mut asking = JoinSet::new();
            for &(outlet, asker) in &survey.outlets {
                let link = host.get(outlet.ifindex).cloned();
                let (prober, batch) = (self.clone(), Arc::clone(&batch));
                asking.spawn(async move { ask(&prober, &batch, outlet, asker, link).await });
            }
            let (mut sent, mut failed) = (BTreeMap::new(), None);
            for asked in asking.join_all().await {
                match asked {
                    Ok(counts) => {
                        for (address, count) in counts {
                            *sent.entry(address).or_insert(0u32) += count;
                        }
                    }
                    Err(error) => failed = Some(in_full(&error)),
                }
            }
            let mut heard = batch.heard();
            found.extend(addresses.iter().map(|address| {
                let surveyed = match (heard.remove(address), &failed) {
                    (Some((heard, ifindex)), _) => Surveyed::Heard(heard, ifindex),
                    (None, Some(why)) => Surveyed::Unasked(why.clone()),
                    (None, None) => Surveyed::Silent(sent.get(address).copied().unwrap_or(0)),
                };
                (*address, surveyed)
            }));
        }
        found
    }
}

/// Asks out of one port. One that is gone leads to nobody.
async fn ask(
    prober: &Prober,
    batch: &Batch,
    outlet: Outlet,
    asker: Option<Asker>,
    link: Option<Link>,
) -> Result<BTreeMap<Address, u32>, ProbeError> {
    let Some(link) = link else {
        return Ok(BTreeMap::new());
    };
    let asked = ask_out_of(prober, batch, outlet, asker, &link).await;
    let link = Host::look().await?.take(outlet.ifindex);
    let Some(link) = link else {
        return Ok(BTreeMap::new());
    };
    let asked = asked?;
    // Without carrier nothing comes, and what was sent went nowhere.
    link.usable()?;
    Ok(asked)
}

/// How far the questions for one address are.
struct Course {
    schedule: Schedule,
    sent: usize,
}

async fn ask_out_of(
    prober: &Prober,
    batch: &Batch,
    outlet: Outlet,
    asker: Option<Asker>,
    link: &Link,
) -> Result<BTreeMap<Address, u32>, ProbeError> {
    link.usable()?;
    let port = link.ethernet()?;
    let Some(range) = Range::of(&batch.addresses) else {
        return Ok(BTreeMap::new());
    };
    let socket = PortSocket::open(link, outlet.tags, &filter::about(range, outlet.tags))?;
    let mut pace = Pace::new(PER_PORT);
    let begin = Instant::now();
    let mut courses = BTreeMap::new();
    let mut due = BTreeSet::new();
    for &address in &batch.addresses {
        let schedule = Schedule::detection(address, batch.within, fastrand::f64);
        due.insert((begin + schedule.wait(0), address));
        courses.insert(address, Course { schedule, sent: 0 });
    }
    while let Some((at, address)) = due.pop_first() {
        listen(&socket, batch, outlet, port, at).await?;
        let Some(course) = courses.get_mut(&address) else {
            continue;
        };
        if course.sent == course.schedule.waits.len() || batch.heard().contains_key(&address) {
            continue;
        }
        // Only what is sent takes a slot.
        let slot = pace.slot(Instant::now()).max(prober.survey_slot());
        listen(&socket, batch, outlet, port, slot).await?;
        if batch.heard().contains_key(&address) {
            continue;
        }
        let asker = asker.filter(|asker| !address.is_ipv4() && asker.address != address);
        let question = Question {
            address,
            asker,
            mac: asker.map_or(port, |asker| asker.mac),
            to: None,
            tags: outlet.tags,
        };
        socket.send(&question.frame()).await?;
        course.sent += 1;
        due.insert((Instant::now() + course.schedule.wait(course.sent), address));
    }
    Ok(courses
        .into_iter()
        .map(|(address, course)| (address, u32::try_from(course.sent).unwrap_or(u32::MAX)))
        .collect())
}

/// Notes who is heard until then.
async fn listen(
    socket: &PortSocket,
    batch: &Batch,
    outlet: Outlet,
    port: Mac,
    until: Instant,
) -> Result<(), ProbeError> {
    while let Ok(heard) = timeout_at(until, socket.hear()).await {
        if let Some(seen) = heard?
            && seen.tags == outlet.tags
            && seen.mac != port
            && !batch.own_macs.contains(&seen.mac)
            && batch.addresses.binary_search(&seen.address).is_ok()
        {
            let (mac, evidence) = (seen.mac, seen.evidence);
            let heard = (Heard { mac, evidence }, outlet.ifindex);
            batch.heard().entry(seen.address).or_insert(heard);
        }
        // Where there is always something to hear, the time is never asked for.
        if Instant::now() >= until {
            break;
        }
    }
    Ok(())
}
