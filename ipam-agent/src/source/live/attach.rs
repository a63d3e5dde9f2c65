//! One port: putting our program there, asking whether it is there, taking it away.

use std::{os::fd::AsFd, time::Duration};

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{SchedClassifierLink, TcAttachOptions, TcError},
    },
    sys::SyscallError,
};
use nix::net::if_::if_nametoindex;
use thiserror::Error;

use super::{AttachMode, TableError, clsact, pod};
use crate::netlink::{LinkRecord, Netlink, NetlinkError, Request};

/// How long the questions about one port may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often, and after which pause, a port is tried again that our own former link is
/// still on.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// Where on a port the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// TCX ingress.
    Tcx,
    /// The clsact qdisc's ingress.
    Clsact,
}

impl Hook {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Why a port could not be attached to.
#[derive(Debug, Error)]
pub enum AttachError {
    /// It went away before or while we attached. Harmless.
    #[error("{interface} is gone")]
    Vanished {
        /// The port.
        interface: String,
    },
    /// Another kind of filter sits where ours would have to be first.
    #[error(
        "{interface} has a {kind} filter of somebody else's at priority 1, and ours must see \
         the frames before it: give that filter a higher number"
    )]
    Occupied {
        /// The port.
        interface: String,
        /// `flower`, `u32`, …
        kind: String,
    },
    /// The kernel refused.
    #[error("can't attach to {interface}")]
    Program {
        /// The port.
        interface: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// Netlink refused.
    #[error("can't attach to {interface} at the clsact qdisc")]
    Netlink {
        /// The port.
        interface: String,
        /// Why.
        #[source]
        source: NetlinkError,
    },
    /// The port can't be given its share of the tables.
    #[error("can't make room for {interface} in the tables")]
    Table {
        /// The port.
        interface: String,
        /// Why.
        #[source]
        source: TableError,
    },
}

/// Our program on a port.
pub(super) enum Attachment {
    /// The kernel detaches when the link is dropped, however that happens.
    Tcx { _link: SchedClassifierLink },
    /// A filter, which has to be removed; `qdisc`: and the qdisc with it.
    Clsact { qdisc: bool },
}

impl Attachment {
    /// Attach the program, whose id is `id`, before all others on the port.
    pub(super) fn make(
        program: &mut SchedClassifier,
        id: u32,
        mode: AttachMode,
        ifindex: u32,
        name: &str,
    ) -> Result<Self, AttachError> {
        if mode == AttachMode::Auto {
            match attach_tcx(program, id, ifindex, name) {
                Err(AttachError::Program { source, .. }) if has_no_tcx(&source) => {}
                result => return result.map(|link| Self::Tcx { _link: link }),
            }
        }
        let qdisc = attach_clsact(program, id, ifindex, name)?;
        Ok(Self::Clsact { qdisc })
    }

    pub(super) fn hook(&self) -> Hook {
        match self {
            Self::Tcx { .. } => Hook::Tcx,
            Self::Clsact { .. } => Hook::Clsact,
        }
    }

    /// Take the program away. Nothing is to be done about a failure: either the port is
    /// gone, and our program with it, or the next agent or `uninstall` finds what is left.
    pub(super) fn undo(self, ifindex: u32) {
        if let Self::Clsact { qdisc } = self
            && let Ok(mut netlink) = Netlink::open(PATIENCE)
        {
            let _ = clsact::detach(&mut netlink, ifindex, qdisc);
        }
    }

    /// Why the program doesn't see all frames of the port, if it doesn't.
    pub(super) fn why_blind(&self, id: u32, ifindex: u32) -> Result<Option<String>, NetlinkError> {
        let mut netlink = Netlink::open(PATIENCE)?;
        let mut xdp = false;
        let link = netlink.get(Request::link(ifindex), |message| {
            xdp = LinkRecord::read(&message).is_some_and(|link| link.xdp);
        });
        match link {
            Err(error) if error.refusal() == Some(libc::ENODEV) => {
                return Ok(Some("the interface is gone".to_owned()));
            }
            link => link?,
        }
        if xdp {
            return Ok(Some("an XDP program takes the frames first".to_owned()));
        }
        let tcx = tcx_programs(ifindex)?.into_iter();
        let mut hooks: Vec<_> = tcx
            .map(|id| (Some(id), format!("program {id} at TCX")))
            .collect();
        if let Self::Clsact { .. } = self {
            let filters = clsact::ingress(&mut netlink, ifindex)?.into_iter();
            hooks.extend(
                filters.map(|filter| (filter.program, format!("a {} filter", filter.kind))),
            );
        }
        let ours = hooks.iter().position(|(program, _)| *program == Some(id));
        Ok(match (ours, hooks.first()) {
            (Some(0), _) => None,
            (Some(_), Some((_, first))) => Some(format!("{first} takes the frames first")),
            _ => Some("our program is gone".to_owned()),
        })
    }
}

