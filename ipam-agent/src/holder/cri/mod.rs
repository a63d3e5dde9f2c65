//! The sandboxes that the host's container runtimes list, asked over CRI: gRPC on a unix
//! socket, `runtime.v1.RuntimeService` (kubernetes/cri-api, `pkg/apis/runtime/v1/api.proto`;
//! containerd has it since 1.6).
//!
//! Three calls, all of which only read: Version, ListPodSandbox, PodSandboxStatus. An answer
//! is whole or it is an error; how long it may take and how much it may be is bounded, so
//! that a runtime that is hung, overloaded or something else entirely costs a pass and
//! nothing more.

mod client;
mod message;
mod own;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use thiserror::Error;

pub use self::{
    client::Client,
    own::{own, sandbox_of},
};
use crate::{
    config::Cri,
    engine::holders::{RuntimeReport, Sandbox, SandboxBook, SocketAnswer},
    error::in_full,
};

/// Where container runtimes listen: RKE2 and K3s, containerd, CRI-O, cri-dockerd.
pub const SOCKETS: [&str; 4] = [
    "/run/k3s/containerd/containerd.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
];

/// How long an answer for a pass may take, all calls together.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take while a store is locked.
pub const LAST_PATIENCE: Duration = Duration::from_millis(900);

/// Why a socket's runtime gave no answer.
#[derive(Debug, Error)]
pub enum CriError {
    /// Nobody listens.
    #[error("no container runtime listens on {}", socket.display())]
    Absent {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket can't be used.
    #[error("can't connect to the container runtime on {}", socket.display())]
    Connect {
        /// Which.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What listens is no gRPC server, or went away in the middle.
    #[error("what listens on {} doesn't speak gRPC, or went away", socket.display())]
    Connection {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: hyper::Error,
    },
    /// It didn't answer in time.
    #[error(
        "the container runtime on {} gives no whole answer within {} ms: \
         is it hung, or the host overloaded?",
        socket.display(), patience.as_millis()
    )]
    Slow {
        /// Which.
        socket: PathBuf,
        /// How long it had.
        patience: Duration,
    },
    /// It is a gRPC server, but not of CRI.
    #[error(
        "{} has no runtime.v1.RuntimeService: its CRI plugin is disabled, or it is older than \
         containerd 1.6; name the socket of the runtime that has the pods with \
         `holders: {{ cri: unix:///path }}`",
        .0.display()
    )]
    NoService(PathBuf),
    /// It answered a call with an error.
    #[error("the container runtime on {} fails {call}: {said}", socket.display())]
    Call {
        /// Which.
        socket: PathBuf,
        /// The call.
        call: &'static str,
        /// Its words, shortened.
        said: String,
    },
    /// Its answer can't be believed.
    #[error("the container runtime on {} {what}", socket.display())]
    Answer {
        /// Which.
        socket: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl CriError {
    /// Whether there is no runtime at all at that socket.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }
}

/// A runtime, and its sandboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// What it calls itself, and its version. Untrusted text.
    pub version: String,
    /// All of its sandboxes.
    pub sandboxes: Vec<Sandbox>,
}

/// What the runtimes say that the configuration wants asked; `None`: none is.
///
/// Blocks for `patience` at most. Not to be called from an asynchronous task.
pub fn report(cri: &Cri, patience: Duration) -> Option<RuntimeReport> {
    report_again(cri, &SandboxBook::default(), patience)
}

/// [`report`], where this much was told already: every runtime is asked what sandboxes it has,
/// and only of those that are new or in another state is it asked more. Of hundreds that takes
/// longer than a store may be locked.
pub fn report_again(cri: &Cri, told: &SandboxBook, patience: Duration) -> Option<RuntimeReport> {
    let sockets = sockets(cri)?;
    let named = matches!(cri, Cri::Socket(_));
    let answers = ask_again(&sockets, told, patience);
    let answers = answers.into_iter().map(|answer| match answer {
        Ok(runtime) => SocketAnswer::Sandboxes(runtime.sandboxes),
        Err(error) if error.is_absent() && !named => SocketAnswer::Absent,
        Err(error) => SocketAnswer::Failed(in_full(&error)),
    });
    let names = sockets.iter().map(|path| path.display().to_string().into());
    Some(RuntimeReport {
        own: own(),
        sockets: names.zip(answers).collect(),
    })
}

/// The sockets to be asked, none of them twice; `None`: nobody is.
pub fn sockets(cri: &Cri) -> Option<Vec<PathBuf>> {
    match cri {
        Cri::Off => None,
        Cri::Socket(socket) => Some(vec![socket.clone()]),
        Cri::Auto => {
            // Links and bind mounts give one socket several names.
            let mut met = BTreeSet::new();
            let mut is_new = |path: &Path| match fs::metadata(path) {
                Ok(file) => met.insert((file.dev(), file.ino())),
                Err(_) => true,
            };
            let known = SOCKETS.iter().map(PathBuf::from);
            Some(known.filter(|path| is_new(path)).collect())
        }
    }
}

/// What the runtimes at these sockets say, all asked at once.
///
/// Blocks for `patience` at most. Not to be called from an asynchronous task.
pub fn ask(sockets: &[PathBuf], patience: Duration) -> Vec<Result<Runtime, CriError>> {
    ask_again(sockets, &SandboxBook::default(), patience)
}

fn ask_again(
    sockets: &[PathBuf],
    told: &SandboxBook,
    patience: Duration,
) -> Vec<Result<Runtime, CriError>> {
    // A runtime of its own: whatever a server does, it is over when this returns.
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match tokio {
        Ok(tokio) => tokio.block_on(join_all(
            sockets
                .iter()
                .map(|socket| client::ask(socket, told, patience)),
        )),
        Err(error) => {
            let failed = |socket: &PathBuf| {
                Err(CriError::Connect {
                    socket: socket.clone(),
                    source: io::Error::new(error.kind(), error.to_string()),
                })
            };
            sockets.iter().map(failed).collect()
        }
    }
}

#[cfg(test)]
mod tests;
