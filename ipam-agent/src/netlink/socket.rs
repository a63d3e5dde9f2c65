//! A socket to the kernel that waits for its answers, but not for ever.

use std::{
    io,
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};
use thiserror::Error;

use super::message::{Message, Request, messages};

/// What the kernel puts into one datagram of a dump at most (`netlink_dump`,
/// `net/netlink/af_netlink.c`), and a single message in practice.
const DATAGRAM: usize = 64 * 1024;
/// How often a dump is asked for again because the tables changed under it.
const ATTEMPTS: u32 = 5;

/// Why netlink gave no answer.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The socket could not be opened, or failed.
    #[error("the netlink socket failed")]
    Socket(#[source] io::Error),
    /// The kernel refused the request.
    #[error("the kernel refused the request")]
    Refused(#[source] io::Error),
    /// The answer was not complete in time.
    #[error("the kernel did not answer in time")]
    Timeout,
    /// The tables changed under the dump each time it was tried.
    #[error("the tables kept changing under {ATTEMPTS} dumps in a row")]
    Interrupted,
}

impl NetlinkError {
    /// The kernel's error number, if it refused.
    pub fn refusal(&self) -> Option<i32> {
        match self {
            Self::Refused(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

/// A route netlink socket that asks and waits for the answer, in the network namespace of
/// the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    deadline: Instant,
}

impl Netlink {
    /// Open a socket. All that is asked by it is answered within `patience` of now, or
    /// fails. Strict: a request that the kernel understands only in
    /// part is refused (NETLINK_GET_STRICT_CHK, Linux 4.20).
    pub fn open(patience: Duration) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Socket)?;
        let prepare = |socket: &mut Socket| {
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_netlink_get_strict_chk(true)
        };
        prepare(&mut socket).map_err(NetlinkError::Socket)?;
        Ok(Self {
            socket,
            sequence: 0,
            deadline: Instant::now() + patience,
        })
    }

    /// Ask for a change and wait until it is made.
    pub fn change(&mut self, request: Request) -> Result<(), NetlinkError> {
        let sequence = self.send(request)?;
        self.answers(sequence, &mut |_| ()).map(drop)
    }

    /// Ask for one object; `read` sees each message of the answer.
    pub fn get(
        &mut self,
        request: Request,
        mut read: impl FnMut(Message<'_>),
    ) -> Result<(), NetlinkError> {
        let sequence = self.send(request)?;
        self.answers(sequence, &mut read).map(drop)
    }

    /// Dump a table. A dump that the kernel calls inconsistent (NLM_F_DUMP_INTR) is thrown
    /// away and asked for again.
    pub fn dump<T>(
        &mut self,
        request: &Request,
        mut read: impl FnMut(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            let sequence = self.send(request.clone())?;
            if self.answers(sequence, &mut |message| found.extend(read(message)))? {
                return Ok(found);
            }
        }
        Err(NetlinkError::Interrupted)
    }

    fn send(&mut self, request: Request) -> Result<u32, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.socket
            .send(&request.finish(self.sequence), 0)
            .map_err(NetlinkError::Socket)?;
        Ok(self.sequence)
    }

    /// Read up to the acknowledgement or the end of the dump; whether it was consistent.
    fn answers(
        &mut self,
        sequence: u32,
        read: &mut dyn FnMut(Message<'_>),
    ) -> Result<bool, NetlinkError> {
        let mut consistent = true;
        let mut datagram = Vec::with_capacity(DATAGRAM);
        loop {
            datagram.clear();
            self.receive(&mut datagram)?;
            for message in messages(&datagram) {
                // What is left of a request that ran out of time.
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        return match message.errno() {
                            0 => Ok(consistent),
                            errno => {
                                Err(NetlinkError::Refused(io::Error::from_raw_os_error(errno)))
                            }
                        };
                    }
                    _ => read(message),
                }
            }
        }
    }

    fn receive(&mut self, datagram: &mut Vec<u8>) -> Result<(), NetlinkError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // A receive timeout of zero would mean for ever.
        let micros = i64::try_from(left.as_micros()).unwrap_or(i64::MAX);
        if micros == 0 {
            return Err(NetlinkError::Timeout);
        }
        let timeout = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        setsockopt(&self.socket, ReceiveTimeout, &timeout)
            .map_err(|errno| NetlinkError::Socket(errno.into()))?;
        match self.socket.recv(datagram, 0) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(NetlinkError::Timeout),
            Err(error) => Err(NetlinkError::Socket(error)),
        }
    }
}