fn attach_tcx(
    program: &mut SchedClassifier,
    id: u32,
    ifindex: u32,
    name: &str,
) -> Result<SchedClassifierLink, AttachError> {
    let vanished = || AttachError::Vanished {
        interface: name.to_owned(),
    };
    let refused = |source: ProgramError| match source {
        ProgramError::TcError(TcError::IoError(_)) => vanished(),
        source if errno(&source) == Some(libc::ENODEV) => vanished(),
        source => AttachError::Program {
            interface: name.to_owned(),
            source: Box::new(source),
        },
    };
    // aya attaches by name, and a name may have gone to another link meanwhile.
    if if_nametoindex(name) != Ok(ifindex) {
        return Err(vanished());
    }
    let mut tries = 0;
    let link = loop {
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        match program.attach_with_options(name, TcAttachType::Ingress, order) {
            // A link that was just let go may still be on its way out.
            Err(source) if errno(&source) == Some(libc::EEXIST) && tries < BUSY_TRIES => {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            link => break link.and_then(|link| program.take_link(link)),
        }
    }
    .map_err(refused)?;
    if !pod::tcx_programs(ifindex).is_ok_and(|there| there.contains(&id)) {
        return Err(vanished());
    }
    // Of an agent that attached at clsact. It can't be in our way, which is before it.
    let _ = remove_leftovers(ifindex);
    Ok(link)
}

/// Whether the qdisc is ours to remove.
fn attach_clsact(
    program: &SchedClassifier,
    id: u32,
    ifindex: u32,
    name: &str,
) -> Result<bool, AttachError> {
    let interface = || name.to_owned();
    let refused = |source: NetlinkError| match source.refusal() {
        Some(libc::ENODEV) => AttachError::Vanished {
            interface: interface(),
        },
        _ => AttachError::Netlink {
            interface: interface(),
            source,
        },
    };
    let fd = program.fd().map_err(|source| AttachError::Program {
        interface: interface(),
        source: Box::new(source),
    })?;
    let mut netlink = Netlink::open(PATIENCE).map_err(refused)?;
    clsact::attach(&mut netlink, ifindex, fd.as_fd(), id).map_err(|source| {
        match clsact::occupant(&mut netlink, ifindex, &source) {
            Some(kind) => AttachError::Occupied {
                interface: interface(),
                kind,
            },
            None => refused(source),
        }
    })
}

/// Remove what a killed agent left on a port: filters do outlive it, TCX links don't.
/// Whether there was anything.
///
/// # Errors
///
/// If the kernel refuses.
pub fn remove_leftovers(ifindex: u32) -> Result<bool, NetlinkError> {
    let mut netlink = Netlink::open(PATIENCE)?;
    if !clsact::has_ours(&mut netlink, ifindex)? {
        return Ok(false);
    }
    clsact::detach(&mut netlink, ifindex, true)
}

/// Kernels before Linux 6.6 know no such kind of link.
fn has_no_tcx(error: &ProgramError) -> bool {
    errno(error) == Some(libc::EINVAL)
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        _ => None,
    }
}

/// The programs at TCX ingress, in the order in which they run; none where the kernel has
/// no TCX.
fn tcx_programs(ifindex: u32) -> Result<Vec<u32>, NetlinkError> {
    match pod::tcx_programs(ifindex) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        other => other.map_err(NetlinkError::Refused),
    }
}

/// Take what killed agents left off every link of this network namespace; the names of
/// the links that had something.
///
/// # Errors
///
/// If the kernel refuses.
pub fn remove_all_leftovers() -> Result<Vec<String>, NetlinkError> {
    let mut netlink = Netlink::open(PATIENCE)?;
    let links = netlink.dump(&Request::links(), |message| LinkRecord::read(&message))?;
    let mut cleaned = Vec::new();
    for link in links {
        if remove_leftovers(link.index)? {
            cleaned.push(link.name.to_string());
        }
    }
    Ok(cleaned)
}
