//! Loading the program, and saying what is missing when that can't be done.

use std::{fs, io};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::MapError,
    programs::{ProgramError, SchedClassifier},
    util::KernelVersion,
};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use thiserror::Error;

use super::pins::Pins;

/// The object that `cargo xtask ebpf` built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../ipam-ebpf/object/ipam-ebpf.o"
));

/// The program's name in it, and in the kernel.
const PROGRAM: &str = "ipam_agent";

/// What loading needs, with its number in `/proc/thread-self/status`; CAP_SYS_ADMIN (21) is all of
/// them.
const CAPABILITIES: [(&str, u32); 3] =
    [("CAP_BPF", 39), ("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38)];
const SYS_ADMIN: u32 = 21;

/// Why the program could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Too old a kernel.
    #[error("this kernel is older than Linux 5.10, which the eBPF program needs")]
    KernelTooOld,
    /// The kernel was built without `bpf(2)`.
    #[error("this kernel has no bpf(2): it needs CONFIG_BPF_SYSCALL")]
    NoBpf,
    /// Capabilities are missing.
    #[error("loading the eBPF program needs {}: run as root, or grant them", .missing.join(", "))]
    NoPrivilege {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// The kernel refused, though the capabilities are there.
    #[error(
        "the kernel refuses to load eBPF though the capabilities are there: look for \
         kernel lockdown, a seccomp profile or a security module that denies bpf(2)"
    )]
    Denied(#[source] Box<EbpfError>),
    /// Before Linux 5.11 maps count as locked memory.
    #[error(
        "the eBPF maps exceed the limit of locked memory: set LimitMEMLOCK=infinity, or grant \
         CAP_SYS_RESOURCE"
    )]
    LockedMemory(#[source] Box<EbpfError>),
    /// Not enough memory for the maps.
    #[error("no memory for the eBPF maps, about 60 MiB in the kernel")]
    NoMemory(#[source] Box<EbpfError>),
    /// The verifier refused the program, or the object doesn't fit the agent.
    #[error("the eBPF object can't be loaded into this kernel")]
    Object(#[source] Box<EbpfError>),
    /// The object lacks a map or program, or has it in another form.
    #[error("the eBPF object has no {name} as this agent knows it")]
    Layout {
        /// What is missing.
        name: &'static str,
    },
    /// Its events can't be waited for.
    #[error("the ring buffer of events can't be watched")]
    Events(#[source] io::Error),
}

/// Load maps and program, with the maps that are pinned already. Needs no BTF of the kernel's.
pub(super) fn load(data_plane: bool, pins: Option<&Pins>) -> Result<Ebpf, LoadError> {
    let old = |version| KernelVersion::current().is_ok_and(|current| current < version);
    if old(KernelVersion::new(5, 10, 0)) {
        return Err(LoadError::KernelTooOld);
    }
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    if !missing.is_empty() {
        return Err(LoadError::NoPrivilege { missing });
    }
    let counted = old(KernelVersion::new(5, 11, 0));
    if counted {
        // If it can't be raised, loading says whether it was needed.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    }
    let explain = |error: EbpfError| explain(error, counted);
    let stamps = u8::from(data_plane);
    let mut loader = EbpfLoader::new();
    loader
        .btf(None)
        .override_global("DATA_PLANE", &stamps, true);
    for (name, path) in pins.iter().flat_map(|pins| pins.maps()) {
        loader.map_pin_path(name, path);
    }
    let mut ebpf = loader.load(OBJECT).map_err(explain)?;
    program(&mut ebpf)?
        .load()
        .map_err(|error| explain(error.into()))?;
    Ok(ebpf)
}

/// The program in it.
pub(super) fn program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, LoadError> {
    let program = ebpf
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok());
    program.ok_or(LoadError::Layout { name: PROGRAM })
}

fn explain(error: EbpfError, counted: bool) -> LoadError {
    let errno = match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. })
        | EbpfError::ProgramError(ProgramError::LoadError { io_error, .. }) => {
            io_error.raw_os_error()
        }
        EbpfError::ProgramError(ProgramError::SyscallError(error))
        | EbpfError::MapError(MapError::SyscallError(error)) => error.io_error.raw_os_error(),
        _ => None,
    };
    let error = Box::new(error);
    match errno {
        Some(libc::ENOSYS) => LoadError::NoBpf,
        Some(libc::EPERM) if counted => LoadError::LockedMemory(error),
        Some(libc::EPERM) => LoadError::Denied(error),
        Some(libc::ENOMEM) => LoadError::NoMemory(error),
        _ => LoadError::Object(error),
    }
}

/// Which of [`CAPABILITIES`] this `/proc/thread-self/status` doesn't have in effect. All, if it
/// can't be read.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |number: u32| effective >> number & 1 == 1;
    let missing = CAPABILITIES.into_iter().filter(|(name, number)| {
        let implied = has(SYS_ADMIN) && *name != "CAP_NET_ADMIN";
        !has(*number) && !implied
    });
    missing.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named_one_by_one() {
        let missing = |effective: u64| {
            missing_capabilities(&format!("Name:\tx\nCapEff:\t{effective:016x}\n"))
        };
        assert_eq!(missing(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing(1 << 12 | 1 << 39), ["CAP_PERFMON"]);
        assert_eq!(missing(1 << 21), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(1 << 12 | 1 << 21), [""; 0]);
        assert_eq!(missing(0x1ff_ffff_ffff), [""; 0]);
        assert_eq!(missing_capabilities("nonsense").len(), 3);
    }
}
