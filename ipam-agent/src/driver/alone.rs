//! That one agent alone watches this network namespace: two would push each other aside on
//! every port. It takes no file system, unlike what is pinned.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket,
        sockopt::PeerCredentials,
    },
};

/// The name of an abstract socket (unix(7)), of which each network namespace has its own.
const NAME: &[u8] = b"ipam-agent";

/// How many are turned away at once.
const CROWD: usize = 64;

/// For as long as this is, no other agent of this network namespace starts.
#[derive(Debug)]
pub struct Alone {
    socket: UnixListener,
}

/// Why nobody can say that it is alone.
#[derive(Debug, thiserror::Error)]
pub enum NotAlone {
    /// Another agent is at work.
    #[error("another ipam-agent watches this host{}; one host has one daemon",
        .0.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Another(Option<i32>),
    /// The socket can't be had.
    #[error("cannot find out whether another ipam-agent watches this host")]
    Unknown(#[source] io::Error),
}

impl Alone {
    /// Takes the place.
    pub fn take() -> Result<Self, NotAlone> {
        Self::by_name(NAME)
    }

    fn by_name(name: &[u8]) -> Result<Self, NotAlone> {
        let address = SocketAddr::from_abstract_name(name).map_err(NotAlone::Unknown)?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => {
                socket.set_nonblocking(true).map_err(NotAlone::Unknown)?;
                Ok(Self { socket })
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(taken(name)),
            Err(error) => Err(NotAlone::Unknown(error)),
        }
    }

    /// Turns away who asked, so that whoever asks next learns who has the name, too: the kernel
    /// lets but some wait.
    pub fn turn_away(&self) {
        for _ in 0..CROWD {
            if self.socket.accept().is_err() {
                return;
            }
        }
    }
}

/// Somebody has the name. Anybody may take it: who isn't root keeps no agent from starting.
fn taken(name: &[u8]) -> NotAlone {
    match owner(name) {
        Ok((0, pid)) => NotAlone::Another((pid > 0).then_some(pid)),
        Ok((uid, pid)) => NotAlone::Unknown(io::Error::other(format!(
            "process {pid} of user {uid} has its name, the abstract socket @{}",
            String::from_utf8_lossy(name)
        ))),
        Err(error) => NotAlone::Unknown(io::Error::other(format!(
            "nobody answers for its name, the abstract socket @{}: {error}",
            String::from_utf8_lossy(name)
        ))),
    }
}

/// Its user and its process, 0 if that is none of ours.
fn owner(name: &[u8]) -> Result<(u32, i32), Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probe: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(probe.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
    let owner = getsockopt(&probe, PeerCredentials)?;
    Ok((owner.uid(), owner.pid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_alone_and_it_is_told_who() {
        let name = format!("ipam-agent-test-{}", std::process::id());
        let alone = Alone::by_name(name.as_bytes()).expect("nobody else");
        let told = Alone::by_name(name.as_bytes()).expect_err("it is taken");
        let own = i32::try_from(std::process::id()).expect("a process");
        match (told, nix::unistd::geteuid().is_root()) {
            (NotAlone::Another(pid), true) => assert_eq!(pid, Some(own)),
            (NotAlone::Unknown(why), false) => {
                assert!(why.to_string().contains(&own.to_string()), "{why}");
            }
            (other, _) => panic!("{other:?}"),
        }
        // Who has it and lets all wait is no agent.
        while owner(name.as_bytes()).is_ok() {}
        let told = Alone::by_name(name.as_bytes()).expect_err("it is taken");
        assert!(matches!(told, NotAlone::Unknown(_)), "{told}");
        // An agent turns them away.
        while owner(name.as_bytes()).is_err() {
            alone.turn_away();
        }
        drop(alone);
        // A child that another test has just forked has it until it executes its program.
        while Alone::by_name(name.as_bytes()).is_err() {
            std::thread::yield_now();
        }
    }
}
