//! One port: putting our program there, asking whether it is there, taking it away.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    pin::PinError,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions, TcError},
    },
    sys::SyscallError,
};
use ipam_common::sighting::Watch;
use nix::net::if_::if_nametoindex;
use thiserror::Error;

use super::{
    AttachMode, TableError, clsact,
    pod::{self, Tcx},
};
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
    /// The link can't be pinned.
    #[error("can't pin the program's place on {interface} in the BPF file system")]
    Pin {
        /// The port.
        interface: String,
        /// Why.
        #[source]
        source: Box<PinError>,
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

/// A port, and what is known of our place on it.
pub(super) struct Place<'a> {
    pub(super) ifindex: u32,
    pub(super) name: &'a str,
    /// Where the link is to be pinned, or is pinned by an agent before us.
    pub(super) pin: Option<PathBuf>,
    /// What was noted when our program was put there last, by us or that agent.
    pub(super) before: Option<Watch>,
    /// Whether a clsact qdisc that nothing is left at is ours to remove.
    pub(super) qdisc: bool,
}

/// Our program on a port.
pub(super) enum Attachment {
    /// The kernel detaches when the link is dropped, however that happens, and its pin is
    /// gone.
    Tcx { _link: FdLink, pin: Option<PathBuf> },
    /// A filter, which has to be removed; `qdisc`: and the qdisc with it.
    Clsact { qdisc: bool },
}

/// How things are where our program sees all frames of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// How often what is attached at TCX ingress has changed; 0 where the kernel has none.
    pub(super) revision: u64,
    /// How often the carrier came and went; of a veth always 0, because without carrier
    /// there is nobody behind it.
    pub(super) carrier_changes: u32,
}

impl Standing {
    /// Where it can't be said: like nothing that is found later, by this agent or the next.
    pub(super) const UNKNOWN: Self = Self {
        revision: u64::MAX,
        carrier_changes: u32::MAX,
    };
}

impl Attachment {
    /// Put the program, whose id is `id`, before all others on the port, in the place of an
    /// earlier agent's if there is one; and whether that one had seen every frame until then.
    pub(super) fn make(
        program: &mut SchedClassifier,
        id: u32,
        mode: AttachMode,
        place: &Place<'_>,
    ) -> Result<(Self, bool), AttachError> {
        let (ifindex, name) = (place.ifindex, place.name);
        if mode == AttachMode::Auto {
            if let Some(taken) = take_over(program, id, place) {
                return Ok(taken);
            }
            let kept = was_first(place);
            match attach_tcx(program, id, ifindex, name) {
                Err(AttachError::Program { source, .. }) if has_no_tcx(&source) => {}
                attached => {
                    let attachment = Self::pinned(attached?, place)?;
                    let kept = kept && nobody_came_between(id, place);
                    // It can't be in our way, which is before it.
                    let _ = remove_filters(ifindex, place.qdisc);
                    return Ok((attachment, kept));
                }
            }
        }
        let kept = was_first(place);
        let qdisc = attach_clsact(program, id, ifindex, name)?;
        Ok((Self::Clsact { qdisc }, kept))
    }

    fn pinned(link: FdLink, place: &Place<'_>) -> Result<Self, AttachError> {
        let (link, pin) = match &place.pin {
            None => (link, None),
            Some(path) => {
                let pinned = link.pin(path).map_err(|source| AttachError::Pin {
                    interface: place.name.to_owned(),
                    source: Box::new(source),
                })?;
                (pinned.into(), place.pin.clone())
            }
        };
        Ok(Self::Tcx { _link: link, pin })
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
        match self {
            Self::Tcx { pin: Some(pin), .. } => drop(fs::remove_file(pin)),
            Self::Tcx { pin: None, .. } => {}
            Self::Clsact { qdisc } => {
                if let Ok(mut netlink) = Netlink::open(PATIENCE) {
                    let _ = clsact::detach(&mut netlink, ifindex, qdisc);
                }
            }
        }
    }

