//! An AF_PACKET socket on one port: sends frames as they are, hears those that say something
//! of one address.

use std::{
    io::{self, ErrorKind, Read},
    os::fd::AsRawFd,
};

use ipam_common::{Captured, Parsed, Sighting, parse, sighting::Tags};
use nix::sys::socket::bind;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::{ProbeError, filter, host::Link};
use crate::source::live::pod::watch_socket;

/// Every frame. A socket for one protocol sees nothing on a bridge's port, which the bridge
/// takes before (Linux `net/core/dev.c`, `__netif_receive_skb_core`).
const ETH_P_ALL: i32 = (libc::ETH_P_ALL as u16).to_be() as i32;

/// The socket.
#[derive(Debug)]
pub(super) struct PortSocket {
    socket: AsyncFd<Socket>,
    interface: String,
    stripped: Option<u16>,
}

impl PortSocket {
    /// Opens it, to hear under these tags what a filter lets through. Nothing that came before
    /// is heard.
    pub(super) fn open(link: &Link, tags: Tags, wanted: &[SockFilter]) -> Result<Self, ProbeError> {
        let failed = |what| {
            let interface = link.name.clone();
            move |source: io::Error| match source.kind() {
                ErrorKind::PermissionDenied => ProbeError::Forbidden,
                _ if is_gone(&source) => ProbeError::Lost { interface, source },
                _ => ProbeError::Socket {
                    what,
                    interface,
                    source,
                },
            }
        };
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(ETH_P_ALL)))
            .map_err(failed("open a socket on"))?;
        // From here on nothing comes in; what did, from every interface, goes.
        let attach = |filter: &[_]| {
            let attached = socket.attach_filter(filter);
            attached.map_err(failed("set a filter on"))
        };
        attach(&filter::none())?;
        let mut rest = [0; 1];
        while (&socket).read(&mut rest).is_ok() {}
        bind(socket.as_raw_fd(), &link.address)
            .map_err(io::Error::from)
            .map_err(failed("bind a socket to"))?;
        attach(wanted)?;
        let socket = watch_socket(socket).map_err(failed("wait for frames on"))?;
        let stripped = filter::stripped(tags);
        Ok(Self {
            socket,
            interface: link.name.clone(),
            stripped: (stripped != 0).then_some(stripped),
        })
    }

    /// Sends a frame.
    pub(super) async fn send(&self, frame: &[u8]) -> Result<(), ProbeError> {
        let sent = self
            .socket
            .async_io(Interest::WRITABLE, |socket| socket.send(frame));
        sent.await
            .map_err(|error| self.failed("send out of", error))?;
        Ok(())
    }

    /// Waits for a frame; `None` if it is none that our parser believes. Cancel-safe.
    pub(super) async fn hear(&self) -> Result<Option<Sighting>, ProbeError> {
        let mut frame = [0; filter::SNAP];
        let read = self
            .socket
            .async_io(Interest::READABLE, |mut socket| socket.read(&mut frame));
        let length = read
            .await
            .map_err(|error| self.failed("listen on", error))?;
        let captured = Captured {
            bytes: frame.get(..length).unwrap_or_default(),
            stripped_tag: self.stripped,
        };
        Ok(match parse(&captured) {
            Parsed::Sighting(sighting) => Some(sighting),
            Parsed::Refused(_) | Parsed::Other => None,
        })
    }

    fn failed(&self, what: &'static str, source: io::Error) -> ProbeError {
        let interface = self.interface.clone();
        if is_gone(&source) {
            return ProbeError::Lost { interface, source };
        }
        ProbeError::Socket {
            what,
            interface,
            source,
        }
    }
}

/// Whether the interface is down (ENETDOWN) or away (ENXIO, ENODEV).
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV)
    )
}
