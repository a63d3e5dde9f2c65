//! Asks on the wire who has an address: ARP and Neighbor Solicitations out of one port by
//! AF_PACKET, and the answers to them. Needs CAP_NET_RAW.
//!
//! It asserts nothing false, ever. A question comes from an address of this host and the
//! MAC that has it, as the kernel's own do; where there is none, from nobody (0.0.0.0, `::`).
//! That second form is an ARP probe (RFC 5227) or duplicate address detection (RFC 4862), at
//! which a host that is in its own detection of that address gives it up: who confirms a
//! claim has to say that nobody was heard probing for it, or nothing is sent.
//!
//! Our frames leave by a port's egress, and the eBPF program is on ingress: they are never
//! taken for sightings there. Where one comes back by another port it has a MAC of this host.
//!
//! Bounded: [`AT_ONCE`] questions are asked at once, [`WAITING`] more wait, others are
//! refused; all of them together send [`FRAMES_PER_SECOND`] at most. A [`Survey`] asks for
//! many addresses side by side; it has a rate of its own, and one for each port.

mod asker;
mod check;
mod exchange;
mod filter;
mod frame;
mod host;
mod pace;
mod schedule;
mod socket;
mod survey;

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use ipam_common::{Address, Evidence, Mac, sighting::Tags};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

pub use self::{
    asker::Asker,
    check::{Checked, User, check},
    schedule::Schedule,
    survey::{Survey, Surveyed},
};
use self::{
    exchange::exchange,
    frame::Question,
    host::{Host, Link},
    pace::Pace,
    socket::PortSocket,
};

/// How many questions are asked at once; each has a socket.
pub const AT_ONCE: usize = 64;
/// How many more wait for their turn.
pub const WAITING: usize = 1024;
/// How many frames are sent in a second, out of all ports together.
pub const FRAMES_PER_SECOND: u32 = 500;
/// The same of a survey, most of whose frames go to pods of this host.
const SURVEY_FRAMES_PER_SECOND: u32 = 5000;
/// How many of them out of one port.
const PER_PORT: u32 = 200;

/// Where a question goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlet {
    /// The port.
    pub ifindex: u32,
    /// The tags that frames have there. Answers count only with the same ones.
    pub tags: Tags,
}

/// Does a machine that claims an address answer for it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// Where the claimant was heard.
    pub outlet: Outlet,
    /// The address it claims.
    pub address: Address,
    /// The claimant: the question goes to it alone.
    pub claimant: Mac,
    /// In whose name; `None`: in nobody's.
    pub asker: Option<Asker>,
    /// Nobody was heard probing for the address for 10 s, so that it may be asked for in
    /// nobody's name.
    pub unprobed: bool,
}

/// What came of a [`Confirm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answered, and how.
    Answered(Evidence),
    /// It was asked and did not answer.
    Silent,
    /// It was not asked, or not often enough: there is nobody to ask in the name of, and
    /// somebody probes for the address.
    Withheld,
}

/// Does anybody on a port's wire have an address, or try to get it?
#[derive(Clone, Debug)]
pub struct Look {
    /// Out of which port.
    pub outlet: Outlet,
    /// For which address.
    pub address: Address,
    /// In whose name a Neighbor Solicitation is sent; `None`: as duplicate address detection
    /// does. ARP is always a probe, from 0.0.0.0.
    pub asker: Option<Asker>,
    /// When.
    pub schedule: Schedule,
    /// This host's MACs: what they say is an echo.
    pub own_macs: Arc<BTreeSet<Mac>>,
}

/// Who was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who.
    pub mac: Mac,
    /// How it said so: an assertion, or a probe of its own.
    pub evidence: Evidence,
}