    /// How the program stands where it sees all frames of the port, else why it doesn't.
    pub(super) fn standing(
        &self,
        id: u32,
        ifindex: u32,
    ) -> Result<Result<Standing, String>, NetlinkError> {
        let mut netlink = Netlink::open(PATIENCE)?;
        let mut record = LinkRecord::default();
        let link = netlink.get(Request::link(ifindex), |message| {
            record = LinkRecord::read(&message).unwrap_or_default();
        });
        match link {
            Err(error) if error.refusal() == Some(libc::ENODEV) => {
                return Ok(Err("the interface is gone".to_owned()));
            }
            link => link?,
        }
        if record.xdp {
            return Ok(Err("an XDP program takes the frames first".to_owned()));
        }
        let tcx = tcx(ifindex)?;
        let mut hooks: Vec<_> = { tcx.programs.into_iter() }
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
            (Some(0), _) => Ok(Standing {
                revision: tcx.revision,
                carrier_changes: match record.is("veth") {
                    true => 0,
                    false => record.carrier_changes,
                },
            }),
            (Some(_), Some((_, first))) => Err(format!("{first} takes the frames first")),
            _ => Err("our program is gone".to_owned()),
        })
    }
}

/// Puts our program in the place of an earlier agent's, whose link is pinned: at no moment is
/// there none. `None`: there is no such link, or it leads nowhere any more.
fn take_over(
    program: &mut SchedClassifier,
    id: u32,
    place: &Place<'_>,
) -> Option<(Attachment, bool)> {
    let pin = place.pin.as_ref().filter(|pin| pin.exists())?;
    let taken = replace(program, id, place, pin);
    if taken.is_none() {
        // Of a port that is gone, or not first any more: it is attached anew.
        let _ = fs::remove_file(pin);
    }
    taken
}

fn replace(
    program: &mut SchedClassifier,
    id: u32,
    place: &Place<'_>,
    pin: &Path,
) -> Option<(Attachment, bool)> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    let before = pod::tcx(place.ifindex).ok()?;
    let replaced = program.attach_to_link(SchedClassifierLink::try_from(link).ok()?);
    let link = program.take_link(replaced.ok()?).ok()?;
    let after = pod::tcx(place.ifindex).ok()?;
    if after.programs.first() != Some(&id) {
        return None;
    }
    let kept = place.before.is_some_and(|watch| {
        before.programs.first() == Some(&watch.program)
            && before.revision == watch.revision
            && after.revision == before.revision + 1
    });
    let attachment = Attachment::Tcx {
        _link: link.try_into().ok()?,
        pin: Some(pin.to_owned()),
    };
    Some((attachment, kept))
}

/// Whether our filter, or an earlier agent's, sees the port's frames first, as it did when it
/// was put there.
fn was_first(place: &Place<'_>) -> bool {
    let Some(watch) = place.before else {
        return false;
    };
    tcx(place.ifindex).is_ok_and(|tcx| tcx.programs.is_empty() && tcx.revision == watch.revision)
        && first_filter(place.ifindex) == Some(watch.program)
}

/// Whether that filter was the first until our program at TCX was put before it.
fn nobody_came_between(id: u32, place: &Place<'_>) -> bool {
    let Some(watch) = place.before else {
        return false;
    };
    tcx(place.ifindex).is_ok_and(|tcx| tcx.programs == [id] && tcx.revision == watch.revision + 1)
        && first_filter(place.ifindex) == Some(watch.program)
}

/// The program of the filter that is first at the clsact qdisc.
fn first_filter(ifindex: u32) -> Option<u32> {
    let mut netlink = Netlink::open(PATIENCE).ok()?;
    let filters = clsact::ingress(&mut netlink, ifindex).ok()?;
    filters.first()?.program
}

fn attach_tcx(
    program: &mut SchedClassifier,
    id: u32,
    ifindex: u32,
    name: &str,
) -> Result<FdLink, AttachError> {
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
    if !pod::tcx(ifindex).is_ok_and(|there| there.programs.contains(&id)) {
        return Err(vanished());
    }
    // What was attached at TCX is such a link.
    FdLink::try_from(link).map_err(|_| refused(ProgramError::UnexpectedProgramType))
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
    remove_filters(ifindex, true)
}

fn remove_filters(ifindex: u32, qdisc: bool) -> Result<bool, NetlinkError> {
    let mut netlink = Netlink::open(PATIENCE)?;
    if !clsact::has_ours(&mut netlink, ifindex)? {
        return Ok(false);
    }
    clsact::detach(&mut netlink, ifindex, qdisc)
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

/// What is at TCX ingress; nothing where the kernel has no TCX.
fn tcx(ifindex: u32) -> Result<Tcx, NetlinkError> {
    match pod::tcx(ifindex) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Tcx::default()),
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
