//! The host's links, followed by netlink: which ports there are, what they are wired to,
//! and when somebody touches their filters.
//!
//! One socket carries the notifications and the dumps, in the order in which the kernel
//! made them, so the two need no reconciling. It is subscribed before the first dump. What
//! waits to be read waits in the kernel, which bounds it and says when it had to drop
//! (ENOBUFS); then the tables are dumped again while what is known stays in use, so that a
//! link that appears is never held up by a dump of all the others.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::engine::segment::Topology;

mod follow;
mod topology;

use follow::Follower;
pub use topology::NameFilter;

/// RTNLGRP_LINK, _TC, _IPV4_IFADDR, _IPV6_IFADDR and, from Linux 5.6, _BRVLAN.
const GROUPS: [u32; 4] = [1, 4, 5, 9];
const GROUP_BRVLAN: u32 = 33;
/// Room for what is not yet read, in bytes; 250 pods that start at once fill 2 MiB.
const ROOM: usize = 8 << 20;
/// Twice what the kernel puts into one datagram of a dump (`netlink_dump`).
const DATAGRAM: usize = 64 << 10;
/// After so many datagrams what was learnt is told, even if more are waiting.
const BATCH: usize = 256;
/// How long a dump may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// News of the host's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The links as they are now, complete; it differs from the one before.
    Topology(Arc<Topology>),
    /// Somebody (we too) changed the ingress filters or the XDP program of this link: ask
    /// whether ours is still there and first.
    Touched(u32),
    /// The kernel dropped notifications, perhaps of filters: ask for every port. The
    /// topology follows as soon as it is dumped anew.
    Lost,
}

/// Why the links can't be followed any more. What was known of them may be out of date:
/// open anew, and count the time until then as not watched.
#[derive(Debug, Error)]
pub enum LinksError {
    /// The socket could not be opened, or failed.
    #[error("the netlink socket failed")]
    Socket(#[source] io::Error),
    /// The kernel refused a dump.
    #[error("the kernel refused to list links, VLANs or addresses")]
    Refused(#[source] io::Error),
    /// A dump didn't end.
    #[error("the kernel did not finish a list of links, VLANs or addresses within 5 s")]
    Stuck,
}

/// The links of the network namespace in which this was opened.
pub struct Links {
    socket: TokioSocket,
    follower: Follower,
    deadline: Instant,
}

impl Links {
    /// Subscribe and begin to list; needs a tokio runtime, and no privilege. The first
    /// [`Links::next`] gives the whole topology.
    ///
    /// # Errors
    ///
    /// If the socket can't be opened or subscribed.
    pub fn open(filter: NameFilter) -> Result<Self, LinksError> {
        Ok(Self {
            socket: subscribe().map_err(LinksError::Socket)?,
            follower: Follower::new(filter),
            deadline: Instant::now(),
        })
    }

    /// Wait for news. Cancel-safe: nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// The links can't be followed any more; drop this and open anew.
    pub async fn next(&mut self) -> Result<LinkEvent, LinksError> {
        loop {
            if let Some(event) = self.follower.event() {
                return Ok(event);
            }
            self.ask()?;
            let dumping = self.follower.dumping();
            let deadline = self.deadline;
            let read = poll_fn(|cx| self.poll_read(cx));
            if dumping {
                timeout_at(deadline, read)
                    .await
                    .map_err(|_| LinksError::Stuck)??;
            } else {
                read.await?;
            }
        }
    }

    /// Read what waits, up to a bound; pending if nothing does.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinksError>> {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        for read in 0..BATCH {
            datagram.clear();
            // Not asked through tokio, which says "nothing" also when it wants us to yield.
            let received = match self.socket.socket_ref().recv(&mut datagram, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.follower.drained();
                    if read > 0 {
                        break;
                    }
                    ready!(self.socket.poll_recv(cx, &mut datagram))
                }
                received => received.map(drop),
            };
            match received {
                Ok(()) => self.follower.read(&datagram)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.follower.overrun();
                }
                Err(error) => return Poll::Ready(Err(LinksError::Socket(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn ask(&mut self) -> Result<(), LinksError> {
        if let Some((request, sequence)) = self.follower.request() {
            let socket = self.socket.socket_ref();
            socket
                .send(&request.finish(sequence), 0)
                .map_err(LinksError::Socket)?;
            self.deadline = Instant::now() + PATIENCE;
        }
        Ok(())
    }
}

fn subscribe() -> io::Result<TokioSocket> {
    let mut asynchronous = <TokioSocket as AsyncSocket>::new(NETLINK_ROUTE)?;
    let socket = asynchronous.socket_mut();
    socket.set_netlink_get_strict_chk(true)?;
    socket.bind_auto()?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    // Where the kernel doesn't have the group, ports' VLANs change by RTM_NEWLINK alone.
    let _ = socket.add_membership(GROUP_BRVLAN);
    // Needs NET_ADMIN; with the default of 208 KiB the tables are only listed anew sooner.
    let _ = setsockopt(socket, RcvBufForce, &ROOM);
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(asynchronous)
}