/// Why a question could not be asked, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The port is gone.
    #[error("there is no interface with index {0}")]
    NoPort(u32),
    /// There is none of this name.
    #[error("there is no interface {0}: `ip link` lists those that there are")]
    NoInterface(String),
    /// Frames that are none of Ethernet's.
    #[error("{0} is no Ethernet interface: ARP and Neighbor Discovery are not asked there")]
    NotEthernet(String),
    /// Nobody can be reached by it.
    #[error("{0} is down: `ip link set {0} up`")]
    Down(String),
    /// Nobody can be reached by it.
    #[error("{0} has no carrier: is its other end there and up?")]
    NoCarrier(String),
    /// It went down or away meanwhile.
    #[error("{interface} went down or away during the look")]
    Lost {
        /// Which.
        interface: String,
        /// How that was told.
        source: io::Error,
    },
    /// CAP_NET_RAW is missing.
    #[error("not allowed to send probes: run this as root, or with CAP_NET_RAW")]
    Forbidden,
    /// Too many questions wait.
    #[error("{WAITING} questions wait to be asked: ask later")]
    Busy,
    /// The host's interfaces can't be listed.
    #[error("cannot list this host's interfaces")]
    Interfaces(#[source] io::Error),
    /// The socket.
    #[error("cannot {what} {interface}")]
    Socket {
        /// Do what.
        what: &'static str,
        /// Where.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

/// Asks, within bounds.
#[derive(Clone, Debug)]
pub struct Prober(Arc<Bounds>);

#[derive(Debug)]
struct Bounds {
    at_once: Semaphore,
    waiting: Semaphore,
    pace: Mutex<Pace>,
    survey_pace: Mutex<Pace>,
}

impl Default for Prober {
    fn default() -> Self {
        Self(Arc::new(Bounds {
            at_once: Semaphore::new(AT_ONCE),
            waiting: Semaphore::new(AT_ONCE + WAITING),
            pace: Mutex::new(Pace::new(FRAMES_PER_SECOND)),
            survey_pace: Mutex::new(Pace::new(SURVEY_FRAMES_PER_SECOND)),
        }))
    }
}

impl Prober {
    /// Asks the claimant, three times at most, a second apart (RFC 4861 §7.3.3,
    /// MAX_UNICAST_SOLICIT and RETRANS_TIMER): 3 s if it is silent. Cancel-safe.
    ///
    /// # Errors
    /// It could not be asked.
    pub async fn confirm(&self, confirm: Confirm) -> Result<Answer, ProbeError> {
        if confirm.asker.is_none() && !confirm.unprobed {
            return Ok(Answer::Withheld);
        }
        let _turn = self.turn().await?;
        let Confirm {
            outlet, address, ..
        } = confirm;
        let link = link(outlet.ifindex).await?;
        let question = Question {
            address,
            asker: confirm.asker,
            mac: confirm.asker.map_or(link.ethernet()?, |asker| asker.mac),
            to: Some(confirm.claimant),
            tags: outlet.tags,
        };
        let socket = PortSocket::open(
            &link,
            outlet.tags,
            &filter::about(address.into(), outlet.tags),
        )?;
        let judge = |sighting: &_| exchange::confirmed(&confirm, question.mac, sighting);
        let answer = exchange(self, &socket, &question, &Schedule::unicast(), judge).await?;
        Ok(answer.unwrap_or(Answer::Silent))
    }

    /// Asks all who hear it, and gives back the first who has the address or probes for it.
    /// Cancel-safe.
    ///
    /// # Errors
    /// It could not be looked, or not to the end.
    pub async fn look(&self, look: &Look) -> Result<Option<Heard>, ProbeError> {
        let _turn = self.turn().await?;
        let Look {
            outlet, address, ..
        } = *look;
        let link = link(outlet.ifindex).await?;
        let asker = look.asker.filter(|_| !address.is_ipv4());
        let question = Question {
            address,
            asker,
            mac: asker.map_or(link.ethernet()?, |asker| asker.mac),
            to: None,
            tags: outlet.tags,
        };
        let socket = PortSocket::open(
            &link,
            outlet.tags,
            &filter::about(address.into(), outlet.tags),
        )?;
        let judge = |sighting: &_| exchange::heard(look, question.mac, sighting);
        let heard = exchange(self, &socket, &question, &look.schedule, judge).await;
        if matches!(heard, Ok(None) | Err(ProbeError::Socket { .. })) {
            // Without carrier nothing comes and, for a while, nothing can be sent (ENOBUFS).
            link_again(&link).await?;
        }
        heard
    }

    async fn turn(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), ProbeError> {
        let waiting = self.0.waiting.try_acquire().map_err(|_| ProbeError::Busy)?;
        let turn = self.0.at_once.acquire().await;
        Ok((waiting, turn.map_err(|_| ProbeError::Busy)?))
    }

    /// When the next frame may be sent.
    fn slot(&self) -> Instant {
        slot(&self.0.pace)
    }

    fn survey_slot(&self) -> Instant {
        slot(&self.0.survey_pace)
    }
}

fn slot(pace: &Mutex<Pace>) -> Instant {
    let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
    pace.slot(Instant::now())
}

/// The link as it is now, if questions can be asked there.
async fn link(ifindex: u32) -> Result<Link, ProbeError> {
    let link = Host::look().await?.take(ifindex);
    let link = link.ok_or(ProbeError::NoPort(ifindex))?;
    link.usable()?;
    Ok(link)
}

async fn link_again(before: &Link) -> Result<(), ProbeError> {
    match link(before.ifindex).await {
        Err(ProbeError::NoPort(_)) => Err(ProbeError::Lost {
            interface: before.name.clone(),
            source: io::ErrorKind::NotFound.into(),
        }),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;

    use super::*;

    #[tokio::test]
    async fn more_than_can_wait_is_refused_at_once() {
        let prober = Prober::default();
        let mut asking = Vec::new();
        for _ in 0..AT_ONCE {
            asking.push(prober.turn().await.expect("a turn"));
        }
        let mut waiting = Vec::new();
        for _ in 0..WAITING {
            let mut turn = Box::pin(prober.turn());
            assert!(poll_immediate(&mut turn).await.is_none());
            waiting.push(turn);
        }
        let refused = prober.turn().await;
        assert!(matches!(refused, Err(ProbeError::Busy)), "{refused:?}");
        // Who stops waiting makes room, and who is done gives the turn to the next.
        waiting.pop();
        let mut last = Box::pin(prober.turn());
        assert!(poll_immediate(&mut last).await.is_none());
        drop(asking);
        assert!(waiting.remove(0).await.is_ok());
        drop(waiting);
        assert!(last.await.is_ok());
    }
}
