//! The host's links, followed by netlink: which ports there are, what they are wired to,
//! and when somebody touches their filters.
//!
//! The connection is `rtnetlink`'s. It is driven here and not by a task of its own, so that
//! what waits to be read waits in the kernel, which bounds it and says when it had to drop
//! (ENOBUFS); then the tables are dumped again while what is known stays in use, so that a
//! link that appears is never held up by a dump of all the others. It is subscribed before
//! the first dump.
//!
//! A dump is asked for as a message that awaits no answer, so that its parts come in one
//! stream with the notifications, in the order in which the kernel made them, and the two
//! need no reconciling. `rtnetlink::Handle` would hand them out apart, take a refused
//! dump for an empty one, and drop what it can't decode, of which `news` misses nothing.

use std::{
    future::poll_fn,
    io,
    os::fd::AsFd,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, stream::BoxStream};
use netlink_packet_core::NetlinkMessage;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};
use rtnetlink::{
    MulticastGroup,
    proto::{Connection, ConnectionHandle, new_connection},
    sys::{AsyncSocket, Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use thiserror::Error;
use tokio::{
    task::{coop, yield_now},
    time::{Instant, timeout_at},
};

use crate::engine::segment::Topology;

mod follow;
mod look;
mod news;
mod topology;

use follow::Follower;
pub use look::look;
use news::News;
pub use topology::NameFilter;

const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Link,
    MulticastGroup::Tc,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];
/// Room for what is not yet read, in bytes; 250 pods that start at once fill 2 MiB.
const ROOM: usize = 8 << 20;
/// How often it is read at once, where all that is read is no news.
const MOST_READS: usize = 64;
/// How long a dump may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// News of the host's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The links as they are now, complete; it differs from the one before.
    Topology(Arc<Topology>),
    /// Something of how this link takes its frames was changed (by us, too): ask whether our
    /// program is still there, first, and has been all the while.
    Touched(u32, Touch),
    /// The kernel dropped notifications, perhaps of filters: ask for every port. The
    /// topology follows as soon as it is dumped anew.
    Lost,
}

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touch {
    /// What the kernel counts, or what shows when it is asked.
    Shown,
    /// A filter that isn't ours, where one may come before ours at the clsact qdisc: it may be
    /// gone again.
    Filter,
    /// An XDP program came or went: it may be gone again.
    Xdp,
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
    connection: Connection<News>,
    handle: ConnectionHandle<News>,
    messages: BoxStream<'static, (NetlinkMessage<News>, SocketAddr)>,
    follower: Follower,
    /// News that waits could not be read.
    unread: bool,
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
        let (mut connection, handle, messages) =
            new_connection(NETLINK_ROUTE).map_err(LinksError::Socket)?;
        subscribe(connection.socket_mut().socket_mut()).map_err(LinksError::Socket)?;
        Ok(Self {
            connection,
            handle,
            messages: messages.boxed(),
            follower: Follower::new(filter),
            unread: false,
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

    /// News that has come by now, and none once all of it was told; nothing is waited for but
    /// the runtime, which alone sees what has come while it was not asked. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`Links::next`].
    pub async fn waiting(&mut self) -> Result<Option<LinkEvent>, LinksError> {
        for _ in 0..MOST_READS {
            if let Some(event) = self.follower.event() {
                return Ok(Some(event));
            }
            self.ask()?;
            self.unread = self.has_unread()?;
            if !self.unread {
                return Ok(None);
            }
            yield_now().await;
            poll_fn(|cx| match self.poll_read(cx) {
                Poll::Ready(read) => Poll::Ready(read),
                Poll::Pending => Poll::Ready(Ok(())),
            })
            .await?;
        }
        Ok(None)
    }

    /// Whether that was all: not while the tables are listed because news was dropped.
    pub fn is_current(&self) -> bool {
        self.follower.is_current() && !self.unread
    }

    /// Asked of the kernel. The runtime's word would be of when it looked last, and reading
    /// would swallow that something was dropped.
    fn has_unread(&mut self) -> Result<bool, LinksError> {
        let socket = self.connection.socket_mut().socket_mut();
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::ZERO) {
            Ok(count) => Ok(count > 0),
            // It is asked again soon.
            Err(Errno::EINTR) => Ok(true),
            Err(error) => Err(LinksError::Socket(error.into())),
        }
    }

    /// Read what waits, as far as the runtime allows without a pause, and send what is
    /// asked; pending if there was nothing to read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinksError>> {
        self.connection.poll_read_messages(cx);
        // It reads until there is nothing left, or until the runtime wants us to yield.
        let drained = coop::has_budget_remaining();
        self.connection.forward_unsolicited_messages();
        let mut news = false;
        while let Poll::Ready(Some((message, _))) = self.messages.poll_next_unpin(cx) {
            self.follower.read(message)?;
            news = true;
        }
        if drained {
            news |= self.follower.drained();
        }
        self.connection.poll_requests(cx);
        self.connection.poll_send_messages(cx);
        if self.connection.should_shut_down() {
            let error = io::Error::other("reading from it or writing to it failed");
            return Poll::Ready(Err(LinksError::Socket(error)));
        }
        if news {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn ask(&mut self) -> Result<(), LinksError> {
        if let Some(request) = self.follower.request() {
            self.handle
                .notify(request, kernel())
                .map_err(|error| LinksError::Socket(io::Error::other(error)))?;
            self.deadline = Instant::now() + PATIENCE;
        }
        Ok(())
    }
}

/// The kernel's own address.
fn kernel() -> SocketAddr {
    SocketAddr::new(0, 0)
}

fn subscribe(socket: &mut Socket) -> io::Result<()> {
    socket.set_netlink_get_strict_chk(true)?;
    socket.bind_auto()?;
    for group in GROUPS {
        socket.add_membership(group as u32)?;
    }
    // Where the kernel doesn't have the group, ports' VLANs change by RTM_NEWLINK alone.
    let _ = socket.add_membership(MulticastGroup::Brvlan as u32);
    // Needs NET_ADMIN; with the default of 208 KiB the tables are only listed anew sooner.
    let _ = setsockopt(socket, RcvBufForce, &ROOM);
    socket.connect(&kernel())
}
