//! The records of [`ipam_common::sighting`] as keys and values of aya's maps.
//!
//! Holds the agent's only unsafe code: the promise that these records are plain bytes, that
//! a ring buffer's and a socket's descriptor stays its own, and the one system call that aya
//! can make only with CAP_SYS_ADMIN. The wrappers exist because neither the trait nor the records are this
//! crate's.

#![allow(unsafe_code)]

use std::io;

use aya::maps::{MapData, RingBuf};
use ipam_common::sighting;
use socket2::Socket;
use tokio::io::{Interest, unix::AsyncFd};

macro_rules! pod {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub sighting::$name);

        // SAFETY: the record is `repr(C)`, `Copy` and 'static, and consists of integers and
        // arrays of integers without padding (ipam_common::sighting pins its size), so
        // every pattern of bytes is one.
        unsafe impl aya::Pod for $name {}
    )*};
}

pod! {
    /// Key of SIGHTINGS.
    SightingKey;
    /// Value of SIGHTINGS.
    Tally;
    /// Value of LEASED.
    Stamps;
    /// Value of SPEAKERS.
    Speaker;
    /// Value of PORTS.
    PortBudget;
    /// Value of WATCHES.
    Watch;
}

/// The event in the bytes of a ring buffer's entry; `None` if they are of another size.
pub fn event(bytes: &[u8]) -> Option<sighting::Event> {
    if bytes.len() != size_of::<sighting::Event>() {
        return None;
    }
    // SAFETY: the length is the record's, which consists of integers and arrays of integers
    // without padding; the read doesn't ask for alignment.
    Some(unsafe { bytes.as_ptr().cast::<sighting::Event>().read_unaligned() })
}

/// The ring buffer, to be waited for; needs a tokio runtime.
pub fn watch(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns its map's descriptor, gives out no other, and closes it
    // when it is dropped, which only the `AsyncFd` does.
    let watched = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// A socket, to be waited for; needs a tokio runtime.
pub fn watch_socket(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, never changes it, and closes it when it is
    // dropped, which only the `AsyncFd` does.
    let watched = unsafe { AsyncFd::register(socket) };
    watched.map_err(io::Error::from)
}

/// `bpf(2)`: the command, and the hook.
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_TCX_INGRESS: u32 = 46;
/// How many programs one hook can have (`BPF_MPROG_MAX`, `include/linux/bpf_mprog.h`).
const PROGRAMS: usize = 64;

/// `bpf_attr.query` (Linux `include/uapi/linux/bpf.h`).
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

const _: () = assert!(size_of::<Query>() == 64);

/// What is attached at a port's TCX ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tcx {
    /// The ids of the programs, in the order in which they run.
    pub programs: Vec<u32>,
    /// How often that has changed.
    pub revision: u64,
}

/// What is attached at a port's TCX ingress. aya gives the programs only together with
/// descriptors of all of them, which need CAP_SYS_ADMIN; this needs CAP_NET_ADMIN.
///
/// # Errors
///
/// EINVAL: the kernel has no TCX. ENODEV: there is no such port.
pub fn tcx(ifindex: u32) -> io::Result<Tcx> {
    let mut ids = [0; PROGRAMS];
    let mut query = Query {
        target_ifindex: ifindex,
        attach_type: BPF_TCX_INGRESS,
        prog_ids: ids.as_mut_ptr() as u64,
        count: PROGRAMS as u32,
        ..Query::default()
    };
    // SAFETY: the attribute is as long as is said and outlives the call, and so does the
    // array, which has room for the number of ids that is announced in it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut query,
            size_of::<Query>() as libc::c_uint,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Tcx {
        programs: ids.into_iter().take(query.count as usize).collect(),
        revision: query.revision,
    })
}
